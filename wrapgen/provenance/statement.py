"""The statement: an in-toto Statement v1 with a SLSA Provenance v1 predicate.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/provenance/v1

The subjects are all files of the package but the statement itself. The build it tells of begins
with the graph and the weights, which split makes: what stands before, such as a comment in the
model's source, changes no package. ``runDetails`` has no metadata, as times and invocations would
make two packages of one build differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from wrapgen.program import canonical_json
from wrapgen.provenance import library
from wrapgen.provenance.facts import (
    COMPONENTS,
    RUNTIME,
    Assembler,
    Component,
    Facts,
    Fingerprint,
    Image,
    Lock,
    Locked,
)

TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"

BUILD_TYPE: Final = "urn:rules-aoti:build:v1"
"""Of ``buildType``. docs/provenance.md says what the parameters are."""

BUILDER: Final = "urn:rules-aoti:wrapgen"

_GRAPH: Final = "graph.json"
_WEIGHTS: Final = "weights.safetensors"
_PROGRAM: Final = "program.json"

Json = dict[str, Any]


def statement(predicate: Json, name: str, files: Mapping[str, str]) -> Json:
    """Returns the statement about ``files``: SHA-256 by path below the package's folder."""
    return {
        "_type": TYPE,
        "subject": [
            {"name": f"{name}/{path}", "digest": {"sha256": digest}}
            for path, digest in sorted(files.items())
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }


def digest(predicate: Json) -> str:
    """The SHA-256 of a predicate's canonical JSON, which the package's manifest repeats: the
    predicate is no file, and nothing else in the package could tell that it was edited."""
    return hashlib.sha256(canonical_json(predicate).encode()).hexdigest()


def predicate(facts: Facts) -> Json:
    """Returns the predicate, a function of the facts but for the digests of the package's files."""
    internal: Json = {"march": facts.march} if facts.march else {}
    if facts.shards:
        internal["shards"] = facts.shards
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "aotinductor": facts.aotinductor,
                "debug": list(facts.debug),
                "name": facts.name,
                "options": list(facts.options),
                "targets": list(facts.targets),
            },
            "internalParameters": internal,
            "resolvedDependencies": list(_dependencies(facts)),
        },
        "runDetails": {
            "builder": {"id": BUILDER, "version": {"wrapgen": facts.version}},
            "byproducts": list(_byproducts(facts)),
        },
    }


def _dependencies(facts: Facts) -> Iterator[Json]:
    yield {"name": _GRAPH, "digest": {"sha256": facts.graph.sha256}}
    yield {"name": _WEIGHTS, "digest": {"sha256": facts.files[facts.weights].sha256}}
    for name, tuned in sorted(facts.tuning.items()):
        yield {"name": f"tuning/{name}", "digest": {"sha256": tuned.sha256}}
    for component in facts.components:
        yield {
            "name": component.name,
            "uri": f"{COMPONENTS[component.name].purl}@{version_of(component)}",
            "digest": {"dirHash": component.dir_hash},
        }
    if facts.ptxas is not None:
        yield {
            "name": "ptxas",
            "uri": f"pkg:generic/ptxas@{facts.ptxas.version}",
            "digest": {"sha256": facts.ptxas.sha256},
        }
    for comment in facts.compilers:
        name, version = library.tool(comment)
        yield {
            "name": "c++ compiler",
            "uri": f"pkg:generic/{name}" + (f"@{version}" if version else ""),
            "annotations": {"comment": comment},
        }
    for lock in facts.locks:
        yield {"name": f"locks/{lock.name}", "digest": {"sha256": lock.sha256}}
    for lock in facts.locks:
        for package in lock.packages:
            # A lock's hashes are of all files of a release, of which pip took one.
            annotations = {"lock": lock.name, "sha256": list(package.hashes)}
            entry: Json = {
                "name": f"python/{package.name}",
                "uri": purl(package),
                "annotations": annotations,
            }
            if len(package.hashes) == 1:
                entry["digest"] = {"sha256": package.hashes[0]}
            yield entry


def version_of(component: Component) -> str:
    """A component's version as its package URL has it: the tag of its repository."""
    on_github = COMPONENTS[component.name].purl.startswith("pkg:github/")
    return ("v" if on_github else "") + component.version


def purl(package: Locked) -> str:
    """Returns the package URL of a Python package."""
    return f"pkg:pypi/{package.name}@{package.version.replace('+', '%2B')}"


