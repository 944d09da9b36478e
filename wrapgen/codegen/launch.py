"""Steps as C++: one function a kernel with its parameters' names and types, and functions that call
them in execution order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

from wrapgen import expression
from wrapgen.codegen import args, debug, expr, grid, interface, text
from wrapgen.codegen.memory import refs
from wrapgen.codegen.names import Namer, pascal
from wrapgen.codegen.scratch import PARAM
from wrapgen.codegen.values import Values
from wrapgen.dtype import INFO
from wrapgen.program import (
    ALIGNMENT,
    Copy,
    Dim,
    Fill,
    If,
    Kernel,
    KernelParam,
    Launch,
    PointerArg,
    Procedure,
    Program,
    Ref,
    ScalarArg,
    SourceNode,
    Step,
    TensorMapArg,
    While,
    inner,
    walk,
)

STEPS_PER_FUNCTION: Final = 32
"""Keeps functions small enough for the host compiler, whose time grows faster than their length."""

_PARAMETER_SCOPE: Final = frozenset(
    {
        *("launcher", "grid", "pointers", "params", PARAM, "profile_scratch"),
        *("DeviceAddress", "MappedTensor", "TensorMap"),
    }
)


class Kernels:
    """C++ names of the kernels that a program launches. Of those in ``scratch`` the last parameter
    is the pointer to scratch memory."""

    def __init__(self, kernels: Sequence[Kernel], scratch: frozenset[str] = frozenset()) -> None:
        functions, indices = Namer(), Namer()
        self.kernels = {kernel.name: kernel for kernel in kernels}
        self.scratch = scratch
        self.function = {k.name: functions.name(k.name, k.name) for k in kernels}
        self.index = {k.name: indices.name(k.name, _index_name(k.name)) for k in kernels}


def _index_name(name: str) -> str:
    """``kConvolution_a0aaae811f21`` for ``convolution_a0aaae811f21``: the digest stays findable."""
    stem, _, digest = name.rpartition("_")
    return f"k{pascal(stem)}_{digest}" if pascal(stem) else "k" + pascal(name)


def kernel_function(
    kernel: Kernel, kernels: Kernels, debugging: debug.Debug | None = None
) -> list[str]:
    """A function with the kernel's parameters, which launches it."""
    provided = kernel.name in kernels.scratch
    namer = Namer(_PARAMETER_SCOPE - {PARAM} if provided else _PARAMETER_SCOPE)
    names = [namer.name(param.name, param.name) for param in kernel.params]
    parameters = [
        f"{args.parameter_type(param.kind, param.dtype)} {name}"
        for param, name in zip(kernel.params, names, strict=True)
    ]
    function, index = kernels.function[kernel.name], f"KernelIndex::{kernels.index[kernel.name]}"
    declared = ["Launcher& launcher", "Grid grid", "Pointers pointers", *parameters]
    encoded: list[str] = []
    passed: list[str] = []
    for i, (param, name) in enumerate(zip(kernel.params, names, strict=True)):
        if param.kind == "tensor_map":
            passed.append(namer.name(f"map {i}", f"{name}_map"))
            encoded += [f"  TensorMap {passed[-1]};"]
            encoded += text.nested_call(
                2,
                "AOTI_RETURN_IF_ERROR",
                "launcher.Encode",
                [index, str(i), name, f"&{passed[-1]}"],
            )
        else:
            passed.append(name)
    own = ["profile_scratch"] if provided else [PARAM, "profile_scratch"]
    types = [_parameter(param) for param in kernel.params[: len(passed) - provided]]
    return [
        *text.call(0, f"Status {function}", declared, ") {"),
        *(f"  DeviceAddress {name} = 0;" for name in own),
        *encoded,
        *_params([f"&{name}" for name in (*passed, *own)], [*types, *["Triton's own"] * 2]),
        *debug.arguments(kernel, names, debugging),
        *text.call(2, "return launcher.Launch", [index, "grid", "params", "pointers"], ");"),
        "}",
    ]


