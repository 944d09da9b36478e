"""Which configuration each kernel gets, decided with no GPU and the same way every time.

Inductor measures the candidates on the card that is there. Here they are ranked by a model of the
declared device (templates/cost.py); ties go to the candidate whose configuration sorts first, never
to one that merely was offered first.
"""

from __future__ import annotations

import ast
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
        product, tile = _describe(name, input_nodes, layout, info)
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
        raise NoChoiceError(
            f"{name}: no usable candidate for {device.name}:\n  {reasons}"
        )
    ranked.sort(key=operator.itemgetter(0, 1))
    return [candidate for _, _, candidate in ranked]


def _describe(
    name: str, input_nodes: Sequence[Any], layout: Any, info: Mapping[str, Any]
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
    from torch._inductor.virtualized import V

    return int(V.graph.sizevars.optimization_hint(extent))


def _order(info: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple((key, str(info[key])) for key in sorted(info))


def select_config(
    kernel_meta: Mapping[str, Any], configs: Sequence[Any], device: Device
) -> Any:
    """Returns which of ``configs`` (``triton.Config``) a pointwise or reduction kernel uses.

    Args:
      kernel_meta: ``size_hints`` (extent of each of ``x``, ``y``, ``z``, ``r0_``... rounded up to a
        power of two). Other entries are ignored.
      configs: what Inductor's heuristics offer for the kernel; at least one.
      device: the declared device.
    """
    if not configs:
        raise NoChoiceError("a kernel with no configuration")
    hints: Mapping[str, int] = kernel_meta["size_hints"]

    def rank(config: Any) -> tuple[Any, ...]:
        blocks = {
            name.removesuffix("BLOCK").lower(): int(value)
            for name, value in config.kwargs.items()
            if name.endswith("BLOCK")
        }
        grid = math.prod(
            math.ceil(hint / blocks.get(axis, 1))
            for axis, hint in hints.items()
            if not axis.startswith("r")
        )
        elements = functools.reduce(operator.mul, blocks.values(), 1)
        threads = config.num_warps * device.warp_size
        per_thread = elements / threads
        # Too few programs leave multiprocessors idle; then 8 elements a thread make 16-byte accesses
        # of half precision.
        idle = max(0.0, math.log2(max(1.0, device.multiprocessors / grid)))
        return (
            idle + abs(math.log2(max(per_thread, 1e-3) / 8)) / 2,
            sorted(config.kwargs.items()),
            config.num_warps,
            config.num_stages,
        )

    return min(configs, key=rank)
