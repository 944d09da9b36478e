"""Reads what builds made for the tuner: sites, their candidates, and compiled kernels.

``wrapgen candidates`` writes ``candidates.json``, ``wrapgen compile --keep-going`` the kernels.
What the compiler said of these screens candidates before any is run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from wrapgen.tuning.lock import Config

SCHEMA_VERSION: Final = 1
"""Of ``candidates.json``."""


class CandidatesError(ValueError):
    """Files that do not belong together, or are of another version."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A compiled kernel: the file with its image, and what the compiler's metadata says of it."""

    name: str
    image: Path
    threads: int
    shared_memory: int
    spilled: int
    clusters: int
    global_scratch: int
    driver: int
    params: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """A launch. An argument is a buffer's name and an offset, or a number and its type."""

    kernel: str
    grid: tuple[int, int, int]
    args: tuple[Mapping[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A site in one configuration; ``temporaries`` gives bytes by name."""

    config: Config
    temporaries: Mapping[str, int]
    steps: tuple[Step, ...]


@dataclasses.dataclass(frozen=True)
class Buffer:
    """A tensor that all candidates of a site share. ``role``: ``in``, ``out`` or ``both``."""

    dtype: str
    nbytes: int
    role: str


@dataclasses.dataclass(frozen=True)
class Site:
    """A site. The first candidate is the default; ``uses`` counts launches in a call of the model.

    ``refused`` has candidates that are not run, and why.
    """

    key: str
    uses: int
    buffers: Mapping[str, Buffer]
    candidates: tuple[Candidate, ...]
    refused: tuple[tuple[Config, str], ...]


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What there is for one target.

    Attributes:
      target: such as ``sm_90``.
      l2_bytes: of the declared device's L2 cache.
      block: elements to a program of the kernels that fill and compare.
      fill: those that fill inputs, by the type of elements.
      compare: those that compare results.
      sites: sorted by key.
      not_measured: keys of sites that cannot be measured alone.
      folding: keys of sites that only run when the model is loaded.
      kernels: by name.
    """

    target: str
    l2_bytes: int
    block: int
    fill: Mapping[str, str]
    compare: Mapping[str, str]
    sites: tuple[Site, ...]
    not_measured: tuple[str, ...]
    folding: tuple[str, ...]
    kernels: Mapping[str, Kernel]


def load(file: Path, directories: Sequence[Path]) -> Candidates:
    """Reads ``candidates.json`` and the kernels that were compiled from the shards beside it."""
    value = json.loads(file.read_text(encoding="utf-8"))
    if value.get("schema_version") != SCHEMA_VERSION:
        raise CandidatesError(
            f"{file}: schema_version is {value.get('schema_version')!r}, this tuner reads "
            f"{SCHEMA_VERSION}: build tuner and candidates from one version"
        )
    kernels: dict[str, Kernel] = {}
    refused: dict[str, str] = {}
    for directory in directories:
        for path in sorted((directory / value["target"]).glob("*.json")):
            found = json.loads(path.read_text(encoding="utf-8"))
            if path.name == "refused.json":
                refused |= found
            else:
                kernels[path.stem] = _kernel(path, found)
    wanted = {*value["tools"]["fill"].values(), *value["tools"]["compare"].values()}
    for site in value["sites"]:
        for candidate in site["candidates"]:
            wanted |= {step["kernel"] for step in candidate["steps"]}
    missing = sorted(wanted - kernels.keys() - refused.keys())
    if missing:
        raise CandidatesError(
            f"{file}: there is no compiled kernel {missing[0]} in "
            f"{', '.join(map(str, directories))}: compile the shards beside it, all of them"
        )
    return Candidates(
        target=value["target"],
        l2_bytes=value["l2_bytes"],
        block=value["tools"]["block"],
        fill=value["tools"]["fill"],
        compare=value["tools"]["compare"],
        sites=tuple(_site(site, kernels, refused) for site in value["sites"]),
        not_measured=tuple(value["not_measured"]),
        folding=tuple(value["folding"]),
        kernels=kernels,
    )


def _kernel(path: Path, metadata: Mapping[str, Any]) -> Kernel:
    return Kernel(
        name=metadata["name"],
        image=path.with_suffix(f".{metadata['format']}"),
        threads=metadata["threads"],
        shared_memory=metadata["shared_memory"],
        spilled=metadata["spill_stores"] + metadata["spill_loads"],
        clusters=metadata["num_ctas"],
        global_scratch=metadata["global_scratch"],
        driver=metadata["driver"],
        params=tuple(int(param["size"]) for param in metadata["params"]),
    )


def _site(
    value: Mapping[str, Any], kernels: Mapping[str, Kernel], refused: Mapping[str, str]
) -> Site:
    candidates, without = [], []
    spilled = 0
    for i, each in enumerate(value["candidates"]):
        steps = tuple(
            Step(step["kernel"], tuple(step["grid"]), tuple(step["args"])) for step in each["steps"]
        )
        candidate = Candidate(each["config"], each["temporaries"], steps)
        reason = next((refused[step.kernel] for step in steps if step.kernel in refused), "")
        if not reason:
            own = [kernels[step.kernel] for step in steps]
            spills = sum(kernel.spilled for kernel in own)
            spilled = spills if i == 0 else spilled
            if spills > spilled:
                reason = f"it spills {spills} bytes a thread, the default {spilled}"
            elif any(kernel.clusters > 1 or kernel.global_scratch for kernel in own):
                reason = "it runs in clusters, or needs scratch memory"
        if not reason:
            candidates.append(candidate)
        elif i == 0:  # nothing to compare with
            return Site(value["site"], value["uses"], {}, (), ((candidate.config, reason),))
        else:
            without.append((candidate.config, reason))
    buffers = {name: Buffer(**each) for name, each in value["buffers"].items()}
    return Site(value["site"], value["uses"], buffers, tuple(candidates), tuple(without))
