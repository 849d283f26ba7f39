# For sourcing in an empty folder, the present one: podman and buildah with everything they keep in it.
#
# use kernel: the storage is mounted by the kernel's overlayfs. use PROGRAM: by that mount program.
# use: by the fuse-overlayfs that is first in PATH.
set -euo pipefail
mkdir run tmp home
export XDG_RUNTIME_DIR=$PWD/run HOME=$PWD/home TMPDIR=$PWD/tmp LC_ALL=C
umask 022
stores=(--root "$PWD/storage" --runroot "$PWD/runroot" --storage-driver overlay)
alone=(--isolation chroot --network host)
# The tools remember that a mount program was used.
remembered=$PWD/storage/overlay/.has-mount-program

use() {
    program=()
    if [[ ${1-} == kernel ]]; then
        rm -f "$remembered"
    else
        program=(--storage-opt "overlay.mount_program=${1-$(command -v fuse-overlayfs)}")
    fi
}
podman() {
    command podman "${stores[@]}" "${program[@]}" --cgroup-manager cgroupfs --events-backend none "$@"
}
buildah() { command buildah "${stores[@]}" "${program[@]}" "$@"; }
# in_container OPTION… IMAGE COMMAND…
in_container() { podman run --cgroups=disabled --network none "$@"; }

# What podman leaves behind to keep its namespaces.
end() {
    local pause=$XDG_RUNTIME_DIR/libpod/tmp/pause.pid
    [[ ! -e $pause ]] || kill "$(<"$pause")"
}
trap end EXIT
