"""Grids of all of Inductor's kinds are what Inductor would launch, whether sizes are numbers or
symbols; and kernels whose grid is split over y and z compute all of it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import sympy
import torch
from torch import nn
from torch._inductor.runtime import triton_heuristics
from torch._inductor.runtime.triton_heuristics import GridExpr

from tests.lowering.lowered_model import LoweredModel
from wrapgen import expression
from wrapgen.lowering import choices, grids
from wrapgen.program import Launch

SIZES = (1, 2, 63, 64, 65, 1000, 65535, 65536, 131070, 131071, 10_000_000)

COMBO = {
    "num_kernels": 2,
    "min_blocks": 4,
    "default_config": {"XBLOCK": 64},
    "xnumel_0": None,
    "no_x_dim_0": False,
    "xnumel_1": 300,
    "no_x_dim_1": True,
}
COMBO_2D = COMBO | {"default_config": None, "ynumel_0": None, "ynumel_1": 70000}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "Grid1D": ({}, {"XBLOCK": 64}),
    "Grid2D": ({}, {"XBLOCK": 64, "YBLOCK": 16}),
    "Grid2DWithYZOverflow": ({}, {"XBLOCK": 64, "YBLOCK": 1}),
    "Grid3D": ({}, {"XBLOCK": 64, "YBLOCK": 16, "ZBLOCK": 2}),
    "BatchMatmulGrid3D": ({}, {"XBLOCK": 64, "YBLOCK": 16, "ZBLOCK": 2}),
    "MixOrderReductionGrid": ({}, {"XBLOCK": 4, "RSPLIT_SIZE": 64}),
    "CooperativeReductionGrid": ({}, {"XBLOCK": 4, "RSPLIT": 32}),
    "SplitScanGrid": ({}, {"R0_BLOCK": 2048}),
    "FixedGrid": (
        {"fixed_grid": ["_grid_0", "_grid_1", "_grid_2"]},
        {},
    ),
    "PrecomputedGrid": (
        {
            "precomputed_grids": [
                {
                    "config": {"BLOCK_M": 64},
                    "python": ["(xnumel + 63)//64", "max(1, ynumel)", "min(znumel, 7)"],
                }
            ]
        },
        {"BLOCK_M": 64},
    ),
    "SequentialComboKernelGrid": ({"combo_grid_meta": COMBO}, {"XBLOCK": 64}),
    "RoundRobinComboKernelGrid": ({"combo_grid_meta": COMBO}, {"XBLOCK": 64}),
    "SequentialComboKernelGrid 2D": ({"combo_grid_meta": COMBO_2D}, {"XBLOCK": 64, "YBLOCK": 1}),
    "SequentialFlattenComboKernelGrid": (
        {"combo_grid_meta": COMBO_2D},
        {"XBLOCK_0": 64, "YBLOCK_0": 8, "YBLOCK_1": 4},
    ),
}

NAMES = ("xnumel", "ynumel", "znumel", "r0_numel", "xnumel_0", "ynumel_0", "_grid_0", "_grid_1")


def test_every_kind_is_here() -> None:
    kinds = {
        name
        for name, value in vars(triton_heuristics).items()
        if isinstance(value, type) and issubclass(value, GridExpr)
    }
    assert kinds - {"GridExpr", "ComboKernelGrid"} == {name.partition(" ")[0] for name in CASES}


@pytest.mark.parametrize("case", CASES)
def test_a_grid_is_inductors(case: str) -> None:
    further, config = CASES[case]
    meta = {"grid_type": case.partition(" ")[0], **further}
    symbols = {name: sympy.Symbol(f"s{i}", integer=True) for i, name in enumerate(NAMES)}
    symbols["_grid_2"] = sympy.Symbol("s9", integer=True)
    symbolic = [str(extent) for extent in grids.evaluate(meta, config, symbols)]
    for i, size in enumerate(SIZES):
        values = {name: SIZES[(i + j) % len(SIZES)] for j, name in enumerate(symbols)}
        values["xnumel"] = size
        expected = GridExpr.from_meta(copy.deepcopy(meta), dict(config)).eval_slow(dict(values))
        assert tuple(map(int, grids.evaluate(meta, config, values))) == tuple(map(int, expected))
        by_symbol = {str(symbols[name]): value for name, value in values.items()}
        spelled = [text.replace("Max(", "max(").replace("Min(", "min(") for text in symbolic]
        assert [_value(text, by_symbol) for text in spelled] == list(map(int, expected))


def _value(text: str, values: dict[str, int]) -> int:
    return int(eval(text, {"FloorDiv": lambda a, b: a // b, "max": max, "min": min, **values}))


def test_nothing_to_launch() -> None:
    meta, config = {"grid_type": "Grid2DWithYZOverflow"}, {"XBLOCK": 64, "YBLOCK": 1}
    assert 0 in grids.evaluate(meta, config, {"xnumel": 5, "ynumel": 0})


class Swapped(nn.Module):
    """A kernel over two directions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).contiguous() + 1


def narrow(meta: Any, configs: Any, device: Any) -> Any:
    """One row a program, so that few elements make a tall grid."""
    chosen = SELECT(meta, configs, device)
    if set(chosen.kwargs) >= {"XBLOCK", "YBLOCK"}:
        return choices._with_blocks(chosen, {"XBLOCK": 16, "YBLOCK": 1}, num_warps=1)
    return chosen


SELECT = choices.select_config


def test_rows_beyond_what_y_takes(tmp_path: Path) -> None:
    """Their number depends on an input: below and beyond the limit."""
    rows = torch.export.Dim("rows", min=2, max=1 << 20)
    with mock.patch.object(choices, "select_config", narrow):
        model = LoweredModel(
            Swapped(), (torch.randn(4200, 16, 16),), tmp_path, dynamic_shapes=({0: rows},)
        )
    [step] = [step for step in model.program.main.steps if isinstance(step, Launch)]
    seen = {}
    for count in (2, 4095, 4096, 4200):
        model.check(torch.randn(count, 16, 16))
        extents = [expression.evaluate(extent, {"s0": count}) for extent in step.grid]
        seen[count] = extents[1:]
    assert seen == {2: [32, 1], 4095: [65520, 1], 4096: [32768, 2], 4200: [33600, 2]}
