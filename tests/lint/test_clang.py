"""clang has nothing to say of the C++, generated code included; gcc compiles it in the build."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest

from tests.lint.workspace import ROOT

FLAGS = ("-std=c++17", "-Wall", "-Wextra")

GENERATED = Path("tests/bazel/small/small")
"""Of the outer build."""


def clang_tidy() -> str:
    """The executable in the package of this name; it parses and warns as clang does."""
    spec = importlib.util.find_spec("clang_tidy")
    if spec is None or spec.origin is None:
        pytest.skip("there is no package clang-tidy")
    return str(Path(spec.origin).parent / "data/bin/clang-tidy")


@pytest.fixture
def include_flags(tmp_path: Path) -> list[str]:
    """Where the third-party headers are; variables that the BUILD file sets name one of each."""
    flags = []
    for name in ("DLPACK_H", "JSON_HPP", "STB_IMAGE_H"):
        if name not in os.environ:
            pytest.skip(f"{name} is not set: run this test with Bazel")
        header = Path(os.environ[name]).resolve(strict=True)
        if header.parent.name not in ("dlpack", "nlohmann"):  # its archive has it at the top
            (tmp_path / "stb").symlink_to(header.parent)
            flags.append(f"-isystem{tmp_path}")
        else:
            flags.append(f"-isystem{header.parent.parent}")
    return flags


@pytest.mark.parametrize("directory", ["runtime", "simulator", "models", "generated"])
def test_clang(directory: str, include_flags: list[str]) -> None:
    sources = sorted((GENERATED if directory == "generated" else ROOT / directory).glob("*.cc"))
    assert sources
    # A compiler's warnings are no check of clang-tidy's, which insists on one.
    checks = "-*,clang-diagnostic-*,misc-static-assert"
    command = [clang_tidy(), "--quiet", f"--checks={checks}", "--warnings-as-errors=*"]
    done = subprocess.run(
        [*command, *map(str, sources), "--", *FLAGS, f"-I{ROOT}", *include_flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
