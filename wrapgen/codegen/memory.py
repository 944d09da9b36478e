"""Memory plans: where each weight, constant and temporary begins. Sizes and offsets in bytes.

The runtime makes one allocation a plan, so that a run allocates nothing. Two temporaries share
memory where no step needs both. Where sizes of temporaries depend on the inputs, which of them
share a slot is decided here, and how large the slots are when the sizes are known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final

from wrapgen import expression
from wrapgen.codegen import expr
from wrapgen.codegen.bounds import Bounds, Ranges, bounds
from wrapgen.program import (
    Copy,
    Dim,
    Fill,
    If,
    Launch,
    Procedure,
    Program,
    Ref,
    ScalarArg,
    Step,
    While,
    inner,
    walk,
    weight_nbytes,
)

ALIGNMENT: Final = 256
"""Of every offset: what cuMemAlloc guarantees for the start of an allocation, and a whole number of
the 128-byte lines and 32-byte sectors in which the device moves memory."""


@dataclasses.dataclass(frozen=True)
class Lifetime:
    """A block of memory that holds a value from step ``first`` to step ``last``, both included, as
    ``walk`` counts them."""

    name: str
    nbytes: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether some step needs both."""
        return self.first <= other.last and other.first <= self.last


@dataclasses.dataclass(frozen=True)
class Plan:
    """``offsets`` of the named blocks, in order of their names' first mention, and the ``size`` of
    the allocation that holds them."""

    offsets: dict[str, int]
    size: int


@dataclasses.dataclass(frozen=True)
class Slot:
    """Memory for temporaries that live at different times: ``members``, in order of their first
    mention, of ``sizes``, of which the greatest is the slot's. A size that is never the greatest is
    not among them."""

    members: tuple[str, ...]
    sizes: tuple[Dim, ...]


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """All memory of a program on a device but the caller's.

    Where weights lie is known when they are loaded. ``weights`` are the bytes of those that
    ``main`` reads, each rounded up, if none is the caller's; ``staging`` those of what folding
    alone reads, which is freed when that is done. If sizes of temporaries of ``main`` depend on the
    inputs they are in ``main_slots``, one slot behind the other, and ``main_arena`` has no offsets
    and the greatest size that can be needed.
    """

    weights: int
    staging: int
    constants: Plan
    folding_arena: Plan
    main_arena: Plan
    main_slots: tuple[Slot, ...] = ()


