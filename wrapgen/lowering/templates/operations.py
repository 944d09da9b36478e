"""Inductor lowerings of convolution and matrix product that use the templates of this package.

Each takes what Inductor's own lowering takes and returns ``None`` where the template does not apply
(the caller then uses Inductor's). The configuration is chosen here, so that Inductor renders one
candidate instead of dozens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import sympy
import torch
from torch._inductor import ir, select_algorithm
from torch._inductor.lowering import lowerings
from torch._inductor.select_algorithm import SymbolicGridFn, TritonTemplate
from torch._inductor.virtualized import ops

from wrapgen.lowering.templates import cost, geometry, product
from wrapgen.target import Device

aten = torch.ops.aten

# These two have no annotations.
_realize_inputs: Any = select_algorithm.realize_inputs
_autotune_select_algorithm: Any = select_algorithm.autotune_select_algorithm

_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32)
_MAX_TAPS: Final = 63
"""Kernel positions that the template can keep one bit each for."""


def convolution(
    device: Device,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[Any],
    padding: Sequence[Any],
    dilation: Sequence[Any],
    transposed: bool,
    output_padding: Sequence[Any],
    groups: int,
) -> Any | None:
    """``aten.convolution`` of one group over two dimensions; over one, by adding another.

    Shapes must be static, and operands half or single precision. The result is channels last.
    """
    if transposed or groups != 1 or len(x.get_size()) != len(weight.get_size()):
        return None
    if len(weight.get_size()) == 3:
        flat = convolution(
            device,
            lowerings[aten.unsqueeze](x, 2),
            lowerings[aten.unsqueeze](weight, 2),
            bias,
            [1, *stride],
            [0, *padding],
            [1, *dilation],
            transposed,
            output_padding,
            groups,
        )
        return None if flat is None else lowerings[aten.squeeze](flat, 2)
    if len(weight.get_size()) != 4 or not _usable(x, weight):
        return None
    shape = geometry.Convolution(
        batch=int(x.get_size()[0]),
        in_channels=int(x.get_size()[1]),
        out_channels=int(weight.get_size()[0]),
        in_size=_pair(x.get_size()[2:]),
        kernel=_pair(weight.get_size()[2:]),
        stride=_pair(stride),
        padding=_pair(padding),
        dilation=_pair(dilation),
    )
    if shape.kernel[0] * shape.kernel[1] > _MAX_TAPS and any(shape.padding):
        return None
    x.realize()
    weight.realize()
    x = ir.ExternKernel.require_channels_last(x)
    weight = ir.ExternKernel.require_channels_last(weight)
    if shape.pointwise:
        pixels = lowerings[aten.permute](x, [0, 2, 3, 1])
        rows = lowerings[aten.reshape](pixels, [-1, shape.in_channels])
        columns = lowerings[aten.permute](
            lowerings[aten.reshape](weight, [shape.out_channels, shape.in_channels]),
            [1, 0],
        )
        result = matrix_product(device, rows, columns)
        if result is None:
            return None
    else:
        taps = lowerings[aten.permute](weight, [0, 2, 3, 1])
        matrix = lowerings[aten.reshape](taps, [shape.out_channels, -1])
        x, matrix = _realize_inputs(x, matrix)
        if x.get_stride()[1] != 1 or matrix.get_stride()[1] != 1:
            return None
        shape = shape.collapsed()
        result = _run(
            "convolution",
            _template("channels_last_convolution", product.CONVOLUTION),
            [x, matrix],
            shape.product(x.get_dtype().itemsize),
            shape.constants,
            device,
        )
    height, width = shape.out_size
    result = lowerings[aten.reshape](result, [shape.batch, height, width, shape.out_channels])
    result = lowerings[aten.permute](result, [0, 3, 1, 2])
    if bias is None:
        return result
    return lowerings[aten.add](result, lowerings[aten.reshape](bias, [1, shape.out_channels, 1, 1]))


def matrix_product(device: Device, a: Any, b: Any) -> Any | None:
    """``aten.mm``: [m, k] by [k, n]. Shapes must be static."""
    if not _usable(a, b) or 0 in (*a.get_size(), *b.get_size()):
        return None
    a, b = _realize_inputs(a, b)
    (m, k), n = _pair(a.get_size()), int(b.get_size()[1])
    shape = cost.Product(m=m, n=n, k=k, itemsize=a.get_dtype().itemsize)
    return _run(
        "mm",
        _template("matrix_product", product.MATMUL),
        [a, b],
        shape,
        functools.partial(geometry.matmul_constants, shape),
        device,
    )


def matrix_product_plus(
    device: Device, addend: Any, a: Any, b: Any, *, alpha: Any = 1, beta: Any = 1
) -> Any | None:
    """``aten.addmm`` with both factors 1."""
    if alpha != 1 or beta != 1:
        return None
    result = matrix_product(device, a, b)
    return None if result is None else lowerings[aten.add](result, addend)


def _usable(a: Any, b: Any) -> bool:
    return (
        a.get_dtype() in _DTYPES
        and a.get_dtype() == b.get_dtype()
        and all(isinstance(e, (int, sympy.Integer)) for e in (*a.get_size(), *b.get_size()))
    )


def _pair(values: Sequence[Any]) -> tuple[int, int]:
    first, second = (int(value) for value in (values if len(values) == 2 else [*values] * 2))
    return first, second


def _run(
    name: str,
    template: TritonTemplate,
    operands: list[Any],
    shape: cost.Product,
    constants: Callable[[cost.Tile], dict[str, Any]],
    device: Device,
) -> Any:
    """Returns the product as a tensor [m, n] of the operands' type."""
    tile = cost.best(shape, device)
    dtype = operands[0].get_dtype()
    split = tile.split_k > 1
    size = [tile.split_k, shape.m, shape.n] if split else [shape.m, shape.n]
    layout = ir.FixedLayout(
        operands[0].get_device_or_error(), torch.float32 if split else dtype, size
    )
    candidate = template.generate(
        input_nodes=tuple(operands),
        layout=layout,
        num_stages=tile.num_stages,
        num_warps=tile.num_warps,
        call_sizes=[sympy.Integer(shape.m), sympy.Integer(shape.n)],
        **constants(tile),
    )
    candidate.annotations[cost.TILE] = (shape, tile)
    result, _ = _autotune_select_algorithm(name, [candidate], operands, layout)
    return _sum_of_parts(result, tile.split_k, dtype) if split else result


def _sum_of_parts(partial: Any, parts: int, dtype: torch.dtype) -> Any:
    """Adds up [parts, m, n], in order; a pointwise operation, so that what follows is fused."""
    partial.realize()
    load = partial.make_loader()

    def inner(index: Sequence[Any]) -> Any:
        total = load([sympy.Integer(0), *index])
        for part in range(1, parts):
            total = ops.add(total, load([sympy.Integer(part), *index]))
        return ops.to_dtype(total, dtype)

    return ir.Pointwise.create(
        device=partial.get_device(),
        dtype=dtype,
        inner_fn=inner,
        ranges=list(partial.get_size()[1:]),
    )


@SymbolicGridFn
def _grid(m: Any, n: Any, meta: dict[str, Any], *, cdiv: Any) -> tuple[Any, Any, Any]:
    return cdiv(m, meta["BLOCK_M"]) * cdiv(n, meta["BLOCK_N"]), meta["SPLIT_K"], 1


@functools.cache
def _template(name: str, source: str) -> TritonTemplate:
    """Inductor keeps templates for as long as the process lives."""
    return TritonTemplate(name=name, grid=_grid, source=source)
