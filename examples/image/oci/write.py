"""Writes layers and images as the OCI's image specification 1.1 says.

https://github.com/opencontainers/image-spec. Nothing in an output is of a time, a user or a
machine. The compressed bytes are zlib's: another version of it may give a layer another digest,
with the same diff id, which is the digest of what is compressed.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import lzma
import re
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"

Json = dict[str, Any]
Entry = tuple[tarfile.TarInfo, bytes]


class ImageError(ValueError):
    """What was asked for makes no layer or image."""


def member(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    """A member of a layer, owned by root, with the time 0."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = mode
    return info


def from_file(path: str, source: Path) -> Entry:
    """A file of the build."""
    if not path.startswith("/") or ".." in path.split("/"):
        raise ImageError(f"{path!r} is no absolute path in an image")
    data = source.read_bytes()
    # Whether Bazel made it executable says nothing: it does so with every output.
    executable = data[:4] == b"\x7fELF" or data[:2] == b"#!"
    info = member(path[1:], mode=0o755 if executable else 0o644)
    info.size = len(data)
    return info, data


def from_deb(deb: Path, only: Sequence[re.Pattern[str]]) -> Iterator[Entry]:
    """The wanted files of a Debian package (deb(5)): an ar archive with data.tar.xz."""
    with tarfile.open(fileobj=io.BytesIO(data_of(deb))) as archive:
        for info in archive:
            name = info.name.removeprefix("./")
            if info.isdir() or (only and not any(each.fullmatch(f"/{name}") for each in only)):
                continue
            if info.isreg():
                stream = archive.extractfile(info)
                assert stream is not None
                data = stream.read()
                made = member(name, mode=info.mode)
                made.size = len(data)
                yield made, data
            elif info.issym():
                made = member(name, tarfile.SYMTYPE, 0o777)
                made.linkname = info.linkname
                yield made, b""
            else:
                raise ImageError(f"{deb.name}: {name} is no file, directory or symbolic link")


def data_of(deb: Path) -> bytes:
    """Returns the uncompressed tar archive of a Debian package."""
    data = deb.read_bytes()
    if data[:8] != b"!<arch>\n":
        raise ImageError(f"{deb.name}: not a Debian package")
    at = 8
    while at + 60 <= len(data):
        name = data[at : at + 16].decode().strip(" /")
        size = int(data[at + 48 : at + 58])
        at += 60
        if name == "data.tar.xz":
            return lzma.decompress(data[at : at + size])
        at += size + size % 2
    raise ImageError(f"{deb.name}: has no data.tar.xz")


def write_layer(entries: Sequence[Entry], out: Path) -> None:
    """Writes a layer: its members sorted, each behind the directories it is in."""
    members: dict[str, Entry] = {}
    for info, data in entries:
        if info.name in members:
            raise ImageError(f"two files at /{info.name}")
        members[info.name] = info, data
        for parent in Path(info.name).parents:
            name = parent.as_posix()
            if name != ".":
                members.setdefault(name, (member(name, tarfile.DIRTYPE, 0o755), b""))
    with (
        out.open("wb") as stream,
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=stream, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for _, (info, data) in sorted(members.items()):
            archive.addfile(info, io.BytesIO(data))


class Layout:
    """An image layout: a directory of blobs, named by their digests."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def add(self, data: bytes, media_type: str) -> Json:
        """Stores a blob and returns its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self._blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def add_json(self, value: Json, media_type: str) -> Json:
        """The same for JSON, spelled in one way."""
        return self.add(
            json.dumps(value, sort_keys=True, separators=(",", ":")).encode(), media_type
        )

    def finish(self, manifest: Json, tag: str) -> None:
        """Writes the entry points of the layout."""
        annotations = {"org.opencontainers.image.ref.name": tag}
        platform = {"architecture": "amd64", "os": "linux"}
        entry = {**manifest, "annotations": annotations, "platform": platform}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
        (self._directory / "index.json").write_text(json.dumps(index, sort_keys=True))
        (self._directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def write_image(
    layers: Sequence[Path], entrypoint: Sequence[str], user: str, tag: str, out: Path
) -> None:
    """Writes an image as a layout."""
    layout = Layout(out)
    descriptors, diff_ids = [], []
    for path in layers:
        data = path.read_bytes()
        descriptors.append(layout.add(data, LAYER))
        diff_ids.append(f"sha256:{hashlib.sha256(gzip.decompress(data)).hexdigest()}")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": list(entrypoint), "User": user, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.add_json(config, CONFIG),
        "layers": descriptors,
    }
    layout.finish(layout.add_json(manifest, MANIFEST), tag)


def place(text: str) -> tuple[str, Path]:
    """Parses ``/path/in/the/image=FILE``."""
    path, _, source = text.partition("=")
    return path, Path(source)


def main() -> int:
    """Writes what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    layer = commands.add_parser("layer")
    layer.add_argument("--file", type=place, action="append", default=[], dest="files")
    layer.add_argument("--deb", type=Path, action="append", default=[], dest="debs")
    layer.add_argument("--only", type=re.compile, action="append", default=[])
    image = commands.add_parser("image")
    image.add_argument("--layer", type=Path, action="append", default=[], dest="layers")
    image.add_argument("--entrypoint", action="append", default=[])
    image.add_argument("--user", required=True)
    image.add_argument("--tag", required=True)
    for command in (layer, image):
        command.add_argument("-o", type=Path, required=True, dest="out")
    args = parser.parse_args()
    try:
        if args.command == "layer":
            entries = [from_file(path, source) for path, source in args.files]
            for deb in args.debs:
                entries.extend(from_deb(deb, args.only))
            write_layer(entries, args.out)
        else:
            write_image(args.layers, args.entrypoint, args.user, args.tag, args.out)
    except (ImageError, OSError) as error:
        print(f"{args.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
