"""Scratch memory of kernels: global memory that a launch provides, so much a block.

Triton keeps tensor descriptors that a kernel makes there. How much is known once a kernel is
compiled. Then each launch of it gets a temporary of its own, as if the program said so: the memory
plan, the addresses and what depends on the inputs follow as for any other.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from wrapgen.codegen import expr, grid
from wrapgen.codegen.names import Namer
from wrapgen.dtype import DType
from wrapgen.program import (
    Buffer,
    Dim,
    If,
    Kernel,
    KernelParam,
    Launch,
    PointerArg,
    Procedure,
    Program,
    Ref,
    Step,
    While,
    inner,
)

PARAM: Final = "global_scratch"
"""What the parameter is called behind a kernel's own."""


def provide(program: Program, nbytes: Mapping[str, int]) -> Program:
    """Gives the launches of kernels that need it scratch memory.

    Args:
      program: the program; constants and ``main``'s arena may depend on its symbols as before.
      nbytes: what a block of each kernel needs, by the kernel's name; 0 or absent for none.

    Returns:
      The program with a parameter ``PARAM`` at the end of those kernels, and an argument and a
      temporary for each of their launches.
    """
    kernels = {kernel.name: kernel for kernel in program.kernels if nbytes.get(kernel.name)}
    if not kernels:
        return program
    return dataclasses.replace(
        program,
        kernels=tuple(_with_parameter(k) if k.name in kernels else k for k in program.kernels),
        folding=_with_memory(program.folding, kernels, nbytes),
        main=_with_memory(program.main, kernels, nbytes),
    )


def _with_parameter(kernel: Kernel) -> Kernel:
    name = Namer(frozenset(param.name for param in kernel.params)).name(PARAM, PARAM)
    param = KernelParam(name=name, kind="pointer", dtype=DType.UINT8, divisible_by_16=True)
    return dataclasses.replace(kernel, params=(*kernel.params, param))


def _with_memory(
    procedure: Procedure, kernels: Mapping[str, Kernel], nbytes: Mapping[str, int]
) -> Procedure:
    namer = Namer(frozenset(buffer.name for buffer in procedure.buffers))
    buffers = list(procedure.buffers)

    def with_memory(step: Step) -> Step:
        if isinstance(step, Launch) and step.kernel in kernels and not grid.is_empty(step.grid):
            blocks = (kernels[step.kernel].num_ctas * nbytes[step.kernel], *step.grid)
            size, number = _product(blocks), len(buffers)
            name = namer.name(f"scratch{number}", f"scratch{number}")
            buffers.append(
                Buffer(name=name, dtype=DType.UINT8, shape=(size,), strides=(1,), nbytes=size)
            )
            arg = PointerArg(ref=Ref(space="arena", name=name), access="write")
            return dataclasses.replace(step, args=(*step.args, arg))
        if isinstance(step, If | While):
            inside: dict[str, Any] = {
                field: tuple(map(with_memory, steps)) for field, steps in inner(step)
            }
            return dataclasses.replace(step, **inside)
        return step

    steps = tuple(map(with_memory, procedure.steps))
    return Procedure(buffers=tuple(buffers), steps=steps)


def _product(factors: Sequence[Dim]) -> Dim:
    known = math.prod(int(parsed) for parsed in map(expr.parse, factors) if parsed.is_Integer)
    unknown = [f"({factor})" for factor in factors if not expr.parse(factor).is_Integer]
    return " * ".join([*unknown, str(known)]) if unknown else known
