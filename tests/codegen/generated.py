"""The samples whose generated code is kept in golden files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.codegen import cpp, samples
from wrapgen import codegen
from wrapgen.program import Program
from wrapgen.target import Target, parse

SM_80, SM_90, COMPUTE_90 = parse("sm_80"), parse("sm_90"), parse("compute_90")
GFX90A, GFX942 = parse("gfx90a"), parse("gfx942")

GOLDEN = cpp.ROOT / "tests/codegen/golden"

SAMPLES: dict[str, tuple[Callable[[str], Program], list[Target]]] = {
    "control": (samples.control, [SM_90]),
    "dynamic": (samples.dynamic, [SM_90]),
    "dynamic_debug": (samples.dynamic, [SM_90]),
    "elementwise": (samples.elementwise, [SM_90]),
    "expressions": (samples.expressions, [SM_90]),
    "conv_chain": (samples.conv_chain, [COMPUTE_90, SM_90]),
    "copies": (samples.copies, [SM_80, SM_90]),
    "user_kernels": (samples.user_kernels, [SM_90]),
    "launches": (samples.launches, [SM_90]),
    "hip": (samples.elementwise, [GFX942, GFX90A]),
}

DEBUG: dict[str, tuple[str, ...]] = {
    "dynamic_debug": ("launches", "nan", "nvtx", "sync", "values"),
}
"""The modes of debug builds among the samples."""

UPDATE: Final = "UPDATE_GOLDEN"
"""The environment variable that has golden files written."""


def generate(name: str, scratch: Path) -> Path:
    """Generates a sample's library; returns the directory of its files."""
    make, targets = SAMPLES[name]
    programs = {lowering: make(str(lowering)) for lowering in {t.lowering for t in targets}}
    first = next(iter(programs.values()))
    kernels = samples.write_kernels(scratch / "kernels", first, *targets)
    modes = DEBUG.get(name, ())
    codegen.wrap(name, programs, [kernels], targets, scratch / "model", debug_modes=modes)
    return scratch / "model"
