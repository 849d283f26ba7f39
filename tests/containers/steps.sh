# Times each step of a build with fuse-overlayfs, with the kernel's overlayfs without root, and with
# ovlfuse: steps.sh FILES PROGRAM OTHER [SIZE], in an empty folder.
#
# FILES is the folder with root.tar and the context, PROGRAM is ovlfuse, OTHER fuse-overlayfs, SIZE that of
# the large file. Leaves in `times` the seconds that each step takes, with the layer that it makes.
set -euo pipefail
files=$1
program=$2
other=$3
size=${4-500M}

# build NAME STORAGE: the build's output, each line behind the time it was printed at. In a folder of
# one letter: podman refuses paths of more than 50.
build() (
    mkdir "${1:0:1}"
    cd "${1:0:1}"
    source "$files/context/tools.sh"
    use "$2"
    podman import -q "$files/root.tar" localhost/base >/dev/null
    echo "$EPOCHREALTIME STEP start"
    podman build "${alone[@]}" --build-arg "BIG=$size" --pull=never "$files/context" 2>&1 |
        while read -r line; do echo "$EPOCHREALTIME $line"; done
    echo "$EPOCHREALTIME STEP end"
)

build fuse-overlayfs "$other" >fuse-overlayfs.log
build kernel kernel >kernel.log
build ovlfuse "$program" >ovlfuse.log

awk '
    / STEP / {
        if (FNR > 1 && step[FILENAME] > 0) seconds[FILENAME, step[FILENAME]] = $1 - began
        began = $1
        sub(/^[^ ]+ /, "")
        names[++step[FILENAME]] = substr($0, 1, 60)
        steps = step[FILENAME]
    }
    END {
        split("fuse-overlayfs.log kernel.log ovlfuse.log", logs, " ")
        printf "%14s %14s %14s\n", "fuse-overlayfs", "kernel", "ovlfuse"
        for (n = 2; n < steps; n++) {
            for (i = 1; i <= 3; i++) printf "%14.2f ", seconds[logs[i], n]
            print names[n]
        }
        for (i = 1; i <= 3; i++) {
            total = 0
            for (n = 2; n < steps; n++) total += seconds[logs[i], n]
            printf "%14.2f ", total
        }
        print "together"
    }' fuse-overlayfs.log kernel.log ovlfuse.log >times
