"""Debug builds differ from others by what their modes add; others have nothing of it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.codegen import cpp, samples
from tests.codegen.generated import SAMPLES, generate
from wrapgen import codegen
from wrapgen.options import DEBUG_MODES
from wrapgen.program import Program
from wrapgen.target import parse

SM_90 = parse("sm_90")


def source(scratch: Path, *modes: str, of: Callable[[], Program] = samples.conv_chain) -> str:
    """Text of model.cc of a sample."""
    program = of()
    kernels = samples.write_kernels(scratch / "kernels", program, SM_90)
    out = scratch / "-".join(("model", *modes))
    codegen.wrap("chain", {SM_90: program}, [kernels], [SM_90], out, debug_modes=modes)
    return (out / "model.cc").read_text()


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"dynamic_debug"}))
def test_other_builds_have_nothing_of_it(name: str, tmp_path: Path) -> None:
    model = generate(name, tmp_path)
    for path in sorted(model.glob("*.*")):
        assert "debug" not in path.read_text(), path


_ADDED = re.compile(
    r"""\#include\ "runtime/debug/debug\.h"
    | constexpr\ uint32_t\ kDebug\ =.*
    | .*aoti::debug::.*
    | .*step\.(Clear|Finish)\(.*
    | \{"(input|output|weight|constant|arena)\ .*\},   # a tensor
    | \{"\w+",\ "\*?\w+",\ &\w+(\.address)?\},                 # an argument
    | (\{nullptr,\ 0\}|nullptr|0|kDebug),              # of the description
    | \{ | \} | \}\)\); | \}\);
    | //\ clang-format\ (on|off)
    | (const\ Addresses&\ at\ =\ launcher\.at\(\);)?
    """,
    re.VERBOSE,
)


@pytest.mark.parametrize("modes", [(mode,) for mode in DEBUG_MODES] + [DEBUG_MODES])
def test_modes_add_and_change_nothing(modes: tuple[str, ...], tmp_path: Path) -> None:
    """But for memory that only tensors to look at name, whose offsets are added too."""

    def lines(*modes: str) -> list[str]:
        return [line.strip() for line in source(tmp_path, *modes).splitlines()]

    changes = [
        line
        for line in difflib.ndiff(lines(), lines(*modes))
        if line[0] in "+-" and not _ADDED.fullmatch(line[2:])
    ]
    assert changes == []


def test_constants_are_cleared_before_they_are_computed_and_not_before_they_are_read(
    tmp_path: Path,
) -> None:
    folding, _, main = source(tmp_path, "nan").partition("Status RunFolding(")
    assert folding.count("step.Clear(at.constants") == 2
    assert "step.Clear(at.constants" not in main
    assert "step.Clear(at.outputs" in main


@pytest.mark.parametrize("of", [samples.conv_chain, samples.control, samples.launches])
def test_a_debug_build_compiles_without_warnings(of: Callable[[], Program], tmp_path: Path) -> None:
    source(tmp_path, *DEBUG_MODES, of=of)
    model = tmp_path / "-".join(("model", *DEBUG_MODES))
    flags = [*cpp.FLAGS, *cpp.include_flags(tmp_path), f"-I{model}", "-fsyntax-only"]
    for compiler in cpp.compilers():
        cpp.run([compiler, *flags, model / "model.cc"])


def test_an_unknown_mode_is_named(tmp_path: Path) -> None:
    known = "expected some of launches, nan, nvtx, sync, values"
    with pytest.raises(codegen.CodegenError, match=f"unknown debug mode 'slow': {known}"):
        source(tmp_path, "nan", "slow")
    assert not (tmp_path / "model-nan-slow").exists()
