"""Executes a kernel: all programs of its grid at a time, as far as memory allows.

Programs are taken in chunks. Within one, an operation is executed for all of them at once, and so
is a branch or loop that they take together; where they part, each way is executed for those that
take it. So programs of one chunk advance side by side and those of later chunks come after them:
one of the orders in which hardware may run them.

A kernel in which the order matters, because it looks at what an atomic operation returns, is
executed program by program, in the order of their numbers. Where programs wait for memory to change
they take turns (turns.py).
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch

from simulator.interpreter import errors, floats, libdevice, ocml, ptx, tensors
from simulator.interpreter.access import Access, Launch
from simulator.interpreter.elementwise import ELEMENTWISE, REDUCTIONS, select
from simulator.interpreter.errors import InterpreterError, KernelFault
from simulator.interpreter.floats import dtype_of
from simulator.interpreter.memory import Block as MemoryBlock
from simulator.interpreter.memory import Memory
from simulator.interpreter.origins import accessed
from simulator.interpreter.ttir import Block, Function, Op, Type, is_float
from simulator.interpreter.turns import Stuck, Turns
from simulator.interpreter.values import (
    Descriptor,
    MappedTensor,
    Pointer,
    Tensor,
    Value,
    expand,
    from_addresses,
    merge,
    select_pointer,
    take,
)

CHUNK_BYTES: Final = 16 << 20
"""Bytes of values that the programs of a chunk may hold at a time."""

MAX_SPINS: Final = 1 << 16
"""Iterations after which a loop that waits for memory to change is given up."""


def execute(
    function: Function,
    grid: tuple[int, int, int],
    args: Sequence[int | float | MappedTensor],
    memory: Memory,
    *,
    launch: str,
    parameters: Sequence[str] | None = None,
    read_only: frozenset[str] = frozenset(),
    output: Callable[[str], object] | None = None,
) -> None:
    """Runs a kernel on memory.

    Args:
      function: the kernel, from ``ttir.parse``.
      grid: programs in x, y and z. Where one is 0 nothing is run.
      args: one for each parameter: an address for a pointer, a ``MappedTensor`` for a descriptor,
        else a number (bool as 0 or 1).
      memory: what the addresses are of.
      launch: what reports call the launch.
      parameters: what reports call the parameters; TTIR's own names (``arg0``) if None.
      read_only: names of parameters through which the kernel has no business to write.
      output: receives each line that the kernel prints; standard error if None.

    Raises:
      KernelFault: the kernel did something wrong; memory holds what was written until then.
      InterpreterError: the kernel has something that is not supported.
    """
    names = list(parameters or (parameter.name for parameter in function.parameters))
    if not len(args) == len(names) == len(function.parameters):
        raise InterpreterError(
            f"kernel {function.name} has {len(function.parameters)} parameters; got {len(args)} "
            f"arguments and {len(names)} names"
        )
    if any(size < 0 for size in grid):
        raise InterpreterError(f"kernel {function.name}: grid {grid} has a negative extent")
    count = math.prod(grid)
    if count == 0:
        return
    memory.forget()
    plan = _plan(function)
    chunk = 1 if plan.sequential else max(1, min(count, CHUNK_BYTES // plan.bytes_per_program))
    state = Launch(
        kernel=function.name,
        label=launch,
        grid=grid,
        memory=memory,
        read_only=read_only,
        watch_writers=count > 1 and not plan.sequential and (plan.stores_repeat or chunk < count),
    )
    values = [_argument(function, i, names[i], value, state) for i, value in enumerate(args)]
    if count > 1 and not plan.sequential:
        state.shared = _shared(plan, values)
        state.watch_writers |= bool(state.shared)
    emit = output or (lambda line: print(line, file=sys.stderr))

    def run(start: int) -> None:
        numbers = torch.arange(start, min(count, start + chunk))
        machine = _Machine(state, function, emit)
        frame = _Frame(numbers, Access(state, numbers))
        machine.call(function, values, frame)

    if plan.waits and count > 1:
        state.turns = Turns()
        state.turns.run(count, run)
    else:
        for start in range(0, count, chunk):
            run(start)


def _argument(
    function: Function, index: int, name: str, value: float | MappedTensor, launch: Launch
) -> Value:
    parameter = function.parameters[index]
    kind, promised = parameter.type, parameter.divisibility
    if isinstance(value, MappedTensor) != (kind.element == "tensordesc"):
        raise InterpreterError(
            f"kernel {function.name}, parameter {name}: got {value!r} for the type {kind}"
        )
    if isinstance(value, MappedTensor):
        return _descriptor(kind, name, value, launch)
    if isinstance(value, int) and value % promised:
        pointer = kind.element == "ptr"
        raise KernelFault(
            kernel=function.name,
            parameter=name,
            launch=launch.label,
            program=(0, 0, 0),
            what=errors.MISALIGNED if pointer else errors.BAD_ARGUMENT,
            address=value if pointer else -1,
            detail=f"the kernel was compiled for a multiple of {promised}, got {value}",
            line=function.line,
        )
    if kind.element == "ptr":
        assert isinstance(value, int)
        block = launch.memory.find(value)
        zero = torch.zeros(1, dtype=torch.int32)
        return Pointer(value, zero, _itemsize(kind.pointee), block, name, zero=True)
    if not is_float(kind.element) and kind.element != "i1":
        bits = 8 * dtype_of(kind.element).itemsize
        value = (int(value) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
    return torch.tensor([value], dtype=dtype_of(kind.element))


def _descriptor(kind: Type, name: str, value: MappedTensor, launch: Launch) -> Descriptor:
    zero = torch.zeros(1, dtype=torch.int32)
    block = launch.memory.find(value.address)
    itemsize = _itemsize(Type(_pointee(kind).element))
    return Descriptor(
        Pointer(value.address, zero, itemsize, block, name, zero=True),
        tuple(torch.tensor([size]) for size in value.shape),
        tuple(torch.tensor([stride]) for stride in value.strides),
        math.nan if value.nan else 0.0,
        value.tf32,
    )


def _itemsize(kind: Type | None) -> int:
    assert kind is not None
    return 8 if kind.element == "ptr" else dtype_of(kind.element).itemsize


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How to run a kernel.

    ``bytes_per_program`` bounds the values alive at a time; ``sequential``: program by program;
    ``waits``: programs may wait for each other; ``stores_repeat``: an address may be stored to more
    than once by design of the code; ``loaded`` and ``stored``: parameters by position.
    """

    bytes_per_program: int
    sequential: bool
    waits: bool
    stores_repeat: bool
    loaded: frozenset[int]
    stored: frozenset[int]


