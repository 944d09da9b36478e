"""Which of a kernel's parameters it reads through, and which it writes through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from simulator.interpreter.ttir import Block, Function, Op

_LOADS: Final = ("tt.load", "tt.descriptor_load", "tt.descriptor_gather")
_STORES: Final = ("tt.store", "tt.descriptor_store", "tt.descriptor_scatter")

Origins = frozenset[int]


def accessed(function: Function) -> tuple[Origins, Origins]:
    """The positions of the parameters that loads, and those that stores, may get addresses from.

    A pointer made from an integer may come from each. Atomic operations count as neither.
    """
    every = frozenset(range(len(function.parameters)))
    search = _Search(every)
    search.function(function, [frozenset([i]) for i in range(len(every))])
    return frozenset(search.loaded), frozenset(search.stored)


class _Search:
    """Follows pointers through operations, forward."""

    def __init__(self, every: Origins) -> None:
        self._every = every
        self.loaded: set[int] = set()
        self.stored: set[int] = set()

    def function(self, function: Function, args: Sequence[Origins]) -> Origins:
        """Returns where pointers that a function returns come from."""
        known: dict[int, Origins] = dict(zip(function.arguments, args, strict=True))
        labels = {block.label: block for block in function.blocks}
        returned: Origins = frozenset()
        # Twice: what a later block passes on may come back to an earlier one.
        for _ in range(2 if len(function.blocks) > 1 else 1):
            for block in function.blocks:
                returned |= self._block(block, known, function)
                for label, operands in block.ops[-1].successors if block.ops else ():
                    for argument, operand in zip(labels[label].arguments, operands, strict=True):
                        known[argument] = _of(known, [argument, operand])
        return returned

    def _block(self, block: Block, known: dict[int, Origins], function: Function) -> Origins:
        """Returns where the operands of the block's last operation come from."""
        for op in block.ops:
            sources = _of(known, op.operands)
            if op.name in _LOADS:
                self.loaded |= _of(known, op.operands[:1])
                continue
            if op.name in _STORES:
                self.stored |= _of(known, op.operands[:1])
                continue
            if op.name == "tt.int_to_ptr":
                sources = self._every
            elif op.name == "tt.call":
                callee = function.functions[op.words[0]]
                sources = self.function(callee, [_of(known, [n]) for n in op.operands])
            elif op.regions:
                sources = self._regions(op, known, function)
            for number, kind in zip(op.results, op.result_types, strict=True):
                if kind.element in ("ptr", "tensordesc"):
                    known[number] = sources
        return _of(known, block.ops[-1].operands) if block.ops else frozenset()

    def _regions(self, op: Op, known: dict[int, Origins], function: Function) -> Origins:
        if op.name == "scf.for":
            body = op.regions[0][0]
            for argument, operand in zip(body.arguments[1:], op.operands[3:], strict=True):
                known[argument] = _of(known, [operand])
            for _ in range(2):
                self._block(body, known, function)
                # A loop that carries nothing ends in whatever its last operation is.
                carried = body.ops[-1].operands if len(body.arguments) > 1 else []
                for argument, operand in zip(body.arguments[1:], carried, strict=True):
                    known[argument] = _of(known, [argument, operand])
            return _of(known, body.arguments[1:])
        sources = _of(known, op.operands)
        for _ in range(2):
            for region in op.regions:
                for block in region:
                    for argument in block.arguments:
                        known[argument] = known.get(argument, frozenset()) | sources
                    sources |= self._block(block, known, function)
        return sources


def _of(known: dict[int, Origins], numbers: Iterable[int]) -> Origins:
    found: Origins = frozenset()
    for number in numbers:
        found |= known.get(number, frozenset())
    return found
