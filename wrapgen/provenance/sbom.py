"""The bill of materials: an SPDX 2.3 document in JSON.

https://spdx.github.io/spdx-spec/v2.3/. It describes the package, what the library in it is made of
(generated code, the runtime, C++ of others, kernels), what it needs at run time and the tools that
made it. Files that are not in the package have names that begin with what they are:
``./build/graph.json``, ``./kernels/sm_90/...``, ``./runtime/...``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from wrapgen.program import canonical_json
from wrapgen.provenance import SBOM, STATEMENT, library
from wrapgen.provenance.facts import COMPONENTS, RUNTIME, Facts, Fingerprint, Locked
from wrapgen.provenance.statement import MalformedError, purl, version_of

CREATED: Final = "1970-01-01T00:00:00Z"
"""SPDX demands a time. That of the build would make two packages of one build differ, so it is the
one that all files of the archive have, SOURCE_DATE_EPOCH=0."""

NAMESPACE: Final = "https://spdx.org/spdxdocs/"
"""SPDX's own, for documents that are published nowhere. The package's name and the digest of the
document's content stand behind it."""

TOOLS: Final = ("torch", "triton")
"""Python packages that make what is in the library. The others are what these and wrapgen need."""

COMPILED_IN: Final = ("nvidia-nvtx",)
"""Python packages that bring C++ headers."""

Json = dict[str, Any]


class _Ids:
    """SPDX's identifiers: one for each key, letters, digits, dots and hyphens alone."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()

    def __call__(self, kind: str, name: str) -> str:
        if (kind, name) not in self._ids:
            plain = f"SPDXRef-{kind}-{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')}"
            found, number = plain, 1
            while found in self._taken:
                number += 1
                found = f"{plain}-{number}"
            self._taken.add(found)
            self._ids[kind, name] = found
        return self._ids[kind, name]


class _Writer:
    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.id = _Ids()
        self.packages: list[Json] = []
        self.files: list[Json] = []
        self.relationships: list[Json] = []
        self.root = self.id("Package", facts.name)

    def relate(self, source: str, kind: str, target: str, comment: str = "") -> None:
        entry = {
            "spdxElementId": source,
            "relationshipType": kind,
            "relatedSpdxElement": target,
        }
        if comment:
            entry["comment"] = comment
        self.relationships.append(entry)

    def file(self, name: str, fingerprint: Fingerprint, kind: str, **fields: Any) -> str:
        spdx_id = self.id("File", name)
        self.files.append(
            {
                "SPDXID": spdx_id,
                "fileName": f"./{name}",
                "fileTypes": [kind],
                "checksums": [
                    {"algorithm": "SHA1", "checksumValue": fingerprint.sha1},
                    {"algorithm": "SHA256", "checksumValue": fingerprint.sha256},
                ],
                "licenseConcluded": "NOASSERTION",
                "licenseInfoInFiles": ["NOASSERTION"],
                "copyrightText": "NOASSERTION",
                **fields,
            }
        )
        return spdx_id

    def package(
        self,
        key: str,
        name: str,
        purpose: str,
        *,
        version: str = "",
        url: str = "",
        license_name: str = "NOASSERTION",
        files: Iterable[Fingerprint] | None = None,
        **fields: Any,
    ) -> str:
        spdx_id = self.id("Package", key)
        entry: Json = {
            "SPDXID": spdx_id,
            "name": name,
            "primaryPackagePurpose": purpose,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": files is not None,
            "licenseConcluded": license_name,
            "licenseDeclared": license_name,
            "copyrightText": "NOASSERTION",
            **fields,
        }
        if version:
            entry["versionInfo"] = version
        if url:
            entry["externalRefs"] = [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": url,
                }
            ]
        if files is not None:
            code: Json = {"packageVerificationCodeValue": verification_code(files)}
            if key == self.facts.name:
                code["packageVerificationCodeExcludedFiles"] = [
                    f"./{key}/{path}" for path in (STATEMENT, SBOM)
                ]
            entry["packageVerificationCode"] = code
            entry["licenseInfoFromFiles"] = ["NOASSERTION"]
        self.packages.append(entry)
        return spdx_id


def verification_code(files: Iterable[Fingerprint]) -> str:
    """SPDX's package verification code: the SHA-1 of the files' SHA-1s, sorted, one after another
    (SPDX 2.3, 7.9)."""
    joined = "".join(sorted(each.sha1 for each in files))
    return hashlib.sha1(joined.encode(), usedforsecurity=False).hexdigest()


def document(facts: Facts) -> Json:
    """Returns the bill of materials, a function of the facts."""
    writer = _Writer(facts)
    main = _write_package(writer)
    _write_sources(writer, main)
    _write_components(writer, main)
    _write_images(writer, main)
    _write_needed(writer, main)
    _write_tools(writer)
    _write_locked(writer, main)
    body: Json = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{facts.name}.package",
        "creationInfo": {
            "created": CREATED,
            "creators": [f"Tool: wrapgen-{facts.version}"],
            "comment": "The time is a constant: equal content has an equal document.",
        },
        "packages": writer.packages,
        "files": writer.files,
        "relationships": writer.relationships,
    }
    digest = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    return {**body, "documentNamespace": f"{NAMESPACE}{facts.name}-{digest}"}


def _write_package(writer: _Writer) -> str:
    """The package and its files; returns the library's id."""
    facts = writer.facts
    writer.package(
        facts.name,
        facts.name,
        "LIBRARY",
        files=facts.files.values(),
        packageFileName=f"{facts.name}.tar",
    )
    writer.relate("SPDXRef-DOCUMENT", "DESCRIBES", writer.root)
    for path, fingerprint in sorted(facts.files.items()):
        kind = {".h": "SOURCE", ".so": "BINARY", ".json": "TEXT"}.get(
            path[path.rfind(".") :], "OTHER"
        )
        spdx_id = writer.file(f"{facts.name}/{path}", fingerprint, kind)
        writer.relate(writer.root, "CONTAINS", spdx_id)
        if path == facts.weights:
            writer.relate(spdx_id, "DATA_FILE_OF", writer.root)
    return writer.id("File", f"{facts.name}/{facts.library}")


