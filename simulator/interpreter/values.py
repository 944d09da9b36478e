"""The values of an evaluation.

A value of tensor type is a torch tensor with one axis for programs in front. Each axis has its full
size, or 1 where the value is the same along it: what a splat or broadcast makes costs nothing, and
operations follow torch's broadcasting. A scalar has the programs' axis alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

import torch

from simulator.interpreter.memory import Block

Tensor: TypeAlias = torch.Tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Pointer:
    """Addresses ``base + offset * unit``.

    Attributes:
      base: in bytes.
      offset: integers, shaped like any value. The sum is in 64 bits.
      unit: the pointee's bytes; 1 where an address came from elsewhere than a parameter.
      block: the allocation that ``base`` lies in; None where each address must look for its own.
      parameter: the name of the kernel's parameter that it derives from, or empty.
      zero: whether ``offset`` is zero throughout.
    """

    base: int
    offset: Tensor
    unit: int
    block: Block | None
    parameter: str
    zero: bool = False

    def map(self, offset: Tensor) -> Pointer:
        """The same with another offset."""
        return dataclasses.replace(self, offset=offset)

    def addresses(self) -> Tensor:
        """Byte addresses, int64."""
        return self.offset.to(torch.int64) * self.unit + self.base


@dataclasses.dataclass(frozen=True, slots=True)
class MappedTensor:
    """A tensor in memory as the host describes it to a kernel. Sizes are in elements.

    ``nan`` says that elements outside of it read as that, not as zero; ``tf32`` that float32 is
    rounded to tf32 as it is read.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    nan: bool = False
    tf32: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Descriptor:
    """A tensor in memory as ``tt.make_tensor_descriptor`` or the host describes it. Sizes are in
    elements.

    ``padding`` is what elements outside of it read as; ``tf32`` as in ``MappedTensor``.
    """

    pointer: Pointer
    shape: tuple[Tensor, ...]
    strides: tuple[Tensor, ...]
    padding: float
    tf32: bool = False


Value: TypeAlias = Tensor | Pointer | Descriptor


def from_addresses(addresses: Tensor, parameter: str = "") -> Pointer:
    """A pointer of which only the addresses are known."""
    return Pointer(0, addresses, 1, None, parameter)


def expand(value: Tensor, shape: Sequence[int]) -> Tensor:
    """A view with each axis but the programs' at its full size."""
    return value.expand(value.shape[0], *shape)


def programs(value: Value) -> int:
    """The size of the programs' axis."""
    if isinstance(value, Tensor):
        return value.shape[0]
    if isinstance(value, Pointer):
        return value.offset.shape[0]
    return max(programs(part) for part in (value.pointer, *value.shape, *value.strides))


def take(value: Value, index: Tensor) -> Value:
    """The value for some of the programs."""
    if isinstance(value, Tensor):
        return value if value.shape[0] == 1 else value.index_select(0, index)
    if isinstance(value, Pointer):
        return value if value.offset.shape[0] == 1 else value.map(value.offset[index])
    return Descriptor(
        take(value.pointer, index),
        tuple(take(part, index) for part in value.shape),
        tuple(take(part, index) for part in value.strides),
        value.padding,
        value.tf32,
    )


def merge(count: int, parts: Sequence[tuple[Tensor, Value]]) -> Value:
    """The value of ``count`` programs, of which each part has those at its indices."""
    if len(parts) == 1:
        index, value = parts[0]
        if len(index) == count:
            return value
    first = parts[0][1]
    if isinstance(first, Tensor):
        shape = torch.broadcast_shapes(*(value.shape[1:] for _, value in parts))
        result = first.new_empty((count, *shape))
        for index, value in parts:
            assert isinstance(value, Tensor)
            result[index] = value.expand(value.shape[0], *shape)
        return result
    if isinstance(first, Pointer):
        pointers = [value for _, value in parts if isinstance(value, Pointer)]
        alike = all(
            (p.base, p.unit, p.block, p.parameter)
            == (first.base, first.unit, first.block, first.parameter)
            for p in pointers
        )
        if alike:
            offsets = [
                (index, p.offset.to(torch.int64))
                for (index, _), p in zip(parts, pointers, strict=True)
            ]
            return dataclasses.replace(first, offset=merge(count, offsets), zero=False)
        names = {p.parameter for p in pointers}
        addresses = [(index, p.addresses()) for (index, _), p in zip(parts, pointers, strict=True)]
        merged = merge(count, addresses)
        assert isinstance(merged, Tensor)
        return from_addresses(merged, names.pop() if len(names) == 1 else "")
    descriptors = [value for _, value in parts if isinstance(value, Descriptor)]
    indices = [index for index, _ in parts]

    def field(values: Sequence[Value]) -> Value:
        return merge(count, list(zip(indices, values, strict=True)))

    return Descriptor(
        field([d.pointer for d in descriptors]),
        tuple(field(column) for column in zip(*(d.shape for d in descriptors), strict=True)),
        tuple(field(column) for column in zip(*(d.strides for d in descriptors), strict=True)),
        first.padding,
        first.tf32,
    )


def select_pointer(condition: Tensor, a: Pointer, b: Pointer) -> Pointer:
    """``a`` where true, else ``b``."""
    if condition.dim() < a.offset.dim():
        condition = condition.reshape(condition.shape + (1,) * (a.offset.dim() - condition.dim()))
    if (a.base, a.unit, a.block) == (b.base, b.unit, b.block):
        chosen = torch.where(condition, a.offset.to(torch.int64), b.offset.to(torch.int64))
        return dataclasses.replace(a, offset=chosen, zero=False)
    parameter = a.parameter if a.parameter == b.parameter else ""
    return from_addresses(torch.where(condition, a.addresses(), b.addresses()), parameter)
