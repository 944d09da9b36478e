"""What is told of a package: of what it is made, from what, and by which tools."""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_CHUNK: Final = 1 << 20


class ProvenanceError(ValueError):
    """Something that a statement must tell cannot be found out; the message says what."""


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Digests of a file's content, in lowercase hexadecimal. SPDX 2.3 demands a file's SHA-1;
    nothing here relies on it."""

    sha256: str
    sha1: str

    @classmethod
    def of(cls, data: bytes | memoryview | mmap.mmap) -> Fingerprint:
        """Returns the digests of some bytes."""
        sha1 = hashlib.sha1(data, usedforsecurity=False)
        return cls(hashlib.sha256(data).hexdigest(), sha1.hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Fingerprint:
        """Returns the digests of a file, which may be larger than memory."""
        sha256 = hashlib.sha256()
        sha1 = hashlib.sha1(usedforsecurity=False)
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                sha256.update(chunk)
                sha1.update(chunk)
        return cls(sha256.hexdigest(), sha1.hexdigest())


@dataclasses.dataclass(frozen=True)
class ComponentKind:
    """C++ that is compiled into every library.

    Its files are known by their path from ``folder`` on. ``license`` is an SPDX expression, or
    ``NOASSERTION``. ``purl`` lacks the version, which the macros ``version`` are defined as.
    """

    folder: str
    license: str
    purl: str
    homepage: str = ""
    version: tuple[str, ...] = ()


RUNTIME: Final = "runtime"

COMPONENTS: Final[dict[str, ComponentKind]] = {
    RUNTIME: ComponentKind("runtime", "NOASSERTION", "pkg:generic/rules_aoti-runtime"),
    "dlpack": ComponentKind(
        "dlpack",
        "Apache-2.0",
        "pkg:github/dmlc/dlpack",
        "https://github.com/dmlc/dlpack",
        ("DLPACK_MAJOR_VERSION", "DLPACK_MINOR_VERSION"),
    ),
    "nlohmann_json": ComponentKind(
        "nlohmann",
        "MIT",
        "pkg:github/nlohmann/json",
        "https://github.com/nlohmann/json",
        tuple(f"NLOHMANN_JSON_VERSION_{part}" for part in ("MAJOR", "MINOR", "PATCH")),
    ),
}
"""By name."""


@dataclasses.dataclass(frozen=True)
class Component:
    """One of ``COMPONENTS`` as it was built from: its files by path, ``dlpack/dlpack.h``."""

    name: str
    version: str
    files: Mapping[str, Fingerprint]

    @property
    def dir_hash(self) -> str:
        """What in-toto calls ``dirHash``: the SHA-256 of what ``sha256sum`` prints of the files,
        sorted by path."""
        lines = [f"{each.sha256}  {path}\n" for path, each in sorted(self.files.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Locked:
    """A Python package of a lock file. ``hashes`` are the SHA-256 of each file of the release that
    the lock lets pip take."""

    name: str
    version: str
    hashes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Lock:
    """A lock file in the form of pip's requirements."""

    name: str
    sha256: str
    packages: tuple[Locked, ...]