def _write_sources(writer: _Writer, main: str) -> None:
    facts = writer.facts
    graph = writer.file("build/graph.json", facts.graph, "SOURCE")
    for name, tuned in sorted(facts.tuning.items()):
        spdx_id = writer.file(f"build/tuning/{name}", tuned, "SOURCE")
        writer.relate(main, "GENERATED_FROM", spdx_id)
    for target, program in sorted(facts.programs.items()):
        spdx_id = writer.file(f"build/{target}/program.json", program, "SOURCE")
        writer.relate(spdx_id, "GENERATED_FROM", graph)
        writer.relate(main, "GENERATED_FROM", spdx_id)
    for name, source in sorted(facts.generated.items()):
        spdx_id = writer.file(f"build/generated/{name}", source, "SOURCE")
        writer.relate(main, "GENERATED_FROM", spdx_id)


def _write_components(writer: _Writer, main: str) -> None:
    for component in writer.facts.components:
        kind = COMPONENTS[component.name]
        fields = {"homepage": kind.homepage} if kind.homepage else {}
        spdx_id = writer.package(
            f"component-{component.name}",
            "rules_aoti-runtime" if component.name == RUNTIME else component.name,
            "SOURCE",
            version=component.version,
            url=f"{kind.purl}@{version_of(component)}",
            license_name=kind.license,
            files=component.files.values(),
            **fields,
        )
        writer.relate(main, "STATIC_LINK", spdx_id)
        for path, fingerprint in sorted(component.files.items()):
            writer.relate(spdx_id, "CONTAINS", writer.file(path, fingerprint, "SOURCE"))


