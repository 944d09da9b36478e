"""Loads, stores and atomic operations, and what is checked of each.

An access of a lane that its mask switches off does not happen. Of one that happens it is checked
that it

* lies in the allocation that the pointer's parameter points into (a pointer that was loaded or
  computed from an integer: in any live one). Another allocation's memory is out of bounds, however
  near;
* is aligned to its element;
* reads, if it reads, bytes that were written since they were allocated. That is reported at the
  load, whatever becomes of the value;
* reads nothing that another program of the launch wrote, nor changes what another read: nothing
  orders the two. Elements of different sizes at one address are not compared;
* writes nothing else than another program of the launch wrote there, nor another lane of its own in
  the same operation. Atomic operations are exempt, and so are kernels that look at what these
  return: their programs may have agreed on who writes.

Where a load has a mask and no value for the lanes it switches off, which hardware leaves undefined,
these are NaN, or -1: their use shows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch

from simulator.interpreter import errors
from simulator.interpreter.elementwise import compare_unsigned
from simulator.interpreter.errors import InterpreterError, KernelFault
from simulator.interpreter.floats import BITS, dtype_of
from simulator.interpreter.memory import Block, Memory, sparse_zeros
from simulator.interpreter.ttir import Op, Type
from simulator.interpreter.turns import Turns
from simulator.interpreter.values import Pointer, Tensor, Value, from_addresses

_ONES: Final = {1: 0x01, 2: 0x0101, 4: 0x01010101, 8: 0x0101010101010101}


@dataclasses.dataclass
class Launch:
    """What a report about an access names, and what all programs of a launch share.

    Attributes:
      kernel: its name.
      label: the caller's name for the launch.
      grid: programs in x, y and z.
      read_only: parameters that are not to be written through.
      watch_writers: whether to remember who wrote what; needless where each address is stored to
        by one operation that runs once.
      shared: the allocations both read and written, in which each element's reader and writer
        are remembered: 0 for none, 1 + its number for one program, -1 for several.
      turns: where programs wait for each other, who is told that memory changed.
    """

    kernel: str
    label: str
    grid: tuple[int, int, int]
    memory: Memory
    read_only: frozenset[str] = frozenset()
    watch_writers: bool = True
    turns: Turns | None = None
    shared: frozenset[Block] = frozenset()
    readers: dict[tuple[Block, int, int], Tensor] = dataclasses.field(default_factory=dict)
    writers: dict[tuple[Block, int, int], Tensor] = dataclasses.field(default_factory=dict)

    def program(self, number: int) -> tuple[int, int, int]:
        """The coordinates of a program."""
        x, y, _ = self.grid
        return number % x, number // x % y, number // (x * y)

    def fault(
        self, what: str, op: Op, program: int, detail: str, address: int = -1, parameter: str = ""
    ) -> KernelFault:
        """A report that names kernel and launch."""
        return KernelFault(
            kernel=self.kernel,
            parameter=parameter,
            launch=self.label,
            program=self.program(program),
            what=what,
            address=address,
            detail=detail,
            line=op.line,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """Lanes of one access in one block: element ``index`` of ``view`` each, broadcast shapes."""

    block: Block
    view: Tensor
    shadow: Tensor
    index: Tensor
    pointer: Pointer
    phase: int


def _element(kind: Type) -> torch.dtype:
    """The dtype in memory."""
    if kind.element == "ptr":
        return torch.int64
    return dtype_of(kind.element)


class Access:
    """The accesses of some programs of a launch. ``numbers`` are the programs', int64."""

    def __init__(self, launch: Launch, numbers: Tensor) -> None:
        self._launch = launch
        self._memory = launch.memory
        self._numbers = numbers

    # Finding the place.

    def _lane(self, index: Tensor, flat: int) -> int:
        """The number of the program that a lane belongs to."""
        if index.shape[0] == 1:
            return int(self._numbers[0])
        return int(self._numbers[flat // max(1, math.prod(index.shape[1:]))])

    def _first(self, bad: Tensor) -> int:
        return int(bad.reshape(-1).to(torch.uint8).argmax())

    def _fault(
        self, what: str, op: Op, pointer: Pointer, bad: Tensor, detail: Callable[[int], str]
    ) -> KernelFault:
        """A report of the first lane of ``bad``, which has the programs' axis in front."""
        flat = self._first(bad)
        addresses = pointer.addresses().expand(bad.shape).reshape(-1)
        address = int(addresses[flat])
        return self._launch.fault(
            what, op, self._lane(bad, flat), detail(address), address, pointer.parameter
        )

    def _where(self, address: int) -> str:
        """What lies at an address, for a report."""
        block = self._memory.find(address)
        if block is not None:
            return f"{address - block.address} bytes into {block.name} of {block.size} bytes"
        freed = self._memory.find_freed(address)
        if freed is not None:
            return f"{address - freed.address} bytes into {freed.name}, which was freed"
        below = [block for block in self._memory.blocks() if block.address <= address]
        if not below:
            return "below all allocations"
        last = below[-1]
        return f"{address - last.end} bytes behind the end of {last.name} of {last.size} bytes"

    def _aligned(self, pointer: Pointer, itemsize: int, op: Op, mask: Tensor | None) -> None:
        if pointer.unit % itemsize == 0:
            if pointer.base % itemsize == 0:
                return
            bad = torch.ones_like(pointer.offset, dtype=torch.bool)
        else:
            bad = pointer.addresses() % itemsize != 0
        if mask is not None:
            bad = bad & mask
        if bad.any():
            raise self._fault(
                errors.MISALIGNED,
                op,
                pointer,
                bad,
                lambda address: f"elements of {itemsize} bytes lie at multiples of {itemsize}",
            )

    def _may_write(self, op: Op, pointer: Pointer, mask: Tensor | None) -> None:
        if pointer.parameter in self._launch.read_only:
            bad = torch.ones_like(pointer.offset, dtype=torch.bool) if mask is None else mask
            raise self._fault(errors.READ_ONLY, op, pointer, bad, self._where)

    def _outside(self, pointer: Pointer, bad: Tensor, op: Op, itemsize: int) -> KernelFault:
        def detail(address: int) -> str:
            text = f"{itemsize} bytes, {self._where(address)}"
            if pointer.block is not None:
                own = pointer.block
                text += f"; the parameter points into {own.name} of {own.size} bytes"
            return text

        flat = self._first(bad)
        address = int(pointer.addresses().expand(bad.shape).reshape(-1)[flat])
        freed = self._memory.find(address) is None and self._memory.find_freed(address)
        what = errors.USE_AFTER_FREE if freed else errors.OUT_OF_BOUNDS
        return self._fault(what, op, pointer, bad, detail)

    def _place(
        self, pointer: Pointer, block: Block, dtype: torch.dtype, op: Op, mask: Tensor | None
    ) -> _Place:
        """Where lanes lie in a block; raises a fault for those that lie outside."""
        itemsize = dtype.itemsize
        phase = block.address % itemsize and itemsize - block.address % itemsize
        view = self._memory.view(block, dtype, phase)
        if pointer.unit == itemsize:
            delta = (pointer.base - block.address - phase) // itemsize
            index = pointer.offset
            if delta:
                index = index.to(torch.int64) + delta
        else:
            index = (pointer.addresses() - (block.address + phase)).div(
                itemsize, rounding_mode="floor"
            )
        if mask is not None:
            index = torch.where(mask, index, 0)
        if index.numel():
            low, high = torch.aminmax(index)
            if int(low) < 0 or int(high) >= len(view):
                bad = (index < 0) | (index >= len(view))
                if mask is not None:
                    bad = bad & mask
                if bad.any():
                    raise self._outside(pointer, bad, op, itemsize)
        return _Place(block, view, self._memory.shadow(block, dtype, phase), index, pointer, phase)

    def _scattered(
        self, pointer: Pointer, op: Op, mask: Tensor | None, itemsize: int
    ) -> list[tuple[Block, Tensor]]:
        """For addresses without a block of their own: the blocks, and which lanes lie in each."""
        addresses = pointer.addresses()
        active = torch.ones_like(addresses, dtype=torch.bool) if mask is None else mask
        active, addresses = torch.broadcast_tensors(active, addresses)
        rest = active.clone()
        found: list[tuple[Block, Tensor]] = []
        while rest.any():
            address = int(addresses.reshape(-1)[self._first(rest)])
            block = self._memory.find(address)
            if block is None:
                raise self._outside(pointer, rest & (addresses == address), op, itemsize)
            inside = rest & (addresses >= block.address) & (addresses < block.end)
            if not inside.any():
                raise self._outside(pointer, rest & (addresses == address), op, itemsize)
            found.append((block, inside))
            rest &= ~inside
        return found

    # Loads.

    def load(
        self, op: Op, pointer: Pointer, kind: Type, mask: Tensor | None, other: Tensor | None
    ) -> Value:
        """Reads values of ``kind``, a scalar type or that of a tensor's elements."""
        dtype = _element(kind)
        if mask is not None:
            if bool(mask.all()):
                mask = None
            elif not bool(mask.any()):
                empty = self._default(dtype, other, mask)
                return from_addresses(empty) if kind.element == "ptr" else empty
        self._aligned(pointer, dtype.itemsize, op, mask)
        if pointer.block is not None:
            result = self._read(op, pointer, pointer.block, dtype, mask)
        else:
            result = self._read_scattered(op, pointer, dtype, mask)
        if mask is not None:
            result = torch.where(mask, result, self._default(dtype, other, mask))
        return from_addresses(result) if kind.element == "ptr" else result

    def _default(self, dtype: torch.dtype, other: Tensor | None, mask: Tensor) -> Tensor:
        if other is not None:
            return other
        undefined = math.nan if dtype.is_floating_point else (255 if dtype == torch.uint8 else -1)
        return torch.full((1,) * mask.dim(), undefined, dtype=dtype)

    def _read(
        self, op: Op, pointer: Pointer, block: Block, dtype: torch.dtype, mask: Tensor | None
    ) -> Tensor:
        place = self._place(pointer, block, dtype, op, mask)
        flat = place.index.reshape(-1)
        if not self._memory.is_written(block):
            seen = place.shadow.view(_bits(dtype)).index_select(0, flat)
            bad = (seen != _ONES[dtype.itemsize]).reshape(place.index.shape)
            if mask is not None:
                bad = bad & mask
            if bad.any():
                raise self._fault(
                    errors.UNINITIALISED,
                    op,
                    pointer,
                    bad,
                    lambda address: (
                        f"{self._where(address)}; nothing wrote all of these "
                        f"{dtype.itemsize} bytes since they were allocated"
                    ),
                )
        if block in self._launch.shared:
            self._note_read(op, place, mask)
        return place.view.index_select(0, flat).reshape(place.index.shape)

    def _note_read(self, op: Op, place: _Place, mask: Tensor | None) -> None:
        """Remembers who read what; raises a fault for what another program wrote."""
        alone = len(self._numbers) == 1
        if place.index.shape[0] == 1 and not alone:
            who = torch.full((1,), -1, dtype=torch.int32)
        else:
            who = (self._numbers + 1).to(torch.int32)
        who = who.reshape(-1, *(1,) * (place.index.dim() - 1)).expand(place.index.shape)
        index, who = place.index.to(torch.int64), who
        if mask is not None:
            chosen = mask.expand(torch.broadcast_shapes(mask.shape, index.shape))
            index, who = index.expand(chosen.shape)[chosen], who.expand(chosen.shape)[chosen]
        index, who = index.reshape(-1), who.reshape(-1)
        key = (place.block, place.view.dtype.itemsize, place.phase)
        writers = self._launch.writers.get(key)
        if writers is not None:
            before = writers.index_select(0, index)
            foreign = (before > 0) & (before != who)
            if foreign.any():
                lane = self._first(foreign)
                reader = int(who[lane])
                raise self._hazard(op, place, int(index[lane]), reader, int(before[lane]), "wrote")
        readers = self._launch.readers.get(key)
        if readers is None:
            readers = sparse_zeros(len(place.view), np.int32)
            self._launch.readers[key] = readers
        _remember(readers, index, who)

    def _hazard(
        self, op: Op, place: _Place, index: int, who: int, other: int, did: str
    ) -> KernelFault:
        address = place.block.address + place.phase + index * place.view.dtype.itemsize
        program = who - 1 if who > 0 else int(self._numbers[0])
        second = f"program {self._launch.program(other - 1)}" if other > 0 else "several programs"
        return self._launch.fault(
            errors.HAZARD,
            op,
            program,
            f"{self._where(address)}: {second} {did} it in this launch, and nothing orders the two",
            address,
            place.pointer.parameter,
        )

    def _read_scattered(
        self, op: Op, pointer: Pointer, dtype: torch.dtype, mask: Tensor | None
    ) -> Tensor:
        parts = self._scattered(pointer, op, mask, dtype.itemsize)
        if len(parts) == 1:
            return self._read(op, pointer, parts[0][0], dtype, mask)
        result = torch.zeros(parts[0][1].shape, dtype=dtype)
        for block, inside in parts:
            result = torch.where(inside, self._read(op, pointer, block, dtype, inside), result)
        return result

    # Stores.

    def store(
        self, op: Op, pointer: Pointer, kind: Type, value: Value, mask: Tensor | None
    ) -> None:
        """Writes values of ``kind``."""
        dtype = _element(kind)
        if isinstance(value, Pointer):
            value = value.addresses()
        assert isinstance(value, Tensor)
        if mask is not None:
            if bool(mask.all()):
                mask = None
            elif not bool(mask.any()):
                return
        self._may_write(op, pointer, mask)
        self._aligned(pointer, dtype.itemsize, op, mask)
        if pointer.block is not None:
            self._write(op, pointer, pointer.block, value, mask)
        else:
            for block, inside in self._scattered(pointer, op, mask, dtype.itemsize):
                self._write(op, pointer, block, value, inside)

    def _lanes(
        self, place: _Place, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Index, value and the program's number of each lane that is on, in one dimension."""
        shapes = [place.index.shape, value.shape] + ([] if mask is None else [mask.shape])
        shape = torch.broadcast_shapes(*shapes)
        numbers = self._numbers if shape[0] > 1 else self._numbers[:1]
        numbers = numbers.reshape(-1, *(1,) * (len(shape) - 1)).expand(shape)
        index, value = place.index.expand(shape), value.expand(shape)
        if mask is None:
            return index.reshape(-1), value.reshape(-1), numbers.reshape(-1)
        chosen = mask.expand(shape)
        return index[chosen], value[chosen], numbers[chosen]

    def _write(
        self, op: Op, pointer: Pointer, block: Block, value: Tensor, mask: Tensor | None
    ) -> None:
        place = self._place(pointer, block, value.dtype, op, mask)
        index, lanes, numbers = self._lanes(place, value, mask)
        index = index.to(torch.int64)
        bits = _bits(value.dtype)
        lanes = lanes.view(bits) if value.dtype != torch.bool else lanes.to(torch.uint8)
        view = place.view.view(lanes.dtype)
        if self._launch.watch_writers:
            self._check_writers(op, place, view, index, lanes, numbers)
        view.scatter_(0, index, lanes)
        differs = view.index_select(0, index) != lanes
        if differs.any():
            lane = self._first(differs)
            same = (index == index[lane]).nonzero().reshape(-1)
            raise self._race(op, place, index, numbers, lane, int(numbers[same[-1]]))
        self._memory.wrote(block)
        self._changed()
        place.shadow.view(_bits(value.dtype)).index_fill_(0, index, _ONES[value.dtype.itemsize])

    def _changed(self) -> None:
        if self._launch.turns is not None:
            self._launch.turns.changed()

    def _check_writers(
        self, op: Op, place: _Place, view: Tensor, index: Tensor, lanes: Tensor, numbers: Tensor
    ) -> None:
        """Compares with what other programs wrote, or read, earlier in the launch."""
        key = (place.block, view.dtype.itemsize, place.phase)
        readers = self._launch.readers.get(key)
        if readers is not None:
            before = readers.index_select(0, index)
            foreign = (before != 0) & (before != numbers + 1)
            if foreign.any():
                foreign &= view.index_select(0, index) != lanes
                if foreign.any():
                    lane = self._first(foreign)
                    raise self._hazard(
                        op,
                        place,
                        int(index[lane]),
                        int(numbers[lane]) + 1,
                        int(before[lane]),
                        "read",
                    )
        writers = self._launch.writers.get(key)
        if writers is None:
            writers = self._launch.writers[key] = sparse_zeros(len(view), np.int32)
        else:
            before = writers.index_select(0, index)
            foreign = (before != 0) & (before != numbers + 1)
            if foreign.any():
                foreign &= view.index_select(0, index) != lanes
                if foreign.any():
                    lane = self._first(foreign)
                    raise self._race(op, place, index, numbers, lane, int(before[lane]) - 1)
        if place.block in self._launch.shared:
            _remember(writers, index, (numbers + 1).to(torch.int32))
        else:
            writers.scatter_(0, index, (numbers + 1).to(torch.int32))

    def _race(
        self, op: Op, place: _Place, index: Tensor, numbers: Tensor, lane: int, other: int
    ) -> KernelFault:
        program = int(numbers[lane])
        itemsize = place.view.dtype.itemsize
        address = place.block.address + place.phase + int(index[lane]) * itemsize
        who = (
            "two of its own elements differ in one store"
            if other == program
            else f"{self._name(other)} wrote another value there"
        )
        return self._launch.fault(
            errors.RACE,
            op,
            program,
            f"{self._where(address)}: {who}",
            address,
            place.pointer.parameter,
        )

    def _name(self, number: int) -> str:
        return f"program {self._launch.program(number)}" if number >= 0 else "another program"

    # Atomic operations.

    def atomic(
        self,
        op: Op,
        pointer: Pointer,
        kind: Type,
        update: str,
        values: tuple[Tensor, ...],
        mask: Tensor | None,
        *,
        used: bool,
    ) -> Tensor:
        """Reads, combines and writes back; returns what was there before.

        ``used`` is whether anybody looks at the result; if so, lanes follow one another in order.
        """
        dtype = _element(kind)
        active = mask is None or bool(mask.any())
        shapes = [pointer.offset.shape, *(value.shape for value in values)]
        shape = torch.broadcast_shapes(*shapes, *([] if mask is None else [mask.shape]))
        # Each program updates, also where all do it alike.
        shape = torch.Size([len(self._numbers), *shape[1:]])
        on = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
        result = torch.zeros(shape, dtype=dtype)
        if not active:
            return result
        pointer = pointer.map(pointer.offset.expand(shape))
        self._may_write(op, pointer, on)
        self._aligned(pointer, dtype.itemsize, op, on)
        places = (
            [(pointer.block, on)]
            if pointer.block is not None
            else self._scattered(pointer, op, on, dtype.itemsize)
        )
        for block, inside in places:
            self._read(op, pointer, block, dtype, inside)  # for its checks
            place = self._place(pointer, block, dtype, op, inside)
            index = place.index[inside].to(torch.int64)
            lanes = tuple(value.expand(shape)[inside] for value in values)
            if self._launch.turns is None:
                before = _update(update, place.view, index, lanes, used=used)
            else:
                kept = place.view.index_select(0, index).view(_bits(dtype))
                before = _update(update, place.view, index, lanes, used=used)
                # A lock that is taken stays what it was: nobody need look again.
                if not torch.equal(kept, place.view.index_select(0, index).view(_bits(dtype))):
                    self._launch.turns.changed()
            self._memory.wrote(block)
            if before is not None:
                result[inside] = before
        return result


def _remember(table: Tensor, index: Tensor, who: Tensor) -> None:
    """Enters programs in a table of readers or writers."""
    before = table.index_select(0, index)
    after = torch.where((before == 0) | (before == who), who, -1)
    table.scatter_(0, index, after)
    # Of several in one operation the last is in the table now.
    several = table.index_select(0, index) != after
    if several.any():
        table.index_fill_(0, index[several], -1)


def _bits(dtype: torch.dtype) -> torch.dtype:
    return torch.uint8 if dtype in (torch.uint8, torch.bool) else BITS[dtype.itemsize]


_AT_ONCE: Final[dict[str, Any]] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "max": np.maximum,
    "min": np.minimum,
    "umax": np.maximum,
    "umin": np.minimum,
}
"""Operations on integers of which the order does not matter."""

_UNSIGNED: Final = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}

_COMBINE: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "and": torch.bitwise_and,
    "or": torch.bitwise_or,
    "xor": torch.bitwise_xor,
    "add": torch.add,
    "fadd": torch.add,
    "max": torch.maximum,
    "min": torch.minimum,
    "umax": lambda a, b: torch.where(compare_unsigned("ge", a, b), a, b),
    "umin": lambda a, b: torch.where(compare_unsigned("le", a, b), a, b),
    "exch": lambda a, b: b,
}


