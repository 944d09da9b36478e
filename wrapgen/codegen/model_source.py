"""Text of model.cc: the tables of runtime/description.h and the launch code of every target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Final

from wrapgen import expression, set_condition
from wrapgen.codegen import debug, expr, grid, includes, interface, launch, text
from wrapgen.codegen import dtype as cpp_dtype
from wrapgen.codegen.args import WEIGHTS, Blocks
from wrapgen.codegen.interface import table
from wrapgen.codegen.kernels import Image
from wrapgen.codegen.memory import ALIGNMENT, MemoryPlan, weights_of
from wrapgen.codegen.values import ARENA, COUNT, SIZES, VALUES, Computation, Values
from wrapgen.dtype import INFO, DType
from wrapgen.program import (
    If,
    Kernel,
    Launch,
    Program,
    While,
    walk,
    weight_nbytes,
    weights_digest,
)
from wrapgen.target import Target


@dataclasses.dataclass(frozen=True)
class EmbeddedImage:
    """A compiled kernel and the symbol it is embedded under."""

    image: Image
    symbol: str


@dataclasses.dataclass(frozen=True)
class Build:
    """The model for one target: ``images`` in the order of ``launched`` of the target's program."""

    target: Target
    images: tuple[EmbeddedImage, ...]

    @property
    def driver(self) -> int:
        """The least CUDA version of a driver that loads it, as cuDriverGetVersion spells it; or HIP
        version, as hipRuntimeGetVersion does."""
        runtime = RUNTIME_DRIVER if self.target.platform == "cuda" else HIP_RUNTIME_DRIVER
        return max([runtime, *(entry.image.metadata.driver for entry in self.images)])


RUNTIME_DRIVER: Final = 12000
"""The least driver for the runtime itself: AOTI_CUDA_MINIMUM_DRIVER of runtime/cuda_driver.h."""

HIP_RUNTIME_DRIVER: Final = 60000000
"""Of a model for AMD's GPUs: AOTI_HIP_MINIMUM_VERSION of runtime/hip_driver.h."""


@dataclasses.dataclass(frozen=True)
class Lowered:
    """A program, its memory plan, and what it was built for: its own target, PTX, or both.

    ``scratch`` has the bytes of scratch memory that a block gets of the kernels that got a
    parameter for it (``scratch.provide``).
    """

    program: Program
    plan: MemoryPlan
    builds: tuple[Build, ...]
    scratch: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Form:
    """What differs between the forms of a model, a library or one file: the table of weights, where
    a kernel's row says its image is, begin and end, and what a debug build adds."""

    weights: Callable[[Program], list[str]]
    image: Callable[[EmbeddedImage], tuple[str, str]]
    debugging: debug.Debug | None = None


def launched(program: Program) -> list[Kernel]:
    """The kernels that some step launches over a grid that is not empty, and what sets conditions,
    in the program's order."""
    used = {
        step.kernel
        for procedure in (program.folding, program.main)
        for step in walk(procedure.steps)
        if isinstance(step, If | While)
        or (isinstance(step, Launch) and not grid.is_empty(step.grid))
    }
    return [kernel for kernel in program.kernels if kernel.name in used]


def source(name: str, models: Sequence[Lowered], debugging: debug.Debug | None = None) -> str:
    """Text of model.cc. ``models`` agree on inputs, outputs and weights; see ``wrap``."""
    program = models[0].program
    builds = [build for model in models for build in model.builds]
    sizes = interface.sizes(program)
    passed = frozenset.intersection(*(launch.passed_scalars(model.program) for model in models))
    form = Form(_weights, lambda entry: (entry.symbol, f"{entry.symbol}_end"), debugging)
    body, targets = code_and_targets(models, sizes, passed, form)
    lines = [
        *_dtypes(models),
        *interface.dims(program),
        *interface.indices(program),
        *computed_sizes(sizes),
        *debug.constant(debugging),
    ]
    lines += body
    lines += interface.tables(program, sizes, passed)
    lines += targets
    lines += [
        "constexpr AotiDescription kDescription = {{",
        f"    {version(models)},",
        f"    {text.string(name)},",
        f"    {text.string(weights_digest(program.weights))},",
        f"    {table('kInputs', len(program.inputs))},",
        f"    {table('kOutputs', len(program.outputs))},",
        f"    {table('kTargets', len(builds))},",
        *([] if not program.symbols else interface.symbol_fields(program)),
        *debug.description_fields(debugging, program),
        "}};",
        "",
    ]
    usings = includes.usings(lines)
    lines = [
        *_symbols(builds),
        f"namespace {name} {{",
        "namespace {",
        "",
        *([*usings, ""] if usings else []),
        *lines,
        "}  // namespace",
        f"}}  // namespace {name}",
        "",
        *text.function(
            f'extern "C" const AotiDescription* {name}_description(void)',
            [f"return &{name}::kDescription;"],
        ),
    ]
    head = [
        *text.comment(0, f"The model {name}: its tables and its launches, in execution order."),
        *text.comment(0, "Generated by wrapgen; do not edit."),
        "",
        '#include "model.h"',
        "",
        *includes.includes(lines),
    ]
    return "\n".join([*head, *lines]) + "\n"


