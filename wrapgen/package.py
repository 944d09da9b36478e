"""The package: one archive of what is deployed, the same bytes everywhere.

An uncompressed tar file with one folder, named after the model::

    NAME/manifest.json            what is in it, below
    NAME/provenance.json          what it was made from, and by what: docs/provenance.md
    NAME/sbom.spdx.json           what it is made of, the same page
    NAME/NAME.safetensors         the weights
    NAME/include/NAME/model.h     the typed C++ class
    NAME/include/runtime/*.h      the C ABI and what model.h includes
    NAME/lib/libNAME.so           the library

``manifest.json`` is canonical JSON: ``schema_version``; ``name``; ``targets``, each with the least
CUDA version its driver must have, as cuDriverGetVersion spells it, or HIP version, as
hipRuntimeGetVersion does; ``symbols``, ``constraints``,
``inputs``, ``fixed`` and ``outputs`` as in program.json; ``weights``, those that the library takes,
by name, dtype and shape; ``weights_digest``, that of these three, which the library bears;
``files``, size and SHA-256 of each other file but the next two; and ``provenance``, the SHA-256 of
the predicate in provenance.json.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

from wrapgen import __version__
from wrapgen import program as programs
from wrapgen.program import Program
from wrapgen.provenance import (
    MANIFEST,
    MANIFEST_VERSION,
    SBOM,
    STATEMENT,
    archive,
    facts,
    library,
    sbom,
    statement,
)
from wrapgen.provenance.facts import Facts, Fingerprint, Image
from wrapgen.target import RUNTIME_DRIVERS, Target

_CHUNK: Final = 1 << 20


class PackageError(ValueError):
    """What was given does not make a package."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Build:
    """What the statement tells of the build besides what the contents show.

    ``generated`` are the wrap step's sources, ``components`` the C++ that is compiled in by name,
    ``locks`` the lock files of the Python packages that the tools are made of, ``tuning`` what the
    lowering step read of measurements. ``march`` and ``shards`` are the toolchain's, empty and 0
    where nobody says; the rest is what the build was asked for.
    """

    graph: Path
    generated: tuple[Path, ...] = ()
    components: Mapping[str, tuple[Path, ...]] = dataclasses.field(default_factory=dict)
    locks: tuple[Path, ...] = ()
    ptxas: Path | None = None
    tuning: tuple[Path, ...] = ()
    options: tuple[str, ...] = ()
    debug: tuple[str, ...] = ()
    aotinductor: bool = False
    march: str = ""
    shards: int = 0


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
    build: Build


