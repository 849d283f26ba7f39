"""Prints what is in the OCI archives argv[2:]: a line per file of every layer, and of the image.

Content, type, mode, owner, size, links, device numbers and extended attributes count, and the times
before argv[1] (seconds since the epoch), when the build began; but not those of directories and
symbolic links, which fuse-overlayfs changes when it copies them up. In the image hard links are files:
what the tools find out by comparing two mounts loses them.
"""

import gzip
import hashlib
import json
import pathlib
import sys
import tarfile

began = int(sys.argv[1])
# What was read, by digest: images share layers.
known = {}


def blob(archive, digest):
    return archive.extractfile("blobs/" + digest.replace(":", "/"))


def line(layer, member):
    old = member.mtime < began and not member.isdir() and not member.issym()
    time = int(member.mtime) if old else "any"
    fields = [member.type.decode(), oct(member.mode & 0o7777), member.uid, member.gid, member.size, time]
    fields += [member.linkname, member.devmajor, member.devminor]
    fields += sorted(f"{k}={v!r}" for k, v in member.pax_headers.items() if k.startswith("SCHILY.xattr."))
    if member.isreg():
        fields.append(hashlib.file_digest(layer.extractfile(member), "sha256").hexdigest())
    return " ".join(map(str, fields))


def path(name):
    return name.removeprefix("./").strip("/")


def remove(image, name, itself=True):
    for old in [old for old in image if old.startswith(name + "/") or itself and old == name]:
        del image[old]


def read(archive, descriptor):
    """The members of a layer and their lines, by path."""
    digest = descriptor["digest"]
    if digest not in known:
        stream = blob(archive, digest)
        if descriptor["mediaType"].endswith("gzip"):
            stream = gzip.open(stream)
        with tarfile.open(fileobj=stream) as layer:
            members = {path(member.name): member for member in layer}
            known[digest] = members, {name: line(layer, member) for name, member in members.items()}
    return known[digest]


def show(title, archive):
    index = json.load(archive.extractfile("index.json"))
    manifest = json.load(blob(archive, index["manifests"][0]["digest"]))
    image = {}
    for number, descriptor in enumerate(manifest["layers"]):
        members, files = read(archive, descriptor)
        for name in files:
            above, _, last = name.rpartition("/")
            if last == ".wh..wh..opq":
                remove(image, above, itself=False)
            elif last.startswith(".wh."):
                remove(image, f"{above}/{last[4:]}".lstrip("/"))
        for name, text in sorted(files.items()):
            print(f"{title} layer {number}: {name!r} {text}")
            if not name.rpartition("/")[2].startswith(".wh."):
                member = members[name]
                image[name] = files[path(member.linkname)] if member.islnk() else text
    for name, text in sorted(image.items()):
        print(f"{title} image: {name!r} {text}")


for file in sys.argv[2:]:
    show(pathlib.Path(file).name, tarfile.open(file))
