"""Which configuration each kernel gets, decided with no GPU and the same way every time.

Inductor measures the candidates on the card that is there. Here they are ranked by a model of the
declared device (templates/cost.py); ties go to the candidate whose configuration sorts first, never
to one that merely was offered first.
"""

from __future__ import annotations

import ast
import copy
import fractions
import functools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from wrapgen.lowering.templates import cost
from wrapgen.target import Device


class NoChoiceError(ValueError):
    """No candidate may be used; the message says which there were and why each was refused."""


def select(
    name: str,
    input_nodes: Sequence[Any],
    layout: Any,
    candidates: Sequence[Any],
    device: Device,
) -> list[Any]:
    """Ranks the candidates of one template site, best first.

    Args:
      name: Inductor's name of the site, such as ``mm`` or ``convolution``.
      input_nodes: the site's operands (Inductor IR), for their shapes and item sizes.
      layout: the layout of the result.
      candidates: Inductor's ``ChoiceCaller``s. Only Triton templates are kept: whatever would call
        a library cannot be deployed.
      device: the declared device.

    Raises:
      NoChoiceError: no candidate is a Triton template that fits the device.
    """
    own = [candidate for candidate in candidates if cost.TILE in candidate.annotations]
    if own:
        return own  # chosen already
    ranked: list[tuple[float, tuple[Any, ...], Any]] = []
    refused: list[str] = []
    for candidate in candidates:
        info = candidate.info_dict()
        if info.get("backend") != "Triton":
            refused.append(f"{candidate.name}: calls a library")
            continue
        product, tile = _describe(input_nodes, layout, info)
        if "KERNEL_H" in info and _kernel_size(info) > 1 and tile.num_warps >= 8:
            # pytorch#173068: silently wrong results.
            refused.append(f"{tile}: 8 warps or more with a kernel larger than 1x1")
            continue
        if not cost.fits(product, tile, device):
            refused.append(f"{tile}: exceeds {device.name}")
            continue
        ranked.append((cost.seconds(product, tile, device), _order(info), candidate))
    if not ranked:
        reasons = "\n  ".join(refused) or "none was offered"
        raise NoChoiceError(f"{name}: no usable candidate for {device.name}:\n  {reasons}")
    ranked.sort(key=operator.itemgetter(0, 1))
    return [candidate for _, _, candidate in ranked]


def _describe(
    input_nodes: Sequence[Any], layout: Any, info: Mapping[str, Any]
) -> tuple[cost.Product, cost.Tile]:
    block_m, block_k, block_n = (
        max(1, int(size)) for size in ast.literal_eval(str(info["tile_shape"]))
    )
    tile = cost.Tile(
        block_m=block_m,
        block_n=block_n,
        block_k=block_k,
        num_stages=int(info["num_stages"]),
        num_warps=int(info["num_warps"]),
    )
    itemsize = input_nodes[0].get_dtype().itemsize
    size = [_hint(extent) for extent in layout.size]
    if "KERNEL_H" in info:
        groups = int(info.get("GROUPS", 1))
        in_channels = _hint(input_nodes[1].get_size()[1])
        product = cost.Product(
            m=size[0] * math.prod(size[2:]),
            n=size[1] // groups,
            k=in_channels * _kernel_size(info),
            itemsize=itemsize,
            batch=groups,
        )
    else:
        product = cost.Product(
            m=size[-2] if len(size) > 1 else 1,
            n=size[-1],
            k=_hint(input_nodes[1 if len(input_nodes) > 2 else 0].get_size()[-1]),
            itemsize=itemsize,
            batch=math.prod(size[:-2]),
        )
    return product, tile


def _kernel_size(info: Mapping[str, Any]) -> int:
    return math.prod(int(info.get(f"KERNEL_{axis}", 1)) for axis in "DHW")


def _hint(extent: Any) -> int:
    """The size a symbolic extent is taken for when kernels are ranked."""
    if isinstance(extent, int):
        return extent
    from torch._inductor.virtualized import V

    return int(V.graph.sizevars.optimization_hint(extent))