def code_and_targets(
    models: Sequence[Lowered], sizes: Values, passed: frozenset[str], form: Form
) -> tuple[list[str], list[str]]:
    """The launch code of every target, a namespace each, and the table of targets."""
    parts = {model.program.target: _lowered(model, sizes, passed, form) for model in models}
    limited = {name for name, lines in parts.items() if _LIMITS in lines}
    return [line for lines in parts.values() for line in lines], _targets(models, limited)


def version(models: Sequence[Lowered]) -> str:
    """The version of the description, which also says whose runtime reads it."""
    amds = models[0].builds[0].target.platform == "hip"
    return "aoti::kDescriptionVersion" + (" | aoti::kHip" if amds else "")


def _symbols(builds: Sequence[Build]) -> list[str]:
    symbols = dict.fromkeys(entry.symbol for build in builds for entry in build.images)
    if not symbols:
        return []
    lines = ["// Where each image of kernels.S begins and ends.", 'extern "C" {']
    for symbol in symbols:
        lines += [f"extern const unsigned char {symbol}[];"]
        lines += [f"extern const unsigned char {symbol}_end[];"]
    return [*lines, '}  // extern "C"', ""]


def _dtypes(models: Sequence[Lowered]) -> list[str]:
    program = models[0].program
    used = {spec.dtype for spec in (*program.tensor_inputs, *program.outputs)}
    used |= {DType.INT64} if program.scalar_inputs else set()
    used |= {weight.dtype for weight in program.weights}
    rows = [
        (
            f"constexpr DLDataType {cpp_dtype.constant(dtype)} = {cpp_dtype.dldatatype(dtype)};",
            INFO[dtype].dlpack_code,
        )
        for dtype in DType
        if dtype in used
    ]
    return [*text.with_comments(0, rows), ""] if rows else []


def _enumeration(values: Values, first: str, further: Sequence[tuple[str, str]] = ()) -> list[str]:
    rows = [(f"{name},", note) for name, note in (*values.enumerators(), *further)]
    if first and rows:
        rows[0] = (f"{rows[0][0][:-1]} = {first},", rows[0][1])
    count = f"  {COUNT}," if rows else f"  {COUNT} = {first},"
    return [
        f"namespace {values.namespace} {{",
        "enum : int32_t {",
        *text.with_comments(2, rows),
        count,
        "};",
        f"}}  // namespace {values.namespace}",
        "",
    ]


VALUES_PER_FUNCTION: Final = 128
"""Keeps functions that compute values small enough for the host compiler."""


def computed_sizes(sizes: Values) -> list[str]:
    """The model's values and the function that computes them; nothing without symbols."""
    if not sizes.ranges:
        return []
    return [
        "// What the inputs of a run decide, by the index in its values: symbols with their",
        "// ranges, and what shapes, strides and constraints need of them.",
        *_enumeration(sizes, ""),
        *_computing(
            "// Computes all but the symbols. Returns null, or the expression that has no value of "
            "64\n// bits.",
            "ComputeSizes",
            sizes,
        ),
    ]


def _chunks(computations: Sequence[Computation]) -> list[Sequence[Computation]]:
    starts = range(0, len(computations), VALUES_PER_FUNCTION)
    return [computations[i : i + VALUES_PER_FUNCTION] for i in starts]


