"""Makes images for the tests of `ovlfuse import`.

    image.py KIND TARGET LAYER.tar…    an image of these layers; KIND: oci-dir, oci-tar, saved
    image.py layer TARGET [IMAGE] < ENTRIES    a layer: a list of entries, as Python; and one of it
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def architecture():
    machine = os.uname().machine
    return ARCHITECTURES.get(machine, machine)


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def describe(data, blobs):
    blobs["blobs/sha256/" + digest(data)[7:]] = data
    return {"mediaType": "application/x", "digest": digest(data), "size": len(data)}


def unpacked(data):
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def config(layers):
    diff_ids = [digest(unpacked(layer)) for layer in layers]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    return json.dumps({"os": "linux", "architecture": architecture(), "rootfs": rootfs}).encode()


def oci(layers):
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    manifest = {"schemaVersion": 2, "config": describe(config(layers), files)}
    manifest["layers"] = [describe(layer, files) for layer in layers]
    item = describe(json.dumps(manifest).encode(), files)
    item["platform"] = {"os": "linux", "architecture": architecture()}
    other = dict(item, platform={"os": "linux", "architecture": "none"}, digest=digest(b"none"))
    index = describe(json.dumps({"manifests": [other, item]}).encode(), files)
    index["annotations"] = {"org.opencontainers.image.ref.name": "test"}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [index]}).encode()
    return files


def saved(layers):
    text = config(layers)
    name = digest(text)[7:] + ".json"
    files = {f"{number}/layer.tar": unpacked(layer) for number, layer in enumerate(layers)}
    item = {"Config": name, "RepoTags": ["test:latest"], "Layers": list(files)}
    files[name] = text
    files["manifest.json"] = json.dumps([item]).encode()
    return files


def write_dir(files, target):
    for name, data in files.items():
        path = os.path.join(target, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


def write_tar(files, target):
    with tarfile.open(target, "w") as archive:
        for name, data in files.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))


def layer(target, entries):
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT, encoding="utf-8",
                      errors="surrogateescape") as archive:
        for entry in entries:
            data = entry.pop("data", b"")
            item = tarfile.TarInfo(entry.pop("name"))
            item.size = len(data)
            item.mode = 0o755 if entry.get("type") == tarfile.DIRTYPE else 0o644
            item.uid, item.gid = os.getuid(), os.getgid()
            for key, value in entry.items():
                setattr(item, key, value)
            archive.addfile(item, io.BytesIO(data))


def main():
    kind, target, *layers = sys.argv[1:]
    if kind == "layer":
        names = {name: value for name, value in vars(tarfile).items() if name.endswith("TYPE")}
        layer(target, eval(sys.stdin.read(), names))
        for image in layers:
            write_tar(oci([open(target, "rb").read()]), image)
        return
    layers = [open(path, "rb").read() for path in layers]
    files = saved(layers) if kind == "saved" else oci(layers)
    (write_dir if kind == "oci-dir" else write_tar)(files, target)


main()
