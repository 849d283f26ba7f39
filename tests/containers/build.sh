# Imports, builds and saves images: build.sh FILES STORAGE, in an empty folder.
#
# FILES is the folder with root.tar and the context, STORAGE what `use` of tools.sh takes. What was built
# is in one.tar, two.tar and three.tar, what podman tells of changes in `said`.
source "$1/context/tools.sh"
files=$1
use "$2"

podman import -q "$files/root.tar" localhost/base

container=$(buildah from --pull-never localhost/base)
buildah run "${alone[@]}" "$container" -- \
    sh -c 'echo from buildah >/etc/motd && rm -rf /usr/share/man/man1 && mkdir -p /srv/new/sub'
buildah copy -q "$container" "$files/context" /srv/context
buildah commit -q "$container" localhost/one

container=$(buildah from --pull-never localhost/one)
buildah run "${alone[@]}" "$container" -- sh -c \
    'echo changed >/etc/motd && rm -r /srv/new && mkdir /srv/new && rm /etc/issue && mv /srv/context /srv/new'
podman diff "$container" | sort >said
buildah commit -q "$container" localhost/three

podman build "${alone[@]}" --build-arg BIG=500M --pull=never -t localhost/two "$files/context"

for image in one two three; do
    podman save -q --uncompressed --format oci-archive -o "$image.tar" "localhost/$image"
    podman image diff "localhost/$image" | sort >>said
done
podman image diff localhost/three | sort >before
buildah rm --all >/dev/null
podman rmi -f localhost/three >/dev/null
podman load -q -i three.tar
podman image diff localhost/three | sort | cmp - before