def _plan(function: Function) -> _Plan:
    if function.cache is None:
        scan = _Scan(function.functions)
        peak = scan.function(function)
        loaded, stored = accessed(function)
        function.cache = _Plan(
            bytes_per_program=max(64, peak),
            sequential=scan.sequential or scan.waits,
            waits=scan.waits,
            stores_repeat=scan.stores > 1,
            loaded=loaded,
            stored=stored,
        )
    plan: _Plan = function.cache
    return plan


def _shared(plan: _Plan, values: Sequence[Value]) -> frozenset[MemoryBlock]:
    """The allocations that a launch both reads and writes."""

    def blocks(positions: frozenset[int]) -> set[MemoryBlock]:
        found = [values[i] for i in sorted(positions)]
        pointers = [each.pointer if isinstance(each, Descriptor) else each for each in found]
        return {p.block for p in pointers if isinstance(p, Pointer) and p.block is not None}

    return frozenset(blocks(plan.loaded) & blocks(plan.stored))


class _Scan:
    """Looks through a function for ``_Plan``."""

    def __init__(self, functions: dict[str, Function]) -> None:
        self._functions = functions
        self.sequential = False
        self.waits = False
        self.stores = 0

    def function(self, function: Function) -> int:
        used: set[int] = set()
        _collect_uses(function.blocks, used)
        return sum(self._block(block, used, looped=False) for block in function.blocks)

    def _block(self, block: Block, used: set[int], *, looped: bool) -> int:
        alive: dict[int, int] = {}
        peak = 0
        for op in block.ops:
            inner = 0
            inside = looped or op.name in ("scf.for", "scf.while")
            for region in op.regions:
                for nested in region:
                    inner = max(inner, self._block(nested, used, looped=inside))
            if op.name == "scf.while" and (_waits(op.regions[0][0]) or _polls(op)):
                self.waits = True
            if op.name in ("tt.atomic_rmw", "tt.atomic_cas"):
                if op.results[0] in used:
                    self.sequential = True
            elif op.name in ("tt.store", "tt.descriptor_store", "tt.descriptor_scatter"):
                self.stores += 2 if looped else 1
            elif op.name == "tt.call":
                inner = self.function(self._functions[op.words[0]])
            for number, kind in zip(op.results, op.result_types, strict=True):
                alive[number] = math.prod(kind.shape) * (
                    8 if kind.element in ("ptr", "tensordesc") else dtype_of(kind.element).itemsize
                )
            peak = max(peak, sum(alive.values()) + inner)
            for number in op.dying:
                alive.pop(number, None)
        return peak


def _waits(condition: Block) -> bool:
    """Whether a loop's condition looks at memory, which another program may change."""
    return any(op.name in ("tt.load", "tt.atomic_rmw", "tt.atomic_cas") for op in condition.ops)


def _polls(loop: Op) -> bool:
    """Whether a loop's body asks memory, by atomic operations, for what its condition needs."""
    return any(op.name in ("tt.atomic_rmw", "tt.atomic_cas") for op in loop.regions[1][0].ops)


def _collect_uses(blocks: Sequence[Block], used: set[int]) -> None:
    for block in blocks:
        for op in block.ops:
            used.update(op.operands)
            for _, operands in op.successors:
                used.update(operands)
            for region in op.regions:
                _collect_uses(region, used)


def _unchanged(before: Sequence[Value], after: Sequence[Value]) -> bool:
    """Whether what an iteration carries on is what it was given; of pointers no is said."""
    return all(
        isinstance(a, Tensor) and isinstance(b, Tensor) and torch.equal(a, b)
        for a, b in zip(before, after, strict=True)
    )


class _Frame:
    """The values that some programs have.

    A frame within another has some of its programs, or looks at a combine region, in which scalars
    are whole tensors of ``lanes`` axes.
    """

    __slots__ = ("access", "index", "lanes", "numbers", "parent", "values")

    def __init__(
        self,
        numbers: Tensor,
        access: Access,
        parent: _Frame | None = None,
        index: Tensor | None = None,
        lanes: int = 0,
    ) -> None:
        self.numbers = numbers
        self.access = access
        self.parent = parent
        self.index = index
        self.lanes = lanes
        self.values: dict[int, Value] = {}

    @property
    def count(self) -> int:
        return len(self.numbers)

    def get(self, number: int) -> Value:
        value = self.values.get(number)
        if value is None:
            if self.parent is None:
                raise AssertionError(f"value {number} is used before it is made")
            value = self.parent.get(number)
            if self.index is not None:
                value = take(value, self.index)
            elif self.lanes and isinstance(value, Tensor) and value.dim() == 1:
                value = value.reshape(-1, *(1,) * self.lanes)
            self.values[number] = value
        return value

    def tensor(self, number: int) -> Tensor:
        value = self.get(number)
        assert isinstance(value, Tensor), value
        return value

    def pointer(self, number: int) -> Pointer:
        value = self.get(number)
        assert isinstance(value, Pointer), value
        return value

    def subset(self, index: Tensor, launch: Launch) -> _Frame:
        numbers = self.numbers[index]
        return _Frame(numbers, Access(launch, numbers), self, index)


