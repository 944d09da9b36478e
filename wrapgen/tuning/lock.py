"""The tuning lock: which configuration a kernel gets where one was measured to be faster.

A lock is a file in the source tree, an input of lowering, as a lock of Python requirements is one
of an installation. docs/tuning.md describes it. It names sites by what they compute, not by where
they are in the model, so that an edit elsewhere leaves its entries alone. What was measured is
there for whoever reviews the file; nothing that is built depends on it.

Files are canonical JSON: keys sorted, two spaces of indentation, UTF-8, one final newline. A file
that somebody edited need not be canonical to be read.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from wrapgen.target import KNOWN

SCHEMA_VERSION: Final = 1
"""Raised by one whenever a reader of the previous version could misread a file."""

Config = dict[str, int]
"""A configuration: block sizes, ``num_warps`` and so on by their names; what is true or
false is 1 or 0."""

ADVICE: Final = "run `bazel run :NAME.tune` on a machine with the GPU again, or remove the entry"
"""What to do about an entry that cannot be used."""


class LockError(ValueError):
    """A malformed lock, or an entry that cannot be used. The message names file and entry, says
    what was expected, what came, and what to do."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """What an entry rests on: times of the default configuration and of the entry's, in
    nanoseconds; the device's name, and its driver's CUDA version, 12080 for 12.8."""

    device: str
    driver: int
    default_ns: int
    best_ns: int


@dataclasses.dataclass(frozen=True)
class Entry:
    """One site's configuration. ``measured`` is ``None`` where somebody wrote it by hand."""

    config: Config
    measured: Measured | None = None


@dataclasses.dataclass(frozen=True)
class Lock:
    """Entries by target (``sm_90``, for ``compute_90`` as well) and by site."""

    targets: Mapping[str, Mapping[str, Entry]] = dataclasses.field(default_factory=dict)

    def entries(self, target: str) -> Mapping[str, Entry]:
        """Those of one target; none where the lock has nothing for it."""
        return self.targets.get(target, {})

    def with_entries(self, target: str, entries: Mapping[str, Entry]) -> Lock:
        """The same lock with other entries for one target."""
        targets = {**self.targets, target: dict(entries)}
        return Lock({name: found for name, found in targets.items() if found})


def load(path: Path) -> Lock:
    """Reads a lock; raises ``LockError`` that lists every fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LockError(f"{path}: not UTF-8 text: {error}") from error
    return loads(text, where=str(path))


def loads(text: str, *, where: str) -> Lock:
    """Parses a lock; ``where`` begins each message."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise LockError(f"{where}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise LockError(f"{where}: expected a JSON object, got {_shown(value)}")
    version = value.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise LockError(
            f"{where}: schema_version is {_shown(version)}, this wrapgen reads {SCHEMA_VERSION}: "
            "tune again with this version"
        )
    faults = list(_faults(value))
    if faults:
        raise LockError("\n".join(f"{where}: {fault}" for fault in faults))
    return Lock(
        {
            target: {site: _entry(entry) for site, entry in entries.items()}
            for target, entries in value["targets"].items()
        }
    )


def dumps(lock: Lock) -> str:
    """Serialises a lock as canonical JSON."""
    targets: dict[str, Any] = {}
    for target, entries in lock.targets.items():
        targets[target] = {}
        for site, entry in entries.items():
            targets[target][site] = {"config": entry.config}
            if entry.measured is not None:
                targets[target][site]["measured"] = dataclasses.asdict(entry.measured)
    value = {"schema_version": SCHEMA_VERSION, "targets": targets}
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(lock: Lock, path: Path) -> None:
    """Writes a lock in the place of the one that is there, whole or not at all.

    A link stays a link: what it points to is replaced.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(dumps(lock))
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes a dict of a JSON object; refuses one key twice, of which only one would count."""
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"key {twice!r} occurs twice in one object")
    return value


_MEASURED: Final = {"best_ns": int, "default_ns": int, "device": str, "driver": int}


def _faults(value: Mapping[str, Any]) -> Iterator[str]:
    yield from _fields(value, "top level", {"schema_version", "targets"})
    if "targets" in value:
        yield from _target_faults(value["targets"])


def _target_faults(targets: Any) -> Iterator[str]:
    if not isinstance(targets, dict):
        yield f"targets: expected an object, got {_shown(targets)}"
        return
    for target, entries in targets.items():
        known = KNOWN.get(target)
        if known is None or known.lowering != known:
            lowered = [str(each) for each in KNOWN.values() if each.lowering == each]
            shares = f", which shares {known.lowering}'s entries" if known is not None else ""
            yield f"targets.{target}: expected one of {', '.join(lowered)}, got {target}{shares}"
        elif not isinstance(entries, dict):
            yield f"targets.{target}: expected an object, got {_shown(entries)}"
        else:
            for site, entry in entries.items():
                yield from _entry_faults(entry, f"targets.{target}[{json.dumps(site)}]")


def _entry_faults(entry: Any, at: str) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"{at}: expected an object, got {_shown(entry)}; {ADVICE}"
        return
    yield from _fields(entry, at, {"config"}, {"measured"})
    config = entry.get("config", {})
    if not isinstance(config, dict):
        yield f"{at}.config: expected an object, got {_shown(config)}; {ADVICE}"
    else:
        for name, number in config.items():
            if type(number) is not int or not 0 <= number < 1 << 31:
                yield (
                    f"{at}.config.{name}: expected a whole number below 2**31, "
                    f"got {_shown(number)}; {ADVICE}"
                )
    if "measured" not in entry:
        return
    measured = entry["measured"]
    if not isinstance(measured, dict):
        yield f"{at}.measured: expected an object, got {_shown(measured)}; {ADVICE}"
        return
    yield from _fields(measured, f"{at}.measured", set(_MEASURED))
    for name in sorted(_MEASURED.keys() & measured.keys()):
        found = measured[name]
        if type(found) is not _MEASURED[name] or (isinstance(found, int) and found < 0):
            what = "a text" if _MEASURED[name] is str else "a whole number, not negative"
            yield f"{at}.measured.{name}: expected {what}, got {_shown(found)}; {ADVICE}"


def _fields(
    value: Mapping[str, Any], at: str, needed: set[str], optional: Iterable[str] = ()
) -> Iterator[str]:
    for name in sorted(needed - value.keys()):
        yield f"{at}: expected a field {name!r}, which is missing; {ADVICE}"
    for name in sorted(value.keys() - needed - set(optional)):
        known = ", ".join(sorted(needed.union(optional)))
        yield f"{at}: expected the fields {known}, got {name!r} as well; {ADVICE}"


def _entry(entry: Mapping[str, Any]) -> Entry:
    measured = entry.get("measured")
    return Entry(dict(entry["config"]), None if measured is None else Measured(**measured))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
