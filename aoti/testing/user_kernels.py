"""User-defined Triton kernels where the reference is computed: on the CPU, by the simulator's
interpreter, from the TTIR that the model was exported with.

So the reference says nothing of that TTIR; it does of all else: which arguments a kernel gets,
where its tensors lie, what it changes, its grid. A model that wants more compares its kernel with
operators of PyTorch's in its own tests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch.export import ExportedProgram

from simulator.interpreter import Block, Memory, execute, parse
from simulator.interpreter.values import MappedTensor
from wrapgen import user_kernels
from wrapgen.user_kernel_op import triton_kernel  # noqa: F401 (defines what is implemented here)
from wrapgen.user_kernels import UserKernel, UserKernels

_TARGET: Final = "sm_90"
_GUARD: Final = 256

_known: dict[str, tuple[UserKernel, str]] = {}


def load(path: Path) -> ExportedProgram:
    """Opens an archive, its kernels included, with ``torch.export.load``: a pickle is opened."""
    extra: dict[str, Any] = {user_kernels.MEMBER: ""}
    program = torch.export.load(path, extra_files=extra)
    if extra[user_kernels.MEMBER]:
        know(user_kernels.parse(json.loads(extra[user_kernels.MEMBER]), str(path)))
    return program


def know(found: UserKernels) -> None:
    """Has calls of these kernels run on the CPU, in their first configuration."""
    for key, kernel in found.kernels.items():
        builds = kernel.configs[0].builds
        build = builds.get(_TARGET) or next(iter(builds.values()))
        _known[key] = kernel, found.ttir[build.ttir]


@torch.library.impl("wrapgen::triton_kernel", "CPU")
def _run(
    key: str,
    written: Sequence[torch.Tensor],
    read: Sequence[torch.Tensor],
    ints: Sequence[int],
    floats: Sequence[float],
    strides: Sequence[int],
    grid: Sequence[int],
) -> None:
    kernel, text = _known[key]
    dtypes = {
        (param.operand, param.index): getattr(torch, param.dtype.value) for param in kernel.params
    }
    left = list(strides)
    copies: list[tuple[torch.Tensor, torch.Tensor]] = []
    tensors: dict[tuple[str, int], torch.Tensor] = {}
    for operand, values in (("written", written), ("read", read)):
        for i, tensor in enumerate(values):
            own = tuple(left[: tensor.dim()])
            del left[: tensor.dim()]
            place = operand, i
            dtype = dtypes[place]
            tensors[place] = tensor
            if tensor.dtype != dtype or tensor.stride() != own:
                tensors[place] = torch.empty_strided(tensor.shape, own, dtype=dtype).copy_(tensor)
                if operand == "written":
                    copies.append((tensor, tensors[place]))
    memory, addresses, blocks = _memory(list(tensors.values()))
    args: list[int | float | MappedTensor] = []
    for param in kernel.params:
        if param.pointer:
            tensor = tensors[param.operand, param.index]
            start = addresses[tensor.untyped_storage().data_ptr()]
            address = start + tensor.storage_offset() * tensor.element_size()
            if param.block:
                nan, tf32 = param.padding == "nan", param.round_to_tf32
                shape, stride = tuple(tensor.shape), tensor.stride()
                args.append(MappedTensor(address, shape, stride, nan=nan, tf32=tf32))
            else:
                args.append(address)
        elif param.operand == "ints":
            args.append(int(ints[param.index]))
        else:
            args.append(float(floats[param.index]))
    x, y, z = (int(extent) for extent in grid[:3])
    execute(
        parse(text),
        (x, y, z),
        args,
        memory,
        launch=kernel.name,
        parameters=[param.name for param in kernel.params],
    )
    for flat, block in blocks:
        flat.copy_(memory.bytes(block.address, block.size))
    for tensor, copy in copies:
        tensor.copy_(copy)


def _memory(
    tensors: Sequence[torch.Tensor],
) -> tuple[Memory, dict[int, int], list[tuple[torch.Tensor, Block]]]:
    """Memory with the storages of tensors in it: the addresses of those, and bytes and blocks."""
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors}
    base = at = 1 << 32
    addresses: dict[int, int] = {}
    blocks: list[tuple[torch.Tensor, Block]] = []
    for pointer, tensor in storages.items():
        flat = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
        at += _GUARD
        addresses[pointer] = at
        blocks.append((flat, Block(f"storage {len(blocks)}", at, flat.numel())))
        at += -(-flat.numel() // _GUARD) * _GUARD
    memory = Memory.own(at + _GUARD - base, base)
    for flat, block in blocks:
        memory.add(block)
        memory.bytes(block.address, block.size).copy_(flat)
        memory.mark(block.address, block.size)
    return memory, addresses, blocks