class _Machine:
    """Executes the operations of a kernel."""

    def __init__(self, launch: Launch, kernel: Function, emit: Callable[[str], object]) -> None:
        self.launch = launch
        self.kernel = kernel
        self.emit = emit

    # Functions and blocks.

    def call(self, function: Function, args: Sequence[Value], frame: _Frame) -> list[Value]:
        """Executes a function for the programs of ``frame``, which holds nothing else."""
        for number, value in zip(function.arguments, args, strict=True):
            frame.values[number] = value
        return self._from(function, 0, frame)

    def _from(self, function: Function, at: int, frame: _Frame) -> list[Value]:
        """Executes from a block to the return; where programs part, each way to its end."""
        labels = {block.label: i for i, block in enumerate(function.blocks)}
        while True:
            last = self.block(function.blocks[at], frame)
            if last is None or last.name == "tt.return":
                return [frame.get(number) for number in last.operands] if last else []
            if last.name == "cf.br":
                at = self._jump(function, labels, last.successors[0], frame)
            elif last.name == "cf.cond_br":
                condition = frame.tensor(last.operands[0])
                taken = _uniform(condition)
                if taken is not None:
                    successor = last.successors[0 if taken else 1]
                    at = self._jump(function, labels, successor, frame)
                    continue
                parts: list[tuple[Tensor, list[Value]]] = []
                for successor, index in zip(last.successors, _sides(condition), strict=True):
                    inner = frame.subset(index, self.launch)
                    to = self._jump(function, labels, successor, inner)
                    parts.append((index, self._from(function, to, inner)))
                return _merge_all(frame.count, parts)
            else:
                self._unsupported(last)

    def _jump(
        self,
        function: Function,
        labels: dict[str, int],
        successor: tuple[str, list[int]],
        frame: _Frame,
    ) -> int:
        label, operands = successor
        block = function.blocks[labels[label]]
        values = [frame.get(number) for number in operands]
        frame.values.update(zip(block.arguments, values, strict=True))
        return labels[label]

    def block(self, block: Block, frame: _Frame) -> Op | None:
        """Executes a block; returns the operation that ends it."""
        for op in block.ops:
            if op.name in _TERMINATORS:
                return op
            self.execute(op, frame)
        return None

    def execute(self, op: Op, frame: _Frame) -> None:
        handler = op.cache
        if handler is None:
            handler = op.cache = self._handler(op)
        try:
            result = handler(self, op, frame)
        except (KernelFault, InterpreterError):
            raise
        except NotImplementedError as error:
            raise InterpreterError(f"{self._place(op)}: not supported: {error}") from error
        except (RuntimeError, TypeError, ValueError, IndexError, AssertionError, KeyError) as error:
            raise InterpreterError(f"{self._place(op)}: {type(error).__name__}: {error}") from error
        if result is not None:
            if isinstance(result, (tuple, list)):
                frame.values.update(zip(op.results, result, strict=True))
            else:
                frame.values[op.results[0]] = result
        for number in op.dying:
            frame.values.pop(number, None)

    def _place(self, op: Op) -> str:
        return f"kernel {self.kernel.name}, line {op.line} of its TTIR: {op.name}"

    def _unsupported(self, op: Op) -> None:
        raise InterpreterError(f"{self._place(op)} is not supported by the simulator")

    def _handler(self, op: Op) -> _Handler:
        if op.name in _HANDLERS:
            return _HANDLERS[op.name]
        make = ELEMENTWISE.get(op.name)
        if make is None:
            self._unsupported(op)
        try:
            return _elementwise(make(op))
        except (NotImplementedError, KeyError) as error:
            raise InterpreterError(f"{self._place(op)}: not supported: {error}") from error

    def fault(self, what: str, op: Op, frame: _Frame, bad: Tensor, detail: str) -> KernelFault:
        """A report of the first program for which ``bad`` holds somewhere."""
        flat = int(bad.reshape(-1).to(torch.uint8).argmax())
        row = flat // max(1, math.prod(bad.shape[1:]))
        return self.launch.fault(what, op, int(frame.numbers[row]), detail)

    # Control flow.

    def loop(self, op: Op, frame: _Frame) -> Sequence[Value]:
        """``scf.for``."""
        if frame.lanes:
            self._unsupported(op)
        low, high, step = (frame.tensor(number) for number in op.operands[:3])
        carried = [frame.get(number) for number in op.operands[3:]]
        if "unsigned" in op.words and bool(((low < 0) | (high < 0)).any()):
            raise NotImplementedError("unsigned bounds of the upper half")
        wide = (value.to(torch.int64) for value in (low, high, step))
        first, end, by = wide
        trips = torch.clamp(-torch.div(first - end, by, rounding_mode="floor"), min=0)
        body = op.regions[0][0]
        if int(trips.min()) == int(trips.max()):
            return self._iterate(body, frame, low, step, 0, int(trips[0]), carried)
        trips = trips.expand(frame.count)
        parts: list[tuple[Tensor, list[Value]]] = []
        done = 0
        index = torch.arange(frame.count)
        for count in [int(n) for n in trips.unique()]:
            inner = frame.subset(index, self.launch)
            mine = [take(value, index) for value in (low, step)]
            carried = self._iterate(body, inner, mine[0], mine[1], done, count, carried)
            done = count
            over = trips[index] == count
            stop, go = over.nonzero().reshape(-1), (~over).nonzero().reshape(-1)
            parts.append((index[stop], [take(value, stop) for value in carried]))
            carried = [take(value, go) for value in carried]
            index = index[go]
            # ``carried`` is now of the programs in ``index``.
        return _merge_all(frame.count, parts)

    def _iterate(
        self,
        body: Block,
        frame: _Frame,
        low: Tensor,
        step: Tensor,
        start: int,
        end: int,
        carried: list[Value],
    ) -> list[Value]:
        """Iterations ``start`` to ``end`` of a loop."""
        low = low[:1] if _constant(low) else low
        step = step[:1] if _constant(step) else step
        for i in range(start, end):
            frame.values.update(zip(body.arguments, [low + step * i, *carried], strict=True))
            last = self.block(body, frame)
            if last is not None:
                carried = [frame.get(number) for number in last.operands]
                for number in last.dying:
                    frame.values.pop(number, None)
        for number in body.arguments:
            frame.values.pop(number, None)
        return carried

    def branch(self, op: Op, frame: _Frame) -> Sequence[Value]:
        """``scf.if``."""
        condition = frame.tensor(op.operands[0])
        if frame.lanes and condition.numel() > 1:
            return self._branch_by_lane(op, frame, condition)
        taken = _uniform(condition)
        if taken is not None:
            return self._side(op, frame, taken)
        parts = [
            (index, self._side(op, frame.subset(index, self.launch), taken))
            for taken, index in zip((True, False), _sides(condition), strict=True)
        ]
        return _merge_all(frame.count, parts)

    def _side(self, op: Op, frame: _Frame, taken: bool) -> list[Value]:
        region = 0 if taken else 1
        if region >= len(op.regions):
            return []
        last = self.block(op.regions[region][0], frame)
        return [frame.get(number) for number in last.operands] if last else []

    def _branch_by_lane(self, op: Op, frame: _Frame, condition: Tensor) -> list[Value]:
        """In a combine region each lane branches for itself. Nothing there has an effect."""
        sides = [self._side(op, frame, taken) for taken in (True, False)]
        return [select(condition, a, b) for a, b in zip(*sides, strict=True)]

    def loop_while(self, op: Op, frame: _Frame) -> Sequence[Value]:
        """``scf.while``."""
        if frame.lanes:
            self._unsupported(op)
        before, after = op.regions[0][0], op.regions[1][0]
        carried = [frame.get(number) for number in op.operands]
        index = torch.arange(frame.count)
        inner = frame
        parts: list[tuple[Tensor, list[Value]]] = []
        waits, polls = _waits(before), _polls(op)
        spins = 0  # iterations that changed nothing
        turns = self.launch.turns
        for i in range(MAX_SPINS if waits else 1 << 31):
            if waits and i:
                self._wait(op, inner)
            if spins > MAX_SPINS:
                break
            changes = turns.changes if turns is not None else 0
            inner.values.update(zip(before.arguments, carried, strict=True))
            last = self.block(before, inner)
            assert last is not None and last.name == "scf.condition"
            condition = inner.tensor(last.operands[0])
            passed = [inner.get(number) for number in last.operands[1:]]
            go_on = _uniform(condition)
            if go_on is False:
                parts.append((index, passed))
                return _merge_all(frame.count, parts)
            if go_on is None:
                going, ending = _sides(condition)
                parts.append((index[ending], [take(value, ending) for value in passed]))
                passed = [take(value, going) for value in passed]
                index = index[going]
                inner = frame.subset(index, self.launch)
            inner.values.update(zip(after.arguments, passed, strict=True))
            last = self.block(after, inner)
            previous = carried
            carried = [inner.get(number) for number in last.operands] if last else []
            if polls and _unchanged(previous, carried):
                spins += 1
                # It found nothing new and wrote nothing: it will go on like this until others do.
                if turns is not None and turns.changes == changes:
                    self._wait(op, inner)
        raise self._stuck(op, inner, f"a loop did not end after {MAX_SPINS} iterations")

    def _wait(self, op: Op, frame: _Frame) -> None:
        """Lets other programs go on before a program looks at memory again."""
        if self.launch.turns is None:
            raise self._stuck(op, frame, "it waits for memory to change, and there is no other")
        try:
            self.launch.turns.wait(int(frame.numbers[0]))
        except Stuck:
            raise self._stuck(
                op, frame, "it waits for memory to change, as all programs do that are left"
            ) from None

    def _stuck(self, op: Op, frame: _Frame, detail: str) -> KernelFault:
        return self.launch.fault(errors.STUCK, op, int(frame.numbers[0]), detail)

    # Reductions and scans.

    def combine(
        self, op: Op, frame: _Frame, left: Sequence[Tensor], right: Sequence[Tensor]
    ) -> list[Tensor]:
        """Executes a combine region on tensors of lanes."""
        block = op.regions[0][0]
        inner = _Frame(frame.numbers, frame.access, frame, None, left[0].dim() - 1)
        inner.values.update(zip(block.arguments, [*left, *right], strict=True))
        last = self.block(block, inner)
        assert last is not None
        results = [inner.tensor(number) for number in last.operands]
        shape = left[0].shape
        return [
            result
            if result.shape == shape
            else result.expand(torch.broadcast_shapes(result.shape, shape))
            for result in results
        ]

    def reduce(self, op: Op, frame: _Frame) -> Sequence[Value]:
        """``tt.reduce``: halves combined with each other until one element is left."""
        axis = int(op.attributes["axis"]) + 1
        values = self._operands(op, frame)
        simple = _simple_combine(op)
        if simple is not None:
            value = values[0]
            if simple in REDUCTIONS:
                return [REDUCTIONS[simple](value, axis)]
            if simple == "arith.addf" and value.dtype in (torch.float32, torch.float64):
                return [value.sum(axis)]
        size = values[0].shape[axis]
        while size > 1:
            half = size // 2
            left = [value.narrow(axis, 0, half) for value in values]
            right = [value.narrow(axis, half, half) for value in values]
            rest = [value.narrow(axis, 2 * half, size - 2 * half) for value in values]
            values = self.combine(op, frame, left, right)
            if size % 2:
                values = [torch.cat(pair, axis) for pair in zip(values, rest, strict=True)]
            size -= half
        return [value.squeeze(axis) for value in values]

    def scan(self, op: Op, frame: _Frame) -> Sequence[Value]:
        """``tt.scan``: each element combined with the one 1, 2, 4... places before it."""
        axis = int(op.attributes["axis"]) + 1
        values = self._operands(op, frame)
        backward = bool(op.attributes.get("reverse", False))
        if backward:
            values = [value.flip(axis) for value in values]
        if _simple_combine(op) in ("arith.addf", "arith.addi") and values[0].dtype in (
            torch.float32,
            torch.float64,
            torch.int32,
            torch.int64,
        ):
            values = [values[0].cumsum(axis, dtype=values[0].dtype)]
        else:
            size, distance = values[0].shape[axis], 1
            while distance < size:
                left = [value.narrow(axis, 0, size - distance) for value in values]
                right = [value.narrow(axis, distance, size - distance) for value in values]
                joined = self.combine(op, frame, left, right)
                values = [
                    torch.cat((value.narrow(axis, 0, distance), fresh), axis)
                    for value, fresh in zip(values, joined, strict=True)
                ]
                distance *= 2
        return [value.flip(axis) for value in values] if backward else values

    def _operands(self, op: Op, frame: _Frame) -> list[Tensor]:
        """The operands at full size, all for the same programs."""
        values = [
            expand(frame.tensor(number), kind.shape)
            for number, kind in zip(op.operands, op.types, strict=True)
        ]
        return list(tensors.broadcast_programs(*values))


