//! Layers and images that somebody made to do harm, or that are damaged: refused by one sentence, or
//! harmless, and nothing is left behind.

/// Defines `bad PART ENTRIES`: a layer of these entries, in every kind of image, is refused with PART;
/// and `good ENTRIES`: it is unpacked to back/1.
macro_rules! hostile {
    ($script:literal) => {
        concat!(
            r#"
    umask 022
    mkdir in outside; echo safe >outside/file
    image() {
        python3 "$IMAGE" layer layer.tar image <<<"$1"
    }
    clean() {
        is '' find . -maxdepth 2 '(' -name '.ovlfuse*' -o -name back ')'
        is 'file' ls outside && is safe cat outside/file
    }
    bad() {
        rm -rf back
        image "$2"
        refused 10 "$1" "$OVLFUSE" import image back
        clean
    }
    good() {
        rm -rf back
        image "$1"
        "$OVLFUSE" import image back 2>warnings >layers || complain "$1: $(cat warnings)"
        is safe cat outside/file
    }
"#,
            $script
        )
    };
}

scripts! {
    [root user userns] names_that_lead_out: hostile!(r#"
        for name in ../x a/../../x a/.. "$here/../x/.."; do
            bad 'leads out' "[dict(name='$name', data=b'x')]"
            bad 'leads out' "[dict(name='$name', type=DIRTYPE)]"
        done
        for name in .wh.. .wh. d/.wh...; do
            bad 'hides no name' "[dict(name='$name')]"
        done
        bad 'too long' "[dict(name='a/' * 2500 + 'x')]"
        bad 'File name too long' "[dict(name='a' * 300)]"
        # A name from the root is one from the layer's root.
        good "[dict(name='$here/outside/file', data=b'x')]"
        is x cat "back/1$here/outside/file""#);

    [root user userns] through_links: hostile!(r#"
        outside=$here/outside
        for target in "$outside" .; do
            bad 'no directory' "[dict(name='l', type=SYMTYPE, linkname='$target'), dict(name='l/file', data=b'x')]"
            bad 'no directory' "[dict(name='l', type=SYMTYPE, linkname='$target'), dict(name='l/d', type=DIRTYPE)]"
            bad 'no directory' "[dict(name='l', type=SYMTYPE, linkname='$target'), dict(name='l/.wh.file')]"
            bad 'no directory' "[dict(name='l', type=SYMTYPE, linkname='$target'), dict(name='l/.wh..wh..opq')]"
            bad 'no directory' "[dict(name='l', type=SYMTYPE, linkname='$target'), dict(name='l/a/b/c')]"
            bad 'no file of this layer' "[dict(name='l', type=SYMTYPE, linkname='$target'), dict(name='h', type=LNKTYPE, linkname='l/file')]"
        done
        for target in "$outside/file" d; do
            bad 'no file of this layer' "[dict(name='d', type=DIRTYPE), dict(name='h', type=LNKTYPE, linkname='$target')]"
        done
        bad 'leads out' "[dict(name='h', type=LNKTYPE, linkname='../../../outside/file')]"
        bad 'link to itself' "[dict(name='h', data=b'x'), dict(name='h', type=LNKTYPE, linkname='h')]"
        # A hard link to a symbolic link is one to the link, and what comes over it replaces it.
        good "[dict(name='l', type=SYMTYPE, linkname='$outside/file'), dict(name='h', type=LNKTYPE, linkname='l'), dict(name='h', data=b'x'), dict(name='l', data=b'y')]"
        is x cat back/1/h; is y cat back/1/l; [[ ! -L back/1/h && ! -L back/1/l ]]
        # Neither are attributes of a link those of its target.
        good "[dict(name='l', type=SYMTYPE, linkname='$outside/file', mode=0, mtime=5)]"
        [[ $(stat -c %Y outside/file) -gt 5 && $(stat -c %a outside/file) == 644 ]]"#);

    [root user userns] entries_that_replace_others: hostile!(r#"
        good "[dict(name='a', data=b'1'), dict(name='a', data=b'2'),
            dict(name='d', type=DIRTYPE), dict(name='d/x/y', data=b'x'), dict(name='d', data=b'file'),
            dict(name='f', data=b'file'), dict(name='f', type=DIRTYPE, mode=0o700), dict(name='f/x', data=b'x'),
            dict(name='ro', type=DIRTYPE, mode=0o500, mtime=7), dict(name='ro/x', data=b'x'),
            dict(name='t', data=b'12345'), dict(name='t2', type=LNKTYPE, linkname='t'), dict(name='t', data=b'1')]"
        cd back/1
        is 2 cat a; is file cat d; is x cat f/x; is 700 stat -c %a f; is 500 stat -c %a ro; is 7 stat -c %Y ro
        is x cat ro/x; is 12345 cat t2; is 1 cat t
        chmod 700 ro; cd "$here"
        bad 'no directory' "[dict(name='f', data=b'x'), dict(name='f/x', data=b'x')]"
        bad 'place of the layer' "[dict(name='.', data=b'x')]"
        bad 'place of the layer' "[dict(name='/', type=SYMTYPE, linkname='/')]""#);

    [root user userns] whiteouts: hostile!(r#"
        # A whiteout hides what is below, never what the layer itself has.
        good "[dict(name='a', data=b'1'), dict(name='.wh.a'), dict(name='.wh.b'), dict(name='b', data=b'2'),
            dict(name='.wh.c'), dict(name='d/x', data=b'x'), dict(name='.wh.d'), dict(name='.wh.e'),
            dict(name='e/x', data=b'x'), dict(name='.wh..wh.plnk'), dict(name='o/.wh..wh..opq'), dict(name='.wh.c')]"
        mkdir base; touch base/{a,b,c}; mkdir base/{d,e,o}; touch base/{d,e,o}/below
        "$OVLFUSE" mount --read-only "base:back/1" merged
        is 'a
b
d
d/x
e
e/x
o' bash -c 'cd merged; find * | sort'
        "$OVLFUSE" umount merged
        # A layer that hides all below is the last one.
        python3 "$IMAGE" layer one.tar <<<"[dict(name='one')]"
        python3 "$IMAGE" layer two.tar <<<"[dict(name='two'), dict(name='.wh..wh..opq')]"
        python3 "$IMAGE" saved image one.tar two.tar one.tar
        is "$here/three/3:$here/three/2" "$OVLFUSE" import image three"#);

    [root user userns] overlays_own_attributes: hostile!(r#"
        xattrs() { echo "pax_headers={'SCHILY.xattr.$1': '$2', 'SCHILY.xattr.user.ok': 'yes'}"; }
        if [[ $CONTEXT == root ]]; then ns=trusted; else ns=user; fi
        good "[dict(name='d', type=DIRTYPE, $(xattrs $ns.overlay.redirect /etc)), dict(name='f', $(xattrs $ns.overlay.metacopy ''))]"
        is /etc getfattr -h --only-values -n $ns.overlay.overlay.redirect back/1/d
        [[ -z $(getfattr -h -d -m "^$ns.overlay.(redirect|metacopy)" back/1/d back/1/f 2>/dev/null) ]]
        is yes getfattr --only-values -n user.ok back/1/f"#);

    [root user userns] privileges: hostile!(r#"
        good "[dict(name='suid', mode=0o6755, uid=12, gid=13), dict(name='null', type=CHRTYPE, devmajor=1, devminor=3), dict(name='wh', type=CHRTYPE)]"
        is '0 0' stat -c '%t %T' back/1/wh
        case $CONTEXT in
            root) is '6755 12 13' stat -c '%a %u %g' back/1/suid; is '1 3' stat -c '%t %T' back/1/null; is '' cat warnings ;;
            userns) is '6755 12 13' stat -c '%a %u %g' back/1/suid; grep -q '1 device nodes' warnings; [[ ! -e back/1/null ]] ;;
            user) is "755 $(id -u) $(id -g)" stat -c '%a %u %g' back/1/suid; grep -q 'without set-id bits; 1 device' warnings
                is 1 wc -l <warnings ;;
        esac
        is 700 stat -c %a back
        bad 'device number' "[dict(name='x', type=CHRTYPE, devmajor=5000, devminor=3)]"
        [[ $CONTEXT != userns ]] || bad '/etc/subuid' "[dict(name='x', uid=3000000000)]""#);

    [root user userns] too_much: hostile!(r#"
        image "[dict(name='zeros', data=bytes(30 << 20))]"
        python3 -c 'import gzip; open("l.gz", "wb").write(gzip.compress(open("layer.tar", "rb").read()))'
        python3 "$IMAGE" oci-dir zip l.gz; (cd zip && tar czf ../zip.tar.gz .)
        for image in image zip zip.tar.gz; do
            refused 10 'larger than 20971520' "$OVLFUSE" import --max-size 20M $image back
            clean
        done
        "$OVLFUSE" import zip.tar.gz back >said
        # Zeros become a hole.
        [[ $(stat -c '%s %b' back/1/zeros) == "31457280 "? ]]
        bad 'too long' "[dict(name='x', pax_headers={'comment': 'x' * (2 << 20)})]"
        bad 'middle of an entry' "[dict(name='x', pax_headers={'size': '99999999999999999'})]"
        good "[dict(name='/'.join('d' * 2000), type=DIRTYPE)]"
        rm -r back
        bad 'not supported' "[dict(name='x', type=b'S')]"
        bad 'not supported' "[dict(name='x', pax_headers={'GNU.sparse.major': '1'})]"
        bad 'not supported' "[dict(name='x', type=b'Z')]""#);

    [root user userns] damaged: hostile!(r#"
        image "[dict(name='f', data=bytes(range(256)) * 400), dict(name=b'odd\xff'.decode('utf-8', 'surrogateescape'), data=b'x')]"
        python3 "$IMAGE" saved saved layer.tar
        gzip -k layer.tar
        python3 "$IMAGE" oci-dir good layer.tar.gz
        "$OVLFUSE" import good back >said; is x cat $'back/1/odd\xff'; rm -r back
        layer=blobs/sha256/$(sha256sum <layer.tar.gz | cut -c1-64)
        try() { refused 10 "$1" "$OVLFUSE" import "$2" back; clean; }
        fresh() { rm -rf new; cp -r good new; }
        fresh; rm "new/$layer"; try 'No such file' new
        fresh; truncate -s -9 "new/$layer"; try '' new
        fresh; echo >>"new/$layer"; try '' new
        fresh; truncate -s 0 "new/$layer"; try '' new
        fresh; sed -i "s/\"digest\": \"sha256:[0-9a-f]\{4\}/\"digest\": \"sha256:aaaa/" new/index.json; try 'No such file' new
        fresh; echo '{' >new/index.json; try 'cannot be understood' new
        fresh; echo '{"manifests": [{"digest": "sha256:../../../x"}]}' >new/index.json; try 'not supported' new
        fresh; echo '{"manifests": []}' >new/index.json; try 'no image in it' new
        fresh; ln -sf /dev/zero "new/$layer"; try '' new
        fresh; rm "new/$layer"; mkfifo "new/$layer"; try 'no regular file' new
        fresh; rm new/index.json; try 'it is no image' new
        # Another layer than the configuration names.
        python3 "$IMAGE" layer other.tar <<<"[dict(name='other')]"
        mkdir x && tar -C x -xf saved && cp other.tar x/0/layer.tar && tar -C x -cf other-saved .
        try 'should be' other-saved
        sed -i 's/linux/Linux/' x/*.json; cp layer.tar x/0/layer.tar; tar -C x -cf other-saved .; try 'should have the digest' other-saved
        head -c 100000 saved >short; try '' short
        head -c 1000 /dev/urandom >noise; try 'no tar archive' noise
        : >empty; try 'it is no image' empty
        try 'No such file' missing
        try 'neither' /dev/null
        refused 10 'no image is called' "$OVLFUSE" import --image-name nobody good back
        python3 -c 'import json; items = json.load(open("x/manifest.json")); json.dump(items * 2, open("x/manifest.json", "w"))'
        try '--image-name: test:latest' x
        mkdir back; refused 10 'exists' "$OVLFUSE" import good back; is '' ls back; rmdir back"#);

    [root user userns] interrupted: hostile!(r#"
        mkfifo layer.fifo
        python3 "$IMAGE" layer big.tar <<<"[dict(name='zeros%d' % n, data=bytes(8 << 20)) for n in range(30)]"
        python3 "$IMAGE" oci-tar image big.tar
        (exec "$OVLFUSE" import image back 2>said) &
        until compgen -G '.ovlfuse-*/1/zeros*' >/dev/null || ended $!; do :; done
        kill -INT $! 2>/dev/null; kill -TERM $! 2>/dev/null
        code=0; wait $! || code=$?
        [[ $code == 10 || $code == 0 ]] || complain "exit status $code: $(cat said)"
        [[ $code == 0 ]] || clean"#);
}
