"""BUILD and .bzl files are formatted and lint-free."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

NAMES = {"BUILD.bazel", "MODULE.bazel", "WORKSPACE"}
SUFFIXES = {".BUILD", ".bzl"}


def starlark_files(root: Path) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".", "bazel-", "__"))]
        paths = (Path(folder, name) for name in names)
        found += [path for path in paths if path.name in NAMES or path.suffix in SUFFIXES]
    return sorted(found)


def test_buildifier() -> None:
    buildifier = Path(os.environ["BUILDIFIER"])
    if not buildifier.exists():
        pytest.skip("buildifier comes through npm, which is not installed")
    root = Path("MODULE.bazel").resolve().parent
    files = starlark_files(root)
    assert len(files) > 30
    command = [str(buildifier.absolute()), "-mode=check", "-lint=warn", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run buildifier -mode=fix -lint=fix:\n{done.stdout}{done.stderr}"
