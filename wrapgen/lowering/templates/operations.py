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
from torch._inductor.utils import sympy_product
from torch._inductor.virtualized import V, ops

from wrapgen.lowering import sites as sites_module
from wrapgen.lowering.sites import Sites, operand, typical
from wrapgen.lowering.templates import cost, direct, geometry, product
from wrapgen.lowering.templates.problem import Problem, channels_last
from wrapgen.tuning.lock import Config

aten = torch.ops.aten
prims = torch.ops.prims

# These two have no annotations.
_realize_inputs: Any = select_algorithm.realize_inputs
_autotune_select_algorithm: Any = select_algorithm.autotune_select_algorithm

_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32)


def convolution(
    sites: Sites,
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
    """``aten.convolution`` that is not transposed, over one to three dimensions.

    The weight's shape is static, batch and extents may be symbolic. The result is channels last.
    Inductor's own templates are never used: they have no dilation, and are wrong with 8 warps or
    more (pytorch#173068).
    """
    rank = len(weight.get_size()) - 2
    if transposed or len(x.get_size()) != rank + 2 or not _static(weight.get_size()):
        return None
    strides, paddings, dilations = (_ints(v, rank) for v in (stride, padding, dilation))
    if rank == 1 and groups > 1 and int(weight.get_size()[1]) == 1:
        x = _realize_inputs(x)
        result = direct.convolution(x, weight, strides, paddings, dilations, groups)
    elif rank == 1:
        # First, while it can decide how an elementwise kernel stores its result.
        x.realize()
        x = ir.ExternKernel.require_stride_order(x, (2, 0, 1))
        flat = convolution(
            sites,
            _with_height(x),
            lowerings[aten.unsqueeze](weight, 2),
            None,
            (1, *strides),
            (0, *paddings),
            (1, *dilations),
            transposed,
            output_padding,
            groups,
        )
        result = None if flat is None else ir.TensorBox(ir.SqueezeView.create(flat.data, dim=2))
    else:
        result = _convolution(sites, x, weight, strides, paddings, dilations, groups)
    if result is None or bias is None:
        return result
    return lowerings[aten.add](result, lowerings[aten.reshape](bias, [1, -1, *[1] * rank]))


def _with_height(x: Any) -> Any:
    """A view [batch, channels, 1, length] of [batch, channels, length].

    ``unsqueeze`` would ask whether the length is 1.
    """
    storage, layout = ir.as_storage_and_layout(x)
    batch, channels, length = layout.size
    apart = list(layout.stride)
    view = ir.FixedLayout(
        layout.device,
        layout.dtype,
        [batch, channels, sympy.Integer(1), length],
        [apart[0], apart[1], apart[2] * length, apart[2]],
        layout.offset,
    )
    return ir.TensorBox(ir.ReinterpretView(data=storage, layout=view))


def _convolution(
    sites: Sites,
    x: Any,
    weight: Any,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Any | None:
    """A convolution over two or three dimensions, without bias."""
    order = ir.NHWC_STRIDE_ORDER if len(stride) == 2 else ir.NHWDC_STRIDE_ORDER
    out_channels, in_channels, *kernel = (int(extent) for extent in weight.get_size())
    if int(x.get_size()[1]) != in_channels * groups:
        return None
    x.realize()
    weight.realize()
    x = ir.ExternKernel.require_stride_order(x, order)
    if x.get_dtype() not in _DTYPES or (groups > 1 and in_channels == 1) or _empty(x, weight):
        return direct.convolution(x, weight, stride, padding, dilation, groups)
    weight = ir.ExternKernel.require_stride_order(weight, order)
    batch, _, *size = x.get_size()
    out_size = direct.output_size(size, kernel, stride, padding, dilation)
    shape = geometry.Convolution(
        batch=typical(batch),
        in_channels=in_channels,
        out_channels=out_channels // groups,
        in_size=tuple(typical(extent) for extent in size),
        kernel=tuple(kernel),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        known_batch=_static([batch]),
        known_size=_static(size),
    )
    axes = list(range(2, 2 + len(size)))
    matrix = lowerings[aten.reshape](
        lowerings[aten.permute](weight, [0, *axes, 1]), [out_channels, -1]
    )
    if shape.pointwise:
        pixels = lowerings[aten.permute](x, [0, *axes, 1])
        rows = lowerings[aten.reshape](pixels, [-1, in_channels])
        result = matrix_product(sites, rows, lowerings[aten.permute](matrix, [1, 0]))
        if result is None:
            return None
    else:
        x, matrix = _realize_inputs(x, matrix)
        if not (_contiguous(x, 1) and _contiguous(matrix, 1)):
            return None
        geometric = {
            "kernel": tuple(kernel),
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": (groups,),
        }
        words = [f"{name} {'x'.join(map(str, values))}" for name, values in geometric.items()]
        key = " ".join(["convolution", operand(x), operand(matrix), *words])
        weight_size = [out_channels, in_channels, *kernel]
        problem = Problem.of(
            aten.convolution.default,
            [x, weight],
            lambda x, w: (x, w, None, stride, padding, dilation, False, [0] * len(kernel), groups),
            strides={1: channels_last(weight_size, int(matrix.get_stride()[0]))},
        )
        shape = shape.collapsed()
        result = _run(
            "convolution",
            key,
            problem,
            _template("channels_last_convolution", product.CONVOLUTION),
            [x, matrix],
            shape.product(x.get_dtype().itemsize),
            sympy_product([batch, *out_size]),
            shape.constants,
            sites,
        )
    result = lowerings[aten.reshape](result, [batch, *out_size, out_channels])
    return lowerings[aten.permute](result, [0, len(size) + 1, *range(1, len(size) + 1)])


def _contiguous(operand: Any, axis: int) -> bool:
    """Whether neighbours along an axis are neighbours in memory; an axis of one element may be."""
    return bool(
        V.graph.sizevars.statically_known_equals(operand.get_stride()[axis], 1)
        or V.graph.sizevars.statically_known_equals(operand.get_size()[axis], 1)
    )


def matrix_product(sites: Sites, a: Any, b: Any) -> Any | None:
    """``aten.mm``: [m, k] by [k, n]. ``m`` may be symbolic."""
    if a.get_dtype() not in _DTYPES or _empty(a, b):
        return sum_of_products(sites, a, b)
    if a.get_dtype() != b.get_dtype():
        return None
    rows, inner = a.get_size()
    if not _static([inner, *b.get_size()]):
        return None
    a, b = _realize_inputs(a, b)
    k, n = int(inner), int(b.get_size()[1])
    shape = cost.Product(m=typical(rows), n=n, k=k, itemsize=a.get_dtype().itemsize)
    return _run(
        "mm",
        f"mm {operand(a)} {operand(b)}",
        Problem.of(aten.mm.default, [a, b], lambda a, b: (a, b)),
        _template("matrix_product", product.MATMUL),
        [a, b],
        shape,
        rows,
        functools.partial(geometry.matmul_constants, shape, known_m=_static([rows])),
        sites,
    )


def sum_of_products(_sites: Sites, a: Any, b: Any) -> Any | None:
    """``aten.mm`` and ``aten.bmm`` where tensor cores are of no use: a reduction, never stored.

    For double precision and integers, and where there is nothing to compute. Integers are added up
    in 64 bits and wrap round as PyTorch's do.
    """
    dtype = a.get_dtype()
    if (dtype in _DTYPES and not _empty(a, b)) or dtype != b.get_dtype():
        return None
    if _empty(a, b):
        size = [*a.get_size()[:-1], b.get_size()[-1]]
        return lowerings[aten.full](size, 0, dtype=dtype, device=a.get_device())
    columns = lowerings[aten.unsqueeze](a, -1)
    rows = lowerings[aten.unsqueeze](b, -3)
    products = lowerings[aten.mul](columns, rows)
    total = lowerings[aten.sum](products, [-2], False)
    return lowerings[prims.convert_element_type](total, dtype)


def matrix_product_plus(
    sites: Sites, addend: Any, a: Any, b: Any, *, alpha: Any = 1, beta: Any = 1
) -> Any | None:
    """``aten.addmm`` with both factors 1."""
    if alpha != 1 or beta != 1:
        return None
    result = matrix_product(sites, a, b)
    return None if result is None else lowerings[aten.add](result, addend)


def _static(extents: Sequence[Any]) -> bool:
    return all(isinstance(extent, (int, sympy.Integer)) for extent in extents)


def _empty(*operands: Any) -> bool:
    return any(0 in operand.get_size() for operand in operands)


def _ints(values: Sequence[Any], count: int) -> tuple[int, ...]:
    """``count`` numbers, of which the caller may have spelled one for all."""
    return tuple(int(value) for value in (values if len(values) == count else [*values] * count))


def _run(
    name: str,
    key: str,
    problem: Problem,
    template: TritonTemplate,
    operands: list[Any],
    shape: cost.Product,
    rows: Any,
    constants: Callable[[cost.Tile], dict[str, Any]],
    sites: Sites,
) -> Any:
    """Returns the product as a tensor [m, n x batch] of the operands' type.

    ``rows`` is m, of which ``shape`` has a typical value where it is symbolic. ``key`` and
    ``problem`` are the site's.
    """
    tiles = cost.ranked(shape, sites.device)

    def refusal(config: Config) -> str:
        wrong = sites_module.missing_fields(config, sites_module.of_dataclass(tiles[0]))
        return wrong or cost.refusal(shape, cost.Tile(**config), sites.device)

    options = [(sites_module.of_dataclass(tile), tile) for tile in tiles]
    tile = sites.choose(key, options, refusal, problem)
    dtype = operands[0].get_dtype()
    split = tile.split_k > 1
    matrix = [rows, shape.n * shape.batch]
    size = [tile.split_k, *matrix] if split else matrix
    layout = ir.FixedLayout(
        operands[0].get_device_or_error(), torch.float32 if split else dtype, size
    )
    candidate = template.generate(
        input_nodes=tuple(operands),
        layout=layout,
        num_stages=tile.num_stages,
        num_warps=tile.num_warps,
        call_sizes=[rows, sympy.Integer(shape.n)],
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
    tiles = cdiv(m, meta["BLOCK_M"]) * cdiv(n, meta["BLOCK_N"])
    return tiles, meta["SPLIT_K"], meta.get("GROUPS", 1)


@functools.cache
def _template(name: str, source: str) -> TritonTemplate:
    """Inductor keeps templates for as long as the process lives."""
    return TritonTemplate(name=name, grid=_grid, source=source)