_Handler = Callable[[_Machine, Op, _Frame], Any]

_TERMINATORS: Final = frozenset(
    (
        "cf.br",
        "cf.cond_br",
        "scf.condition",
        "scf.yield",
        "tt.map_elementwise.return",
        "tt.reduce.return",
        "tt.return",
        "tt.scan.return",
        "ub.unreachable",
    )
)


def _constant(value: Tensor) -> bool:
    return value.shape[0] == 1 or bool((value == value[0]).all())


def _uniform(condition: Tensor) -> bool | None:
    """What all programs agree on; None if they do not."""
    if condition.numel() == 1:
        return bool(condition)
    if bool(condition.all()):
        return True
    return None if bool(condition.any()) else False


def _sides(condition: Tensor) -> tuple[Tensor, Tensor]:
    """The programs for which it holds, and the others."""
    return condition.nonzero().reshape(-1), (~condition).nonzero().reshape(-1)


def _merge_all(count: int, parts: Sequence[tuple[Tensor, Sequence[Value]]]) -> list[Value]:
    parts = [part for part in parts if len(part[0])]
    width = len(parts[0][1])
    return [merge(count, [(index, values[i]) for index, values in parts]) for i in range(width)]


def _simple_combine(op: Op) -> str | None:
    """The operation, if a combine region is just one of its two arguments."""
    block = op.regions[0][0]
    if len(op.operands) != 1 or len(block.ops) != 2:
        return None
    first, last = block.ops
    if sorted(first.operands) != sorted(block.arguments) or last.operands != first.results:
        return None
    return first.name