def _parameter(param: KernelParam) -> str:
    if param.kind == "tensor_map":
        return f"tensor map of {param.dtype}"
    return f"pointer to {param.dtype}" if param.kind == "pointer" else str(param.dtype)


def fixed_blocks(program: Program, kernel: Kernel) -> int:
    """The most blocks among the launches of a kernel whose grid depends on no input."""
    most = 0
    for procedure in (program.folding, program.main):
        for step in walk(procedure.steps):
            if isinstance(step, Launch) and step.kernel == kernel.name:
                extents = [expr.parse(size) for size in step.grid]
                if all(extent.is_Integer for extent in extents):
                    most = max(most, kernel.num_ctas * math.prod(map(int, extents)))
    return most


def _params(pointers: Sequence[str], types: Sequence[str]) -> list[str]:
    one = f"  void* params[] = {{{', '.join(pointers)}}};"
    if text.fits(one):
        return [one]
    rows = [(f"{pointer},", note) for pointer, note in zip(pointers, types, strict=True)]
    return ["  void* params[] = {", *text.with_comments(6, rows), "  };"]


def passed_scalars(program: Program) -> frozenset[str]:
    """The symbols of scalar inputs that are but passed on: to kernels, and into addresses. What a
    run launches over which grids, and how much memory it needs, does not depend on them, so that
    one CUDA graph serves all their values. Nodes inside branches and loops cannot be updated."""
    fixed: list[Dim] = [buffer.nbytes for buffer in program.main.buffers]
    for spec in (*program.tensor_inputs, *program.outputs):
        fixed += [*spec.shape, *spec.strides]
    for step in program.main.steps:
        if inner(step):
            fixed += [dim for one in walk([step]) for dim in _dims(one)]
        elif isinstance(step, Launch):
            fixed += step.grid
        elif isinstance(step, Copy | Fill):
            fixed.append(step.nbytes)
    used = {name for dim in fixed for name in _symbols(dim)}
    return frozenset(spec.symbol for spec in program.scalar_inputs) - used


def _held(step: Step) -> list[Dim]:
    """The numbers that a step passes on, in addresses and to a kernel; and may depend on inputs."""
    dims: list[Dim] = [ref.offset for ref in refs(step)]
    for arg in step.args if isinstance(step, Launch) else ():
        if isinstance(arg, ScalarArg) and "float" not in arg.dtype:
            dims.append(arg.value)
        elif isinstance(arg, TensorMapArg):
            dims += [*arg.shape, *arg.strides]
    return dims


def _dims(step: Step) -> list[Dim]:
    """All numbers of a step by itself that may depend on the inputs."""
    if isinstance(step, Launch):
        return [*_held(step), *step.grid]
    return [*_held(step), *([step.nbytes] if isinstance(step, Copy | Fill) else [])]


def _symbols(dim: Dim) -> list[str]:
    return sorted(str(symbol.name) for symbol in expr.parse(dim).free_symbols)


@dataclasses.dataclass(frozen=True)
class Scope:
    """What steps are generated with. ``passed`` are the symbols that ``passed_scalars`` gives."""

    blocks: args.Blocks
    kernels: Kernels
    values: Values
    passed: frozenset[str]
    program: Program
    debug: debug.Debug | None = None


def procedure_functions(name: str, procedure: Procedure, scope: Scope) -> list[str]:
    """Functions that issue the steps of ``folding`` or ``main``, the last of which, called
    ``RunFolding`` or ``RunMain``, issues them all."""
    around: debug.Around = debug.unchanged
    if scope.debug is not None:
        steps = debug.Steps(scope.debug, scope.program, name, procedure, scope.blocks, scope.values)
        around = steps.around
    functions = _Functions(name, scope, around)
    parts = functions.parts(pascal(name), f"{name}.steps", procedure.steps)
    return [*functions.lines, *_calls(f"Run{pascal(name)}", parts)]


def _calls(name: str, parts: Sequence[str]) -> list[str]:
    """A function that calls others, one after another."""
    parameter = "Launcher& launcher" if parts else "Launcher& /*launcher*/"
    run = [f"AOTI_RETURN_IF_ERROR({part}(launcher));" for part in parts]
    return text.function(f"Status {name}({parameter})", [*run, "return Status();"])


