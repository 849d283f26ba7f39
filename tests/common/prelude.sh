# What every script of these tests starts with. $OVLFUSE is the program; the working
# directory holds lower, lower2, upper, work and merged.
set -euo pipefail
here=$PWD
trap 'fusermount3 -uz "$here/merged" 2>/dev/null || umount -l "$here/merged" 2>/dev/null || true' EXIT

complain() { echo "line ${BASH_LINENO[1]-${BASH_LINENO[0]}}: $*" >&2; exit 1; }
# is EXPECTED COMMAND…: the command succeeds and prints exactly that.
is() {
    local expected=$1 got
    shift
    got=$("$@" 2>&1) || complain "$*: exit status $?: $got"
    [[ $got == "$expected" ]] || complain "$*: got '$got', not '$expected'"
}
# refused CODE PART COMMAND…: it fails with that code, and one line that has PART in it.
refused() {
    local code=$1 part=$2 got=0 said
    shift 2
    said=$("$@" 2>&1) || got=$?
    [[ $got == "$code" ]] || complain "$*: exit status $got, not $code: $said"
    [[ $said == *"$part"* && $said != *$'\n'* ]] || complain "$*: '$said' is not one line with '$part'"
}
mounted() { findmnt --mountpoint "$1" >/dev/null; }
mount_here() { "$OVLFUSE" mount --work "$here/work" "$@" "$here/lower:$here/lower2:$here/upper" "$here/merged"; }
# The same in place of the shell, so that a job's process id is the program's.
exec_mount() { exec "$OVLFUSE" mount --work "$here/work" "$@" "$here/lower:$here/lower2:$here/upper" "$here/merged"; }
# The process ids of the daemons of this test.
daemons() {
    local process
    for process in /proc/[0-9]*; do
        if tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -q "^$OVLFUSE .*$here"; then
            echo "${process#/proc/}"
        fi
    done
}
# Whether a process has ended (its parent may not have asked for it yet).
ended() { ! grep -q '^State:.[^Z]' "/proc/$1/status" 2>/dev/null; }
# Waits for the end of a process that is no child.
wait_for() { until ended "$1"; do read -rt 0.02 <><(:) || true; done; }
# Everything about every object below $1 but inode numbers, and without the sizes of directories.
# (find(1) rounds times before 1970 the wrong way; they are compared all the same.)
listing() (
    export LC_ALL=C
    cd "$1"
    find . -mindepth 1 -type d -printf '%P %y %m %U:%G %T@\n' -o -mindepth 1 -printf '%P %y %m %U:%G %T@ %s %n %l\n' | sort
    find . -mindepth 1 -print0 | sort -z | xargs -0 -r getfattr -h -d -m - 2>/dev/null
    find . -type f -print0 | sort -z | xargs -0 -r sha256sum
)
# same A B: two trees are equal.
same() {
    local first second
    first=$(listing "$1") second=$(listing "$2")
    [[ $first == "$second" ]] || complain "$1 and $2 differ: $(diff -a <(echo "$first") <(echo "$second"))"
}