def _byproducts(facts: Facts) -> Iterator[Json]:
    for target, program in sorted(facts.programs.items()):
        yield {"name": f"{target}/{_PROGRAM}", "digest": {"sha256": program.sha256}}
    for name, source in sorted(facts.generated.items()):
        yield {"name": f"generated/{name}", "digest": {"sha256": source.sha256}}
    for image in facts.images:
        yield {
            "name": f"kernels/{image.path}",
            "digest": {"sha256": image.fingerprint.sha256},
            # Where the library has it.
            "annotations": {"offset": image.offset, "size": image.size},
        }


class MalformedError(ValueError):
    """A file of the package is not what the package step writes; the message says where."""


def parse(predicate: Any, files: Mapping[str, Fingerprint]) -> Facts:
    """Returns the facts that a predicate was written from: the inverse of ``predicate``.

    ``files`` are digests by SPDX's names of files, ``./...``, for what the predicate lacks: the
    SHA-1 of its files, and which files a component has. What the library and the package say
    themselves is in none of it: ``needed`` and ``files`` are empty.

    Raises:
      MalformedError: it is none.
    """
    try:
        return _parse(predicate, files)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise MalformedError(f"predicate: {type(error).__name__}: {error}") from error


def _parse(predicate: Any, files: Mapping[str, Fingerprint]) -> Facts:
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    external, internal = definition["externalParameters"], definition["internalParameters"]
    entries = {entry["name"]: entry for entry in definition["resolvedDependencies"]}
    products = {entry["name"]: entry for entry in details["byproducts"]}

    def known(path: str, entry: Json) -> Fingerprint:
        found = files.get(path, Fingerprint("", ""))
        return Fingerprint(str(entry["digest"]["sha256"]), found.sha1)

    images = []
    for name, entry in products.items():
        if not name.startswith("kernels/"):
            continue
        target, _, file = name.removeprefix("kernels/").partition("/")
        kernel, _, kind = file.rpartition(".")
        place = entry["annotations"]
        offset, size = _natural(place["offset"]), _natural(place["size"])
        images.append(Image(target, kernel, kind, offset, size, known(f"./{name}", entry)))

    def version(name: str) -> str:
        return str(entries[name]["uri"]).rpartition("@")[2]

    components = tuple(
        Component(
            name,
            version(name).removeprefix("" if name == RUNTIME else "v"),
            {
                path.removeprefix("./"): each
                for path, each in files.items()
                if path.startswith(f"./{kind.folder}/")
            },
        )
        for name, kind in sorted(COMPONENTS.items())
        if name in entries
    )
    ptxas = entries.get("ptxas")
    return Facts(
        name=str(external["name"]),
        version=str(details["builder"]["version"]["wrapgen"]),
        targets=_texts(external["targets"]),
        options=_texts(external["options"]),
        debug=_texts(external["debug"]),
        aotinductor=bool(external["aotinductor"]),
        march=str(internal.get("march", "")),
        shards=_natural(internal.get("shards", 0)),
        files={},
        graph=known("./build/graph.json", entries[_GRAPH]),
        tuning={
            name.removeprefix("tuning/"): known(f"./build/{name}", entry)
            for name, entry in entries.items()
            if name.startswith("tuning/")
        },
        programs={
            name.removesuffix(f"/{_PROGRAM}"): known(f"./build/{name}", entry)
            for name, entry in products.items()
            if name.endswith(f"/{_PROGRAM}")
        },
        generated={
            name.removeprefix("generated/"): known(f"./build/{name}", entry)
            for name, entry in products.items()
            if name.startswith("generated/")
        },
        components=components,
        locks=tuple(_locks(definition["resolvedDependencies"])),
        ptxas=Assembler(version("ptxas"), str(ptxas["digest"]["sha256"])) if ptxas else None,
        compilers=tuple(
            str(entry["annotations"]["comment"])
            for entry in definition["resolvedDependencies"]
            if entry["name"] == "c++ compiler"
        ),
        needed=(),
        images=tuple(images),
    )


def _locks(dependencies: list[Json]) -> Iterator[Lock]:
    for entry in dependencies:
        kind, _, name = str(entry["name"]).partition("/")
        if kind != "locks":
            continue
        packages = tuple(
            Locked(
                str(package["name"]).removeprefix("python/"),
                str(package["uri"]).rpartition("@")[2].replace("%2B", "+"),
                _texts(package["annotations"]["sha256"]),
            )
            for package in dependencies
            if package.get("annotations", {}).get("lock") == name
        )
        yield Lock(name, str(entry["digest"]["sha256"]), packages)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {value!r}")
    return tuple(str(each) for each in value)


def _natural(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"expected a number from 0 on, found {value!r}")
    return value
