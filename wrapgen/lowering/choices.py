"""Which configuration each kernel gets, decided with no GPU and the same way every time.

Inductor measures the candidates on the card that is there. Here they are ranked by a model of the
declared device (templates/cost.py); ties go to the candidate whose configuration sorts first, never
to one that merely was offered first.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import fractions
import functools
import itertools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Final

from wrapgen.lowering.templates import cost
from wrapgen.target import Device
from wrapgen.tuning.lock import Config


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


def offered_config(candidate: Any) -> Config:
    """The configuration of one of Inductor's candidates, as the tuning lock has it."""
    config = dataclasses.asdict(_tile(candidate.info_dict()))
    del config["split_k"]
    return config


def _tile(info: Mapping[str, Any]) -> cost.Tile:
    block_m, block_k, block_n = (
        max(1, int(size)) for size in ast.literal_eval(str(info["tile_shape"]))
    )
    return cost.Tile(
        block_m=block_m,
        block_n=block_n,
        block_k=block_k,
        num_stages=int(info["num_stages"]),
        num_warps=int(info["num_warps"]),
    )


def _describe(
    input_nodes: Sequence[Any], layout: Any, info: Mapping[str, Any]
) -> tuple[cost.Product, cost.Tile]:
    tile = _tile(info)
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


def as_config(config: Any) -> Config:
    """A ``triton.Config`` as the tuning lock has it."""
    blocks = {name: int(value) for name, value in config.kwargs.items()}
    return {**blocks, "num_warps": int(config.num_warps), "num_stages": int(config.num_stages)}


def rank_configs(
    kernel_meta: Mapping[str, Any], configs: Sequence[Any], device: Device
) -> list[Any]:
    """All configurations that a generated kernel may use, the one it gets without a lock first.

    The others are what Inductor offers and, of kernels whose block sizes are free, every size
    within ``config_refusal``'s bounds: in the order of ``select_config``'s ranking, of equals those
    first that are more like the first.
    """
    default = select_config(kernel_meta, configs, device)
    hints: Mapping[str, int] = kernel_meta.get("size_hints") or {}
    others = list(configs)
    if _is_free(kernel_meta, default):
        most = _most(hints, default)
        blocks = sorted(name for name in default.kwargs if name in most)
        sizes = [[1 << i for i in range(most[name].bit_length())] for name in blocks]
        warps = [1 << i for i in range(6)]
        for *chosen, num_warps in itertools.product(*sizes, warps):
            config = _with_blocks(default, dict(zip(blocks, chosen, strict=True)), num_warps)
            if not config_refusal(kernel_meta, configs, as_config(config), device):
                others.append(config)
    unique = {tuple(sorted(as_config(config).items())): config for config in others}
    unique.pop(tuple(sorted(as_config(default).items())), None)
    like = as_config(default)

    def order(config: Any) -> tuple[Any, ...]:
        own = as_config(config)
        steps = sum(abs(own[name].bit_length() - like.get(name, 0).bit_length()) for name in own)
        first, *others = _rank(hints, device, config)
        return first, steps, *others

    return [default, *sorted(unique.values(), key=order)]


def config_refusal(
    kernel_meta: Mapping[str, Any], configs: Sequence[Any], config: Config, device: Device
) -> str:
    """Why a generated kernel may not use a configuration, a clause; empty if it may.

    Any block size gives the same result: what is beyond the edge is masked, unless the extent is a
    multiple of Inductor's largest block. So no block may be larger than that; nor than the extent,
    as threads would idle.
    """
    default = select_config(kernel_meta, configs, device)
    if config in [as_config(offered) for offered in (default, *configs)]:
        return ""
    like = as_config(default)
    if config.keys() != like.keys():
        expected, got = (", ".join(sorted(each)) or "nothing" for each in (like, config))
        return f"expected {expected}, got {got}"
    if not _is_free(kernel_meta, default):
        return "the kernel is made for the configurations that Inductor offers, and no other"
    hints: Mapping[str, int] = kernel_meta.get("size_hints") or {}
    most = _most(hints, default)
    for name in sorted(default.kwargs):
        size = config[name]
        if size & (size - 1) or not 1 <= size <= most[name]:
            return f"{name} is no power of two from 1 to {most[name]}"
        axis = name.removesuffix("BLOCK").lower()
        if axis in "yz" and -(-hints[axis] // size) > _MOST_PROGRAMS:
            return f"{name} makes more than {_MOST_PROGRAMS} programs along {axis}"
    if config["num_stages"] not in {int(offered.num_stages) for offered in (default, *configs)}:
        return f"num_stages is not the {default.num_stages} that Inductor offers"
    warps = config["num_warps"]
    threads = warps * device.warp_size
    if not warps or warps & (warps - 1) or threads > min(1024, device.max_threads_per_block):
        return f"num_warps is no power of two, or more than {device.name} runs in a block"
    held = {axis: extent for axis, extent in hints.items() if axis.startswith("r")}
    held |= {name.removesuffix("BLOCK").lower(): config[name] for name in default.kwargs}
    elements = math.prod(held.values())
    if elements > _MOST_ELEMENTS * threads or (elements < threads and warps > 1):
        return f"{elements} elements of a block are not 1 to {_MOST_ELEMENTS} a thread"
    return ""


_MOST_ELEMENTS: Final = 64
"""Elements of a block for each of its threads, beyond which registers are spilled."""

_MOST_PROGRAMS: Final = 65535
"""Along y or z, CUDA's limit (CUDA C++ Programming Guide, "Technical Specifications")."""


def _most(hints: Mapping[str, int], default: Any) -> dict[str, int]:
    """The largest block along each axis whose size a lock may choose."""
    from torch._inductor.runtime.hints import TRITON_MAX_BLOCK

    most = {}
    for axis, extent in hints.items():
        name = f"{axis.upper()}BLOCK"
        if axis.upper() in TRITON_MAX_BLOCK:
            largest = max(extent, int(default.kwargs.get(name, 1)))
            most[name] = min(largest, int(TRITON_MAX_BLOCK[axis.upper()]))
    return most


def _is_free(kernel_meta: Mapping[str, Any], default: Any) -> bool:
    """Whether a kernel is right with other block sizes than those that Inductor offers."""
    hints: Mapping[str, int] = kernel_meta.get("size_hints") or {}
    return (
        kernel_meta.get("heuristic") in ("pointwise", "reduction", "persistent_reduction")
        and not kernel_meta.get("autotune_hints")
        and default.kwargs.keys() <= _most(hints, default).keys()
        and all(axis in ("x", "y", "z", "r0_") for axis in hints)
    )


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
