"""The formatters and checkers find nothing to say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lint.workspace import ROOT, files


def tool(name: str) -> list[str]:
    """How to start a tool that a Python package brings: beside Python, or among the packages."""
    for directory in [Path(sys.executable).parent, *map(Path, sys.path)]:
        # The last: clang-format's wheel has a script besides, which an installation may lack.
        within = directory / name.replace("-", "_") / "data/bin" / name
        for place in (directory / name, directory / "bin" / name, within):
            if place.is_file() and os.access(place, os.X_OK):
                return [str(place)]
    if found := shutil.which(name):
        return [found]
    return [sys.executable, "-m", name.replace("-", "_")]


def check(*command: str) -> None:
    paths = [str(Path(path or ".").absolute()) for path in sys.path]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command[:4])} ...\n{done.stdout[-8000:]}"


def test_ruff() -> None:
    check(*tool("ruff"), "check", "--no-cache", *map(str, files(".py")))


def test_ruff_format() -> None:
    check(*tool("ruff"), "format", "--check", "--no-cache", *map(str, files(".py")))


def test_mypy(tmp_path: Path) -> None:
    check(sys.executable, "-m", "mypy", f"--cache-dir={tmp_path}", "--config-file=pyproject.toml")


def test_clang_format() -> None:
    sources = files(".cc", ".h", ".c")
    assert sources
    check(*tool("clang-format"), "--dry-run", "-Werror", *map(str, sources))


@pytest.mark.parametrize("suffix", [".py", ".md", ".cc", ".h", ".bzl", ".bazel", ".toml"])
def test_whitespace(suffix: str) -> None:
    """No tabs, no blanks at the end of a line, one newline at the end of a file."""
    faults = []
    for path in files(suffix):
        text = path.read_text(encoding="utf-8")
        if text and (not text.endswith("\n") or text.endswith("\n\n")):
            faults.append(f"{path}: does not end in one newline")
        for number, line in enumerate(text.split("\n"), 1):
            if "\t" in line or line != line.rstrip():
                faults.append(f"{path}:{number}: a tab, or a blank at its end")
    assert not faults, "\n".join(faults)
