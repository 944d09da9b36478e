"""clang-tidy has nothing to say of the C++ by the rules in ``.clang-tidy``, and clang no warning,
generated code included; gcc compiles it in the build."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lint.workspace import ROOT

FLAGS = ("-std=c++17", "-Wall", "-Wextra")

GENERATED = Path("tests/bazel/small/small")
"""Of the outer build."""

GOLDEN = ROOT / "tests/codegen/golden"

OTHERS_HEADERS = ("nvtx.cc",)
"""What includes headers that this test does not have; gcc compiles it."""


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


def rules(*, generated: bool = False) -> str:
    """The project's rules for clang-tidy. Generated code includes all that it uses."""
    text = (ROOT / ".clang-tidy").read_text()
    lenient = "misc-include-cleaner.MissingIncludes: false"
    assert text.count(lenient) == 1
    return text.replace(lenient, lenient.replace("false", "true")) if generated else text


def tidy(source: Path, config: str, flags: Sequence[str]) -> str:
    """What clang-tidy has to say of a file."""
    command = [clang_tidy(), "--quiet", f"--config={config}", str(source), "--", *FLAGS, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"{done.stdout}{done.stderr}"


def faults(sources: Sequence[Path], config: str, flags: Sequence[str]) -> str:
    """The same of several files, as many at once as there are processors."""
    assert sources
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return "".join(pool.map(lambda source: tidy(source, config, flags), sources))


CLEAN = ["runtime", "runtime/aotinductor", "runtime/standalone", "simulator", "models"]


@pytest.mark.parametrize("directory", CLEAN)
def test_clang(directory: str, include_flags: list[str]) -> None:
    found = sorted((ROOT / directory).rglob("*.cc"))
    sources = [source for source in found if source.name not in OTHERS_HEADERS]
    assert not faults(sources, rules(), [f"-I{ROOT}", *include_flags])


def test_generated(include_flags: list[str]) -> None:
    sources = sorted(GENERATED.glob("*.cc"))
    assert not faults(sources, rules(generated=True), [f"-I{ROOT}", *include_flags])


@pytest.mark.parametrize("name", sorted(path.name for path in GOLDEN.iterdir()))
def test_golden(name: str, include_flags: list[str], tmp_path: Path) -> None:
    """The golden files have a model for each thing that generated code can express."""
    for file in (GOLDEN / name).iterdir():
        (tmp_path / file.name.removesuffix(".txt")).write_bytes(file.read_bytes())
    sources = sorted(tmp_path.glob("*.cc"))
    assert not faults(sources, rules(generated=True), [f"-I{ROOT}", *include_flags])


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("int RunModel(int given) { return given; }\n", ""),
        ("int runModel(int given) { return given; }\n", "readability-identifier-naming"),
        ("int RunModel(int given) { if (given = 1) return 2; return 0; }\n", "clang-diagnostic-"),
        ("#include <string>\n", "misc-include-cleaner"),
        ("size_t Size() { return 0; }\n", "clang-diagnostic-error"),
        ("#include <cstddef>\nint64_t Size() { return 0; }\n", "misc-include-cleaner"),
    ],
)
def test_rules_are_in_force(code: str, fault: str, tmp_path: Path) -> None:
    source = tmp_path / "sample.cc"
    source.write_text(code)
    found = tidy(source, rules(generated=True), [])
    assert fault in found if fault else not found
