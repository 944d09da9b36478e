"""Runs a lowered program on host memory, its kernels by the interpreter.

What a model's library does on a GPU, step by step and with every access checked: each input,
output, weight, constant and temporary is an allocation of its own with space around it, a
temporary's ends with the last step that names it, and nothing may be read that no step wrote.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import torch

from simulator.interpreter import Block, Function, Memory, execute, parse
from simulator.interpreter.values import MappedTensor
from wrapgen import program as program_file
from wrapgen import set_condition
from wrapgen.dtype import INFO, DType
from wrapgen.expression import evaluate, holds
from wrapgen.program import (
    Buffer,
    Copy,
    Fill,
    If,
    Kernel,
    KernelParam,
    Launch,
    Procedure,
    Program,
    Ref,
    ScalarArg,
    ScalarSpec,
    Step,
    TensorMapArg,
    TensorSpec,
    While,
    inner,
    walk,
)

GUARD: Final = 256
"""Bytes between two blocks, of no block; a multiple of the alignment of device allocations."""

Input: TypeAlias = torch.Tensor | int


class RunError(ValueError):
    """What was given to ``run`` does not fit the program; the message says which and how."""


@dataclasses.dataclass(frozen=True)
class Access:
    """Memory that a step names, itself or in steps inside it.

    Attributes:
      ref: the address.
      access: what the step does there.
      data: the bytes from the address to the end of the block, or those that a copy, a fill or a
        predicate concerns: 1-d, uint8.
      tensor: the block as the value that the program says it holds when first written, of which
        ``ref.offset`` is a place; None for what has none.

    Both are views of the run's memory: clone what is to be kept.
    """

    ref: Ref
    access: Literal["read", "write", "read_write"]
    data: torch.Tensor
    tensor: torch.Tensor | None


Observer = Callable[[Step, int, Sequence[Access], Sequence[Access]], object]
"""Called after each step with the step, its index, and what it read and wrote; what it both read
and wrote is in both. What was read is there as it was before, unless the step wrote it. A branch or
a loop is one step, which names what any step inside it does, executed or not."""


def run(
    directory: Path,
    weights: Mapping[str, torch.Tensor],
    inputs: Mapping[str, Input],
    *,
    observer: Observer | None = None,
    folding_observer: Observer | None = None,
) -> dict[str, dict[str, torch.Tensor]]:
    """Runs folding and main.

    Args:
      directory: what ``wrapgen lower`` wrote: ``program.json`` and ``shards/NN/*.ttir``.
      weights: by name; each of the dtype and shape that the program says, of any strides.
      inputs: by name; tensors of the dtype, shape and strides that the program says, integers for
        scalars. Symbols get their values from them. They are copied: what the model writes to an
        input is in the result.
      observer: sees the steps of ``main``.
      folding_observer: sees the steps of ``folding``.

    Returns:
      ``outputs``, ``constants`` and ``inputs``, the latter with what is mutated, by name, with the
      program's strides.

    Raises:
      RunError: a tensor is missing or is not what the program says; a constraint is violated; a
        kernel's TTIR is missing, not the one that the program was written with, or has other
        parameters; a copy or fill leaves its block or reads what nothing wrote.
      KernelFault: a kernel did something wrong. The launch is called ``main.steps[3]``.
    """
    program = program_file.load(directory / "program.json")
    symbols = bind(program, inputs)
    kernels = {
        kernel.name: load_kernel(directory, kernel)
        for kernel in program.kernels
        if kernel.name != set_condition.NAME
    }
    state = _Run(program, symbols, kernels)
    for weight in program.weights:
        if weight.name not in weights:
            raise RunError(f"weight {weight.name!r} is missing")
        value = weights[weight.name]
        _check_tensor("weight", weight.name, value, weight.dtype, weight.shape, None)
        state.store("weight", weight.name, value.contiguous())
    for spec in program.tensor_inputs:
        value = inputs[spec.name]
        assert isinstance(value, torch.Tensor)
        state.store("input", spec.name, value)
    state.execute("folding", program.folding, folding_observer)
    state.execute("main", program.main, observer)
    return {
        "outputs": {spec.name: state.value("output", spec) for spec in program.outputs},
        "constants": {buffer.name: state.value("constant", buffer) for buffer in program.constants},
        "inputs": {
            spec.name: state.value("input", spec) for spec in program.tensor_inputs if spec.mutated
        },
    }


def bind(program: Program, inputs: Mapping[str, Input]) -> dict[str, int]:
    """The symbols' values, after checking the inputs; raises ``RunError`` for what does not fit."""
    missing = [spec.name for spec in program.inputs if spec.name not in inputs]
    unknown = sorted(set(inputs) - {spec.name for spec in program.inputs})
    if missing or unknown:
        raise RunError(f"inputs missing: {missing}; unknown: {unknown}")
    symbols: dict[str, int] = {}
    for spec in program.inputs:
        value = inputs[spec.name]
        if isinstance(spec, ScalarSpec):
            symbols.setdefault(spec.symbol, int(value))
            continue
        if not isinstance(value, torch.Tensor):
            raise RunError(f"input {spec.name!r} is a tensor, got {value!r}")
        if value.dim() != len(spec.shape):
            raise RunError(
                f"input {spec.name!r} has {len(spec.shape)} dimensions, got {value.dim()}"
            )
        for dim, size in zip(spec.shape, value.shape, strict=True):
            if isinstance(dim, str) and dim.isidentifier():
                symbols.setdefault(dim, size)
    for symbol in program.symbols:
        found = symbols[symbol.name]
        if not symbol.minimum <= found <= symbol.maximum:
            raise RunError(
                f"{symbol.name} is {found}, from {symbol.minimum} to {symbol.maximum} is allowed"
            )
    for spec in program.tensor_inputs:
        value = inputs[spec.name]
        assert isinstance(value, torch.Tensor)
        shape = [evaluate(dim, symbols) for dim in spec.shape]
        strides = [evaluate(dim, symbols) for dim in spec.strides]
        _check_tensor("input", spec.name, value, spec.dtype, shape, strides)
    for constraint in program.constraints:
        if not holds(constraint.condition, symbols):
            raise RunError(f"the inputs violate a constraint of the model: {constraint.text}")
    return symbols


def _check_tensor(
    what: str,
    name: str,
    value: torch.Tensor,
    dtype: DType,
    shape: Sequence[int],
    strides: Sequence[int] | None,
) -> None:
    if value.dtype != _torch(dtype) or list(value.shape) != list(shape):
        raise RunError(
            f"{what} {name!r} is {dtype} {list(shape)}, got {value.dtype} {list(value.shape)}"
        )
    if strides is None or value.numel() == 0:
        return
    for size, expected, got in zip(shape, strides, value.stride(), strict=True):
        if size > 1 and expected != got:
            raise RunError(
                f"{what} {name!r} has strides {list(strides)}, got {list(value.stride())}"
            )


def _torch(dtype: DType) -> torch.dtype:
    found: torch.dtype = getattr(torch, dtype)
    return found


def load_kernel(directory: Path, kernel: Kernel) -> Function:
    """Reads a kernel's TTIR and checks that it is the one the program means."""
    path = directory / "shards" / f"{kernel.shard:02d}" / f"{kernel.name}.ttir"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"kernel {kernel.name}: there is no {path}") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != kernel.ttir_sha256:
        raise RunError(
            f"kernel {kernel.name}: {path} has SHA-256 {digest}, the program was written with "
            f"{kernel.ttir_sha256}; lower the model again"
        )
    function = parse(data.decode())
    if function.name != kernel.name:
        raise RunError(f"kernel {kernel.name}: {path} is of {function.name}")
    expected = [_ttir_type(param) for param in kernel.params]
    found = [str(parameter.type) for parameter in function.parameters]
    if expected != found:
        raise RunError(
            f"kernel {kernel.name}: the program gives it parameters {', '.join(expected)}; its "
            f"TTIR has {', '.join(found)}"
        )
    return function


def _ttir_type(param: KernelParam) -> str:
    """A parameter's type in TTIR."""
    element = INFO[param.dtype].ttir
    if param.kind == "tensor_map":
        return f"!tt.tensordesc<tensor<{'x'.join(map(str, param.block))}x{element}>>"
    return f"!tt.ptr<{element}>" if param.kind == "pointer" else element


class _Run:
    """Memory, symbols and kernels of one run."""

    def __init__(
        self, program: Program, symbols: Mapping[str, int], kernels: Mapping[str, Function]
    ) -> None:
        self._program = program
        self._symbols = symbols
        self._kernels = kernels
        self._specs: dict[tuple[str, str], Buffer | TensorSpec] = {}
        self._blocks: dict[tuple[str, str], Block] = {}
        sizes = [
            ("weight", weight.name, program_file.weight_nbytes(weight))
            for weight in program.weights
        ]
        for space, specs in (("input", program.tensor_inputs), ("output", program.outputs)):
            for spec in specs:
                self._specs[space, spec.name] = spec
                sizes.append((space, spec.name, self._extent(spec)))
        buffers = [("constant", buffer) for buffer in program.constants]
        for name, procedure in (("folding", program.folding), ("main", program.main)):
            buffers += [(f"{name} arena", buffer) for buffer in procedure.buffers]
        for space, buffer in buffers:
            self._specs[space, buffer.name] = buffer
            sizes.append((space, buffer.name, self._int(buffer.nbytes)))
        base = 1 << 32
        at = base + GUARD
        for space, name, nbytes in sizes:
            self._blocks[space, name] = Block(f"{space} {name}", at, nbytes)
            at += -(-nbytes // GUARD) * GUARD + GUARD
        self._memory = Memory.own(at - base, base)
        for (space, _), block in self._blocks.items():
            if not space.endswith("arena"):
                self._memory.add(block)

    def _int(self, value: int | str) -> int:
        return evaluate(value, self._symbols)

    def _extent(self, spec: Buffer | TensorSpec) -> int:
        shape = [self._int(dim) for dim in spec.shape]
        strides = [self._int(dim) for dim in spec.strides]
        return program_file.extent(shape, strides, INFO[spec.dtype].itemsize)

    def store(self, space: str, name: str, value: torch.Tensor) -> None:
        """Copies a tensor, as its strides lay it out, to the block it is for."""
        block = self._blocks[space, name]
        if value.numel() == 0:
            return
        length = block.size // value.element_size()
        flat = torch.as_strided(value.detach(), (length,), (1,), value.storage_offset())
        self._memory.bytes(block.address, block.size).copy_(flat.view(torch.uint8))
        self._memory.mark(block.address, block.size)

    def _tensor(self, space: str, name: str) -> torch.Tensor | None:
        """A block as the value that it holds; a view."""
        spec = self._specs.get((space, name))
        if spec is None:
            return None
        shape = tuple(self._int(dim) for dim in spec.shape)
        strides = tuple(self._int(dim) for dim in spec.strides)
        dtype = _torch(spec.dtype)
        block = self._blocks[space, name]
        whole = block.size // dtype.itemsize * dtype.itemsize
        data = self._memory.bytes(block.address, whole).view(dtype)
        return torch.as_strided(data, shape, strides, data.storage_offset())

    def value(self, space: str, spec: Buffer | TensorSpec) -> torch.Tensor:
        """A block's value, copied with its strides."""
        block = self._blocks[space, spec.name]
        dtype = _torch(spec.dtype)
        whole = self._extent(spec)
        data = self._memory.bytes(block.address, whole).clone().view(dtype)
        shape = tuple(self._int(dim) for dim in spec.shape)
        strides = tuple(self._int(dim) for dim in spec.strides)
        return torch.as_strided(data, shape, strides)

    # Steps.

    def execute(self, name: str, procedure: Procedure, observer: Observer | None) -> None:
        first, last = _lives(procedure)
        for index, step in enumerate(procedure.steps):
            for buffer in procedure.buffers:
                if first.get(buffer.name) == index:
                    self._memory.add(self._blocks[f"{name} arena", buffer.name])
            self._step(name, f"{name}.steps[{index}]", step)
            if observer is not None:
                accesses = [each for one in walk([step]) for each in self._accesses(name, one)]
                observer(
                    step,
                    index,
                    [access for access in accesses if access.access != "write"],
                    [access for access in accesses if access.access != "read"],
                )
            for buffer in procedure.buffers:
                if last.get(buffer.name) == index:
                    self._memory.free(self._blocks[f"{name} arena", buffer.name].address)

    def _step(self, procedure: str, place: str, step: Step) -> None:
        match step:
            case Launch():
                self._launch(procedure, place, step)
            case Copy():
                self._copy(procedure, place, step)
            case Fill():
                self._fill(procedure, place, step)
            case If():
                holds = self._predicate(procedure, place, step)
                self._inside(procedure, place, step, "then" if holds else "otherwise")
            case While():
                while True:
                    self._inside(procedure, place, step, "condition")
                    if not self._predicate(procedure, place, step):
                        break
                    self._inside(procedure, place, step, "body")

    def _inside(self, procedure: str, place: str, step: If | While, field: str) -> None:
        steps = dict(inner(step))[field]
        if isinstance(step, While):
            # What no other part of the program names holds nothing now, whatever the round before.
            for name in self._own(procedure, steps):
                block = self._blocks[f"{procedure} arena", name]
                start = block.address - self._memory.base
                self._memory.written[start : start + block.size] = False
        for index, each in enumerate(steps):
            self._step(procedure, f"{place}.{field}[{index}]", each)

    def _own(self, procedure: str, steps: Sequence[Step]) -> list[str]:
        """The temporaries that these steps name and no others do."""
        whole: Procedure = getattr(self._program, procedure)
        inside, everywhere = _named(steps), _named(whole.steps)
        return sorted(name for name, count in inside.items() if everywhere[name] == count)

    def _predicate(self, procedure: str, place: str, step: If | While) -> bool:
        nbytes = INFO[step.dtype].itemsize
        address = self._range(procedure, f"{place}.predicate", step.predicate, nbytes)
        start = address - self._memory.base
        if not bool(self._memory.written[start : start + nbytes].all()):
            raise RunError(f"{place}: reads bytes of {step.predicate} that no step wrote")
        return bool(self._memory.bytes(address, nbytes).any())

    def _space(self, procedure: str, ref: Ref) -> str:
        return f"{procedure} arena" if ref.space == "arena" else ref.space

    def _address(self, procedure: str, ref: Ref) -> int:
        return self._block(procedure, ref).address + self._int(ref.offset)

    def _block(self, procedure: str, ref: Ref) -> Block:
        return self._blocks[self._space(procedure, ref), ref.name]

    def _launch(self, procedure: str, place: str, step: Launch) -> None:
        kernel = self._program.kernel(step.kernel)
        if len(step.args) != len(kernel.params):
            raise RunError(
                f"{place}: kernel {kernel.name} has {len(kernel.params)} parameters, got "
                f"{len(step.args)} arguments"
            )
        args: list[int | float | MappedTensor] = []
        read_only: set[str] = set()
        for param, arg in zip(kernel.params, step.args, strict=True):
            if isinstance(arg, ScalarArg):
                args.append(self._scalar(arg))
                continue
            address = self._address(procedure, arg.ref)
            args.append(self._mapped(arg, address) if isinstance(arg, TensorMapArg) else address)
            if arg.access == "read":
                read_only.add(param.name)
        x, y, z = (self._int(size) for size in step.grid)
        execute(
            self._kernels[step.kernel],
            (x, y, z),
            args,
            self._memory,
            launch=place,
            parameters=[param.name for param in kernel.params],
            read_only=frozenset(read_only),
        )

    def _mapped(self, arg: TensorMapArg, address: int) -> MappedTensor:
        return MappedTensor(
            address,
            tuple(self._int(size) for size in arg.shape),
            tuple(self._int(stride) for stride in arg.strides),
            nan=arg.padding == "nan",
            tf32=arg.round_to_tf32,
        )

    def _scalar(self, arg: ScalarArg) -> int | float:
        if isinstance(arg.value, str) and arg.dtype.startswith(("float", "bfloat")):
            return float.fromhex(arg.value)
        return self._int(arg.value)

    def _copy(self, procedure: str, place: str, step: Copy) -> None:
        nbytes = self._int(step.nbytes)
        source = self._range(procedure, f"{place}.src", step.src, nbytes)
        target = self._range(procedure, f"{place}.dst", step.dst, nbytes)
        start = source - self._memory.base
        if not bool(self._memory.written[start : start + nbytes].all()):
            raise RunError(f"{place}: reads bytes of {step.src} that no step wrote")
        self._memory.bytes(target, nbytes).copy_(self._memory.bytes(source, nbytes))
        self._memory.mark(target, nbytes)

    def _fill(self, procedure: str, place: str, step: Fill) -> None:
        nbytes = self._int(step.nbytes)
        target = self._range(procedure, f"{place}.dst", step.dst, nbytes)
        self._memory.bytes(target, nbytes).fill_(step.byte)
        self._memory.mark(target, nbytes)

    def _range(self, procedure: str, place: str, ref: Ref, nbytes: int) -> int:
        block = self._block(procedure, ref)
        address = self._address(procedure, ref)
        if not block.address <= address <= address + nbytes <= block.end:
            raise RunError(
                f"{place}: {nbytes} bytes from offset {address - block.address} leave "
                f"{block.name} of {block.size} bytes"
            )
        return address

    def _accesses(self, procedure: str, step: Step) -> list[Access]:
        found: list[tuple[Ref, Any, int | None]]
        if isinstance(step, Launch):
            found = [
                (arg.ref, arg.access, None) for arg in step.args if not isinstance(arg, ScalarArg)
            ]
        elif isinstance(step, Copy):
            nbytes = self._int(step.nbytes)
            found = [(step.src, "read", nbytes), (step.dst, "write", nbytes)]
        elif isinstance(step, Fill):
            found = [(step.dst, "write", self._int(step.nbytes))]
        else:
            found = [(step.predicate, "read", INFO[step.dtype].itemsize)]
        accesses = []
        for ref, access, nbytes in found:
            address = self._address(procedure, ref)
            length = self._block(procedure, ref).end - address if nbytes is None else nbytes
            accesses.append(
                Access(
                    ref=ref,
                    access=access,
                    data=self._memory.bytes(address, length),
                    tensor=self._tensor(self._space(procedure, ref), ref.name),
                )
            )
        return accesses


def _lives(procedure: Procedure) -> tuple[dict[str, int], dict[str, int]]:
    """The first and the last step that names each temporary."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for index, step in enumerate(procedure.steps):
        for name in _named([step]):
            first.setdefault(name, index)
            last[name] = index
    return first, last


def _named(steps: Sequence[Step]) -> Counter[str]:
    """How often steps, and those inside them, name each temporary."""
    count: Counter[str] = Counter()
    for step in walk(steps):
        match step:
            case Launch():
                refs = [arg.ref for arg in step.args if not isinstance(arg, ScalarArg)]
            case Copy():
                refs = [step.src, step.dst]
            case Fill():
                refs = [step.dst]
            case If() | While():
                refs = [step.predicate]
        count.update(ref.name for ref in refs if ref.space == "arena")
    return count