def write(contents: Contents, out: Path) -> None:
    """Writes a package, whole or not at all.

    Raises:
      PackageError: the parts do not belong together.
      ProgramError: a program is malformed.
      ProvenanceError: something that the statement tells cannot be found out.
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
    documents = _documents(contents, files)
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("wb") as stream:
            for path in (MANIFEST, STATEMENT, SBOM):
                data = documents[path]
                _add(stream, f"{name}/{path}", BytesIO(data), len(data))
            for path, source in sorted(files.items()):
                with source.open("rb") as content:
                    size = os.fstat(content.fileno()).st_size
                    _add(stream, f"{name}/{path}", content, size)
            stream.write(archive.end(stream.tell()))
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def _add(out: IO[bytes], name: str, content: IO[bytes], size: int) -> None:
    out.write(archive.header(name, size))
    begin = out.tell()
    shutil.copyfileobj(content, out, _CHUNK)
    if out.tell() - begin != size:
        raise PackageError(f"{name} changed while it was read: {size} bytes, then another number")
    out.write(bytes(-size % archive.BLOCK))


def _documents(contents: Contents, files: Mapping[str, Path]) -> dict[str, bytes]:
    """The three files that tell of the others: each has the digests of those before it."""
    loaded = _programs(contents)
    known = _facts(
        contents, {path: Fingerprint.of_file(source) for path, source in files.items()}, loaded
    )
    predicate = statement.predicate(known)
    sizes = {path: source.stat().st_size for path, source in files.items()}
    manifest = _encode(_manifest(contents, loaded, known, sizes, statement.digest(predicate)))
    everything = {**known.files, MANIFEST: Fingerprint.of(manifest)}
    bill = _encode(sbom.document(dataclasses.replace(known, files=everything)))
    everything[SBOM] = Fingerprint.of(bill)
    digests = {path: each.sha256 for path, each in everything.items()}
    stated = _encode(statement.statement(predicate, contents.name, digests))
    return {MANIFEST: manifest, SBOM: bill, STATEMENT: stated}


def _encode(document: Mapping[str, Any]) -> bytes:
    return programs.canonical_json(document).encode()


def _manifest(
    contents: Contents,
    loaded: Mapping[Target, Program],
    known: Facts,
    sizes: Mapping[str, int],
    provenance: str,
) -> dict[str, Any]:
    first = loaded[min(loaded)]
    weights = sorted(first.weights, key=lambda weight: weight.name)
    return {
        "schema_version": MANIFEST_VERSION,
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
        "weights": [
            {"name": weight.name, "dtype": weight.dtype, "shape": list(weight.shape)}
            for weight in weights
        ],
        "weights_digest": programs.weights_digest(weights),
        "files": {
            path: {"sha256": each.sha256, "size": sizes[path]} for path, each in known.files.items()
        },
        "provenance": provenance,
    }


def _facts(
    contents: Contents, files: Mapping[str, Fingerprint], loaded: Mapping[Target, Program]
) -> Facts:
    build = contents.build
    data = contents.library.read_bytes()
    read = library.read(data, str(contents.library))
    components = [
        facts.component(name, paths, __version__ if name == facts.RUNTIME else "")
        for name, paths in sorted(build.components.items())
    ]
    return Facts(
        name=contents.name,
        version=__version__,
        targets=tuple(sorted(str(target) for target in contents.targets)),
        options=tuple(sorted(build.options)),
        debug=tuple(sorted(build.debug)),
        aotinductor=build.aotinductor,
        march=build.march,
        shards=build.shards,
        files=files,
        graph=Fingerprint.of_file(build.graph),
        tuning=_fingerprints(build.tuning, "locks of tuning"),
        programs={str(target): Fingerprint.of_file(contents.programs[target]) for target in loaded},
        generated=_fingerprints(build.generated, "generated files"),
        components=tuple(components),
        locks=tuple(sorted((facts.lock(path) for path in build.locks), key=lambda lock: lock.name)),
        ptxas=None if build.ptxas is None else facts.assembler(build.ptxas),
        compilers=read.compilers,
        needed=read.needed,
        images=tuple(_images(contents, loaded, data)),
    )


def _fingerprints(paths: Iterable[Path], what: str) -> dict[str, Fingerprint]:
    found: dict[str, Fingerprint] = {}
    for path in paths:
        if path.name in found:
            raise PackageError(f"two {what} are called {path.name}")
        found[path.name] = Fingerprint.of_file(path)
    return found


def _images(contents: Contents, loaded: Mapping[Target, Program], data: bytes) -> Iterator[Image]:
    """The kernels of each target, and where the library has them."""
    for target in sorted(contents.targets, key=str):
        for kernel in sorted(loaded[target.lowering].kernels, key=lambda kernel: kernel.name):
            described = _compiled(target, kernel.name, contents.kernels)
            kind = str(json.loads(described.read_text(encoding="utf-8"))["format"])
            image = described.with_suffix(f".{kind}").read_bytes()
            offset = data.find(image + b"\0" if kind == "ptx" else image)
            if offset < 0:
                raise PackageError(
                    f"{contents.library} does not have the kernel {kernel.name} of {target}: is "
                    "it linked from these kernels?"
                )
            yield Image(str(target), kernel.name, kind, offset, len(image), Fingerprint.of(image))


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
    for kernel in program.kernels:
        found = _compiled(target, kernel.name, kernels)
        needed = max(needed, int(json.loads(found.read_text(encoding="utf-8"))["driver"]))
    return needed


def _compiled(target: Target, kernel: str, kernels: Iterable[Path]) -> Path:
    """What the compile step tells of a kernel: a file beside the image."""
    directories = tuple(kernels)
    paths = [each / str(target) / f"{kernel}.json" for each in directories]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise PackageError(
            f"kernel {kernel} for {target} is in none of the directories given: "
            f"{', '.join(map(str, directories))}"
        )
    return found