def _elementwise(function: Callable[..., Any]) -> _Handler:
    def handle(machine: _Machine, op: Op, frame: _Frame) -> Any:
        return function(*[frame.get(number) for number in op.operands])

    return handle


# Handlers, one an operation.


def _program_id(machine: _Machine, op: Op, frame: _Frame) -> Value:
    x, y, _ = machine.launch.grid
    axis = op.words[0]
    if axis == "x":
        value = frame.numbers % x
    elif axis == "y":
        value = frame.numbers // x % y
    else:
        value = frame.numbers // (x * y)
    if machine.launch.grid["xyz".index(axis)] == 1:
        value = value[:1]
    return value.to(torch.int32)


def _num_programs(machine: _Machine, op: Op, frame: _Frame) -> Value:
    return torch.tensor([machine.launch.grid["xyz".index(op.words[0])]], dtype=torch.int32)


def _constant_value(machine: _Machine, op: Op, frame: _Frame) -> Value:
    kind = op.result_types[0]
    value = op.attributes["value"]
    dtype = dtype_of(kind.element)
    if kind.element.startswith("f8"):
        from simulator.interpreter.floats import convert

        wide = torch.tensor(value, dtype=torch.float32)
        tensor = convert(wide, "f32", kind.element)
    else:
        if not is_float(kind.element) and kind.element != "i1":
            bits = 8 * dtype.itemsize
            wrap = lambda n: (n + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))  # noqa: E731
            value = [wrap(n) for n in value] if isinstance(value, list) else wrap(value)
        tensor = torch.tensor(value, dtype=dtype)
    if isinstance(value, list):
        return tensor.reshape(1, *kind.shape)
    return tensor.reshape(1, *(1,) * len(kind.shape))


def _poison(machine: _Machine, op: Op, frame: _Frame) -> Value:
    kind = op.result_types[0]
    shape = (1,) * (len(kind.shape) + 1)
    if kind.element == "ptr":
        return from_addresses(torch.zeros(shape, dtype=torch.int64))
    fill = math.nan if is_float(kind.element) and not kind.element.startswith("f8") else 0
    return torch.full(shape, fill, dtype=dtype_of(kind.element))


def _make_range(machine: _Machine, op: Op, frame: _Frame) -> Value:
    start, end = op.attributes["start"], op.attributes["end"]
    return torch.arange(start, end, dtype=torch.int32).reshape(1, -1)


