//! `xattr_permissions=`: owners, modes and special files that are stored in an attribute.

/// What scripts need: `stored FILE` is the attribute, `shown FILE` what stat(1) says.
const HELP: &str = r#"
    attribute=user.containers.override_stat
    stored() { getfattr -h --only-values -n "$attribute" "$1"; }
    shown() { stat -c '%F %u:%g %a %t:%T' "$1"; }
    set_stored() { setfattr -n "$attribute" -v "$2" "$1"; }
    mount_stored() { mount_here -o "xattr_permissions=2${1+,$1}"; }
    # What container tools unpack with force_mask.
    set_stored lower 0:0:0755
    set_stored lower/f 3:4:4750:file
    mkdir -m 700 lower/dir && set_stored lower/dir 5:6:2775:dir
    echo 1234 >lower/dir/x && set_stored lower/dir/x 7:8:0604
"#;

macro_rules! stored {
    ($([$($context:ident)+] $name:ident: $script:expr;)+) => {
        $(mod $name {
            $(
                #[test]
                fn $context() {
                    let script = format!("{}\n{}", super::HELP, $script);
                    crate::common::scripts::run(crate::common::Context::$context, &script);
                }
            )+
        })+
    };
}

stored! {
    [root userns user] read_from_lower_layers: r#"
        for type in pipe socket char-1-3 block-259-65535; do
            : >"lower/$type"
            set_stored "lower/$type" "1:2:0642:$type"
        done
        ln -s target lower/s
        real=$(shown lower2/g)
        mount_stored
        is 'regular file 3:4 4750 0:0' shown merged/f
        is 'directory 5:6 2775 0:0' shown merged/dir
        is 'regular file 7:8 604 0:0' shown merged/dir/x
        is 'fifo 1:2 642 0:0' shown merged/pipe
        is 'socket 1:2 642 0:0' shown merged/socket
        is 'character special file 1:2 642 1:3' shown merged/char-1-3
        is 'block special file 1:2 642 103:ffff' shown merged/block-259-65535
        is $'block-259-65535 b\nchar-1-3 c\nd d\ndir d\nf f\ng f\npipe p\ns l\nsocket s' \
            sh -c 'find merged -mindepth 1 -maxdepth 1 -printf "%P %y\n" | LC_ALL=C sort'
        is target readlink merged/s
        # A layer without the attribute on its root has owners of its own.
        is "$real" shown merged/g
        # It is nobody's attribute.
        is '' getfattr -d -m override merged/f
        [[ $(getfattr -n $attribute merged/dir/x 2>&1) == *'No such attribute'* ]]
        "$OVLFUSE" umount merged
        is "0:0:0755" stored lower
        set_stored lower/f nonsense
        mount_stored
        [[ $(stat merged/f 2>&1) == *'Input/output error'* ]]
        is 1234 cat merged/dir/x
        "$OVLFUSE" umount merged
        # Without the option it is an attribute like others.
        mount_here
        is "7:8:0604" stored merged/dir/x
        is "$(shown lower/dir/x)" shown merged/dir/x"#;

    [root userns] changes_in_upper: r#"
        chmod 777 lower2/g
        mkfifo lower/fifo
        ln -s target lower/link
        mount_stored
        is 'directory 0:0 755 0:0' shown upper
        chmod 1777 merged
        is '0:0:1777' stored upper
        is 755 stat -c %a upper
        # Copied up with what it had, or with what it really had.
        echo more >>merged/dir/x
        is $'1234\nmore' cat upper/dir/x
        is '7:8:0604' stored upper/dir/x
        is '5:6:2775' stored upper/dir
        is 'directory 0:0 700 0:0' shown upper/dir
        touch merged/g
        is '0:0:0777' stored upper/g
        is 'regular file 0:0 600 0:0' shown upper/g
        chown -h 2:3 merged/fifo merged/link
        is 'regular empty file 0:0 600 0:0' shown upper/fifo
        is 'fifo 2:3 644 0:0' shown merged/fifo
        is 'symbolic link 2:3 777 0:0' shown merged/link
        chown 9:10 merged/f
        is 'regular file 9:10 750 0:0' shown merged/f
        chmod 6711 merged/f
        is 'regular file 9:10 6711 0:0' shown merged/f
        is '9:10:6711' stored upper/f
        chgrp 11 merged/f
        is '9:11:0711' stored upper/f
        is 'regular file 0:0 600 0:0' shown upper/f
        # New ones, for their maker, in what is set-gid, over whiteouts.
        (umask 027; setpriv --reuid 20 --regid 21 --clear-groups sh -c '
            mkdir merged/own && cd merged/own && echo text >file && mkfifo pipe && ln -s file link && python3 -c "
import socket
socket.socket(socket.AF_UNIX).bind(\"socket\")"')
        is '20:21:0750' stored upper/own
        is '20:21:0640' stored upper/own/file
        is 'fifo 20:21 640 0:0' shown merged/own/pipe
        is 'regular empty file 0:0 600 0:0' shown upper/own/pipe
        is '20:21:0640:pipe' stored upper/own/pipe
        is '20:21:0750:socket' stored upper/own/socket
        is 'symbolic link 20:21 777 0:0' shown merged/own/link
        [[ $CONTEXT != root ]] || mknod -m 604 merged/device c 1 3
        mkdir merged/dir/sub && touch merged/dir/y
        is 'directory 0:6 2755 0:0' shown merged/dir/sub
        is 'regular empty file 0:6 644 0:0' shown merged/dir/y
        rm merged/f merged/dir/x && mkdir -m 711 merged/f && ln merged/own/file merged/dir/x
        is 'directory 0:0 711 0:0' shown merged/f
        is 2 stat -c %h merged/dir/x
        chmod 600 merged/dir/x
        is 600 stat -c %a merged/own/file
        chown -h 1:1 merged/own/link
        mv merged/own merged/moved
        shown merged/f >before; listing merged >>before
        "$OVLFUSE" umount merged
        mount_stored
        shown merged/f >after; listing merged >>after
        cmp before after
        [[ $CONTEXT != root ]] || is 'character special file 0:0 604 1:3' shown merged/device"#;

    // Nobody becomes another, or gets rights, by what is stored or by writing.
    [root userns] rights: r#"
        mount_stored
        as() { setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"; }
        chmod 777 merged
        as 20 sh -c 'cp /bin/true merged/own && chmod 6755 merged/own'
        is 6755 stat -c %a merged/own
        for name in user.containers.override_stat user.fuseoverlayfs.override_stat; do
            [[ $(as 20 setfattr -n $name -v 0:0:4755 merged/own 2>&1) == *'not permitted'* ]]
            [[ $(setfattr -x $name merged/own 2>&1) == *'not permitted'* ]]
        done
        [[ $(setfacl -m u:1:r merged/own 2>&1) == *'not supported'* ]]
        [[ $(as 21 chmod 700 merged/own 2>&1) == *'not permitted'* ]]
        [[ $(as 20 chown 0 merged/own 2>&1) == *'not permitted'* ]]
        chmod 6777 merged/own
        as 21 sh -c 'echo x >>merged/own'
        is 777 stat -c %a merged/own
        chmod 6777 merged/own
        as 21 truncate -s 1 merged/own
        is 777 stat -c %a merged/own
        chmod 6777 merged/own
        as 21 fallocate -l 100 merged/own
        is 777 stat -c %a merged/own
        chmod 6777 merged/own
        chown 20 merged/own
        is 777 stat -c %a merged/own
        chmod 600 merged/own
        as 20 cat merged/own >/dev/null
        [[ $(as 21 cat merged/own 2>&1) == *'Permission denied'* ]]
        # Sticky directories know the owners of what is in them.
        chmod 1777 merged
        [[ $(as 21 rm -f merged/own 2>&1) == *'not permitted'* ]]
        as 20 rm merged/own
        as 20 ln -s x merged/link
        as 20 rm merged/link"#;

    [user] by_an_ordinary_user: r#"
        mount_stored
        me=$(id -u):$(id -g)
        echo more >>merged/g
        touch merged/new && chmod 4711 merged/new
        is "regular empty file $me 4711 0:0" shown merged/new
        is "$me:4711" stored upper/new
        is "$me:0644" stored upper/g
        # Others' files are theirs.
        [[ $(cat merged/f 2>&1) == *'Permission denied'* ]]
        is 1234 cat merged/dir/x"#;

    [root userns user] without_an_upper: r#"
        "$OVLFUSE" mount --read-only -o xattr_permissions=2 "$here/lower:$here/lower2" "$here/merged"
        is 'regular file 7:8 604 0:0' shown merged/dir/x
        is '' getfattr -d -m override merged/dir/x"#;

    // The attribute of the other value; upper's own is kept whatever the option says.
    [root] privileged: r#"
        mount_here -o xattr_permissions=1
        chown 9:10 merged/g
        is '9:10:0644' getfattr --only-values -n security.fuseoverlayfs.override_stat upper/g
        is '3:4' stat -c %u:%g merged/f
        "$OVLFUSE" umount merged
        mount_stored
        is '9:10' stat -c %u:%g merged/g
        chown 11 merged/g
        [[ $(getfattr -n $attribute upper/g 2>&1) == *'No such attribute'* ]]"#;

    // An upper that fuse-overlayfs wrote, and the other way round.
    [root] with_fuse_overlayfs: r#"
        layers="lowerdir=lower:lower2,upperdir=upper,workdir=work,xattr_permissions=2"
        fuse-overlayfs -o "$layers" merged 2>/dev/null
        # (Its chmod forgets the owner.)
        echo 1 >merged/theirs && chmod 640 merged/theirs && chown 12:13 merged/theirs
        mkdir merged/new && chown 14:15 merged/new
        fusermount3 -u merged
        "$OVLFUSE" -o "$layers" "$here/merged"
        is 'regular file 12:13 640 0:0' shown merged/theirs
        is 'directory 14:15 755 0:0' shown merged/new
        echo 2 >merged/ours && chown 16:17 merged/ours && chmod 2751 merged/ours
        chown 18:19 merged/theirs
        "$OVLFUSE" umount merged
        fuse-overlayfs -o "$layers" merged 2>/dev/null
        is 'regular file 16:17 2751 0:0' shown merged/ours
        is 'regular file 18:19 640 0:0' shown merged/theirs
        is '2' cat merged/ours
        fusermount3 -u merged"#;

    [root userns] metadata_only: r#"
        head -c 1M /dev/urandom >lower/big && set_stored lower/big 3:4:0640
        mount_stored metacopy=on
        chown 5:6 merged/big
        is 'regular file 5:6 640 0:0' shown merged/big
        (($(stat -c %b upper/big) < 100))
        echo x >>merged/big
        is '5:6:0640' stored upper/big
        is 1048578 stat -c %s merged/big
        chmod 00700 merged/dir && chown 1:1 merged/dir
        is '1:1:0700' stored upper/dir"#;
}