class _Functions:
    """The functions of a procedure. Steps are numbered as ``walk`` goes through them."""

    def __init__(self, procedure: str, scope: Scope, around: debug.Around) -> None:
        self.lines: list[str] = []
        self._procedure = procedure
        self._scope = scope
        self._count = 0
        self._around = around

    def parts(self, prefix: str, at: str, steps: Sequence[Step]) -> list[str]:
        """Makes functions that issue steps, a limited number each; returns their names."""
        names: list[str] = []
        for begin in range(0, len(steps), STEPS_PER_FUNCTION):
            names.append(f"{prefix}{len(names)}")
            self._function(names[-1], at, steps, begin)
        return names

    def _function(self, name: str, at: str, steps: Sequence[Step], begin: int) -> None:
        body: list[str] = []
        for i, step in enumerate(steps[begin : begin + STEPS_PER_FUNCTION], begin):
            number = self._count
            self._count += 1
            branches = [
                self._branch(f"{pascal(self._procedure)}{number}", f"{at}[{i}]", field, inside)
                for field, inside in inner(step)
            ]
            code = _step(self._procedure, f"{at}[{i}]", number, step, self._scope, branches)
            code = self._around(number, step, code)
            body += [*_provenance(number, step.sources), *code, ""]
        code = [line for line in body if not line.lstrip().startswith("//")]
        parameter = "launcher" if any("launcher" in line for line in code) else "/*launcher*/"
        self.lines += [f"Status {name}(Launcher& {parameter}) {{"]
        if any("at." in line for line in code):
            self.lines += ["  const Addresses& at = launcher.at();", ""]
        self.lines += [*body, "  return Status();", "}", ""]

    def _branch(self, prefix: str, at: str, field: str, steps: Sequence[Step]) -> str:
        """Makes a function of the steps inside another; returns its name, or a null pointer."""
        if not steps:
            return "nullptr"
        name = f"{prefix}{pascal(field)}"
        if len(steps) <= STEPS_PER_FUNCTION:
            self._function(name, f"{at}.{field}", steps, 0)
        else:
            parts = self.parts(name, f"{at}.{field}", steps)
            self.lines += [*_calls(name, parts), ""]
        return name


def _step(
    procedure: str, at: str, number: int, step: Step, scope: Scope, branches: Sequence[str]
) -> list[str]:
    """The call that issues a step; ``branches`` are functions with the steps inside it."""
    whose = f"{procedure} step {number}"
    values = scope.values
    pointers = f"Pointers::{'kCaller' if _may_change(step, scope.passed) else 'kOwned'}"
    match step:
        case Launch():
            kernel = scope.kernels.kernels.get(step.kernel)
            whose = f"{whose}, kernel {step.kernel}"
            num_ctas = kernel.num_ctas if kernel else 1
            programs = grid.cpp(f"{at}.grid", step.grid, num_ctas, values, whose)
            if programs is None:
                return text.comment(
                    2, f"Nothing to launch: the grid is {interface.text_of(step.grid)}."
                )
            assert kernel is not None
            arguments = []
            for j, (arg, param) in enumerate(zip(step.args, kernel.params, strict=True)):
                if isinstance(arg, PointerArg):
                    multiple_of = ALIGNMENT if param.divisible_by_16 else 1
                    arguments.append(_address(arg.ref, procedure, whose, scope, multiple_of))
                elif isinstance(arg, ScalarArg):
                    arguments.append(args.scalar(f"{at}.args[{j}]", arg, param, values, whose))
                else:
                    arguments.append(_mapped(arg, param, procedure, whose, scope))
            head = f"kernels::{scope.kernels.function[step.kernel]}"
            items = ["launcher", programs, pointers, *arguments]
        case Copy():
            head = "launcher.Copy"
            items = [_address(ref, procedure, whose, scope) for ref in (step.dst, step.src)]
            items += [_bytes(step.nbytes, whose, values), pointers]
        case Fill():
            head = "launcher.Fill"
            items = [_address(step.dst, procedure, whose, scope), str(step.byte)]
            items += [_bytes(step.nbytes, whose, values), pointers]
        case If() | While():
            head = f"launcher.{type(step).__name__}"
            items = [f"KernelIndex::{scope.kernels.index[step.kernel]}"]
            items += [_address(step.predicate, procedure, whose, scope)]
            items += [str(INFO[step.dtype].itemsize), *branches]
    lines = text.nested_call(2, "AOTI_RETURN_IF_ERROR", head, items)
    if text.fits(*lines):
        return lines
    return text.statements(2, [f"AOTI_RETURN_IF_ERROR({head}({', '.join(items)}));"])