def _update(
    update: str, view: Tensor, index: Tensor, lanes: tuple[Tensor, ...], *, used: bool
) -> Tensor | None:
    """Applies an atomic operation to ``view``; returns the values before, if ``used``."""
    if update == "cas":
        compare, value = lanes

        def combine(old: Tensor, _: Tensor) -> Tensor:
            # Bits are compared.
            bits = _bits(old.dtype)
            return torch.where(old.view(bits) == compare_at.view(bits), value_at, old)

    elif update not in _COMBINE:
        raise InterpreterError(f"atomic operation {update} is not supported")
    else:
        value = lanes[0]
    if not used and update in ("add", "fadd"):
        view.index_add_(0, index, value)
        return None
    if not used and update == "exch":
        view.scatter_(0, index, value)
        return None
    if not used and update in _AT_ONCE and view.dtype in BITS.values():
        target, operand = view.numpy(), value.numpy()
        if update.startswith("u"):
            natural = _UNSIGNED[view.dtype.itemsize]
            target, operand = target.view(natural), operand.view(natural)
        _AT_ONCE[update].at(target, index.numpy(), operand)
        return None
    distinct = len(index.unique()) == len(index)
    result = torch.empty_like(value)
    steps = [slice(None)] if distinct else [slice(i, i + 1) for i in range(len(index))]
    for step in steps:
        at = index[step]
        old = view.index_select(0, at)
        result[step] = old
        if update == "cas":
            compare_at, value_at = compare[step], value[step]
            view.scatter_(0, at, combine(old, old))
        else:
            view.scatter_(0, at, _COMBINE[update](old, value[step]))
    return result
