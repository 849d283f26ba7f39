# Containers with owners of their own, in an empty folder: run.sh FILES PROGRAM.
#
# FILES is the folder with root.tar and the context, PROGRAM the mount program.
source "$1/context/tools.sh"
use "$2"
podman import -q "$1/root.tar" localhost/base

# is EXPECTED COMMAND…: the command succeeds and prints exactly that.
is() {
    local expected=$1 got
    shift
    got=$("$@") || { echo "$*: exit status $?: $got"; exit 1; }
    [[ $got == "$expected" ]] || { printf '%s:\n got: %s\nwant: %s\n' "$*" "$got" "$expected"; exit 1; }
}

# The layers' owners are those inside, whatever the container's ids are outside.
owners='touch /tmp/new /usr/bin/paste; stat -c %u:%g /etc/passwd /tmp/new | tr "\n" " "; id -u'
is "0:0 $(id -u):$(id -g) $(id -u)" in_container --rm --userns keep-id localhost/base sh -c "$owners" 2>/dev/null
change='chown 33:34 /usr/bin/od; touch /root/new; chown 5:6 /root/new; chmod 4711 /root/new
        stat -c "%u:%g %a" /usr/bin/od /root/new | tr "\n" " "; id -u'
for ids in '--userns keep-id --user 0' '--uidmap 0:1000:3000 --gidmap 0:2000:3000'; do
    # shellcheck disable=SC2086 # several words
    is '33:34 755 5:6 4711 0' in_container --name changed $ids localhost/base sh -c "$change"
    # On disk they are the same as without the option.
    is '33:34 5:6 ' podman unshare sh -c \
        'cd "$1" && stat -c %u:%g usr/bin/od root/new | tr "\n" " "' sh \
        "$(podman inspect -f '{{.GraphDriver.Data.UpperDir}}' changed)"
    is '33:34 755 5:6 4711 0' podman start -a changed
    podman commit -q changed localhost/changed >/dev/null
    is '33:34 5:6' in_container --rm localhost/changed sh -c 'echo $(stat -c %u:%g /usr/bin/od /root/new)'
    podman rm changed >/dev/null
done

# Who is not told of a mount program looks for one in PATH where the kernel once was of no use.
ln -s "$2" fuse-overlayfs
(
    program=() PATH=$PWD:$PATH
    is fuse.ovlfuse in_container --rm localhost/base sed -n 's|^[^ ]* / \([^ ]*\) .*|\1|p' /proc/self/mounts
)

# Two containers at once on one tree that neither can write.
for n in 1 2; do
    in_container --rm --read-only localhost/base sh -c \
        'touch /new 2>/dev/null || cat /etc/debian_version; sleep 1; cksum /usr/bin/perl' >"read-only-$n" &
done
wait
[[ $(wc -l <read-only-1) == 2 ]]
cmp read-only-1 read-only-2