def _map(value: Value, function: Callable[[Tensor], Tensor]) -> Value:
    """Applies a change of shape to a tensor, or to a pointer's offsets."""
    if isinstance(value, Pointer):
        return value.map(function(value.offset))
    assert isinstance(value, Tensor)
    return function(value)


def _splat(machine: _Machine, op: Op, frame: _Frame) -> Value:
    rank = len(op.result_types[0].shape)
    return _map(frame.get(op.operands[0]), lambda v: v.reshape(v.shape[0], *(1,) * rank))


def _unsplat(machine: _Machine, op: Op, frame: _Frame) -> Value:
    return _map(frame.get(op.operands[0]), lambda v: v.reshape(v.shape[0]))


def _same(machine: _Machine, op: Op, frame: _Frame) -> Value:
    return frame.get(op.operands[0])


def _expand_dims(machine: _Machine, op: Op, frame: _Frame) -> Value:
    axis = op.attributes["axis"] + 1
    return _map(frame.get(op.operands[0]), lambda v: v.unsqueeze(axis))


def _reshape(machine: _Machine, op: Op, frame: _Frame) -> Value:
    source, target = op.types[0].shape, op.result_types[0].shape
    return _map(frame.get(op.operands[0]), lambda v: tensors.reshape(v, source, target))


def _trans(machine: _Machine, op: Op, frame: _Frame) -> Value:
    order = [0, *(axis + 1 for axis in op.attributes["order"])]
    return _map(frame.get(op.operands[0]), lambda v: v.permute(order))


def _join(machine: _Machine, op: Op, frame: _Frame) -> Value:
    return tensors.join(frame.tensor(op.operands[0]), frame.tensor(op.operands[1]))


def _split(machine: _Machine, op: Op, frame: _Frame) -> Sequence[Value]:
    return tensors.split(frame.tensor(op.operands[0]))


def _cat(machine: _Machine, op: Op, frame: _Frame) -> Value:
    a, b = (frame.tensor(number) for number in op.operands)
    return tensors.cat(a, b, op.types)


def _addptr(machine: _Machine, op: Op, frame: _Frame) -> Value:
    pointer, offset = frame.pointer(op.operands[0]), frame.tensor(op.operands[1])
    itemsize = _itemsize(op.types[0].pointee)
    if pointer.unit == itemsize:
        if pointer.zero:
            return dataclasses.replace(pointer, offset=offset, zero=False)
        return pointer.map(torch.add(pointer.offset.to(torch.int64), offset))
    return Pointer(
        pointer.base,
        pointer.offset.to(torch.int64) * pointer.unit + offset.to(torch.int64) * itemsize,
        1,
        pointer.block,
        pointer.parameter,
    )


def _bitcast(machine: _Machine, op: Op, frame: _Frame) -> Value:
    value = frame.get(op.operands[0])
    if isinstance(value, Pointer):
        itemsize = _itemsize(op.result_types[0].pointee)
        if value.unit == itemsize:
            return value
        if value.zero:
            return dataclasses.replace(value, unit=itemsize)
        offset = value.offset.to(torch.int64) * value.unit
        return dataclasses.replace(value, offset=offset, unit=1)
    assert isinstance(value, Tensor)
    target = dtype_of(op.result_types[0].element)
    return value if value.dtype == target else value.contiguous().view(target)


def _ptr_to_int(machine: _Machine, op: Op, frame: _Frame) -> Value:
    return frame.pointer(op.operands[0]).addresses().to(dtype_of(op.result_types[0].element))


def _int_to_ptr(machine: _Machine, op: Op, frame: _Frame) -> Value:
    return from_addresses(frame.tensor(op.operands[0]).to(torch.int64))


def _select(machine: _Machine, op: Op, frame: _Frame) -> Value:
    condition = frame.tensor(op.operands[0])
    a, b = frame.get(op.operands[1]), frame.get(op.operands[2])
    if isinstance(a, Pointer) and isinstance(b, Pointer):
        return select_pointer(condition, a, b)
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    return select(condition, a, b)


def _pointee(kind: Type) -> Type:
    assert kind.pointee is not None
    return kind.pointee


def _load(machine: _Machine, op: Op, frame: _Frame) -> Value:
    operands = op.operands
    mask = frame.tensor(operands[1]) if len(operands) > 1 else None
    other = frame.get(operands[2]) if len(operands) > 2 else None
    if isinstance(other, Pointer):
        other = other.addresses()
    assert other is None or isinstance(other, Tensor)
    pointer = frame.pointer(operands[0])
    return frame.access.load(op, pointer, _pointee(op.types[0]), mask, other)


def _store(machine: _Machine, op: Op, frame: _Frame) -> None:
    mask = frame.tensor(op.operands[2]) if len(op.operands) > 2 else None
    pointer, value = frame.pointer(op.operands[0]), frame.get(op.operands[1])
    frame.access.store(op, pointer, _pointee(op.types[0]), value, mask)


def _atomic_rmw(machine: _Machine, op: Op, frame: _Frame) -> Value:
    mask = frame.tensor(op.operands[2]) if len(op.operands) > 2 else None
    return frame.access.atomic(
        op,
        frame.pointer(op.operands[0]),
        _pointee(op.types[0]),
        op.words[0],
        (frame.tensor(op.operands[1]),),
        mask,
        used=op.results[0] not in op.dying,
    )


def _atomic_cas(machine: _Machine, op: Op, frame: _Frame) -> Value:
    return frame.access.atomic(
        op,
        frame.pointer(op.operands[0]),
        _pointee(op.types[0]),
        "cas",
        (frame.tensor(op.operands[1]), frame.tensor(op.operands[2])),
        None,
        used=True,
    )


def _dot(machine: _Machine, op: Op, frame: _Frame) -> Value:
    a, b, accumulator = (frame.tensor(number) for number in op.operands)
    precision = str(op.attributes.get("inputPrecision", "ieee"))
    return tensors.dot(a, b, accumulator, op.types, op.result_types[0], precision)