def _computing(
    comment: str, name: str, values: Values, arena: Sequence[Computation] = ()
) -> list[str]:
    """The function that computes values, and those that it calls where they are many. ``arena``
    are the statements that compute where slots begin, from ``end`` to ``end``."""
    lines: list[str] = []
    whole: list[Computation] = []
    computed = values.computations()
    if len(computed) <= VALUES_PER_FUNCTION:
        whole += computed
    else:
        for i, chunk in enumerate(_chunks(computed)):
            declaration = f"const char* {name}{i}(int64_t* value)"
            lines += [*values.function(declaration, chunk, end="return nullptr;"), ""]
            call = f"  if (const char* none = {name}{i}(value)) return none;"
            whole.append(Computation((call,)))
    if arena:
        note = "The arena: each slot is as large as the largest temporary in it, at these sizes."
        whole.append(Computation((f"  // {note}", "  aoti::Checked end = 0;")))
        if len(arena) <= VALUES_PER_FUNCTION:
            whole += arena
        else:
            for i, chunk in enumerate(_chunks(arena)):
                declaration = f"aoti::Checked Slots{i}(aoti::Checked end, int64_t* value)"
                lines += [*values.function(declaration, chunk, end="return end;"), ""]
                whole.append(Computation((f"  end = Slots{i}(end, value);",)))
        total = (
            '  if (!end.ok()) return "the memory for temporaries";',
            f"  value[{VALUES}::{ARENA}] = end.value();",
        )
        whole.append(Computation(total))
    declaration = f"const char* {name}(int64_t* value)"
    function = values.function(declaration, whole, end="return nullptr;")
    return [*lines, *comment.split("\n"), *function, ""]


def _plan(model: Lowered, values: Values) -> list[str]:
    """The values that the launches of a target need, and the function that computes them."""
    names = values.locals()
    nbytes = {buffer.name: buffer.nbytes for buffer in model.program.main.buffers}
    further, arena = [], []
    for i, slot in enumerate(model.plan.main_slots):
        further.append((values.slot(i), f"begin of {', '.join(slot.members)}"))
        code = [expr.cpp(size, names, checked=True) for size in slot.sizes]
        largest = code[-1]
        for size in reversed(code[:-1]):
            largest = f"aoti::Max({size}, {largest})"
        for member in slot.members:
            what = f"main: the bytes of temporary {member}"
            values.limit(nbytes[member], what, 0, expression.INT64_MAX)
        lines = [
            *text.comment(2, f"{', '.join(slot.members)}: {', '.join(map(str, slot.sizes))}"),
            f"  value[{VALUES}::{values.slot(i)}] = end.value();",
            *text.statements(2, [f"end = end + aoti::AlignTo({largest}, {ALIGNMENT});"]),
        ]
        arena.append(Computation(tuple(lines), slot.sizes))
    if arena:
        further.append((ARENA, "bytes of all of them"))
    comment = "// Computes it. Returns null, or the expression that has no value of 64 bits."
    computing = _computing(comment, "Plan", values, arena)
    return [
        "// What launches need besides, by the index in the values of a run.",
        *_enumeration(values, f"{SIZES}::{COUNT}", further),
        *computing,
        *_limits(values),
    ]


_LIMITS: Final = "constexpr aoti::LimitDescription kLimits[] = {"


def _limits(values: Values) -> list[str]:
    if not values.limits():
        return []
    lines = [
        "// What is not so at all sizes in range: value, least, greatest, multiple of, what it is.",
        _LIMITS,
    ]
    for limit in values.limits():
        numbers = (limit.minimum, limit.maximum, limit.multiple_of)
        lines += text.braced(
            4,
            [
                limit.index,
                *("INT64_MIN" if n == expression.INT64_MIN else str(n) for n in numbers),
                text.string(limit.what),
                text.string(limit.expression),
            ],
        )
    return [*lines, "};", ""]