def _write_images(writer: _Writer, main: str) -> None:
    for image in writer.facts.images:
        kind = "TEXT" if image.format == "ptx" else "BINARY"
        comment = f"{image.size} bytes from byte {image.offset} of the library on"
        spdx_id = writer.file(f"kernels/{image.path}", image.fingerprint, kind, comment=comment)
        writer.relate(main, "CONTAINS", spdx_id)


def _write_needed(writer: _Writer, main: str) -> None:
    """What the loader finds, and the driver, which the runtime finds."""
    for name in writer.facts.needed:
        spdx_id = writer.package(f"needed-{name}", name, "LIBRARY")
        writer.relate(main, "DYNAMIC_LINK", spdx_id)
    amds = any(target.startswith("gfx") for target in writer.facts.targets)
    driver = "libamdhip64.so.6" if amds else "libcuda.so.1"
    spdx_id = writer.package(f"driver-{driver}", driver, "LIBRARY")
    writer.relate(
        spdx_id,
        "RUNTIME_DEPENDENCY_OF",
        writer.root,
        "loaded by dlopen; manifest.json has its least version",
    )


def _write_tools(writer: _Writer) -> None:
    facts = writer.facts
    tool = writer.package(
        "tool-wrapgen",
        "wrapgen",
        "APPLICATION",
        version=facts.version,
        url=f"pkg:generic/wrapgen@{facts.version}",
    )
    writer.relate(tool, "BUILD_TOOL_OF", writer.root)
    if facts.ptxas is not None:
        tool = writer.package(
            "tool-ptxas",
            "ptxas",
            "APPLICATION",
            version=facts.ptxas.version,
            url=f"pkg:generic/ptxas@{facts.ptxas.version}",
            checksums=[{"algorithm": "SHA256", "checksumValue": facts.ptxas.sha256}],
        )
        writer.relate(tool, "BUILD_TOOL_OF", writer.root)
    for comment in facts.compilers:
        name, version = library.tool(comment)
        tool = writer.package(
            f"tool-{comment}",
            name,
            "APPLICATION",
            version=version,
            url=f"pkg:generic/{name}" + (f"@{version}" if version else ""),
            comment=f"The library's .comment: {comment}",
        )
        writer.relate(tool, "BUILD_TOOL_OF", writer.root)


def _write_locked(writer: _Writer, main: str) -> None:
    wrapgen = writer.id("Package", "tool-wrapgen")
    for lock in writer.facts.locks:
        for package in lock.packages:
            spdx_id = _write_python(writer, lock.name, package)
            if package.name in TOOLS:
                writer.relate(spdx_id, "BUILD_TOOL_OF", writer.root)
            elif package.name in COMPILED_IN:
                writer.relate(main, "STATIC_LINK", spdx_id, "its headers")
            else:
                writer.relate(spdx_id, "BUILD_DEPENDENCY_OF", wrapgen)


def _write_python(writer: _Writer, lock: str, package: Locked) -> str:
    fields: Json = {"comment": f"Of {lock}."}
    if len(package.hashes) == 1:
        fields["checksums"] = [{"algorithm": "SHA256", "checksumValue": package.hashes[0]}]
    else:
        fields["comment"] += (
            f" The lock has the hashes of {len(package.hashes)} files of the release."
        )
    return writer.package(
        f"python-{package.name}",
        package.name,
        "LIBRARY",
        version=package.version,
        url=purl(package),
        **fields,
    )


def fingerprints(found: Any) -> Mapping[str, Fingerprint]:
    """Returns the digests of all files of a document by their names, ``./...``.

    Raises:
      MalformedError: it is none.
    """
    try:
        return dict(_fingerprints(found))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MalformedError(f"files: {type(error).__name__}: {error}") from error


def _fingerprints(found: Any) -> Iterator[tuple[str, Fingerprint]]:
    for file in found["files"]:
        digests = {each["algorithm"]: str(each["checksumValue"]) for each in file["checksums"]}
        yield str(file["fileName"]), Fingerprint(digests["SHA256"], digests["SHA1"])