def _dot_scaled(machine: _Machine, op: Op, frame: _Frame) -> Value:
    """``%a scale %sa, %b scale %sb, %acc lhs = e4m3 rhs = e5m2``; either scale may be missing."""
    pairs = list(zip(op.operands, op.types, strict=False))
    left = op.attributes["left"]
    sides = []
    for form, axis, side in (("lhs", -1, pairs[:left]), ("rhs", -2, pairs[left:])):
        if op.attributes.get(f"{form}_k_pack", True) is False:
            raise NotImplementedError("operands packed along m or n")
        (number, kind), *rest = side
        scale = frame.tensor(rest[0][0]) if rest else None
        sides.append(
            tensors.scaled_operand(
                frame.tensor(number),
                kind,
                scale,
                rest[0][1] if rest else None,
                str(op.attributes[form]),
                axis,
            )
        )
    product = torch.matmul(*sides) + frame.tensor(op.operands[-1])
    return product.to(dtype_of(op.result_types[0].element))


def _map_elementwise(machine: _Machine, op: Op, frame: _Frame) -> Sequence[Value]:
    """Executes a region for each element, or for ``pack`` neighbours along the last axis."""
    pack = int(op.attributes.get("pack", 1))
    values = machine._operands(op, frame)
    block = op.regions[0][0]
    lanes = [
        value.unflatten(-1, (-1, pack))[..., i] if pack > 1 else value
        for value in values
        for i in range(pack)
    ]
    inner = _Frame(frame.numbers, frame.access, frame, None, lanes[0].dim() - 1)
    inner.values.update(zip(block.arguments, lanes, strict=True))
    last = machine.block(block, inner)
    assert last is not None
    shape = lanes[0].shape
    found = [inner.tensor(n).expand(shape) for n in last.operands]
    if pack == 1:
        return found
    return [torch.stack(found[i : i + pack], -1).flatten(-2) for i in range(0, len(found), pack)]


def _gather(machine: _Machine, op: Op, frame: _Frame) -> Value:
    index = op.operands[1]
    axis = int(op.attributes["axis"])
    size = op.types[0].shape[axis]
    lanes = frame.tensor(index)
    bad = (lanes < 0) | (lanes >= size)
    if bad.any():
        raise machine.fault(
            errors.BAD_INDEX, op, frame, bad, f"a gather of {size} elements got another index"
        )
    return tensors.gather(frame.tensor(op.operands[0]), lanes, op.types, axis)


def _histogram(machine: _Machine, op: Op, frame: _Frame) -> Value:
    value = frame.tensor(op.operands[0])
    mask = frame.tensor(op.operands[1]) if len(op.operands) > 1 else None
    bins = op.result_types[0].shape[0]
    bad = (value < 0) | (value >= bins)
    if mask is not None:
        bad = bad & mask
    if bad.any():
        raise machine.fault(
            errors.BAD_INDEX, op, frame, bad, f"a histogram of {bins} bins got another value"
        )
    if mask is not None:
        value = torch.where(mask, value, 0)
    return tensors.histogram(value, mask, op.types[0].shape[0], bins)


def _extern(machine: _Machine, op: Op, frame: _Frame) -> Value:
    symbol = str(op.attributes["symbol"])
    function = libdevice.FUNCTIONS.get(symbol) or ocml.FUNCTIONS.get(symbol)
    if function is None:
        raise InterpreterError(
            f"{machine._place(op)}: the simulator has no {symbol} of the device library"
        )
    result = function(*[frame.tensor(number) for number in op.operands])
    return result.to(dtype_of(op.result_types[0].element))


def _inline_asm(machine: _Machine, op: Op, frame: _Frame) -> Any:
    operands = [frame.tensor(number) for number in op.operands]
    return ptx.evaluate(op, operands)


def _assert(machine: _Machine, op: Op, frame: _Frame) -> None:
    bad = ~frame.tensor(op.operands[0])
    if bad.any():
        text = op.words[0] if op.words else str(op.attributes.get("message", ""))
        raise machine.fault(errors.ASSERTION, op, frame, bad, text.strip())


def _print(machine: _Machine, op: Op, frame: _Frame) -> None:
    prefix = op.words[0].strip() if op.words else ""
    if not op.operands:
        machine.emit(f"{machine.kernel.name}: {prefix}")
    for number, kind in zip(op.operands, op.types, strict=True):
        value = frame.get(number)
        tensor = value.addresses() if isinstance(value, Pointer) else value
        assert isinstance(tensor, Tensor)
        full = expand(tensor, kind.shape).expand(frame.count, *kind.shape)
        for row, program in zip(full, frame.numbers.tolist(), strict=True):
            machine.emit(
                f"{machine.kernel.name} {machine.launch.program(program)}: {prefix} {row.tolist()}"
            )


def _call(machine: _Machine, op: Op, frame: _Frame) -> Sequence[Value]:
    callee = machine.kernel.functions[op.words[0]]
    inner = _Frame(frame.numbers, frame.access)
    return machine.call(callee, [frame.get(number) for number in op.operands], inner)


_PADDING_NAN: Final = 2
"""In ``tt.make_tensor_descriptor``: elements outside of the tensor read as NaN, not as zero."""


def _make_descriptor(machine: _Machine, op: Op, frame: _Frame) -> Value:
    shape, strides = op.groups
    return Descriptor(
        frame.pointer(op.operands[0]),
        tuple(frame.tensor(number) for number in shape),
        tuple(frame.tensor(number) for number in strides),
        math.nan if op.attributes.get("padding") == _PADDING_NAN else 0.0,
    )


