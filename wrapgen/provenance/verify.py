"""``wrapgen verify``: recomputes what a package says of itself.

Digests are taken of the bytes that are there; statement and bill of materials are written again
from these and from what the statement says of the rest, and must come out the same. What this does
not show is who wrote the package: docs/provenance.md says how to sign the statement.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from wrapgen.dtype import INFO, DType
from wrapgen.program import IDENTIFIER, Weight, canonical_json, weights_digest
from wrapgen.provenance import (
    MANIFEST,
    MANIFEST_VERSION,
    SBOM,
    STATEMENT,
    archive,
    library,
    sbom,
    statement,
)
from wrapgen.provenance.archive import Archive, ArchiveError
from wrapgen.provenance.facts import Facts, Fingerprint, Image, ProvenanceError
from wrapgen.provenance.statement import MalformedError

_MAX_DOCUMENT: Final = 64 << 20
"""Bytes of a JSON file; those of the largest models here have less than a hundredth."""

_MAX_LINES: Final = 50
"""Of a report as text."""

_MAX_DIFFERENCES: Final = 1000
"""Of one document that are told: enough to see that it is another one."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """One thing that is not as expected. ``file`` is a path in the archive, or empty for the
    archive itself; ``what`` says which property of it."""

    file: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        place = f"{self.file}: " if self.file else ""
        return f"{place}{self.what}: expected {self.expected}, found {self.found}"


@dataclasses.dataclass(frozen=True)
class Report:
    """What was looked at, and what is not as expected."""

    package: str
    name: str
    files: int
    images: int
    differences: tuple[Difference, ...]

    @property
    def verified(self) -> bool:
        """Whether all is as expected."""
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        """Returns the report as plain JSON values."""
        return {**dataclasses.asdict(self), "verified": self.verified}

    def __str__(self) -> str:
        if self.verified:
            return f"{self.package}: verified: {self.files} files, {self.images} kernel images"
        lines = [f"{self.package}: {len(self.differences)} difference(s)"]
        lines += [f"  {difference}" for difference in self.differences[:_MAX_LINES]]
        if len(self.differences) > _MAX_LINES:
            lines.append(f"  and {len(self.differences) - _MAX_LINES} more, which --json lists")
        return "\n".join(lines)


def verify(path: Path) -> Report:
    """Checks a package. Whatever the file holds, a report is the result.

    Raises:
      OSError: the file cannot be read.
    """
    try:
        with archive.opened(path) as opened:
            check = _Check(opened)
            check.run()
            return Report(
                str(path), check.name, len(opened.members), check.images, tuple(check.differences)
            )
    except ArchiveError as error:
        difference = Difference("", "archive", "a package as wrapgen package writes it", str(error))
        return Report(str(path), "", 0, 0, (difference,))


class _Check:
    def __init__(self, opened: Archive) -> None:
        self._archive = opened
        self.differences = [
            Difference(odd.name, odd.what, odd.expected, odd.found) for odd in opened.oddities
        ]
        self.name = next(iter(opened.members), "").partition("/")[0]
        self.images = 0
        self._found: dict[str, Fingerprint] = {}

    def _differ(self, path: str, what: str, expected: Any, found: Any) -> None:
        file = f"{self.name}/{path}" if path else ""
        self.differences.append(Difference(file, what, _short(expected), _short(found)))

    def run(self) -> None:
        """Checks all that can be checked; what rests on a file that is not there is left out."""
        if not IDENTIFIER.match(self.name):
            self._differ("", "folder", "a C identifier, the model's name", self.name)
            return
        self._check_names()
        for member in self._archive.members:
            folder, _, path = member.partition("/")
            if folder == self.name:
                with self._archive.view(member) as view:
                    self._found[path] = Fingerprint.of(view)
        manifest = self._document(MANIFEST)
        stated = self._document(STATEMENT)
        bill = self._document(SBOM)
        if manifest is not None:
            self._check_manifest(manifest)
        if stated is None or bill is None:
            return
        predicate = stated.get("predicate")
        if manifest is not None:
            self._check_predicate(manifest, predicate)
        try:
            facts = statement.parse(predicate, sbom.fingerprints(bill))
        except MalformedError as error:
            self._differ(STATEMENT, "content", "what the package step writes", error)
            self._check_subjects(stated)
            return
        self._check_documents(manifest or {}, self._recompute(facts), stated, bill)

    def _check_names(self) -> None:
        name = self.name
        required = [
            MANIFEST,
            STATEMENT,
            SBOM,
            f"include/{name}/model.h",
            f"lib/lib{name}.so",
            f"{name}.safetensors",
        ]
        found = list(self._archive.members)
        for path in required:
            if f"{name}/{path}" not in found:
                self._differ(path, "file", "in the archive", "none")
        known = {f"{name}/{path}" for path in required}
        for member in found:
            headers = f"{name}/include/runtime/"
            file = member.removeprefix(headers)
            is_header = member.startswith(headers) and "/" not in file and file.endswith(".h")
            if member not in known and not is_header:
                self.differences.append(Difference(member, "file", "none", "in the archive"))
        first = [f"{name}/{path}" for path in (MANIFEST, STATEMENT, SBOM)]
        order = [member for member in first if member in found]
        order += sorted(set(found) - set(first))
        if found != order:
            misplaced = next(
                i for i, pair in enumerate(zip(found, order, strict=True)) if pair[0] != pair[1]
            )
            self._differ("", f"member {misplaced}", order[misplaced], found[misplaced])

    def _document(self, path: str) -> dict[str, Any] | None:
        """A JSON file, or ``None`` where it is missing or no canonical JSON object."""
        member = self._archive.members.get(f"{self.name}/{path}")
        if member is None:
            return None
        if member.size > _MAX_DOCUMENT:
            self._differ(path, "size", f"at most {_MAX_DOCUMENT} bytes", f"{member.size} bytes")
            return None
        data = self._archive.read(member.name)
        try:
            value = json.loads(data.decode("utf-8"))
            same = canonical_json(value).encode("utf-8") == data
        except (ValueError, RecursionError) as error:
            self._differ(path, "content", "JSON", error)
            return None
        if not isinstance(value, dict):
            self._differ(path, "content", "a JSON object", type(value).__name__)
            return None
        if not same:
            self._differ(path, "spelling", "canonical JSON, as docs/provenance.md says", "another")
        return value

    # The manifest.

    def _check_manifest(self, manifest: Mapping[str, Any]) -> None:
        if manifest.get("schema_version") != MANIFEST_VERSION:
            self._differ(
                MANIFEST, "schema_version", MANIFEST_VERSION, manifest.get("schema_version")
            )
        if manifest.get("name") != self.name:
            self._differ(MANIFEST, "name", f"{self.name}, the folder's", manifest.get("name"))
        others = (MANIFEST, STATEMENT, SBOM)
        actual = {
            path: {"sha256": each.sha256, "size": self._archive.members[f"{self.name}/{path}"].size}
            for path, each in self._found.items()
            if path not in others
        }
        self._compare(MANIFEST, actual, manifest.get("files"), "files")
        try:
            weights = [_weight(entry) for entry in manifest["weights"]]
        except (KeyError, TypeError, ValueError) as error:
            self._differ(MANIFEST, "weights", "names, dtypes and shapes", repr(error))
            return
        digest = weights_digest(weights)
        self._compare(MANIFEST, digest, manifest.get("weights_digest"), "weights_digest")
        self._check_weights(weights)
        self._check_library_of(manifest, digest)

    def _check_weights(self, weights: list[Weight]) -> None:
        """The file has all weights that the library takes; it may have more."""
        path = f"{self.name}.safetensors"
        if path not in self._found:
            return
        with self._archive.view(f"{self.name}/{path}") as view:
            length = int.from_bytes(view[:8], "little")
            text = bytes(view[8 : 8 + min(length, _MAX_DOCUMENT)])
        try:
            tensors = json.loads(text.decode("utf-8"))
            found = {
                name: (each["dtype"], each["shape"])
                for name, each in tensors.items()
                if name != "__metadata__"
            }
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            self._differ(path, "header", "that of a safetensors file", error)
            return
        for weight in weights:
            expected = (INFO[weight.dtype].safetensors, list(weight.shape))
            if found.get(weight.name) != expected:
                self._differ(
                    path,
                    f"tensor {weight.name}",
                    _tensor(expected),
                    _tensor(found.get(weight.name)),
                )

    def _check_library_of(self, manifest: Mapping[str, Any], digest: str) -> None:
        """What the library says of its weights and its targets."""
        path = f"lib/lib{self.name}.so"
        if path not in self._found:
            return
        data = self._archive.read(f"{self.name}/{path}")
        if digest.encode() + b"\0" not in data:
            self._differ(path, "weights digest in it", digest, "none such")
        targets = manifest.get("targets")
        for target in sorted(targets) if isinstance(targets, dict) else ():
            if str(target).encode() + b"\0" not in data:
                self._differ(path, "code in it", f"for {target}", "none")

    # Statement and bill of materials.

    def _check_predicate(self, manifest: Mapping[str, Any], predicate: Any) -> None:
        digest = statement.digest(predicate)
        if manifest.get("provenance") != digest:
            self._differ(STATEMENT, "digest of its predicate", manifest.get("provenance"), digest)

    def _subjects(self) -> dict[str, str]:
        return {path: each.sha256 for path, each in self._found.items() if path != STATEMENT}

    def _check_subjects(self, stated: Mapping[str, Any]) -> None:
        expected = statement.statement({}, self.name, self._subjects())
        self._compare(STATEMENT, expected["subject"], stated.get("subject"), "subject")

    def _recompute(self, facts: Facts) -> Facts:
        """The facts, with what the package's own bytes tell in the place of what is stated."""
        excluded = (STATEMENT, SBOM)
        files = {path: each for path, each in self._found.items() if path not in excluded}
        nothing = Fingerprint("", "")
        files.setdefault(f"{self.name}.safetensors", nothing)
        facts = dataclasses.replace(facts, name=self.name, files=files)
        if facts.library not in self._found:
            return facts
        data = self._archive.read(f"{self.name}/{facts.library}")
        self.images = len(facts.images)
        images = tuple(self._recompute_image(image, data) for image in facts.images)
        listed = {image.offset for image in images}
        for offset in library.gpu_images(data):
            if offset not in listed:
                self._differ(
                    facts.library, f"byte {offset}", "no kernel image", "one that is not stated"
                )
        try:
            read = library.read(data, facts.library)
        except ProvenanceError as error:
            self._differ(facts.library, "content", "an ELF shared library", error)
            return dataclasses.replace(facts, images=images)
        self._compare(facts.library, f"lib{self.name}.so", read.soname, "SONAME")
        if f"{self.name}_description" not in read.symbols:
            self._differ(facts.library, "exports", f"{self.name}_description", "none such")
        return dataclasses.replace(
            facts, images=images, compilers=read.compilers, needed=read.needed
        )

    def _recompute_image(self, image: Image, data: bytes) -> Image:
        found = data[image.offset : image.offset + image.size]
        path = f"lib/lib{self.name}.so"
        if len(found) != image.size:
            self._differ(path, f"kernel {image.path}", f"{image.size} bytes", f"{len(found)} bytes")
        if image.format == "ptx":
            whole = data[image.offset + image.size : image.offset + image.size + 1] == b"\0"
            if not whole:
                self._differ(path, f"kernel {image.path}", "a zero behind its text", "none")
        return dataclasses.replace(image, fingerprint=Fingerprint.of(found))

    def _check_documents(
        self,
        manifest: Mapping[str, Any],
        facts: Facts,
        stated: dict[str, Any],
        bill: dict[str, Any],
    ) -> None:
        targets = manifest.get("targets")
        if isinstance(targets, dict):
            self._compare(STATEMENT, sorted(targets), sorted(facts.targets), "targets")
        predicate = statement.predicate(facts)
        self._compare(
            STATEMENT, statement.statement(predicate, self.name, self._subjects()), stated, ""
        )
        self._compare(SBOM, sbom.document(facts), bill, "")

    def _compare(self, path: str, expected: Any, found: Any, where: str) -> None:
        for number, (place, ours, theirs) in enumerate(_unequal(expected, found, where)):
            if number == _MAX_DIFFERENCES:
                self._differ(path, "differences", f"none behind these {number}", "more")
                return
            self._differ(path, place or "content", ours, theirs)


