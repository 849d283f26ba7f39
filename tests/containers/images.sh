# Images to layer folders and back, in an empty folder, as root: images.sh FILES PROGRAM.
#
# FILES is the folder with root.tar and the context, PROGRAM is ovlfuse. What podman and umoci make of an
# image is what `ovlfuse import` is to make of it, and what `ovlfuse export` writes is for them to read.
source "$1/context/tools.sh"
source "$1/context/prelude.sh"
files=$1
OVLFUSE=$2
use kernel

# Changes a root tree in every way that a layer can tell of.
change() (
    cd "$1"
    rm -r usr/share/man usr/bin/arch etc/motd
    rm -r usr/share/doc var/opt && mkdir -p usr/share/doc/new && echo text >var/opt
    rm usr/bin/users && mkdir usr/bin/users && touch usr/bin/users/file
    echo more >>etc/issue
    chown -R 33:34 etc/alternatives && chmod 4711 usr/bin/od && chmod 1777 srv
    echo linked >srv/a && ln srv/a srv/b && ln srv/b opt/c
    ln -s "/$(printf 'n%.0s' {1..150})" srv/dangling && mkfifo -m 620 srv/pipe
    mknod -m 640 srv/char c 5 1 && mknod -m 604 srv/block b 259 65535
    setcap cap_net_raw+ep usr/bin/paste
    setfattr -n user.test -v $'x\ny = z' etc/issue
    setfacl -m u:10:rw etc/issue && setfacl -d -m g:11:rx srv
    truncate -s 64M srv/sparse && echo in the middle | dd of=srv/sparse bs=1M seek=20 conv=notrunc status=none
    touch -d @1234567890.123456789 srv/a && chown 3000000:4000000 srv/sparse
    mkdir -p "srv/$(printf 'm%.0s' {1..200})/é ü" && touch "srv/$(printf 'm%.0s' {1..200})/é ü/last"
    chmod 700 root && touch -d @1000000000 srv usr/share/doc etc
)


# Changes it once more.
change_again() (
    cd "$1"
    rm -r usr/share/perl5 srv/m* && mkdir usr/share/perl5 && touch usr/share/perl5/new
    rm srv/b srv/dangling && mkdir srv/dangling && touch srv/dangling/x
    echo more >>etc/issue && ln etc/issue etc/issue.link && setcap cap_chown+p usr/bin/od
    mv usr/share/bash-completion srv/moved
    mkdir var/opt.d && rm var/opt && chown -h 5:6 etc/localtime
)

# Shows the layers $1 (as lowerdir= wants them) at merged, calls the rest, and unmounts.
shown() {
    "$OVLFUSE" -o "lowerdir=$1" merged
    "${@:2}"
    "$OVLFUSE" umount merged
}
# What a layer folder has. (Nobody sees the times of a whiteout.)
layer() { listing "$1" | sed -E 's/^(.* c 0 0:0 )[0-9.]+ .*/\1/'; }
mkdir merged

# The root tree without its large files, for the sake of time.
tar -tvf "$files/root.tar" | awk '/^-/ && $3 > 100000 || $NF in large { print $6; large[$6] }' >large
tar --delete -f - -T large <"$files/root.tar" >root.tar

# podman's image, as Docker and as the OCI lay it out.
podman import -q root.tar localhost/base >/dev/null
container=$(buildah from --pull-never localhost/base)
change "$(buildah mount "$container")"
buildah commit -q "$container" localhost/image >/dev/null
podman save -q -o saved localhost/image
podman save -q --format oci-dir -o ocidir localhost/image

# Each layer is what podman made of it, whiteouts and opaque marks included, and so is the whole.
diff_of() { podman image inspect -f '{{.GraphDriver.Data.UpperDir}}' "$1"; }
layer "$(diff_of localhost/base)" >podman.1
layer "$(diff_of localhost/image)" >podman.2
listing "$(podman image mount localhost/image)" >podman
for image in saved ocidir; do
    is "$PWD/$image.layers/2:$PWD/$image.layers/1" "$OVLFUSE" import $image $image.layers
    for n in 1 2; do layer $image.layers/$n | diff -a podman.$n -; done
done
lower=$PWD/ocidir.layers/1 upper=$PWD/ocidir.layers/2
shown "$upper:$lower" listing merged | diff -a podman -

# As archives again: the same bytes each time.
"$OVLFUSE" export "$lower" -o 1.tar >said.1
"$OVLFUSE" export "$upper" "$lower" -o 2.tar >said.2
"$OVLFUSE" export "$upper" "$lower" -o 2.tar.gz >said.gz
is "$(sed -n 's/^diff-id sha256://p' said.gz)  2.tar" sha256sum 2.tar

# An image of these, which is the same one for ovlfuse, umoci, and podman.
umoci init --layout made
umoci new --image made:image
for n in 1 2; do umoci raw add-layer --image made:image $n.tar; done
"$OVLFUSE" import made back >said
for n in 1 2; do layer back/$n | diff -a podman.$n -; done
umoci unpack --image made:image bundle
listing bundle/rootfs | diff -a podman -
podman pull -q oci:made:image >id
listing "$(podman image mount "$(<id)")" | diff -a podman -
is "$(sed -n 's/^diff-id //p' said.1 said.2)" \
    podman image inspect -f '{{range .RootFS.Layers}}{{println .}}{{end}}' "$(<id)"

# A layer that umoci made. (It keeps whole seconds of times.)
seconds() { sed -E 's/ ([0-9]{10})\.[0-9]+/ \1/'; }
change_again bundle/rootfs
find bundle/rootfs -newer id -exec touch -hd @1500000000 {} +
umoci repack --image made:again bundle
listing bundle/rootfs | seconds >umoci
lowerdir=$("$OVLFUSE" import --image-name again made again)
shown "$lowerdir" listing merged | seconds | diff -a umoci -