def _lowered(model: Lowered, sizes: Values, passed: frozenset[str], form: Form) -> list[str]:
    program = model.program
    values = Values(program, sizes)
    blocks = Blocks(program, model.plan, values)
    used = launched(program)
    kernels = launch.Kernels(used, frozenset(model.scratch))
    weights = form.weights(program)
    scope = launch.Scope(blocks, kernels, values, passed, program, form.debugging)
    procedures = [
        *launch.procedure_functions("folding", program.folding, scope),
        "",
        *launch.procedure_functions("main", program.main, scope),
    ]
    lines = [f"// Lowered for {program.target}.", f"namespace {program.target} {{", ""]
    if program.symbols:
        lines += _plan(model, values)
    if program.weights:
        rows = [(f"{constant},", weight) for constant, weight in blocks.weights()]
        lines += ["// The weights by their index in kWeights.", f"namespace {WEIGHTS} {{"]
        lines += ["enum : size_t {", *text.with_comments(2, rows), "};"]
        lines += [f"}}  // namespace {WEIGHTS}", ""]
    if blocks.namespaces():
        lines += [
            "// Where things begin: offsets, in bytes, into the memory the namespace names.",
            "// Constants come with the step that computes them, temporaries with the first and",
            "// the last step that use them.",
        ]
    for namespace, offsets in blocks.namespaces():
        rows = [
            (f"constexpr {_offset_type(offset.value)} {offset.name} = {offset.value};", offset.note)
            for offset in offsets
        ]
        lines += [f"namespace {namespace} {{", *text.with_comments(0, rows)]
        lines += [f"}}  // namespace {namespace}", ""]
    if used:
        lines += ["// The kernels by their index in kKernels.", "enum KernelIndex : uint32_t {"]
        lines += [f"  {kernels.index[kernel.name]}," for kernel in used]
        lines += ["};", "", "// The kernels with their parameters.", "namespace kernels {", ""]
        for kernel in used:
            if kernel.name != set_condition.NAME:  # the runtime launches it
                lines += [*launch.kernel_function(kernel, kernels, form.debugging), ""]
        lines += ["}  // namespace kernels", ""]
    lines += [*procedures, "", *weights]
    for build in model.builds:
        if build.images:
            lines += _kernel_rows(model, build, kernels, form)
    return [*lines, f"}}  // namespace {program.target}", ""]


def _offset_type(value: int | str) -> str:
    return "uint64_t" if isinstance(value, int) else "int32_t"


def _weights(program: Program) -> list[str]:
    if not program.weights:
        return []
    folding, main = weights_of(program.folding), weights_of(program.main)
    lines = [
        "// Name, dtype, shape, bytes, whether folding and whether main reads it.",
        "constexpr aoti::WeightDescription kWeights[] = {",
    ]
    for weight in program.weights:
        cells = [
            text.string(weight.name),
            cpp_dtype.constant(weight.dtype),
            interface.dims_table(weight.shape),
            str(weight_nbytes(weight)),
            "true" if weight.name in folding else "false",
            "true" if weight.name in main else "false",
        ]
        lines += text.braced(4, cells)
    return [*lines, "};", ""]


def _kernel_table(build: Build) -> str:
    return "kKernels" if build.target.is_machine_code else "kPtxKernels"


def _kernel_rows(model: Lowered, build: Build, kernels: launch.Kernels, form: Form) -> list[str]:
    """The table of a target's kernels, and before it those of their tensor maps."""
    program = model.program
    fields = "name, image, threads and shared memory of a block, blocks of a cluster, number of "
    fields += "parameters"
    further = ""
    before: list[str] = []
    rows: list[str] = []
    for entry in build.images:
        metadata = entry.image.metadata
        kernel = program.kernel(entry.image.kernel)
        numbers = (
            metadata.threads,
            metadata.shared_memory,
            metadata.num_ctas,
            len(metadata.params),
        )
        cells = [text.string(kernel.name), *form.image(entry), *map(str, numbers)]
        maps = _tensor_maps(entry, kernels)
        before += maps
        scratch = model.scratch.get(kernel.name, 0)
        if kernel.cooperative or kernel.launch_pdl or _sets_condition(kernel) or scratch or maps:
            cells += [*_launch_cells(program, kernel), str(scratch)]
            further = "; then flags, the most blocks of a fixed grid, bytes of scratch memory of a "
            further += "block, tensor maps"
        if maps:
            cells.append(table(_maps_table(kernel, kernels), len(metadata.tensor_maps)))
        rows += text.braced(4, cells)
    return [
        *before,
        *text.comment(0, f"Kernels compiled for {build.target}: {fields}{further}."),
        f"constexpr aoti::KernelDescription {_kernel_table(build)}[] = {{",
        *rows,
        "};",
        "",
    ]


