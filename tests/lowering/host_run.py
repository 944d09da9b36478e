"""Runs a lowered program on host memory, kernels by Triton's interpreter.

    TRITON_INTERPRET=1 python host_run.py LOWERED_DIR IN.pt OUT.pt

``IN.pt`` holds ``{"weights": {name: tensor}, "inputs": {name: tensor}}``, ``OUT.pt`` receives
``{"outputs": ..., "constants": ...}``. It is a process of its own because Triton decides when it is
imported whether it interprets.

Memory that no step has written holds NaNs, and each block lies between two guards, so that reading
too early and writing too far both show.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import numpy
import torch
import triton
import triton.language as tl
from torch._inductor.runtime import triton_helpers
from triton.runtime.interpreter import TensorHandle

from wrapgen import program as program_file
from wrapgen.program import Copy, Fill, Launch, PointerArg, Procedure, Program, Ref

GUARD = 256
"""Bytes before and after each block; a multiple of the alignment that kernels are promised."""

PATTERN = 0xFF
"""Every byte nobody wrote: not a number, in all floating-point types."""


class Memory:
    """The blocks of a program by space and name."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, str], torch.Tensor] = {}

    def add(self, space: str, name: str, nbytes: int) -> None:
        # 64 bytes more, to begin at a multiple of 64.
        raw = torch.full((nbytes + 2 * GUARD + 64,), PATTERN, dtype=torch.uint8)
        start = -raw.data_ptr() % 64
        self._blocks[space, name] = raw[start : start + nbytes + 2 * GUARD]

    def store(self, space: str, name: str, value: torch.Tensor) -> None:
        """Adds a block that holds ``value`` as its strides say."""
        data = torch.as_strided(value, (_extent(value),), (1,), value.storage_offset())
        data = data.contiguous().view(torch.uint8) if data.numel() else data.view(torch.uint8)
        self.add(space, name, data.numel())
        self.at(Ref(space=space, name=name))[: data.numel()] = data  # type: ignore[arg-type]

    def at(self, ref: Ref) -> torch.Tensor:
        """The bytes from ``ref`` to the end of its block."""
        block = self._blocks[ref.space, ref.name]
        assert isinstance(ref.offset, int)
        return block[GUARD + ref.offset : len(block) - GUARD]

    def check_guards(self) -> None:
        for (space, name), block in self._blocks.items():
            for guard in (block[:GUARD], block[len(block) - GUARD :]):
                assert bool((guard == PATTERN).all()), f"{space} {name} was overrun"


def run(
    lowered: Path, weights: dict[str, torch.Tensor], inputs: dict[str, torch.Tensor]
) -> dict[str, dict[str, torch.Tensor]]:
    """Runs both procedures; returns outputs and constants by name."""
    program = program_file.load(lowered / "program.json")
    kernels = {kernel.name: _kernel(lowered, kernel.name) for kernel in program.kernels}
    memory = Memory()
    for weight in program.weights:
        memory.store("weight", weight.name, weights[weight.name].contiguous())
    for spec in program.tensor_inputs:
        assert tuple(inputs[spec.name].stride()) == spec.strides, spec.name
        memory.store("input", spec.name, inputs[spec.name])
    for buffer in program.constants:
        memory.add("constant", buffer.name, _int(buffer.nbytes))
    for spec in program.outputs:
        dtype = getattr(torch, spec.dtype)
        memory.add("output", spec.name, math.prod(map(_int, spec.shape)) * dtype.itemsize)
    for procedure in (program.folding, program.main):
        _run(program, procedure, kernels, memory)
    return {
        "outputs": {spec.name: _tensor(memory, "output", spec) for spec in program.outputs},
        "constants": {
            buffer.name: _tensor(memory, "constant", buffer) for buffer in program.constants
        },
    }


def _run(program: Program, procedure: Procedure, kernels: dict[str, Any], memory: Memory) -> None:
    for buffer in procedure.buffers:
        memory.add("arena", buffer.name, _int(buffer.nbytes))
    for step in procedure.steps:
        if isinstance(step, Copy):
            nbytes = _int(step.nbytes)
            memory.at(step.dst)[:nbytes] = memory.at(step.src)[:nbytes].clone()
        elif isinstance(step, Fill):
            memory.at(step.dst)[: _int(step.nbytes)] = step.byte
        else:
            _launch(program, step, kernels, memory)
        memory.check_guards()


def _launch(program: Program, step: Launch, kernels: dict[str, Any], memory: Memory) -> None:
    kernel = program.kernel(step.kernel)
    arguments: dict[str, Any] = dict(kernel.config)
    for param, arg in zip(kernel.params, step.args, strict=True):
        if isinstance(arg, PointerArg):
            data = memory.at(arg.ref)
            itemsize = getattr(torch, param.dtype).itemsize
            data = data[: len(data) // itemsize * itemsize].view(getattr(torch, param.dtype))
            assert not param.divisible_by_16 or data.data_ptr() % 16 == 0, (kernel.name, param)
            arguments[param.name] = data
        else:
            value = _int(arg.value)
            assert not param.divisible_by_16 or value % 16 == 0, (kernel.name, param)
            arguments[param.name] = value
    kernels[step.kernel][tuple(map(_int, step.grid))](**arguments)


def _kernel(lowered: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, lowered / "sources" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def _tensor(memory: Memory, space: Any, spec: Any) -> torch.Tensor:
    data = memory.at(Ref(space=space, name=spec.name)).clone().view(getattr(torch, spec.dtype))
    return torch.as_strided(data, tuple(map(_int, spec.shape)), tuple(map(_int, spec.strides)))


def _extent(value: torch.Tensor) -> int:
    if value.numel() == 0:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))


def _int(value: int | str) -> int:
    assert isinstance(value, int), value
    return value


_LIBDEVICE = {
    "ceil": torch.ceil,
    "erf": torch.erf,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "floor": torch.floor,
    "log": torch.log,
    "log1p": torch.log1p,
    "nearbyint": torch.round,
    "pow": torch.pow,
    "rsqrt": torch.rsqrt,
    "sqrt": torch.sqrt,
    "tanh": torch.tanh,
    "trunc": torch.trunc,
}
"""CUDA's device library, of which Triton's interpreter has nothing."""


def _provide_libdevice() -> None:
    for name in dir(triton_helpers.libdevice):
        if not name.startswith("_"):
            setattr(triton_helpers.libdevice, name, _elementwise(name, _LIBDEVICE.get(name)))


def _elementwise(name: str, function: Any) -> Any:
    def call(*operands: Any) -> Any:
        assert function is not None, f"host_run.py has no libdevice.{name}"
        tensors = [torch.from_numpy(numpy.ascontiguousarray(o.handle.data)) for o in operands]
        result = function(*tensors).numpy().reshape(operands[0].handle.data.shape)
        return tl.core.tensor(TensorHandle(result, operands[0].handle.dtype), operands[0].type)

    return call


def main(lowered: str, source: str, result: str) -> None:
    assert triton.knobs.runtime.interpret, "set TRITON_INTERPRET=1"
    _provide_libdevice()
    data = torch.load(source, weights_only=True)
    torch.save(run(Path(lowered), data["weights"], data["inputs"]), result)


if __name__ == "__main__":
    main(*sys.argv[1:])
