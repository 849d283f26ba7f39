# Storage with force_mask, where all files are the user's and owners are stored, in an empty folder:
# mask.sh FILES PROGRAM.
#
# FILES is the folder with root.tar and the context, PROGRAM the mount program.
source "$1/context/tools.sh"
use "$2"
program+=(--storage-opt overlay.force_mask=shared)
podman import -q "$1/root.tar" localhost/base

# (podman forgets set-id bits when it unpacks such storage.)
seen='stat -c "%n %u:%g %a" /etc/shadow /etc/motd /root/new /root/dir'
change='echo new >/root/new; mkdir -p /root/dir; chown 33:34 /root/new /etc/motd; chmod 711 /root/new; chown 5:6 /root/dir'
expected='/etc/shadow 0:42 640
/etc/motd 33:34 644
/root/new 33:34 711
/root/dir 5:6 755'
is() { diff <(echo "$1") <("${@:2}"); }
is "$expected" in_container --name changed localhost/base sh -c "$change; $seen"
is "$expected" podman start -a changed
podman commit -q changed localhost/changed
podman rm changed
is "$expected" in_container --rm localhost/changed sh -c "$seen"
# On disk nobody else is named.
find storage/overlay/*/diff ! -type l ! -user "$(id -u)" | diff /dev/null -
