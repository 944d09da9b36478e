"""Launch grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wrapgen.codegen import expr
from wrapgen.codegen.errors import CodegenError
from wrapgen.codegen.values import Values
from wrapgen.program import Dim

LIMITS: Final = (("x", (1 << 31) - 1), ("y", 65535), ("z", 65535))
"""Blocks in each direction that every GPU since compute capability 3.0 takes: CUDA C++ Programming
Guide, table "Technical Specifications per Compute Capability"."""


def cpp(at: str, grid: Sequence[Dim], num_ctas: int, values: Values, whose: str) -> str | None:
    """The grid, which is in Triton programs, as an ``aoti::Grid``; ``None`` for one that is empty
    in every run.

    ``num_ctas`` is the blocks of one program, which the runtime multiplies x by. A grid that no GPU
    takes is a ``CodegenError`` that begins with ``at``; where that depends on the inputs, it is to
    be checked at each run, for the step called ``whose``.
    """
    numbers = [values.number(size) for size in grid]
    if 0 in numbers:
        return None
    extents = []
    for size, number, (axis, limit), blocks in zip(
        grid, numbers, LIMITS, (num_ctas, 1, 1), strict=True
    ):
        if number is None:
            what = f"{whose}: the grid in direction {axis}"
            values.limit(size, what, 0, limit // blocks)
            extents.append(f"at.programs({values.index(size)})")
            continue
        if number * blocks > limit:
            raise CodegenError(
                f"{at}: {number * blocks} blocks in direction {axis}, the hardware takes {limit}; "
                "split the grid over other directions"
            )
        extents.append(str(number))
    return f"{{{', '.join(extents)}}}"


def is_empty(grid: Sequence[Dim]) -> bool:
    """Whether a grid is empty in every run."""
    return any(expr.parse(size) == 0 for size in grid)
