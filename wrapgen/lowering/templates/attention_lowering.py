"""Inductor lowering of ``wrapgen::attention`` (wrapgen/lowering/attention.py) by its template."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch._inductor import ir, select_algorithm
from torch._inductor.lowering import lowerings
from torch._inductor.select_algorithm import SymbolicGridFn, TritonTemplate
from torch._inductor.virtualized import V, ops

from wrapgen.lowering import sites as sites_module
from wrapgen.lowering.sites import Sites, operand, typical
from wrapgen.lowering.templates import attention, attention_tiles, cost
from wrapgen.lowering.templates.attention_tiles import PADDING, Attention, Mask, Tile
from wrapgen.lowering.templates.problem import Problem
from wrapgen.tuning.lock import Config

aten = torch.ops.aten

# These two have no annotations.
_realize_inputs: Any = select_algorithm.realize_inputs
_autotune_select_algorithm: Any = select_algorithm.autotune_select_algorithm


def lower(
    sites: Sites,
    query: Any,
    key: Any,
    value: Any,
    mask: Any | None,
    causal: bool,
    scale: float,
    rows_first: bool,
    zero_rows: bool,
) -> Any:
    """Returns the attention as a tensor; sizes but heads and head dimensions may be symbolic."""
    query, key, value = _realize_inputs(query, key, value)
    operands = [query, key, value]
    facts = None
    if mask is not None:
        mask = _realize_inputs(mask)
        operands.append(mask)
        one = tuple(V.graph.sizevars.statically_known_equals(e, 1) for e in mask.get_size())
        facts = Mask(mask.get_dtype().is_floating_point, (one[0], one[1], one[2], one[3]))
    batch, heads, rows, head = query.get_size()
    keys, head_v = value.get_size()[2:]
    shape = Attention(
        batch=typical(batch),
        heads=int(heads),
        heads_kv=int(key.get_size()[1]),
        rows=typical(rows),
        keys=typical(keys),
        head=int(head),
        head_v=int(head_v),
        itemsize=query.get_dtype().itemsize,
        causal=causal,
        mask=mask.get_dtype().itemsize if mask is not None else 0,
        added=facts is not None and facts.added,
    )
    tile = _choose(sites, operands, shape, scale, rows_first, zero_rows)
    pack = shape.group if tile.pack else 1
    known = V.graph.sizevars
    constants = attention_tiles.constants(
        shape,
        tile,
        scale=scale,
        mask=facts,
        zero_rows=zero_rows,
        even_rows=known.statically_known_multiple_of(rows * pack, tile.block_m),
        even_keys=known.statically_known_multiple_of(keys, tile.block_n),
        one_step=known.statically_known_lt(keys, tile.block_n),
        precision=attention_tiles.dot_precision(shape.itemsize, sites.device.platform),
    )
    size = [batch, heads, rows, head_v]
    dtype = query.get_dtype()
    if tile.split > 1:
        size = [sympy.Integer(tile.split), batch, heads, rows, head_v + PADDING]
        layout = ir.FixedLayout(query.get_device_or_error(), torch.float32, size)
    else:
        strides = [rows * heads * head_v, head_v, heads * head_v, 1] if rows_first else None
        layout = ir.FixedLayout(query.get_device_or_error(), dtype, size, strides)
    candidate = _template().generate(
        input_nodes=tuple(operands),
        layout=layout,
        num_stages=tile.num_stages,
        num_warps=tile.num_warps,
        call_sizes=[rows * pack, batch * (shape.heads // pack)],
        **constants,
    )
    candidate.annotations[cost.TILE] = (shape, tile)
    result, _ = _autotune_select_algorithm("attention", [candidate], operands, layout)
    if tile.split == 1:
        return result
    return _sum_of_parts(result, tile, shape, dtype, shape.added, zero_rows)


def _choose(
    sites: Sites,
    operands: Sequence[Any],
    shape: Attention,
    scale: float,
    rows_first: bool,
    zero_rows: bool,
) -> Tile:
    """The site's tile."""
    tiles = attention_tiles.ranked(shape, sites.device)
    flags = {"causal": shape.causal, "rows_first": rows_first, "zero_rows": zero_rows}
    words = [name for name, holds in flags.items() if holds]
    key = " ".join(["attention", *map(operand, operands), *words])

    def arguments(q: Any, k: Any, v: Any, mask: Any = None) -> tuple[Any, ...]:
        return q, k, v, mask, shape.causal, scale, rows_first, zero_rows

    def as_config(tile: Tile) -> Config:
        return sites_module.of_dataclass(tile)

    def refusal(config: Config) -> str:
        wrong = sites_module.missing_fields(config, as_config(tiles[0]))
        return wrong or attention_tiles.refusal(shape, _tile(config), sites.device)

    problem = Problem.of(torch.ops.wrapgen.attention.default, operands, arguments)
    return sites.choose(key, [(as_config(tile), tile) for tile in tiles], refusal, problem)


def _tile(config: Config) -> Tile:
    return Tile(**{**config, "pack": bool(config["pack"])})  # type: ignore[arg-type]


def _sum_of_parts(
    partial: Any, tile: Tile, shape: Attention, dtype: torch.dtype, natural: bool, zero_rows: bool
) -> Any:
    """Weighs the parts and adds them up, in order; pointwise, so that what follows is fused.

    ``natural``: the parts' maxima are scores, else scores times log2(e). The result's memory is
    [batch, rows, heads, head_v] wherever it is stored.
    """
    partial.realize()
    load = partial.make_loader()
    column = sympy.Integer(shape.head_v)

    def inner(index: Sequence[Any]) -> Any:
        b, row, head, d = index
        tops, totals, sums = (
            [load([sympy.Integer(s), b, head, row, at]) for s in range(tile.split)]
            for at in (column, column + 1, d)
        )
        top = tops[0]
        for other in tops[1:]:
            top = ops.maximum(top, other)
        infinite = ops.constant(float("-inf"), torch.float32)
        zero = ops.constant(0.0, torch.float32)
        shift = ops.where(ops.eq(top, infinite), zero, top)
        total = weighted = None
        for one_top, one_total, one_sum in zip(tops, totals, sums, strict=True):
            difference = ops.sub(one_top, shift)
            if not natural:
                difference = ops.mul(difference, ops.constant(math.log(2), torch.float32))
            weight = ops.exp(difference)
            scaled_total, scaled_sum = ops.mul(weight, one_total), ops.mul(weight, one_sum)
            total = scaled_total if total is None else ops.add(total, scaled_total)
            weighted = scaled_sum if weighted is None else ops.add(weighted, scaled_sum)
        result = ops.truediv(weighted, total)
        if zero_rows:
            result = ops.where(ops.eq(total, zero), zero, result)
        return ops.to_dtype(result, dtype)

    _, batch, heads, rows, _ = partial.get_size()
    combined = ir.Pointwise.create(
        device=partial.get_device(),
        dtype=dtype,
        inner_fn=inner,
        ranges=[batch, rows, heads, column],
    )
    return lowerings[aten.permute](combined, [0, 2, 1, 3])


@SymbolicGridFn
def _grid(rows: Any, packs: Any, meta: dict[str, Any], *, cdiv: Any) -> tuple[Any, Any, Any]:
    return cdiv(rows, meta["BLOCK_M"]) * packs, meta["SPLIT"], 1


@functools.cache
def _template() -> TritonTemplate:
    """Inductor keeps templates for as long as the process lives."""
    return TritonTemplate(name="attention", grid=_grid, source=attention.ATTENTION)
