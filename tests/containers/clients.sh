# bubblewrap and runc in a mounted root tree, in an empty folder: clients.sh FILES PROGRAM.
#
# FILES is the folder with root.tar and the context, PROGRAM is ovlfuse. Neither knows of union file systems:
# the tree is simply a folder to them.
source "$1/context/tools.sh"
source "$1/context/prelude.sh"
OVLFUSE=$2
mkdir lower upper merged bundle
# An ordinary user owns all of it, as after `ovlfuse import`.
tar -C lower --no-same-owner -xf "$1/root.tar"
"$OVLFUSE" mount lower:upper merged

work='rm -r /usr/share/man && mkdir /usr/share/man && mv /etc/issue /etc/moved && cp -p /usr/bin/paste /usr/bin/new
      python3 -c "print(6 * 7)" && echo "int main(void) { return 3; }" >/root/a.c && gcc -o /root/a /root/a.c && ! /root/a
      sed -n "s|^[^ ]* / \([^ ]*\) .*|\1|p" /proc/self/mounts'
is $'42\nfuse.ovlfuse' bwrap --unshare-all --uid 0 --gid 0 --bind merged / --dev /dev --proc /proc --tmpfs /tmp sh -ec "$work"
is $'a\na.c' ls upper/root
is 0 sh -c 'ls merged/usr/share/man | wc -l'
"$OVLFUSE" umount merged
rm -r upper .upper.ovlfuse-work
mkdir upper
"$OVLFUSE" mount lower:upper merged

rootless=() user=''
if ((UID != 0)); then rootless=(--rootless) user='--rootless=true'; fi
(cd bundle && runc spec "${rootless[@]}")
WORK=$work ROOT=$PWD/merged python3 -c '
import json, os
with open("bundle/config.json") as file:
    config = json.load(file)
config["process"].update(terminal=False, args=["sh", "-ec", os.environ["WORK"]])
config["process"]["capabilities"] = {}
config["root"] = {"path": os.environ["ROOT"]}
config["linux"].pop("resources", None)
# What control groups a machine has is not what is tested.
config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
config["linux"]["namespaces"] = [item for item in config["linux"]["namespaces"] if item["type"] != "cgroup"]
with open("bundle/config.json", "w") as file:
    json.dump(config, file)'
is $'42\nfuse.ovlfuse' runc $user --root "$PWD/run" run --bundle bundle "ovlfuse-$$"
is $'a\na.c' ls upper/root
"$OVLFUSE" umount merged
is '' daemons