@dataclasses.dataclass(frozen=True)
class Assembler:
    """NVIDIA's ptxas."""

    version: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class Image:
    """A compiled kernel, and where its bytes are in the library."""

    target: str
    kernel: str
    format: str
    offset: int
    size: int
    fingerprint: Fingerprint

    @property
    def path(self) -> str:
        """As the compile step names the file: ``sm_90/KERNEL.cubin``."""
        return f"{self.target}/{self.kernel}.{self.format}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the statement and the bill of materials tell.

    ``files`` are those of the package by path below its folder, without the two themselves;
    ``generated`` those of the wrap step by name, ``programs`` by target, ``tuning`` locks of tuning
    by name. ``march`` is empty and ``shards`` 0 where nobody said. ``compilers`` is what the
    library's ``.comment`` says, ``needed`` the libraries that it is linked with at run time.
    """

    name: str
    version: str
    targets: tuple[str, ...]
    options: tuple[str, ...]
    debug: tuple[str, ...]
    aotinductor: bool
    march: str
    shards: int
    files: Mapping[str, Fingerprint]
    graph: Fingerprint
    tuning: Mapping[str, Fingerprint]
    programs: Mapping[str, Fingerprint]
    generated: Mapping[str, Fingerprint]
    components: tuple[Component, ...]
    locks: tuple[Lock, ...]
    ptxas: Assembler | None
    compilers: tuple[str, ...]
    needed: tuple[str, ...]
    images: tuple[Image, ...]

    @property
    def library(self) -> str:
        """The library's path below the package's folder."""
        return f"lib/lib{self.name}.so"

    @property
    def weights(self) -> str:
        """The weights' path below the package's folder."""
        return f"{self.name}.safetensors"


def component(name: str, paths: Sequence[Path], version: str = "") -> Component:
    """Reads a component's files. A version that is not given is looked for in them.

    Raises:
      ProvenanceError: the component is none of ``COMPONENTS``, a file is not below its folder, or
        no version is found.
    """
    if name not in COMPONENTS:
        raise ProvenanceError(f"unknown component {name!r}: known are {', '.join(COMPONENTS)}")
    folder = COMPONENTS[name].folder
    files: dict[str, Path] = {}
    for path in paths:
        _, found, rest = f"/{path.as_posix()}".rpartition(f"/{folder}/")
        if not found:
            raise ProvenanceError(f"{path}: a file of {name} is below a directory {folder}/")
        if files.setdefault(f"{folder}/{rest}", path) != path:
            raise ProvenanceError(f"two files of {name} are called {folder}/{rest}")
    if not files:
        raise ProvenanceError(f"{name}: no file is given")
    if not version:
        version = _version_in(name, files)
    fingerprints = {key: Fingerprint.of_file(path) for key, path in sorted(files.items())}
    return Component(name, version, fingerprints)


def _version_in(name: str, files: Mapping[str, Path]) -> str:
    text = "\n".join(path.read_text(encoding="utf-8") for _, path in sorted(files.items()))
    defined = dict(re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(\d+)\b", text, re.MULTILINE))
    macros = COMPONENTS[name].version
    if macros and all(macro in defined for macro in macros):
        return ".".join(defined[macro] for macro in macros)
    if name == "dlpack" and "DLPACK_VERSION" in defined:
        return f"0.{int(defined['DLPACK_VERSION']) // 10}"  # before 1.0: 60 is 0.6
    raise ProvenanceError(
        f"{name}: its files do not say which version they are: expected {', '.join(macros)}"
    )


_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.+!_-]*)")
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})\b")


def lock(path: Path) -> Lock:
    """Reads a lock file of pip's.

    Raises:
      ProvenanceError: a line is no requirement of one version, or has no hash.
    """
    data = path.read_bytes()
    packages = []
    text = data.decode("utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        match = _REQUIREMENT.match(entry)
        hashes = _HASH.findall(entry)
        if not match or not hashes:
            raise ProvenanceError(
                f"{path}: {entry[:60]!r}: expected NAME==VERSION with at least one "
                "--hash=sha256:..., as tools/python/lock.py writes"
            )
        name = re.sub(r"[-_.]+", "-", match[1]).lower()  # as package URLs spell it
        packages.append(Locked(name, match[2], tuple(sorted(hashes))))
    ordered = tuple(sorted(packages, key=lambda package: package.name))
    return Lock(path.name, hashlib.sha256(data).hexdigest(), ordered)


_PTXAS_VERSION: Final = re.compile(rb"Cuda compilation tools, release [0-9.]+, V([0-9.]+)")


def assembler(path: Path) -> Assembler:
    """Reads which version a ptxas says it is, without running it.

    Raises:
      ProvenanceError: it says none.
    """
    data = path.read_bytes()
    match = _PTXAS_VERSION.search(data)
    if not match:
        raise ProvenanceError(f"{path}: no ptxas: it does not say which CUDA release it is of")
    return Assembler(match[1].decode(), hashlib.sha256(data).hexdigest())