def _weight(entry: Any) -> Weight:
    return Weight(
        name=str(entry["name"]),
        dtype=DType(entry["dtype"]),
        shape=tuple(int(size) for size in entry["shape"]),
    )


def _tensor(found: tuple[str, list[int]] | None) -> str:
    return "none" if found is None else f"{found[0]} {found[1]}"


_ABSENT: Final = object()


def _unequal(expected: Any, found: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Yields each place where two JSON values differ, and the values there."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*expected, *found}):
            place = f"{where}.{key}" if where else str(key)
            yield from _unequal(expected.get(key, _ABSENT), found.get(key, _ABSENT), place)
    elif isinstance(expected, list) and isinstance(found, list):
        yield from _unequal_lists(expected, found, where)
    elif type(expected) is not type(found) or expected != found:
        yield where, expected, found


def _unequal_lists(
    expected: list[Any], found: list[Any], where: str
) -> Iterator[tuple[str, Any, Any]]:
    """By what their items are called, so that one that is missing is one difference."""
    names = [[_name(item, i) for i, item in enumerate(items)] for items in (expected, found)]
    if any(len(set(each)) < len(each) for each in names):
        names = [[str(i) for i in range(len(items))] for items in (expected, found)]
    ours, theirs = (
        dict(zip(each, items, strict=True))
        for each, items in zip(names, (expected, found), strict=True)
    )
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        yield from _unequal(ours.get(name, _ABSENT), theirs.get(name, _ABSENT), f"{where}[{name}]")
    if names[0] != names[1] and set(names[0]) == set(names[1]):
        i = next(i for i, (one, other) in enumerate(zip(*names, strict=True)) if one != other)
        yield f"{where}: item {i}", names[0][i], names[1][i]


_NAMES: Final = (
    ("SPDXID",),
    ("spdxElementId", "relationshipType", "relatedSpdxElement"),
    ("name",),
    ("algorithm",),
)
"""Fields that tell an item of a list from the others."""


def _name(item: Any, i: int) -> str:
    if isinstance(item, dict):
        for fields in _NAMES:
            if all(isinstance(item.get(field), str) for field in fields):
                return " ".join(item[field] for field in fields)
    return str(i)


def _short(value: Any) -> str:
    if value is _ABSENT or value is None:
        return "none"
    text = value if isinstance(value, str) else str(value)
    text = ascii(text)[1:-1] if not text.isprintable() else text
    return text if len(text) <= 200 else f"{text[:200]}..."
