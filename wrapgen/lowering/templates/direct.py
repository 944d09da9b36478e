"""Convolutions as sums in Inductor's own IR, where a matrix product would be mostly zeros.

A depthwise convolution has one input channel an output channel: as a product it has one column. As
an elementwise kernel it reads each pixel from the caches once for each tap, and what follows it
(bias, activation, residual, normalisation) is fused into it.

It is also how convolutions are computed that no template takes, in float64 say.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import sympy
import torch
from torch._inductor import ir
from torch._inductor.utils import sympy_product
from torch._inductor.virtualized import V, ops
from torch.utils._sympy.functions import FloorDiv

MAX_UNROLLED: Final = 128
"""Terms of a sum that are written out one after the other; longer ones are loops."""

_CHANNELS_LAST: Final = {4: ir.NHWC_STRIDE_ORDER, 5: ir.NHWDC_STRIDE_ORDER}


def convolution(
    x: Any,
    weight: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Any:
    """A convolution without bias over any number of dimensions, summed up in float32 at least.

    Args:
      x: [batch, channels, ...]; batch and extents may be symbolic.
      weight: [output channels, channels / groups, ...], of static shape.
      stride: one an extent, like the two that follow.
      padding: on both sides.
      dilation: distance of taps.
      groups: of channels.

    The result is channels last where ``x`` is.
    """
    x.realize()
    weight.realize()
    out_channels, in_channels, *kernel = (int(extent) for extent in weight.get_size())
    size = list(x.get_size()[2:])
    out_size = output_size(size, kernel, stride, padding, dilation)
    out_group = out_channels // groups
    dtype = x.get_dtype()
    total_type = torch.promote_types(dtype, torch.float32)
    load_x, load_weight = x.make_loader(), weight.make_loader()

    def term(index: Sequence[Any], channel: Any, tap: Sequence[Any]) -> Any:
        """One product of the sum at ``index``."""
        image, out_channel, *at = index
        places = [at[i] * stride[i] - padding[i] + tap[i] * dilation[i] for i in range(len(kernel))]
        in_channel = channel
        if groups > 1:
            in_channel = FloorDiv(out_channel, out_group) * in_channels + channel
        masks = [
            mask
            for i, place in enumerate(places)
            for mask in _inside(place, size[i], tap[i] * dilation[i], padding[i])
        ]
        load = functools.partial(load_x, [image, in_channel, *places])
        value = ops.masked(functools.reduce(ops.and_, masks), load, 0.0) if masks else load()
        return ops.mul(
            ops.to_dtype(value, total_type),
            ops.to_dtype(load_weight([out_channel, channel, *tap]), total_type),
        )

    create = _unrolled if in_channels * math.prod(kernel) <= MAX_UNROLLED else _looped
    result = create(
        x.get_device(),
        (dtype, total_type),
        [x.get_size()[0], sympy.Integer(out_channels), *out_size],
        [in_channels, *kernel],
        term,
    )
    result.realize()
    if not hasattr(V.graph, _SUMS):
        setattr(V.graph, _SUMS, set())
    getattr(V.graph, _SUMS).add(result.get_name())
    order = _CHANNELS_LAST.get(len(out_size) + 2)
    if order is not None and V.graph.sizevars.statically_known_equals(x.get_stride()[1], 1):
        result = ir.ExternKernel.require_stride_order(result, order)
    return result


def may_fuse(producer: Any, consumer: Any) -> bool:
    """Whether a convolution may be computed inside what reads it, two nodes of the scheduler.

    A reduction has fewer programs than its operand has elements, and the sum would be done by
    those: fused into an average over all pixels, by one for some channels of an image. Into a
    normalisation over channels it may be if small, where a launch is what counts: on an H200 a
    7x7 one and a layer norm took 7.5 us in one kernel at 300 thousand elements, and 149 us at 9.6
    million, where the convolution alone takes 88.
    """
    sums: set[str] = getattr(V.graph, _SUMS, set())
    own = sums.intersection(producer.get_buffer_names())
    if not own or not consumer.is_reduction():
        return True
    (name, *_) = sorted(own)
    size = V.graph.get_buffer(name).get_size()
    _, (_, reduced) = consumer.group
    hint = V.graph.sizevars.optimization_hint
    return bool(
        V.graph.sizevars.statically_known_equals(reduced, size[1])
        and hint(sympy_product(size)) <= _FUSED_REDUCTION
    )


_SUMS: Final = "wrapgen_sums"
"""Attribute of a graph being lowered: names of the buffers that convolutions here compute."""

_FUSED_REDUCTION: Final = 1 << 19
"""Elements of a convolution that may be computed inside a reduction over its channels."""


def output_size(
    size: Sequence[Any],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[Any]:
    """Extents of the result, as ``torch.nn.Conv2d`` documents."""
    return [
        FloorDiv(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1, stride[i]) + 1
        for i in range(len(kernel))
    ]


def _inside(place: Any, size: Any, offset: Any, padding: int) -> list[Any]:
    """Conditions for ``place`` to be within the image, those that hold always left out."""
    if not padding:
        return []
    index = ops.index_expr(place, torch.int64)
    masks = []
    if not (isinstance(offset, int) and offset >= padding):
        masks.append(ops.ge(index, ops.index_expr(sympy.Integer(0), torch.int64)))
    if not (isinstance(offset, int) and offset == 0):
        masks.append(ops.lt(index, ops.index_expr(size, torch.int64)))
    return masks


Term = Callable[[Sequence[Any], Any, Sequence[Any]], Any]


def _unrolled(
    device: Any,
    dtypes: tuple[torch.dtype, torch.dtype],
    ranges: list[Any],
    terms: list[int],
    term: Term,
) -> Any:
    def inner(index: Sequence[Any]) -> Any:
        products = (
            term(index, channel, tap) for channel, *tap in itertools.product(*map(range, terms))
        )
        return ops.to_dtype(functools.reduce(ops.add, products), dtypes[0])

    return ir.Pointwise.create(device=device, dtype=dtypes[0], inner_fn=inner, ranges=ranges)


def _looped(
    device: Any,
    dtypes: tuple[torch.dtype, torch.dtype],
    ranges: list[Any],
    terms: list[int],
    term: Term,
) -> Any:
    def inner(index: Sequence[Any], at: Sequence[Any]) -> Any:
        channel, *tap = at
        return term(index, channel, tap)

    return ir.Reduction.create(
        device=device,
        dst_dtype=dtypes[0],
        src_dtype=dtypes[1],
        inner_fn=inner,
        ranges=ranges,
        reduction_ranges=[sympy.Integer(extent) for extent in terms],
        reduction_type="sum",
    )
