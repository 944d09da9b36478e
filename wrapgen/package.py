"""The package: one archive of what is deployed, the same bytes everywhere.

An uncompressed tar file with one folder, named after the model::

    NAME/manifest.json            what is in it, below
    NAME/NAME.safetensors         the weights
    NAME/include/NAME/model.h     the typed C++ class
    NAME/include/runtime/*.h      the C ABI and what model.h includes
    NAME/lib/libNAME.so           the library

``manifest.json`` is canonical JSON: ``schema_version``; ``name``; ``targets``, each with the least
CUDA version its driver must have, as cuDriverGetVersion spells it, or HIP version, as
hipRuntimeGetVersion does; ``symbols``, ``constraints``,
``inputs``, ``fixed`` and ``outputs`` as in program.json; ``weights_digest``, that of the weights'
names, dtypes and shapes which the library checks when it loads them; and ``files``, size and
SHA-256 of each other file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

from wrapgen import program as programs
from wrapgen.program import Program
from wrapgen.target import RUNTIME_DRIVERS, Target

SCHEMA_VERSION: Final = 1
"""Of manifest.json."""

_MANIFEST: Final = "manifest.json"
_CHUNK: Final = 1 << 20


class PackageError(ValueError):
    """What was given does not make a package, or a package is damaged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """What goes into a package.

    ``programs`` maps each SASS target that something is built from to its program.json, ``kernels``
    are the compile step's outputs, which know the drivers needed.
    """

    name: str
    library: Path
    weights: Path
    header: Path
    runtime_headers: tuple[Path, ...]
    targets: tuple[Target, ...]
    programs: Mapping[Target, Path]
    kernels: tuple[Path, ...]


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that was read: its manifest and its other files by path below the folder."""

    manifest: dict[str, Any]
    files: dict[str, bytes]


def write(contents: Contents, out: Path) -> None:
    """Writes a package, whole or not at all.

    Raises:
      PackageError: the parts do not belong together.
      ProgramError: a program is malformed.
      OSError: a file cannot be read or written.
    """
    name = contents.name
    if not programs.IDENTIFIER.match(name):
        raise PackageError(f"the name {name!r} is not a C identifier")
    files = {
        f"lib/lib{name}.so": contents.library,
        f"include/{name}/model.h": contents.header,
        f"{name}.safetensors": contents.weights,
    }
    for header in contents.runtime_headers:
        path = f"include/runtime/{header.name}"
        if path in files:
            raise PackageError(f"two headers are called {header.name}")
        files[path] = header
    manifest = programs.canonical_json(_manifest(contents, files)).encode()
    partial = out.with_name(out.name + ".partial")
    try:
        # PAX, because it knows sizes above 8 GiB; it writes plain headers wherever those do.
        with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, f"{name}/{_MANIFEST}", BytesIO(manifest), len(manifest), 0o644)
            for path, source in sorted(files.items()):
                mode = 0o755 if path.endswith(".so") else 0o644
                with source.open("rb") as stream:
                    size = os.fstat(stream.fileno()).st_size
                    _add(archive, f"{name}/{path}", stream, size, mode)
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _add(archive: tarfile.TarFile, name: str, stream: IO[bytes], size: int, mode: int) -> None:
    member = tarfile.TarInfo(name)  # time, owner and group are 0 and empty
    member.size = size
    member.mode = mode
    archive.addfile(member, stream)


def _manifest(contents: Contents, files: Mapping[str, Path]) -> dict[str, Any]:
    loaded = _programs(contents)
    first = loaded[min(loaded)]
    return {
        "schema_version": SCHEMA_VERSION,
        "name": contents.name,
        "targets": {
            str(target): {"driver": _driver(target, loaded[target.lowering], contents.kernels)}
            for target in contents.targets
        },
        "symbols": [dataclasses.asdict(symbol) for symbol in first.symbols],
        "constraints": [dataclasses.asdict(constraint) for constraint in first.constraints],
        "inputs": [dataclasses.asdict(spec) for spec in first.inputs],
        "fixed": [dataclasses.asdict(fixed) for fixed in first.fixed],
        "outputs": [dataclasses.asdict(spec) for spec in first.outputs],
        "weights_digest": programs.weights_digest(first.weights),
        "files": {path: _fingerprint(source) for path, source in files.items()},
    }


def _programs(contents: Contents) -> dict[Target, Program]:
    if not contents.targets:
        raise PackageError("no target: name at least one, such as sm_90")
    for target in contents.targets:
        if target.lowering not in contents.programs:
            raise PackageError(
                f"{target} needs the program lowered for {target.lowering}, which is not given"
            )
    loaded = {target: programs.load(path) for target, path in sorted(contents.programs.items())}
    for target, program in loaded.items():
        if program.target != str(target):
            raise PackageError(
                f"{contents.programs[target]} was lowered for {program.target}, not {target}"
            )
    digests = {programs.weights_digest(program.weights) for program in loaded.values()}
    if len(digests) > 1:
        raise PackageError("the programs need different weights; lower them from one graph")
    return loaded


def _driver(target: Target, program: Program, kernels: Iterable[Path]) -> int:
    """The least version of a driver for ``target``; all its kernels must load."""
    needed = RUNTIME_DRIVERS[target.platform]
    directories = tuple(kernels)
    for kernel in program.kernels:
        paths = [each / str(target) / f"{kernel.name}.json" for each in directories]
        found = next((path for path in paths if path.is_file()), None)
        if found is None:
            raise PackageError(
                f"kernel {kernel.name} for {target} is in none of the directories given: "
                f"{', '.join(map(str, directories))}"
            )
        needed = max(needed, int(json.loads(found.read_text(encoding="utf-8"))["driver"]))
    return needed


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return {"sha256": digest.hexdigest(), "size": size}


def read(path: Path) -> Package:
    """Reads a package into memory and checks every file against the manifest.

    Raises:
      PackageError: it is none, is of another version, or a file is missing, added or damaged.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None or member.name in found:
                    raise PackageError(f"{path}: {member.name!r} is no file or occurs twice")
                found[member.name] = stream.read()
    except tarfile.TarError as error:
        raise PackageError(f"{path}: not a package: {error}") from error
    files = {name.partition("/")[2]: data for name, data in found.items()}
    if _MANIFEST not in files:
        raise PackageError(f"{path}: not a package: {_MANIFEST} is missing")
    try:
        manifest: dict[str, Any] = json.loads(files.pop(_MANIFEST))
        version, listed = manifest["schema_version"], manifest["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise PackageError(f"{path}: {_MANIFEST} is malformed: {error}") from error
    if version != SCHEMA_VERSION:
        raise PackageError(f"{path}: schema_version is {version!r}, known is {SCHEMA_VERSION}")
    for name in sorted(set(files) ^ set(listed)):
        where = "in the archive but not in" if name in files else "missing, though in"
        raise PackageError(f"{path}: {name} is {where} its manifest")
    for name, data in sorted(files.items()):
        if hashlib.sha256(data).hexdigest() != listed[name]["sha256"]:
            raise PackageError(f"{path}: {name} is damaged: its SHA-256 is not the manifest's")
    return Package(manifest, files)
