"""Where C++ sources are that the generator does not write."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from wrapgen.target import Platform

PLATFORMS: Final[dict[Platform, str]] = {"cuda": "cuda.cc", "hip": "hip.cc"}
"""Of the runtime's sources, the one that is linked for models of a platform only."""


def runtime() -> Path | None:
    """The directory of the runtime's sources: in the wheel beside this file, in a checkout one
    level up; ``None`` where they are not installed."""
    here = Path(__file__).parent
    for directory in (here / "runtime_sources", here.parent / "runtime"):
        if (directory / "exports.lds").is_file():
            return directory
    return None
