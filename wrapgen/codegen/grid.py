"""Launch grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wrapgen import expression
from wrapgen.codegen.errors import CodegenError
from wrapgen.program import Dim

LIMITS: Final = (("x", (1 << 31) - 1), ("y", 65535), ("z", 65535))
"""Blocks in each direction that every GPU since compute capability 3.0 takes: CUDA C++ Programming
Guide, table "Technical Specifications per Compute Capability"."""


def extents(grid: Sequence[Dim]) -> tuple[int, int, int]:
    """The grid in Triton programs."""
    x, y, z = (expression.evaluate(size) for size in grid)
    return x, y, z


def check(at: str, grid: tuple[int, int, int], num_ctas: int) -> None:
    """Raises ``CodegenError`` that begins with ``at`` for a grid that no GPU takes.

    ``num_ctas`` is the blocks of one program, which the runtime multiplies x by.
    """
    x, y, z = grid
    for (axis, limit), blocks in zip(LIMITS, (x * num_ctas, y, z), strict=True):
        if blocks > limit:
            raise CodegenError(
                f"{at}: {blocks} blocks in direction {axis}, the hardware takes {limit}; "
                "split the grid over other directions"
            )


def cpp(grid: tuple[int, int, int]) -> str:
    """The grid as an ``aoti::Grid``."""
    return f"{{{', '.join(map(str, grid))}}}"