def _sets_condition(kernel: Kernel) -> bool:
    return kernel.name == set_condition.NAME


def _launch_cells(program: Program, kernel: Kernel) -> list[str]:
    """How a kernel is launched beyond its grid: flags, and the most blocks of a fixed grid."""
    flags = ["aoti::kCooperative"] * kernel.cooperative + ["aoti::kDependent"] * kernel.launch_pdl
    flags += ["aoti::kSetsCondition"] * _sets_condition(kernel)
    blocks = launch.fixed_blocks(program, kernel) if kernel.cooperative else 0
    return [" | ".join(flags) or "0", str(blocks)]


def _maps_table(kernel: Kernel, kernels: launch.Kernels) -> str:
    return f"{kernels.index[kernel.name]}Maps"


def _tensor_maps(entry: EmbeddedImage, kernels: launch.Kernels) -> list[str]:
    """The table of a kernel's tensor maps, if it has any."""
    kernel = kernels.kernels[entry.image.kernel]
    maps = entry.image.metadata.tensor_maps
    if not maps:
        return []
    lines = text.comment(
        0,
        f"The tensor maps of {kernel.name}: parameter, type and bytes of an element, swizzle, what "
        "is copied at a time.",
    )
    rows: list[str] = []
    for each in maps:
        box = f"{kernels.index[kernel.name]}Box{each.param}"
        lines += text.array(0, f"constexpr uint32_t {box}[]", [str(size) for size in each.box])
        itemsize = INFO[kernel.params[each.param].dtype].itemsize
        numbers = (each.param, each.element, itemsize, each.swizzle)
        rows += text.braced(4, [*map(str, numbers), table(box, len(each.box))])
    head = f"constexpr aoti::TensorMapDescription {_maps_table(kernel, kernels)}[] = {{"
    return [*lines, head, *rows, "};", ""]


def _run_fields(model: Lowered, space: str, limited: Container[str]) -> list[str]:
    """The last fields of a TargetDescription: ``run`` and, with symbols, what follows."""
    if not model.program.symbols:
        return [f"     {space}::RunMain}},"]
    limits = f"{space}::kLimits" if space in limited else ""
    arena = f"{space}::{VALUES}::{ARENA}" if model.plan.main_slots else "aoti::kFixed"
    return [
        f"     {space}::RunMain,",
        f"     {space}::Plan,",
        f"     {space}::{VALUES}::{COUNT},",
        f"     {table(limits, 1 if limits else 0)},",
        f"     {arena}}},",
    ]


def _targets(models: Sequence[Lowered], limited: Container[str]) -> list[str]:
    rows = sorted(
        ((model, build) for model in models for build in model.builds),
        key=lambda row: (not row[1].target.is_machine_code, row[1].target),
    )
    lines = [
        *text.comment(
            0,
            "Name, capability, whether PTX, driver; bytes of weights, staging, constants and the "
            "arenas of folding and main; tables and procedures.",
        ),
        "constexpr aoti::TargetDescription kTargets[] = {",
    ]
    for model, build in rows:
        target, plan = build.target, model.plan
        space = model.program.target
        major, minor = target.device.capability
        arenas = (plan.constants, plan.folding_arena, plan.main_arena)
        sizes = (plan.weights, plan.staging, *(part.size for part in arenas))
        lines += [
            f"    {{{text.string(str(target))},",
            f"     {major},",
            f"     {minor},",
            f"     {'false' if target.is_machine_code else 'true'},",
            f"     {build.driver},",
            f"     {{{', '.join(map(str, sizes))}}},",
            f"     {table(f'{space}::kWeights', len(model.program.weights))},",
            f"     {table(f'{space}::{_kernel_table(build)}', len(build.images))},",
            f"     {space}::RunFolding,",
            *_run_fields(model, space, limited),
        ]
    return [*lines, "};", ""]