@dataclasses.dataclass(frozen=True)
class _Tile:
    """A block of a described tensor: its elements' addresses, and which of them exist."""

    pointer: Pointer
    inside: Tensor
    element: Type
    shape: tuple[int, ...]
    padding: float
    tf32: bool


def _tile(op: Op, frame: _Frame) -> _Tile:
    """The block that an operation names: ``%descriptor[%i, %j]``.

    An index that is a tensor (of a gather or scatter) has the rows one by one.
    """
    number = next(n for n in op.operands if isinstance(frame.get(n), Descriptor))
    descriptor = frame.get(number)
    assert isinstance(descriptor, Descriptor)
    kind = _pointee(op.types[0])
    indices = [frame.tensor(n) for n in op.groups[0]]
    shape = tuple(
        op.types[1].shape[0] if index.dim() > 1 else size
        for index, size in zip(indices, kind.shape, strict=True)
    )
    rank = len(shape)
    ones = (1,) * rank
    offset: Tensor = descriptor.pointer.offset.to(torch.int64).reshape(-1, *ones)
    inside: Tensor = torch.ones((1, *ones), dtype=torch.bool)
    for axis, (start, size, stride) in enumerate(
        zip(indices, descriptor.shape, descriptor.strides, strict=True)
    ):
        along = [-1 if i == axis else 1 for i in range(rank)]
        if start.dim() > 1:
            at = start.to(torch.int64).reshape(start.shape[0], *along)
        else:
            at = start.to(torch.int64).reshape(-1, *ones)
            at = at + torch.arange(shape[axis]).reshape(1, *along)
        inside = inside & (at >= 0) & (at < size.to(torch.int64).reshape(-1, *ones))
        offset = offset + at * stride.to(torch.int64).reshape(-1, *ones)
    pointer = dataclasses.replace(descriptor.pointer, offset=offset, zero=False)
    padding, tf32 = descriptor.padding, descriptor.tf32
    return _Tile(pointer, inside, Type(kind.element), shape, padding, tf32)


def _descriptor_load(machine: _Machine, op: Op, frame: _Frame) -> Value:
    tile = _tile(op, frame)
    dtype = dtype_of(tile.element.element)
    other = torch.full((1,) * (len(tile.shape) + 1), tile.padding, dtype=torch.float32)
    value = frame.access.load(op, tile.pointer, tile.element, tile.inside, other.to(dtype))
    assert isinstance(value, Tensor)
    if tile.tf32:
        value = floats.tf32(value)
    return tensors.reshape(value, tile.shape, op.result_types[0].shape)


def _descriptor_store(machine: _Machine, op: Op, frame: _Frame) -> None:
    tile = _tile(op, frame)
    value = tensors.reshape(_descriptor_source(op, frame), op.types[-1].shape, tile.shape)
    frame.access.store(op, tile.pointer, tile.element, value, tile.inside)


def _descriptor_reduce(machine: _Machine, op: Op, frame: _Frame) -> None:
    tile = _tile(op, frame)
    value = tensors.reshape(_descriptor_source(op, frame), op.types[-1].shape, tile.shape)
    frame.access.atomic(
        op, tile.pointer, tile.element, op.words[0], (value,), tile.inside, used=False
    )


def _descriptor_source(op: Op, frame: _Frame) -> Tensor:
    """What is to be written: the one operand that is no descriptor and no index, or the last."""
    return frame.tensor(op.operands[-1])


def _loop(machine: _Machine, op: Op, frame: _Frame) -> Sequence[Value]:
    return machine.loop(op, frame)


def _nothing(machine: _Machine, op: Op, frame: _Frame) -> None:
    """Programs are not divided into threads here, so there is nothing to wait for."""


_HANDLERS: Final[dict[str, _Handler]] = {
    "arith.constant": _constant_value,
    "arith.select": _select,
    "gpu.barrier": _nothing,
    "llvm.intr.assume": _nothing,
    "scf.for": _loop,
    "scf.if": lambda machine, op, frame: machine.branch(op, frame),
    "scf.while": lambda machine, op, frame: machine.loop_while(op, frame),
    "tt.addptr": _addptr,
    "tt.assert": _assert,
    "tt.atomic_cas": _atomic_cas,
    "tt.atomic_rmw": _atomic_rmw,
    "tt.bitcast": _bitcast,
    "tt.broadcast": _same,
    "tt.call": _call,
    "tt.cat": _cat,
    "tt.descriptor_gather": _descriptor_load,
    "tt.descriptor_load": _descriptor_load,
    "tt.descriptor_reduce": _descriptor_reduce,
    "tt.descriptor_scatter": _descriptor_store,
    "tt.descriptor_store": _descriptor_store,
    "tt.dot": _dot,
    "tt.dot_scaled": _dot_scaled,
    "tt.elementwise_inline_asm": _inline_asm,
    "tt.expand_dims": _expand_dims,
    "tt.extern_elementwise": _extern,
    "tt.gather": _gather,
    "tt.get_num_programs": _num_programs,
    "tt.get_program_id": _program_id,
    "tt.histogram": _histogram,
    "tt.int_to_ptr": _int_to_ptr,
    "tt.join": _join,
    "tt.load": _load,
    "tt.make_range": _make_range,
    "tt.make_tensor_descriptor": _make_descriptor,
    "tt.map_elementwise": _map_elementwise,
    "tt.print": _print,
    "tt.ptr_to_int": _ptr_to_int,
    "tt.reduce": lambda machine, op, frame: machine.reduce(op, frame),
    "tt.reshape": _reshape,
    "tt.scan": lambda machine, op, frame: machine.scan(op, frame),
    "tt.splat": _splat,
    "tt.split": _split,
    "tt.store": _store,
    "tt.trans": _trans,
    "tt.unsplat": _unsplat,
    "ttg.barrier": _nothing,
    "ub.poison": _poison,
}