def _may_change(step: Step, passed: frozenset[str]) -> bool:
    """Whether a step holds what may change from run to run at the same sizes."""
    return any(ref.space in ("input", "output") for ref in refs(step)) or any(
        name in passed for dim in _held(step) for name in _symbols(dim)
    )


def _address(ref: Ref, procedure: str, whose: str, scope: Scope, multiple_of: int = 1) -> str:
    if scope.values.number(ref.offset) is None:
        what = f"{whose}: the offset into {ref.space} {ref.name}"
        scope.values.limit(ref.offset, what, 0, expression.INT64_MAX, multiple_of)
    return scope.blocks.address(ref, procedure)


def _mapped(arg: TensorMapArg, param: KernelParam, procedure: str, whose: str, scope: Scope) -> str:
    """An ``aoti::MappedTensor``. What the hardware cannot take is checked as other values are."""
    of, itemsize = f"{whose}: of tensor map {param.name} the", INFO[param.dtype].itemsize
    for size in arg.shape:
        scope.values.limit(size, f"{of} size", 0, MOST_MAPPED)
    for stride in arg.strides[:-1]:
        scope.values.limit(stride, f"{of} stride", 0, MOST_STRIDE, ALIGNMENT // itemsize)
    shape, strides = (
        ", ".join(scope.values.at(dim) for dim in dims) for dims in (arg.shape, arg.strides)
    )
    fields = [
        _address(arg.ref, procedure, whose, scope, ALIGNMENT),
        f"{{{shape}}}",
        f"{{{strides}}}",
    ]
    if arg.padding == "nan" or arg.round_to_tf32:
        fields += ["true" if arg.padding == "nan" else "false"]
        fields += ["true"] * arg.round_to_tf32
    return f"{{{', '.join(fields)}}}"


MOST_MAPPED: Final = 1 << 32
MOST_STRIDE: Final = (1 << 40) // 16
"""Elements: the most of a dimension that TMA takes, and a stride that is less than the 2^40 bytes
it takes (CUDA driver API, cuTensorMapEncodeTiled)."""


def _bytes(nbytes: Dim, whose: str, values: Values) -> str:
    number = values.number(nbytes)
    if number is not None:
        return str(number)
    values.limit(nbytes, f"{whose}: the number of bytes", 0, expression.INT64_MAX)
    return f"at.bytes({values.index(nbytes)})"


def _provenance(i: int, sources: Sequence[SourceNode]) -> list[str]:
    """Comments that lead from a step to the lines of PyTorch it computes.

    One line of PyTorch a paragraph, then the operations it called, each with the module it is in
    or, outside any, the name of its node in the exported graph.
    """
    by_line: dict[str, list[str]] = {}
    for source in sources:
        operation = f"{source.module or source.name} ({source.op})"
        line = ": ".join(part for part in (source.location, source.code) if part)
        operations = by_line.setdefault(line, [])
        if operation not in operations:
            operations.append(operation)
    paragraphs: list[list[str]] = []
    for line, operations in by_line.items():
        paragraphs += [text.one_line(line).split(" ")] if line else []
        paragraphs.append([*(f"{operation}," for operation in operations[:-1]), operations[-1]])
    lead = f"[{i}] "
    lines: list[str] = []
    for paragraph in paragraphs or [["no source recorded"]]:
        lines += text.comment_of(2, paragraph, lead if not lines else " " * len(lead))
    return lines
