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
