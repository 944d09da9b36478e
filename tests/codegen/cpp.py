"""Compiles and runs C++ in tests with the host's compiler."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from runfiles import Runfiles

ROOT = Path(__file__).parents[2]
"""Of the repository or, under Bazel, of its copy in the test's runfiles."""

FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-fPIC")

DLPACK_VARIABLE = "DLPACK_H"


def compilers() -> list[str]:
    """g++, and clang++ where there is one."""
    found = [name for name in ("g++", "clang++", "clang++-14") if shutil.which(name)]
    if "g++" not in found:
        pytest.fail("these tests compile C++: install g++")
    return found[:2]


def dlpack() -> Path:
    """The header ``dlpack/dlpack.h``: what the environment variable DLPACK_H names, as a path or a
    runfile; else the system's; else the copy that PyTorch brings."""
    named = os.environ.get(DLPACK_VARIABLE)
    if named:
        runfiles = Runfiles.Create()
        found = runfiles.Rlocation(named) if runfiles and not Path(named).is_absolute() else named
        if found and Path(found).is_file():
            return Path(found)
        pytest.fail(f"{DLPACK_VARIABLE} is {named!r}, which is neither a file nor a runfile")
    torch = importlib.util.find_spec("torch")
    candidates = [Path("/usr/include/dlpack/dlpack.h")]
    if torch and torch.origin:
        candidates.append(Path(torch.origin).parent / "include/ATen/dlpack.h")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    pytest.fail(f"no dlpack.h: set {DLPACK_VARIABLE} to one (Debian: libdlpack-dev)")


def include_flags(scratch: Path) -> list[str]:
    """Compiler flags under which sources find the runtime's headers and DLPack's."""
    include = scratch / "include"
    if not include.exists():
        (include / "dlpack").mkdir(parents=True)
        shutil.copyfile(dlpack(), include / "dlpack/dlpack.h")
    return [f"-I{ROOT}", f"-isystem{include}"]


def run(command: Sequence[str | Path]) -> str:
    """Runs a command that must succeed; returns what it printed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def build_model(model: Path, scratch: Path, compiler: str, *sources: Path) -> Path:
    """Compiles a generated model with ``sources`` to a program; returns it."""
    program = scratch / f"program-{compiler}"
    flags = [*FLAGS, *include_flags(scratch), f"-I{model}"]
    run([compiler, *flags, *sources, model / "model.cc", model / "kernels.S", "-o", program])
    return program
