"""The workspace as it lies on disk, also under Bazel, and the files in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("MODULE.bazel").resolve().parent
"""Under Bazel the test's directory holds links into the workspace."""


def files(*suffixes: str) -> list[Path]:
    """Every file of the workspace with one of these suffixes; no outputs, no hidden directories."""
    return sorted(path for path in _walk(ROOT) if path.name.endswith(suffixes))


def _walk(directory: Path) -> Iterator[Path]:
    for entry in os.scandir(directory):
        if entry.name.startswith((".", "bazel-", "__pycache__", "node_modules")):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)
