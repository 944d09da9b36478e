"""Decompositions of pooling, resampling, padding and folding that Inductor has no kernel for.

Each is written as a sum or maximum over *windows*: for each dimension, the places that each output
position reads, as index arithmetic. That becomes one kernel, whatever the window's size, which
writes every result once: no atomics, so the same bits on every run. Where Inductor's own lowering
makes a kernel, a decomposition returns ``NotImplemented`` and is not used.

Shapes are those of PyTorch's documentation; batch, channels and, unless a text says otherwise,
extents may be symbolic. Sums are of float32 at least.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch._prims_common import suggest_memory_format

aten = torch.ops.aten

_UNROLLED: Final = 25
"""Inductor has kernels for windows of up to so many elements."""


@dataclasses.dataclass(frozen=True)
class _Window:
    """What the positions along one dimension read.

    Attributes:
      place: [positions, taps], int64, where; within the input also where not ``taken``.
      taken: [positions, taps], whether it is read at all; ``None`` for everywhere.
    """

    place: Tensor
    taken: Tensor | None


def _gather(x: Tensor, windows: Sequence[_Window]) -> tuple[Tensor, Tensor | None]:
    """Gives ``x`` at each place of each window of its last dimensions, and which are taken.

    Dimensions are those before, then positions along each dimension, then taps along each.
    """
    rank = len(windows)

    def spread(value: Tensor, axis: int) -> Tensor:
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = value.shape
        return value.view(shape)

    places = [spread(window.place, axis) for axis, window in enumerate(windows)]
    values = aten._unsafe_index.Tensor(x, [*[None] * (x.dim() - rank), *places])
    taken = None
    for axis, window in enumerate(windows):
        if window.taken is not None:
            own = spread(window.taken, axis)
            taken = own if taken is None else taken & own
    return values, taken


def _total(x: Tensor, windows: Sequence[_Window]) -> Tensor:
    """Sums over windows, in float32 at least."""
    values, taken = _gather(x.to(torch.promote_types(x.dtype, torch.float32)), windows)
    if taken is not None:
        values = torch.where(taken, values, 0.0)
    return values.sum([-1 - axis for axis in range(len(windows))])


def _largest(x: Tensor, windows: Sequence[_Window]) -> tuple[Tensor, Tensor]:
    """Gives the maximum of each window, and where it is: an index into the last dimensions."""
    values, taken = _gather(x, windows)
    if taken is not None:
        lowest = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
        values = torch.where(taken, values, lowest)
    rank = len(windows)
    largest, tap = values.flatten(-rank).max(-1)
    where = torch.zeros_like(tap)
    taps = [window.place.shape[1] for window in windows]
    for axis, window in enumerate(windows):
        own = tap // math.prod(taps[axis + 1 :]) % taps[axis]
        positions = torch.arange(window.place.shape[0], device=x.device)
        positions = positions.view([-1, *[1] * (rank - 1 - axis)])
        where = where * x.shape[x.dim() - rank + axis] + aten._unsafe_index.Tensor(
            window.place, [positions, own]
        )
    return largest, where


def _sliding(
    size: Any, kernel: int, stride: int, padding: int, ceil_mode: bool, device: torch.device
) -> _Window:
    """The windows of a pooling along one dimension."""
    count = (size + 2 * padding - kernel + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1  # windows begin within the input or the padding before it
    place = torch.arange(count, device=device)[:, None] * stride - padding
    place = place + torch.arange(kernel, device=device)
    if not padding and not ceil_mode:
        return _Window(place, None)
    return _Window(place.clamp(0, size - 1), (place >= 0) & (place < size))


def _adaptive(size: Any, count: int, device: torch.device) -> _Window:
    """Windows that divide a dimension evenly: from floor(i size / n) to ceil((i + 1) size / n)."""
    position = torch.arange(count, device=device)[:, None]
    start, end = position * size // count, ((position + 1) * size + count - 1) // count
    if isinstance(size, int):
        longest: Any = max(-(-(i + 1) * size // count) - i * size // count for i in range(count))
        even = size % count == 0
    else:
        longest, even = size // count + 2, False
    place = start + torch.arange(longest, device=device)
    if even:
        return _Window(place, None)
    return _Window(place.clamp(max=size - 1), place < end)


def _list(values: int | Sequence[int], rank: int) -> list[int]:
    if isinstance(values, int):
        return [values] * rank
    return list(values) if len(values) == rank else [*values] * rank


def _average_pool(rank: int) -> Callable[..., Any]:
    def decomposition(
        x: Tensor,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (),
        padding: Sequence[int] | int = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        kernel = _list(kernel_size, rank)
        strides = _list(stride, rank) if stride else kernel
        pads = _list(padding, rank)
        if math.prod(kernel) <= _UNROLLED or kernel == strides:
            return NotImplemented
        size = x.shape[-rank:]
        windows = [
            _sliding(size[i], kernel[i], strides[i], pads[i], ceil_mode, x.device)
            for i in range(rank)
        ]
        total = _total(x, windows)
        if divisor_override:
            return (total / divisor_override).to(x.dtype)
        for i in range(rank):
            count = windows[i].place.shape[0]
            start = torch.arange(count, device=x.device) * strides[i] - pads[i]
            end = (start + kernel[i]).clamp(max=size[i] + pads[i])
            if not count_include_pad:
                start, end = start.clamp(min=0), end.clamp(max=size[i])
            total = total / (end - start).view([-1, *[1] * (rank - 1 - i)])
        return total.to(x.dtype)

    return decomposition


def _adaptive_average_pool(rank: int) -> Callable[..., Any]:
    def decomposition(x: Tensor, output_size: Sequence[int]) -> Any:
        size = x.shape[-rank:]
        windows = [_adaptive(size[i], output_size[i], x.device) for i in range(rank)]
        static = all(isinstance(extent, int) for extent in size)
        if static and all(window.taken is None for window in windows):
            if rank == 2:
                return NotImplemented
            kernel = [size[i] // output_size[i] for i in range(rank)]
            return aten.avg_pool3d.default(x, kernel)
        if rank == 2 and static and _elements(windows) <= _UNROLLED:
            return NotImplemented
        total = _total(x, windows)
        for i in range(rank):
            position = torch.arange(output_size[i], device=x.device)
            start = position * size[i] // output_size[i]
            end = ((position + 1) * size[i] + output_size[i] - 1) // output_size[i]
            total = total / (end - start).view([-1, *[1] * (rank - 1 - i)])
        return total.to(x.dtype)

    return decomposition


def _adaptive_max_pool(rank: int, inductors: Callable[..., Any] | None) -> Callable[..., Any]:
    def decomposition(x: Tensor, output_size: Sequence[int]) -> Any:
        size = x.shape[-rank:]
        windows = [_adaptive(size[i], output_size[i], x.device) for i in range(rank)]
        static = all(isinstance(extent, int) for extent in size)
        if inductors is not None and static and _elements(windows) <= _UNROLLED:
            return inductors(x, output_size)
        return _largest(x, windows)

    return decomposition


def _elements(windows: Sequence[_Window]) -> int:
    return math.prod(int(window.place.shape[1]) for window in windows)


def _circular_pad(x: Tensor, pad: Sequence[int]) -> Tensor:
    """``torch.nn.functional.pad(..., mode="circular")``; ``pad`` begins with the last dimension."""
    rank = len(pad) // 2
    places = []
    for i in range(rank):
        before, after = pad[2 * (rank - 1 - i) : 2 * (rank - i)]
        size = x.shape[x.dim() - rank + i]
        place = torch.arange(-before, size + after, device=x.device) % size
        places.append(place.view([-1, *[1] * (rank - 1 - i)]))
    result: Tensor = aten._unsafe_index.Tensor(x, [*[None] * (x.dim() - rank), *places])
    return result


def _fold(
    x: Tensor,
    output_size: Sequence[int],
    kernel_size: Sequence[int],
    dilation: Sequence[int],
    padding: Sequence[int],
    stride: Sequence[int],
) -> Tensor:
    """``torch.nn.functional.fold``: each pixel is the sum of the columns' elements it went to."""
    rank = 2
    blocks = [
        (output_size[i] + 2 * padding[i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1
        for i in range(rank)
    ]
    columns = x.reshape(*x.shape[:-2], -1, *kernel_size, *blocks)
    places: list[Tensor] = []
    taken: Tensor | None = None
    taps: list[Tensor] = []
    for i in range(rank):
        shape = [1] * (2 * rank)
        shape[i], shape[rank + i] = output_size[i], kernel_size[i]
        tap = torch.arange(kernel_size[i], device=x.device)
        pixel = torch.arange(output_size[i], device=x.device)[:, None] + padding[i]
        first = (pixel - tap * dilation[i]).view(shape)
        block = torch.div(first, stride[i], rounding_mode="floor")
        own = (first % stride[i] == 0) & (block >= 0) & (block < blocks[i])
        taken = own if taken is None else taken & own
        places.append(block.clamp(0, blocks[i] - 1))
        shape[i] = 1
        taps.append(tap.view(shape))
    columns = columns.to(torch.promote_types(x.dtype, torch.float32))
    none = [None] * (columns.dim() - 2 * rank)
    values = aten._unsafe_index.Tensor(columns, [*none, *taps, *places])
    assert taken is not None
    return torch.where(taken, values, 0.0).sum([-2, -1]).to(x.dtype)


def _triangle(x: Tensor) -> Tensor:
    """The filter of linear interpolation."""
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Keys' filter with a = -0.5 (Keys, "Cubic Convolution Interpolation", 1981), as Pillow."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _antialiased(kernel: Callable[[Tensor], Tensor], width: int) -> Callable[..., Any]:
    """Resampling with a filter as wide as a step of the result, as in Pillow.

    Follows PyTorch's UpSampleKernel.cpp (``_compute_indices_min_size_weights_aa``). Extents of the
    input and the result are static.
    """

    def decomposition(
        x: Tensor,
        output_size: Sequence[int] | None,
        align_corners: bool,
        scale_factors: Sequence[float] | None,
    ) -> Any:
        size = x.shape[-2:]
        if not all(isinstance(extent, int) for extent in size):
            return NotImplemented
        factors = list(scale_factors) if scale_factors is not None else [None, None]
        if output_size is None:
            output_size = [math.floor(size[i] * float(factors[i] or 1)) for i in range(2)]
        result = x.to(torch.promote_types(x.dtype, torch.float32))
        for axis in (1, 0):  # columns first
            count = output_size[axis]
            scale = _step(size[axis], count, align_corners, factors[axis])
            moved = result.movedim(-2 + axis, -1)
            window, weights = _filter(kernel, width, size[axis], count, scale, x)
            values, _ = _gather(moved, [window])
            result = (values * weights).sum(-1).movedim(-1, -2 + axis)
        return result.to(x.dtype).contiguous(memory_format=suggest_memory_format(x))

    return decomposition


def _step(size: int, count: int, align_corners: bool, factor: float | None) -> float:
    """How many input pixels lie between two output pixels."""
    if align_corners:
        return (size - 1) / (count - 1) if count > 1 else 0.0
    return 1 / factor if factor else size / count


def _filter(
    kernel: Callable[[Tensor], Tensor],
    width: int,
    size: int,
    count: int,
    scale: float,
    like: Tensor,
) -> tuple[_Window, Tensor]:
    """Windows of ``count`` positions along a dimension of ``size``, and the weight of each tap."""
    support = width / 2 * max(scale, 1.0)
    real = torch.promote_types(like.dtype, torch.float32)
    center = scale * (torch.arange(count, dtype=real, device=like.device)[:, None] + 0.5)
    start = (center - support + 0.5).to(torch.int64).clamp(min=0)
    end = (center + support + 0.5).to(torch.int64).clamp(max=size)
    place = start + torch.arange(math.ceil(support) * 2 + 1, device=like.device)
    weights = kernel((place.to(real) - center + 0.5) / max(scale, 1.0))
    weights = torch.where(place < end, weights, 0.0)
    weights = weights / weights.sum(-1, keepdim=True)
    return _Window(place.clamp(max=size - 1), None), weights


def _grid_sample_3d(
    x: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Any:
    """``torch.nn.functional.grid_sample`` of volumes: [n, c, d, h, w] at [n, d', h', w', 3].

    ``interpolation_mode``: 0 linear, 1 nearest. ``padding_mode``: 0 zeros, 1 border, 2 reflection.
    """
    real = torch.promote_types(x.dtype, torch.float32)
    size = x.shape[2:]
    # The grid's last dimension is x, y, z.
    at = [
        _source(grid[..., 2 - i].to(real), size[i], padding_mode, align_corners) for i in range(3)
    ]
    batch = torch.arange(x.shape[0], device=x.device).view(-1, 1, 1, 1, 1)
    channel = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1, 1)

    def pixel(places: Sequence[Tensor]) -> Tensor:
        """The input at float positions that are whole numbers; zero outside."""
        inside = None
        index = []
        for place, extent in zip(places, size, strict=True):
            own = (place >= 0) & (place < extent)
            inside = own if inside is None else inside & own
            index.append(torch.where(own, place, 0.0).to(torch.int64).unsqueeze(1))
        assert inside is not None
        value = aten._unsafe_index.Tensor(x, [batch, channel, *index]).to(real)
        return torch.where(inside.unsqueeze(1), value, 0.0)

    if interpolation_mode == 1:
        return pixel([place.round() for place in at]).to(x.dtype)
    floors = [place.floor() for place in at]
    total: Any = 0.0
    for corner in range(8):
        steps = [corner >> (2 - i) & 1 for i in range(3)]
        weight: Any = 1.0
        for i in range(3):
            beyond = at[i] - floors[i]
            weight = weight * (beyond if steps[i] else 1 - beyond)
        total = total + pixel([floors[i] + steps[i] for i in range(3)]) * weight.unsqueeze(1)
    return total.to(x.dtype)


def _source(place: Tensor, size: Any, padding_mode: int, align_corners: bool) -> Tensor:
    """From [-1, 1] to pixels, inside the image unless it is padded with zeros."""
    place = (place + 1) / 2 * (size - 1) if align_corners else ((place + 1) * size - 1) / 2
    if padding_mode == 2:
        # A triangle wave between the borders: of the outer pixels, or of their centres.
        low, span = (0.0, size - 1) if align_corners else (-0.5, size)
        if isinstance(span, int) and span == 0:
            return torch.zeros_like(place)
        distance = (place - low).abs()
        flips = (distance / span).floor()
        rest = distance - flips * span
        odd = flips != 2 * (flips / 2).floor()
        place = torch.where(odd, span - rest, rest) + low
    if padding_mode:
        place = place.clamp(0, size - 1)
    return place


def _inductors(operation: Any) -> Callable[..., Any]:
    from torch._inductor.decomposition import select_decomp_table

    found: Callable[..., Any] = select_decomp_table()[operation]
    return found


_NEAREST: Final = (
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.vec,
)

DECOMPOSITIONS: Final[dict[Any, Callable[..., Any] | None]] = {
    **{operation: get_decompositions([operation])[operation] for operation in _NEAREST},
    aten.avg_pool2d.default: _average_pool(2),
    aten.avg_pool3d.default: _average_pool(3),
    aten._adaptive_avg_pool2d.default: _adaptive_average_pool(2),
    aten._adaptive_avg_pool3d.default: _adaptive_average_pool(3),
    aten.adaptive_max_pool2d.default: _adaptive_max_pool(
        2, _inductors(aten.adaptive_max_pool2d.default)
    ),
    aten.adaptive_max_pool3d.default: _adaptive_max_pool(3, None),
    aten._pad_circular.default: _circular_pad,
    aten.col2im.default: _fold,
    aten._upsample_bilinear2d_aa.vec: _antialiased(_triangle, 2),
    aten._upsample_bicubic2d_aa.vec: _antialiased(_cubic, 4),
    aten.grid_sampler_3d.default: _grid_sample_3d,
}
"""Overload to decomposition."""
