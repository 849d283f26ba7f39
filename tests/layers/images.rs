//! Images of other programs, and theirs of ours.

scripts! {
    // All kinds of images that podman writes; what podman makes of ours.
    [root] podman_and_back: r#"
        command -v podman >/dev/null || { echo 'podman is missing: apt-get install podman'; exit 1; }
        podman() { command podman --root "$here/store" --runroot "$here/run" --storage-driver vfs "$@"; }
        trap 'umount -l merged 2>/dev/null || true; command podman --root "$here/store" --runroot "$here/run" --storage-driver vfs unmount --all >/dev/null || true' EXIT
        mkdir -p base/etc base/usr/bin base/d; cp /bin/true base/usr/bin/; ln base/usr/bin/true base/usr/bin/yes
        chmod 4755 base/usr/bin/true; chown 7:8 base/d; ln -s ../d base/etc/link
        echo one >base/etc/one; echo two >base/etc/two; mkdir base/gone; touch base/gone/x
        find base -exec touch -h -d @1234567890 {} +
        tar -C base --numeric-owner -cf base.tar .
        podman import -q base.tar test:1 >id
        podman save -q -o saved test:1
        podman save -q --format oci-archive -o oci test:1
        podman save -q --format oci-dir -o ocidir test:1
        for image in saved oci ocidir; do
            "$OVLFUSE" import $image $image.layers >lowerdir
            is "$here/$image.layers/1" cat lowerdir
            same base $image.layers/1
        done
        rm -r upper work; mkdir upper work
        "$OVLFUSE" mount -o "lowerdir=$(cat lowerdir),upperdir=upper,workdir=work" merged
        rm -r merged/gone merged/etc/one; echo changed >merged/etc/two; rm -r merged/d; mkdir merged/d
        cp merged/usr/bin/true merged/d/true; setcap cap_net_raw+ep merged/d/true; ln merged/d/true merged/d/true2
        setfattr -n user.a -v $'x\ny' merged/etc/two; touch -d @5.5 merged/d/true
        listing merged >listed
        "$OVLFUSE" umount merged
        "$OVLFUSE" export upper $(cat lowerdir) -o layer.tar.gz >said
        python3 "$IMAGE" saved two base.tar layer.tar.gz
        podman load -q -i two >said
        container=$(podman create test:latest /bin/true)
        root=$(podman mount "$container")
        # What podman adds for itself.
        listing "$root" | grep -avE '^(dev|proc|sys|run|etc/(hosts|hostname|resolv.conf))( |/)' >theirs || true
        diff -a listed theirs || complain "podman shows another tree""#;

    // A directory that an archive only names in paths is the one of the layers below, unless hidden.
    [root user userns] directories_without_an_entry: r#"
        umask 022
        layer() { python3 "$IMAGE" layer "$1.tar" <<<"[$2]"; }
        dir() { echo "dict(name='$1', type=DIRTYPE, mode=$2, mtime=$3, pax_headers={'SCHILY.xattr.user.of': '$1'})"; }
        layer 1 "$(dir . 0o711 5), $(dir d 0o700 6), $(dir d/e 0o750 7), $(dir gone 0o700 8), $(dir o 0o700 9), dict(name='o/p/x'), dict(name='f')"
        layer 2 "dict(name='d/e/x'), dict(name='.wh.gone'), $(dir o 0o705 10), dict(name='o/.wh..wh..opq'), dict(name='d/link', type=SYMTYPE, linkname='e')"
        layer 3 "dict(name='d/e/y'), dict(name='gone/x'), dict(name='o/p/y'), dict(name='f/x'), dict(name='d/link/x')"
        python3 "$IMAGE" saved image 1.tar 2.tar 3.tar
        "$OVLFUSE" import image back >lowerdir
        for n in 2 3; do
            is '711 5' stat -c '%a %Y' back/$n
            is '700 6' stat -c '%a %Y' back/$n/d
            is '750 7' stat -c '%a %Y' back/$n/d/e
            is d/e getfattr --only-values -n user.of back/$n/d/e
            if [[ $CONTEXT != user ]]; then is 0:0 stat -c %u:%g back/$n/d; fi
        done
        is '705 10' stat -c '%a %Y' back/3/o
        for dir in gone o/p f d/link; do
            is 755 stat -c %a back/3/$dir
            (($(stat -c %Y back/3/$dir) > 10)) && [[ -z $(getfattr -d back/3/$dir) ]]
        done
        is '' find . -maxdepth 1 -name '.ovlfuse*'"#;
}
