# Times each step of a build with fuse-overlayfs, with the kernel's overlayfs without root, and with
# ovlfuse: steps.sh FILES PROGRAM OTHER [ROUNDS [SIZE]], in an empty folder.
#
# FILES is the folder with root.tar and the context, PROGRAM is ovlfuse, OTHER fuse-overlayfs, SIZE that of
# the large file. Builds with one after the other, ROUNDS times. Leaves in `times` the seconds that each step
# takes, with the layer that it makes: the medians.
set -euo pipefail
files=$1
program=$2
other=$3
rounds=${4-3}
size=${5-500M}

# build NAME STORAGE ROUND: the seconds of each step. In a folder of one letter: podman refuses paths of more
# than 50.
build() (
    rm -rf b
    mkdir b
    cd b
    source "$files/context/tools.sh"
    use "$2"
    podman import -q "$files/root.tar" localhost/base >/dev/null
    # What the import wrote is not written at the expense of the first steps.
    sync
    podman build "${alone[@]}" --build-arg "BIG=$size" --pull=never "$files/context" 2>&1 |
        while read -r line; do echo "$EPOCHREALTIME $line"; done |
        awk -v name="$1" -v round="$3" -v OFS='\t' '
            function done() { if (step) print name, round, n, $1 - began, step }
            /^[^ ]+ (\[[^]]*\] )?STEP / {
                done()
                began = $1
                n++
                step = $0
                sub(/.*STEP /, "", step)
                step = substr(step, 1, 60)
            }
            END { done() }'
    # It is a mount of its own there.
    command podman "${stores[@]}" unshare sh -c 'umount -l storage/overlay; rm -rf storage'
)

for round in $(seq "$rounds"); do
    build fuse-overlayfs "$other" "$round"
    build kernel kernel "$round"
    build ovlfuse "$program" "$round"
done >seconds

# Sorted, the middle one of each step's rounds is its median.
sort -t $'\t' -k3,3n -k1,1 -k4,4g seconds | awk -F '\t' -v rounds="$rounds" '
    {
        count[$1, $3]++
        if (count[$1, $3] == int((rounds + 1) / 2)) median[$1, $3] = $4
        names[$3] = $5
        if ($3 + 0 > steps) steps = $3 + 0
    }
    END {
        split("fuse-overlayfs kernel ovlfuse", systems, " ")
        printf "%14s %14s %14s\n", systems[1], systems[2], systems[3]
        for (n = 1; n <= steps; n++) {
            for (i = 1; i <= 3; i++) {
                printf "%14.2f ", median[systems[i], n]
                total[i] += median[systems[i], n]
            }
            print names[n]
        }
        for (i = 1; i <= 3; i++) printf "%14.2f ", total[i]
        print "together"
    }' >times
