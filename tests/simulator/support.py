"""What the tests of the interpreter share: from a Triton function to TTIR, and a launch of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource, make_backend

from simulator.interpreter import Block, Function, Memory, execute, parse

GAP = 256

SIGNATURES = {
    torch.bool: "i1",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.float8_e4m3fn: "fp8e4nv",
    torch.float8_e5m2: "fp8e5",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float32: "fp32",
    torch.float64: "fp64",
}


def ttir(
    function: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    *,
    aligned: Sequence[str] = (),
    capability: int = 90,
) -> str:
    """The TTIR of a ``triton.jit`` function; parameters in ``aligned`` are multiples of 16."""
    target = GPUTarget("cuda", capability, 32)
    backend = make_backend(target)
    options = backend.parse_options({"num_warps": 4, "num_stages": 3})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    kinds = {
        name: "constexpr" if name in constants else signature[name] for name in function.arg_names
    }
    promised = {(function.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(function, kinds, dict(constants), promised)
    stages: dict[str, Any] = {}
    backend.add_stages(stages, options, source.language)
    module: Any = source.make_ir(
        target,
        options,
        backend.get_codegen_implementation(options),
        backend.get_module_map(),
        context,
    )
    return str(stages["ttir"](module, {}).str_nodebug())


class Device:
    """Memory with a block for each tensor, and the kernels run on it."""

    def __init__(self, size: int = 1 << 22) -> None:
        self.memory = Memory.own(size)
        self._next = self.memory.base + GAP
        self.printed: list[str] = []

    def allocate(self, nbytes: int, name: str) -> Block:
        """A block of which nothing is written."""
        block = Block(name, self._next, nbytes)
        self._next += -(-nbytes // GAP) * GAP + GAP
        self.memory.add(block)
        return block

    def put(self, tensor: torch.Tensor, name: str) -> Block:
        data = tensor.contiguous().view(-1).view(torch.uint8)
        block = self.allocate(data.numel(), name)
        self.memory.bytes(block.address, block.size).copy_(data)
        self.memory.mark(block.address, block.size)
        return block

    def get(self, block: Block, like: torch.Tensor) -> torch.Tensor:
        data = self.memory.bytes(block.address, block.size).clone()
        return data.view(like.dtype).reshape(like.shape)

    def run(
        self,
        function: Function,
        grid: Sequence[int],
        args: Sequence[int | float | Block],
        names: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        values = [arg.address if isinstance(arg, Block) else arg for arg in args]
        x, y, z = [*grid, 1, 1][:3]
        execute(
            function,
            (x, y, z),
            values,
            self.memory,
            launch="launch 7",
            parameters=names,
            output=self.printed.append,
            **options,
        )


def compiled(function: Any, args: Mapping[str, Any], constants: Mapping[str, Any]) -> Function:
    """A kernel for arguments such as these: tensors, integers and floats, by name."""
    signature = {}
    for name, value in args.items():
        if isinstance(value, torch.Tensor):
            signature[name] = f"*{SIGNATURES[value.dtype]}"
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    return parse(ttir(function, signature, constants))


def launch(
    function: Any, grid: Sequence[int], args: Mapping[str, Any], **constants: Any
) -> dict[str, torch.Tensor]:
    """Runs a Triton function; returns what its tensor arguments are afterwards."""
    kernel = compiled(function, args, constants)
    device = Device()
    values = {
        name: device.put(value, name) if isinstance(value, torch.Tensor) else value
        for name, value in args.items()
    }
    order = [name for name in function.arg_names if name in args]
    device.run(kernel, grid, [values[name] for name in order], order)
    return {
        name: device.get(values[name], value)
        for name, value in args.items()
        if isinstance(value, torch.Tensor)
    }
