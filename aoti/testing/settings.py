"""What the rule tells the test: a JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic


@dataclass(frozen=True, kw_only=True)
class ProgramFiles:
    """A program: ``target`` such as ``sm_90``, its file, directories of its compiled kernels."""

    target: str
    program: Path
    kernels: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Attributes and files of an ``aoti_test``; paths are relative to the working directory.

    ``capabilities`` are those to simulate, such as ``90``. ``sizes`` gives for each symbol the
    values to test. ``tolerance`` gives limits by the names of outputs.
    """

    name: str
    device: str
    library: Path
    weights: Path
    model: Path
    graph: Path
    targets: tuple[str, ...]
    programs: tuple[ProgramFiles, ...]
    simulator: Path
    capabilities: tuple[int, ...]
    sizes: dict[str, tuple[int, ...]]
    input_ranges: dict[str, str]
    tolerance: dict[str, float]
    seeds: int
    check_kernels: str


def read(path: Path) -> Settings:
    """Reads settings; raises ``pydantic.ValidationError`` where they are malformed."""
    value: Any = json.loads(path.read_text(encoding="utf-8"))
    return pydantic.TypeAdapter(Settings).validate_python(value)