def align(nbytes: int) -> int:
    """Rounds up to a multiple of ``ALIGNMENT``."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def pack(blocks: Iterable[tuple[str, int]]) -> Plan:
    """Places blocks of (name, size) one after the other: they are all needed at once."""
    offsets: dict[str, int] = {}
    size = 0
    for name, nbytes in blocks:
        offsets[name] = size
        size += align(nbytes)
    return Plan(offsets, size)


def share(lifetimes: Sequence[Lifetime]) -> Plan:
    """Places blocks so that those whose lifetimes overlap do not overlap in memory.

    Greedy by size, best fit: the largest block first, each in the smallest gap that its already
    placed contemporaries leave, else behind them (Pisarchyk and Lee, "Efficient Memory Management
    for Deep Neural Net Inference", 2020, algorithm 3). O(n^2) in the number of blocks.
    """
    placed: list[tuple[int, Lifetime]] = []  # by offset
    offsets: dict[str, int] = {}
    for block in sorted(lifetimes, key=lambda b: (-b.nbytes, b.first, b.last, b.name)):
        offset = _best_fit(block, placed)
        offsets[block.name] = offset
        placed.append((offset, block))
        placed.sort(key=lambda entry: entry[0])
    size = max((offsets[block.name] + align(block.nbytes) for block in lifetimes), default=0)
    return Plan({block.name: offsets[block.name] for block in lifetimes}, size)


def _best_fit(block: Lifetime, placed: Sequence[tuple[int, Lifetime]]) -> int:
    need = align(block.nbytes)
    best: tuple[int, int] | None = None  # (size of the gap, offset)
    end = 0  # of what lies below
    for offset, other in placed:
        if not block.overlaps(other):
            continue
        gap = offset - end
        if gap >= need and (best is None or gap < best[0]):
            best = (gap, end)
        end = max(end, offset + align(other.nbytes))
    return best[1] if best else end


def refs(step: Step) -> list[Ref]:
    """The addresses a step uses itself, in the order it names them."""
    match step:
        case Launch(args=args):
            return [arg.ref for arg in args if not isinstance(arg, ScalarArg)]
        case Copy(dst=dst, src=src):
            return [dst, src]
        case Fill(dst=dst):
            return [dst]
        case If(predicate=predicate) | While(predicate=predicate):
            return [predicate]


@dataclasses.dataclass(frozen=True)
class _Loop:
    """Where a loop, its body and what follows begin, in steps as ``walk`` counts them."""

    begin: int
    body: int
    end: int


class _Uses:
    """Which steps use each temporary, and the loops among them."""

    def __init__(self, steps: Iterable[Step]) -> None:
        self.by_name: dict[str, list[int]] = {}
        self._loops: list[_Loop] = []
        self._count = 0
        self._go(steps)

    def _go(self, steps: Iterable[Step]) -> None:
        for step in steps:
            at = self._count
            self._count += 1
            if isinstance(step, While):
                self._go(step.condition)
                self._add(step.predicate, self._count - 1)  # once it is computed
                body = self._count
                self._go(step.body)
                self._loops.append(_Loop(at, body, self._count))
                continue
            for ref in refs(step):
                self._add(ref, at)
            for _, inside in inner(step):
                self._go(inside)

    def _add(self, ref: Ref, at: int) -> None:
        if ref.space == "arena":
            self.by_name.setdefault(ref.name, []).append(at)

    def lifetime(self, name: str) -> tuple[int, int]:
        """The first and the last step for which a temporary holds a value. What a loop does not use
        within its condition alone, or its body alone, it needs until it ends."""
        uses = self.by_name[name]
        first, last = min(uses), max(uses)
        for loop in self._loops:
            parts = [range(loop.begin, loop.body), range(loop.body, loop.end)]
            if any(use in part for use in uses for part in parts) and not any(
                all(use in part for use in uses) for part in parts
            ):
                first, last = min(first, loop.begin), max(last, loop.end - 1)
        return first, last


def lifetimes(procedure: Procedure, ranges: Ranges | None = None) -> list[Lifetime]:
    """The temporaries of a procedure that some step names, in order of their first mention. With
    ``ranges`` of symbols, sizes are the greatest that can be."""
    uses = _Uses(procedure.steps)
    nbytes = {
        buffer.name: max(bounds(expr.parse(buffer.nbytes), ranges or {}).maximum, 0)
        for buffer in procedure.buffers
    }
    return [Lifetime(name, nbytes[name], *uses.lifetime(name)) for name in uses.by_name]


def weights_of(procedure: Procedure) -> frozenset[str]:
    """Names of the weights that a procedure reads."""
    return frozenset(
        ref.name for step in walk(procedure.steps) for ref in refs(step) if ref.space == "weight"
    )


def slots(procedure: Procedure, ranges: Ranges) -> tuple[Slot, ...]:
    """Divides the temporaries of a procedure into slots.

    Greedy by size, as Pisarchyk and Lee's algorithm 2 for shared objects: the largest first, each
    into the smallest slot that none of its contemporaries is in, else into one of its own. Large
    means here what it is at the greatest sizes; correct is what comes out at any.
    """
    known = {block.name: block for block in lifetimes(procedure, ranges)}
    groups: list[list[Lifetime]] = []
    for block in sorted(known.values(), key=lambda b: (-b.nbytes, b.first, b.last, b.name)):
        free = [group for group in groups if not any(block.overlaps(member) for member in group)]
        if free:
            min(free, key=lambda group: group[0].nbytes).append(block)
        else:
            groups.append([block])
    nbytes = {buffer.name: buffer.nbytes for buffer in procedure.buffers}
    order = {name: i for i, name in enumerate(known)}
    made = []
    for group in groups:
        members = sorted((block.name for block in group), key=order.__getitem__)
        made.append(Slot(tuple(members), _greatest([nbytes[name] for name in members], ranges)))
    return tuple(sorted(made, key=lambda slot: order[slot.members[0]]))


def _greatest(sizes: Sequence[Dim], ranges: Ranges) -> tuple[Dim, ...]:
    """Leaves out sizes that another one is never below."""
    kept: list[Dim] = []
    for size in sizes:
        if any(_covers(other, size, ranges) for other in kept):
            continue
        kept = [other for other in kept if not _covers(size, other, ranges)]
        kept.append(size)
    return tuple(kept)


def _covers(large: Dim, small: Dim, ranges: Ranges) -> bool:
    return bounds(expr.parse(large) - expr.parse(small), ranges).minimum >= 0


def plan(program: Program) -> MemoryPlan:
    """Plans the memory of a program."""
    kept = weights_of(program.main)
    staged = weights_of(program.folding) - kept
    ranges = {s.name: Bounds(s.minimum, s.maximum) for s in program.symbols}

    def nbytes(names: frozenset[str]) -> int:
        return sum(align(weight_nbytes(w)) for w in program.weights if w.name in names)

    if all(expr.parse(buffer.nbytes).is_Integer for buffer in program.main.buffers):
        main_slots: tuple[Slot, ...] = ()
        main_arena = share(lifetimes(program.main))
    else:
        main_slots = slots(program.main, ranges)
        greatest = {block.name: block.nbytes for block in lifetimes(program.main, ranges)}
        sizes = [max(greatest[name] for name in slot.members) for slot in main_slots]
        main_arena = Plan({}, min(sum(map(align, sizes)), expression.INT64_MAX))

    return MemoryPlan(
        weights=nbytes(kept),
        staging=nbytes(staged),
        constants=pack((b.name, expression.evaluate(b.nbytes)) for b in program.constants),
        folding_arena=share(lifetimes(program.folding)),
        main_arena=main_arena,
        main_slots=main_slots,
    )