def _order(info: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple((key, str(info[key])) for key in sorted(info))


def select_config(kernel_meta: Mapping[str, Any], configs: Sequence[Any], device: Device) -> Any:
    """Returns the configuration (``triton.Config``) a pointwise or reduction kernel uses.

    It is one of ``configs`` or one of the same kind with other block sizes. The rules were found by
    measuring ResNet-50's kernels on an H200 (bench/README.md).

    Args:
      kernel_meta: ``heuristic`` (``pointwise``, ``reduction``, ``persistent_reduction``, ...),
        ``size_hints`` (the extent along each of ``x``, ``y``, ``z``, ``r0_``..., rounded up to a
        power of two), and ``reduction_hint`` of a reduction. Other entries are ignored.
      configs: what Inductor's heuristics offer for the kernel; at least one.
      device: the declared device.
    """
    if not configs:
        raise NoChoiceError("a kernel with no configuration")
    hints: Mapping[str, int] = kernel_meta.get("size_hints") or {}
    offered = min(configs, key=functools.partial(_rank, hints, device))
    blocks = frozenset(offered.kwargs)
    heuristic = kernel_meta.get("heuristic")
    if heuristic == "pointwise" and blocks == {"XBLOCK"} and set(hints) == {"x"}:
        return _flat(hints["x"], offered, device)
    if heuristic == "pointwise" and blocks == {"XBLOCK", "YBLOCK"} and set(hints) == {"x", "y"}:
        return _tiled(hints["x"], hints["y"], offered, device)
    if (
        heuristic == "persistent_reduction"
        and blocks == {"XBLOCK"}
        and set(hints) == {"x", "r0_"}
        and "INNER" not in str(kernel_meta.get("reduction_hint"))
    ):
        return _outer_reduction(hints["x"], hints["r0_"], offered, device)
    return offered


def _flat(x: int, like: Any, device: Device) -> Any:
    """4 elements a thread; fewer where a multiprocessor would be left without a program."""
    block = next((b for b in (512, 256) if x >= b * device.multiprocessors), 128)
    return _with_blocks(like, {"XBLOCK": block}, num_warps=4)


def _tiled(x: int, y: int, like: Any, device: Device) -> Any:
    """8 elements a thread, in a tile that is at least 16 wide both ways where the extents allow.

    The two axes are contiguous in different tensors; 16 elements of half precision are a sector of
    32 bytes, which is what a memory access moves.
    """
    elements = next((e for e in (1024, 512) if x * y >= e * device.multiprocessors), 256)
    y_block = min(16, y)
    x_block = min(elements // y_block, x)
    y_block = min(elements // x_block, y)
    warps = max(1, x_block * y_block // (8 * device.warp_size))
    return _with_blocks(like, {"XBLOCK": x_block, "YBLOCK": y_block}, num_warps=warps)


def _outer_reduction(x: int, r: int, like: Any, device: Device) -> Any:
    """Neighbouring threads along x, which is contiguous, and each adds up what it can alone."""
    x_block = 32 if x >= 32 * device.multiprocessors else 8
    warps = x_block * r // (64 * device.warp_size)
    return _with_blocks(like, {"XBLOCK": min(x_block, x)}, num_warps=min(8, max(1, warps)))


def _with_blocks(like: Any, blocks: Mapping[str, int], num_warps: int) -> Any:
    config = copy.copy(like)
    config.kwargs = dict(blocks)
    config.num_warps = num_warps
    return config


def _rank(hints: Mapping[str, int], device: Device, config: Any) -> tuple[Any, ...]:
    """Orders offered configurations: enough programs first, then about 8 elements a thread."""
    blocks = {
        name.removesuffix("BLOCK").lower(): int(value)
        for name, value in config.kwargs.items()
        if name.endswith("BLOCK")
    }
    grid = math.prod(
        -(-hint // blocks.get(axis, 1)) for axis, hint in hints.items() if not axis.startswith("r")
    )
    # A persistent reduction has the whole of its r axis in one block.
    held = {axis: hints[axis] for axis in hints if axis.startswith("r")} | blocks
    elements = math.prod(held.values())
    per_thread = fractions.Fraction(elements, config.num_warps * device.warp_size)
    idle = fractions.Fraction(device.multiprocessors, min(grid, device.multiprocessors))
    return (
        idle * max(per_thread / 8, 8 / per_thread),
        sorted(config.kwargs.items()),
        config.num_warps,
        config.num_stages,
    )
