"""Operations that look at whole tensors: shapes, matrix products, gathers and histograms."""

from __future__ import annotations

import math
from typing import Final

import torch

from simulator.interpreter.errors import InterpreterError
from simulator.interpreter.floats import dtype_of, tf32, widen
from simulator.interpreter.ttir import Type
from simulator.interpreter.values import Tensor, expand


def reshape(value: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
    """Row-major reshape; axes that stay what they are stay unexpanded."""
    if [n for n in source if n != 1] == [n for n in target if n != 1]:
        kept = iter(size for size, full in zip(value.shape[1:], source, strict=True) if full != 1)
        return value.reshape(value.shape[0], *(1 if n == 1 else next(kept) for n in target))
    if all(size == 1 for size in value.shape[1:]):
        return value.reshape(value.shape[0], *(1,) * len(target))
    return expand(value, source).reshape(value.shape[0], *target)


def broadcast_programs(*values: Tensor) -> tuple[Tensor, ...]:
    """Gives all the same size along the programs' axis."""
    count = max(value.shape[0] for value in values)
    return tuple(value.expand(count, *value.shape[1:]) for value in values)


def join(a: Tensor, b: Tensor) -> Tensor:
    """Pairs of elements, along a new last axis."""
    a, b = torch.broadcast_tensors(a, b)
    return torch.stack((a, b), -1)


def split(value: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of ``join``."""
    return value[..., 0], value[..., -1]


def cat(a: Tensor, b: Tensor, types: list[Type]) -> Tensor:
    """One after the other along the first axis."""
    parts = broadcast_programs(expand(a, types[0].shape), expand(b, types[-1].shape))
    return torch.cat(parts, 1)


def gather(source: Tensor, index: Tensor, types: list[Type], axis: int) -> Tensor:
    """The elements that ``index`` chooses along an axis; the indices are in range."""
    source, index = broadcast_programs(
        expand(source, types[0].shape), expand(index, types[1].shape)
    )
    return source.gather(axis + 1, index.to(torch.int64))


def histogram(value: Tensor, mask: Tensor | None, size: int, bins: int) -> Tensor:
    """Counts, int32, of a 1-d tensor of ``size`` elements, of which ``mask`` chooses."""
    value = expand(value, (size,))
    weight = torch.ones((), dtype=torch.int32).expand_as(value)
    if mask is not None:
        value, mask = broadcast_programs(value, expand(mask, (size,)))
        weight = mask.to(torch.int32)
    result = torch.zeros((value.shape[0], bins), dtype=torch.int32)
    return result.scatter_add_(1, value.to(torch.int64), weight)


_EXACT: Final = ("ieee", "tf32x3", "bf16x3", "bf16x6")
"""Precisions of float32 products that are computed in float32 here. The compound ones come to
within a few units in the last place of it on hardware."""


def dot(
    a: Tensor, b: Tensor, accumulator: Tensor, types: list[Type], result: Type, precision: str
) -> Tensor:
    """A matrix product, batched over programs, plus ``accumulator``.

    Operands of up to 16 bits and tf32 are exact in float32, in which their products are added up.
    """
    left, right = types[0], types[1]
    a, b = expand(a, left.shape), expand(b, right.shape)
    out = dtype_of(result.element)
    if out == torch.int32:
        # Exact: products of 8 bits, sums of 53.
        product = torch.matmul(a.double(), b.double()).to(torch.int64).to(torch.int32)
        return product + accumulator
    if out == torch.float64:
        return torch.matmul(a, b) + accumulator
    if left.element == "f32":
        if precision == "tf32":
            a, b = tf32(a), tf32(b)
        elif precision not in _EXACT:
            raise InterpreterError(f"dot precision {precision} is not supported")
    product = torch.matmul(widen(a, left.element), widen(b, right.element))
    if out == torch.float32:
        return product + accumulator
    # An accumulator of half precision is one only between products.
    return (product + widen(accumulator, result.element)).to(out)


_FP4: Final = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_SCALED: Final = {"e4m3": "f8E4M3FN", "e5m2": "f8E5M2", "bf16": "bf16", "fp16": "f16"}


def scaled_operand(
    value: Tensor, kind: Type, scale: Tensor | None, scale_type: Type | None, form: str, k_axis: int
) -> Tensor:
    """An operand of ``tt.dot_scaled`` as float32. ``k_axis`` counts from the end: -1 or -2.

    Scales are [m or n, k / 32] of E8M0 (``2 ** (s - 127)``, NaN for 255; OCP Microscaling Formats
    1.0), or [m or n, k / 16] of E4M3.
    """
    value = expand(value, kind.shape)
    if form == "e2m1":  # two to a byte along k, the first in the low half
        table = torch.tensor(_FP4 + tuple(-v for v in _FP4), dtype=torch.float32)
        byte = value.to(torch.int64) & 0xFF
        pair = torch.stack((table[byte & 15], table[byte >> 4]), -1)
        if k_axis == -2:
            pair = pair.transpose(-1, -2)
            shape = (*value.shape[:-2], 2 * value.shape[-2], value.shape[-1])
        else:
            shape = (*value.shape[:-1], 2 * value.shape[-1])
        wide = pair.reshape(shape)
    elif form in _SCALED:
        if value.dtype == torch.int8:
            value = value.view(torch.uint8)
        wide = widen(value, _SCALED[form])
    else:
        raise InterpreterError(f"tt.dot_scaled with operands of type {form} is not supported")
    if scale is None or scale_type is None:
        return wide
    scale = expand(scale, scale_type.shape)
    if scale_type.element == "i8":
        exponent = (scale.to(torch.int64) & 0xFF).to(torch.float64)
        factor = torch.where(exponent == 255, math.nan, torch.exp2(exponent - 127))
    elif scale_type.element == "f8E4M3FN":
        factor = widen(scale, scale_type.element).double()
    else:
        raise InterpreterError(f"tt.dot_scaled with scales of type {scale_type} is not supported")
    factor = factor.repeat_interleave(wide.shape[k_axis] // factor.shape[-1], -1)
    if k_axis == -2:
        factor = factor.transpose(-1, -2)
    return (wide.double() * factor).float()
