# One storage under several mount programs, in an empty folder: share.sh FILES PROGRAM OTHER.
#
# FILES is the folder with root.tar and the context, PROGRAM the program under test, OTHER fuse-overlayfs.
source "$1/context/tools.sh"
files=$1
mkdir bin
ln -s "$2" bin/fuse-overlayfs
other=$3
# Each sets the type of the mounts to come.
ours() {
    type=fuse.ovlfuse
    PATH=$PWD/bin:$PATH use
}
theirs() {
    type=fuse.fuse-overlayfs
    use "$other"
}
kernel() {
    type=overlay
    use kernel
}

# What a container holds, but for what buildah mounts there.
seen() {
    local mounted
    mounted=$(buildah run "${alone[@]}" "$1" -- sed -n 's|^[^ ]* / \([^ ]*\) .*|\1|p' /proc/self/mounts)
    [[ $mounted == "$type" ]] || { echo "mounted as $mounted instead of $type"; exit 1; }
    buildah run "${alone[@]}" "$1" -- sh -c \
        'find / \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /etc/hosts \
              -o -path /etc/hostname -o -path /etc/resolv.conf \) -prune -o -type d -printf "%p d %m %U:%G\n" -o -printf "%p %y %m %U:%G %s %T@ %n %l\n" | LC_ALL=C sort
         cat /etc/motd /srv/*/*' 2>&1
}

ours
podman import -q "$files/root.tar" localhost/base
for pair in 'ours theirs' 'ours kernel' 'theirs ours' 'kernel ours'; do
    read -r writer reader <<<"$pair"
    "$writer"
    container=$(buildah from --pull-never localhost/base)
    buildah run "${alone[@]}" "$container" -- sh -ec '
        rm -r /usr/share/man /etc/issue
        mkdir /usr/share/man
        echo written >/etc/motd
        mv /usr/share/perl5 /srv/perl5.moved
        rm -r /srv/perl5.moved
        mkdir -p /srv/dir
        echo text >/srv/dir/file
        ln /srv/dir/file /srv/dir/link
        chown 33:33 /usr/bin/paste /srv/dir
        chmod 4711 /usr/bin/od'
    seen "$container" >before
    "$reader"
    seen "$container" >after
    diff before after
    # And back: what the reader changes the writer sees.
    buildah run "${alone[@]}" "$container" -- sh -ec '
        rm /srv/dir/link /usr/bin/paste
        echo "read by another" >>/etc/motd
        rmdir /usr/share/man
        mv /srv/dir/file /srv/dir/renamed'
    seen "$container" >before
    "$writer"
    seen "$container" >after
    diff before after
    buildah rm "$container" >/dev/null
    echo "$pair: the same"
done
