"""A package that PyTorch loads: ``torch._inductor.aoti_load_package`` of a library with
AOTInductor's interface. The same bytes everywhere.

An uncompressed zip archive with one folder, named after the model, as PyTorch's ``package_pt2``
writes it::

    NAME/archive_format, archive_version, byteorder, .data/version, .data/serialization_id
    NAME/data/aotinductor/model/NAME.wrapper.so              the library
    NAME/data/aotinductor/model/NAME.wrapper.cpp             its model.cc
    NAME/data/aotinductor/model/NAME.wrapper_metadata.json   what get_metadata gives
    NAME/data/aotinductor/model/NAME.safetensors             the weights

PyTorch unpacks ``data/aotinductor/model`` to a temporary directory, whose path the library gets as
``cubin_dir``: there it finds the weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from wrapgen.program import IDENTIFIER
from wrapgen.target import Target

Device = Literal["cuda", "cpu"]

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can have."""

_CHUNK: Final = 1 << 20


class TorchPackageError(ValueError):
    """What was given does not make a package."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """What goes into a package.

    ``device`` is where callers have their tensors: on a CUDA device; or on the host, from where
    each run copies them to CUDA device 0 and back. ``source`` is the model's C++, for a reader.
    """

    name: str
    library: Path
    weights: Path
    source: Path
    targets: tuple[Target, ...]
    device: Device = "cuda"


def write(contents: Contents, out: Path) -> None:
    """Writes a package, whole or not at all.

    Raises:
      TorchPackageError: the name is none.
      OSError: a file cannot be read or written.
    """
    name = contents.name
    if not IDENTIFIER.match(name):
        raise TorchPackageError(f"the name {name!r} is not a C identifier")
    metadata = {
        "AOTI_DEVICE_KEY": contents.device,
        "RULES_AOTI_MODEL": name,
        "RULES_AOTI_TARGETS": ",".join(sorted(map(str, contents.targets))),
    }
    model = f"data/aotinductor/model/{name}"
    members: dict[str, bytes | Path] = {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "byteorder": b"little",
        ".data/version": b"6\n",
        f"{model}.safetensors": contents.weights,
        f"{model}.wrapper.cpp": contents.source,
        f"{model}.wrapper.so": contents.library,
        f"{model}.wrapper_metadata.json": json.dumps(metadata, sort_keys=True).encode(),
    }
    members[".data/serialization_id"] = _digest(members)
    partial = out.with_name(out.name + ".partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            for path, source in sorted(members.items()):
                _add(archive, f"{name}/{path}", source)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _add(archive: zipfile.ZipFile, name: str, source: bytes | Path) -> None:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.create_system = 3  # Unix, whatever writes it
    info.external_attr = 0o100644 << 16
    if isinstance(source, bytes):
        archive.writestr(info, source)
        return
    info.file_size = source.stat().st_size
    with source.open("rb") as stream, archive.open(info, "w") as member:
        shutil.copyfileobj(stream, member, _CHUNK)


def _digest(members: Mapping[str, bytes | Path]) -> bytes:
    """PyTorch's id of an archive, 40 decimal digits, made from what is in it."""
    digest = hashlib.sha256()
    for name, source in sorted(members.items()):
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        if isinstance(source, bytes):
            digest.update(source)
            continue
        with source.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return b"%040d" % (int(digest.hexdigest(), 16) % 10**40)
