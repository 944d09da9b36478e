"""Steps as C++: one function a kernel with its parameters' names and types, and functions that call
them in execution order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from wrapgen import expression
from wrapgen.codegen import args, grid, text
from wrapgen.codegen.memory import refs
from wrapgen.codegen.names import Namer, pascal
from wrapgen.program import (
    Copy,
    Fill,
    Kernel,
    KernelParam,
    Launch,
    PointerArg,
    Procedure,
    SourceNode,
    Step,
)

STEPS_PER_FUNCTION: Final = 32
"""Keeps functions small enough for the host compiler, whose time grows faster than their length."""

_PARAMETER_SCOPE: Final = frozenset(
    {"launcher", "grid", "pointers", "params", "global_scratch", "profile_scratch", "DeviceAddress"}
)


class Kernels:
    """C++ names of the kernels that a program launches."""

    def __init__(self, kernels: Sequence[Kernel]) -> None:
        functions, indices = Namer(), Namer()
        self.kernels = {kernel.name: kernel for kernel in kernels}
        self.function = {k.name: functions.name(k.name, k.name) for k in kernels}
        self.index = {k.name: indices.name(k.name, _index_name(k.name)) for k in kernels}


def _index_name(name: str) -> str:
    """``kConvolution_a0aaae811f21`` for ``convolution_a0aaae811f21``: the digest stays findable."""
    stem, _, digest = name.rpartition("_")
    return f"k{pascal(stem)}_{digest}" if pascal(stem) else "k" + pascal(name)


def kernel_function(kernel: Kernel, kernels: Kernels) -> list[str]:
    """A function with the kernel's parameters, which launches it."""
    namer = Namer(_PARAMETER_SCOPE)
    names = [namer.name(param.name, param.name) for param in kernel.params]
    parameters = [
        f"{args.parameter_type(param.kind, param.dtype)} {name}"
        for param, name in zip(kernel.params, names, strict=True)
    ]
    function = kernels.function[kernel.name]
    declared = ["Launcher& launcher", "Grid grid", "Pointers pointers", *parameters]
    pointers = [f"&{name}" for name in (*names, "global_scratch", "profile_scratch")]
    types = [_parameter(param) for param in kernel.params] + ["Triton's own"] * 2
    return [
        *text.call(0, f"Status {function}", declared, ") {"),
        "  DeviceAddress global_scratch = 0;",
        "  DeviceAddress profile_scratch = 0;",
        *_params(pointers, types),
        *text.call(
            2,
            "return launcher.Launch",
            [f"KernelIndex::{kernels.index[kernel.name]}", "grid", "params", "pointers"],
            ");",
        ),
        "}",
    ]


def _parameter(param: KernelParam) -> str:
    return f"pointer to {param.dtype}" if param.kind == "pointer" else str(param.dtype)


def _params(pointers: Sequence[str], types: Sequence[str]) -> list[str]:
    one = f"  void* params[] = {{{', '.join(pointers)}}};"
    if text.fits(one):
        return [one]
    rows = [(f"{pointer},", note) for pointer, note in zip(pointers, types, strict=True)]
    return ["  void* params[] = {", *text.with_comments(6, rows), "  };"]


def procedure_functions(
    name: str, procedure: Procedure, blocks: args.Blocks, kernels: Kernels
) -> list[str]:
    """Functions that issue the steps of ``folding`` or ``main``, the last of which, called
    ``RunFolding`` or ``RunMain``, issues them all."""
    pascal_name = pascal(name)
    lines: list[str] = []
    parts: list[str] = []
    for begin in range(0, len(procedure.steps), STEPS_PER_FUNCTION):
        steps = procedure.steps[begin : begin + STEPS_PER_FUNCTION]
        body: list[str] = []
        for i, step in enumerate(steps, begin):
            body += [*_provenance(i, step.sources), *_step(name, i, step, blocks, kernels), ""]
        parts.append(f"{pascal_name}{len(parts)}")
        code = [line for line in body if not line.lstrip().startswith("//")]
        parameter = "launcher" if any("launcher" in line for line in code) else "/*launcher*/"
        lines += [f"Status {parts[-1]}(Launcher& {parameter}) {{"]
        if any("at." in line for line in code):
            lines += ["  const Addresses& at = launcher.at();", ""]
        lines += [*body, "  return Status();", "}", ""]
    parameter = "Launcher& launcher" if parts else "Launcher& /*launcher*/"
    run = [f"AOTI_RETURN_IF_ERROR({part}(launcher));" for part in parts]
    return [
        *lines,
        *text.function(f"Status Run{pascal_name}({parameter})", [*run, "return Status();"]),
    ]


def _step(procedure: str, i: int, step: Step, blocks: args.Blocks, kernels: Kernels) -> list[str]:
    at = f"{procedure}.steps[{i}]"
    whose = "kCaller" if any(ref.space in ("input", "output") for ref in refs(step)) else "kOwned"
    pointers = f"Pointers::{whose}"
    match step:
        case Launch():
            extents = grid.extents(step.grid)
            if 0 in extents:
                return text.comment(2, f"Nothing to launch: the grid is {grid.cpp(extents)}.")
            grid.check(f"{at}.grid", extents, kernels.kernels[step.kernel].num_ctas)
            arguments = [
                blocks.address(arg.ref, procedure)
                if isinstance(arg, PointerArg)
                else args.scalar(f"{at}.args[{j}]", arg)
                for j, arg in enumerate(step.args)
            ]
            head = f"kernels::{kernels.function[step.kernel]}"
            values = ["launcher", grid.cpp(extents), pointers, *arguments]
        case Copy():
            head = "launcher.Copy"
            values = [blocks.address(step.dst, procedure), blocks.address(step.src, procedure)]
            values += [str(expression.evaluate(step.nbytes)), pointers]
        case Fill():
            head = "launcher.Fill"
            values = [blocks.address(step.dst, procedure), str(step.byte)]
            values += [str(expression.evaluate(step.nbytes)), pointers]
    return text.nested_call(2, "AOTI_RETURN_IF_ERROR", head, values)


def _provenance(i: int, sources: Sequence[SourceNode]) -> list[str]:
    """Comments that lead from a step to the lines of PyTorch it computes.

    One line of PyTorch a paragraph, then the operations it called, each with the module it is in
    or, outside any, the name of its node in the exported graph.
    """
    by_line: dict[tuple[str, str], list[str]] = {}
    for source in sources:
        operation = f"{source.module or source.name} ({source.op})"
        operations = by_line.setdefault((source.location, source.code), [])
        if operation not in operations:
            operations.append(operation)
    paragraphs: list[list[str]] = []
    for (location, code), operations in by_line.items():
        line = ": ".join(part for part in (location, code) if part)
        paragraphs += [text.one_line(line).split(" ")] if line else []
        paragraphs.append([*(f"{operation}," for operation in operations[:-1]), operations[-1]])
    lead = f"[{i}] "
    lines: list[str] = []
    for paragraph in paragraphs or [["no source recorded"]]:
        lines += text.comment_of(2, paragraph, lead if not lines else " " * len(lead))
    return lines
