//! What an upper layer changes: `diff`, `export` and back, `commit`.

/// Changes of every kind, made through a mount.
macro_rules! changed {
    ($script:literal) => {
        concat!(
            r#"
    mkdir -p lower/same lower/dir/sub lower/gone lower/again
    touch lower/{chmod,file,gone/x,again/a,again/b,dir/sub/x,dir/y,kind,link1}
    ln lower/link1 lower/link2
    mkdir lower/dirkind && touch lower/dirkind/x
    mount_here
    cd merged
    echo new >new; ln new new2; ln -s target symlink; mkfifo fifo
    chmod 600 chmod; echo more >>file; rm -r gone dir/sub
    rm -r again; mkdir again; touch again/b again/c
    rm kind; mkdir kind; touch kind/x
    rm -r dirkind; echo file >dirkind
    long=$(printf 'n%.0s' {1..200})
    mkdir -p "deep/$long/$long"; touch "deep/$long/$long/file"
    truncate -s 1M sparse; echo end >>sparse
    touch -d @1000000000.123456789 new; touch -d @-5 old
    touch $'odd\xff\nname'
    setfattr -n user.test -v $'a\nb' new
    setfattr -n user.overlay.opaque -v mine new
    setfacl -m u:10:rw file
    [[ $CONTEXT == user ]] || setcap cap_net_raw+ep sparse
    [[ $CONTEXT != root ]] || mknod null c 1 3
    touch -d @2000000000 again deep
    cd ..
    listing merged >listed
"#,
            $script
        )
    };
}

scripts! {
    [root user userns] diff: changed!(r#"
        "$OVLFUSE" umount merged
        "$OVLFUSE" diff upper lower2 lower >said
        {
            printf '%s\n' 'C /again' 'D /again/a' 'C /again/b' 'A /again/c' 'C /chmod' 'A /deep'
            printf '%s\n' "A /deep/$long" "A /deep/$long/$long" "A /deep/$long/$long/file"
            printf '%s\n' 'C /dir' 'D /dir/sub' 'C /dirkind' 'A /fifo' 'C /file' 'D /gone' 'C /kind'
            printf '%s\n' 'A /kind/x' 'A /new' 'A /new2'
            [[ $CONTEXT != root ]] || echo 'A /null'
            printf '%s\n' $'A /odd\xff\nname' 'A /old' 'A /sparse' 'A /symlink'
        } >expected
        diff -a expected said"#);

    [root user userns] export_gives_the_same_tree_and_the_same_bytes: changed!(r#"
        "$OVLFUSE" umount merged
        for name in a.tar b.tar c.tar.gz d.tar.zst; do
            "$OVLFUSE" export upper lower2 lower -o $name >$name.said
        done
        cmp a.tar b.tar; zcat c.tar.gz | cmp - a.tar; zstdcat d.tar.zst | cmp - a.tar
        digest=$(sha256sum <c.tar.gz); size=$(stat -c %s c.tar.gz)
        is "diff-id sha256:$(sha256sum <a.tar | cut -c1-64)
digest sha256:${digest%% *}
size $size" cat c.tar.gz.said
        # Others read it.
        tar tf a.tar >/dev/null; python3 -c 'import tarfile; list(tarfile.open("a.tar"))'
        # Back as a layer, over the same lower ones, it shows the same tree.
        python3 "$IMAGE" oci-dir image c.tar.gz
        is "$here/back/1" "$OVLFUSE" import image back
        "$OVLFUSE" mount --read-only "$here/lower:$here/lower2:$here/back/1" merged
        listing merged | diff -a listed - || complain "the tree is another"
        "$OVLFUSE" umount merged
        SOURCE_DATE_EPOCH=1000000000 "$OVLFUSE" export upper -o e.tar >said
        python3 -c 'import tarfile; assert max(e.mtime for e in tarfile.open("e.tar")) == 1000000000'"#);

    [root user userns] commit_of_two_uppers: changed!(r#"
        "$OVLFUSE" umount merged
        mkdir upper2 work2
        "$OVLFUSE" mount --work work2 "$here/lower:$here/lower2:$here/upper:$here/upper2" merged
        rm merged/new; mkdir merged/gone; touch merged/gone/y merged/deep/z
        rm -r merged/kind; touch merged/kind
        mv merged/fifo merged/fifo2; chmod 640 merged/new2
        listing merged >listed
        "$OVLFUSE" umount merged
        "$OVLFUSE" commit upper2 upper folded
        "$OVLFUSE" mount --read-only "$here/lower:$here/lower2:$here/folded" merged
        listing merged | diff -a listed - || complain "the folded layer shows another tree"
        "$OVLFUSE" umount merged
        refused 10 exists "$OVLFUSE" commit upper2 upper folded
        refused 3 missing "$OVLFUSE" commit upper2 missing other
        [[ ! -e other ]] && is '' find . -maxdepth 1 -name '.ovlfuse*'"#);

    [root] moved_directories: r#"
        mkdir -p lower/d/e; touch lower/d/e/x lower/d/y
        mount_here -o redirect_dir=on
        mv merged/d merged/moved; rm merged/moved/y; touch merged/moved/e/new
        listing merged >listed
        "$OVLFUSE" umount merged
        "$OVLFUSE" diff upper lower2 lower >said
        is 'D /d
A /moved
A /moved/e
A /moved/e/new
A /moved/e/x
A /moved/h' cat said
        "$OVLFUSE" export upper lower2 lower -o a.tar >said
        python3 "$IMAGE" saved image a.tar
        "$OVLFUSE" import image back >said
        "$OVLFUSE" mount --read-only "$here/lower:$here/lower2:$here/back/1" merged
        listing merged | diff -a listed -
        "$OVLFUSE" umount merged
        refused 10 'layers below' "$OVLFUSE" export upper -o b.tar
        refused 10 renamed "$OVLFUSE" commit upper upper2
        [[ ! -e upper2 ]]"#;

    [root user userns] what_cannot_be_exported: r#"
        touch upper/.wh.x
        refused 10 whiteout "$OVLFUSE" export upper lower -o a.tar
        rm upper/.wh.x; touch lower/x; touch upper/x
        "$OVLFUSE" export upper lower -o a.tar >said
        is 'A /d
C /f' bash -c 'mkdir upper/d; touch upper/.wh.x upper/f; rm upper/x; "$OVLFUSE" diff upper lower | grep -v wh'
        is 'A /d
C /f
D /x' "$OVLFUSE" diff --whiteouts dot_wh upper lower
        if [[ $CONTEXT == root ]]; then ns=trusted; else ns=user; fi
        rm upper/.wh.x; setfattr -n $ns.overlay.metacopy upper/f
        refused 10 metacopy "$OVLFUSE" export upper lower -o b.tar
        refused 10 metacopy "$OVLFUSE" diff upper lower
        refused 3 missing "$OVLFUSE" diff missing lower
        [[ ! -e b.tar ]]
        refused 10 missing "$OVLFUSE" export upper -o missing/b.tar
        rm upper/f
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("upper/socket")'
        "$OVLFUSE" export upper -o b.tar >said 2>&1; grep -q '1 sockets' said"#;

    [root user userns] places_that_are_refused: r#"
        umask 022
        touch upper/f
        listed=$(find . -path ./tmp -prune -o -print | sort)
        unchanged() { is "$listed" sh -c 'find . -path ./tmp -prune -o -print | sort'; }
        # In a layer, it would be part of what is read.
        for at in upper/x upper/d/../x lower/x "$here/upper/x"; do
            mkdir upper/d; listed+=$'\n./upper/d'; listed=$(sort <<<"$listed")
            refused 10 'lies in the layer' "$OVLFUSE" export upper lower -o "$at"
            refused 10 'lies in the layer' "$OVLFUSE" commit upper lower "$at"
            unchanged
            rmdir upper/d; listed=$(grep -v upper/d <<<"$listed")
        done
        # The place of something else.
        mkfifo fifo; mkdir dir; ln -s /dev/null null
        listed=$(find . -path ./tmp -prune -o -print | sort)
        for at in fifo dir null; do
            refused 10 'no regular file' "$OVLFUSE" export upper lower -o "$at"
        done
        [[ -p fifo && -L null ]]
        refused 10 'name a file' "$OVLFUSE" export upper lower -o -
        refused 10 'missing: No such file or directory' "$OVLFUSE" export upper lower -o missing/x
        refused 10 'missing: No such file or directory' "$OVLFUSE" commit upper lower missing/x
        unchanged
        # A link to a file stays one.
        touch file; ln -s file link
        "$OVLFUSE" export upper lower -o link >said
        [[ -L link && -s file ]]
        # The destination is looked at first.
        refused 10 'missing: No such file or directory' "$OVLFUSE" import nothing missing/x
        refused 10 'exists' "$OVLFUSE" import nothing dir
        refused 10 'no name for a new folder' "$OVLFUSE" import nothing .."#;
}
