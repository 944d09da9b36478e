"""Inputs and outputs in model.cc: tables of tensors, their dimensions, symbols and constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from wrapgen import expression
from wrapgen.codegen import dtype as cpp_dtype
from wrapgen.codegen import expr, text
from wrapgen.codegen.bounds import Bounds
from wrapgen.codegen.names import Namer, pascal
from wrapgen.codegen.values import COUNT, SIZES, Values
from wrapgen.dtype import INFO, DType
from wrapgen.program import Dim, InputSpec, Program, ScalarSpec, TensorSpec

DYNAMIC: Final = -1
"""Stands in a table for a size or stride that depends on the inputs."""


def sizes(program: Program) -> Values:
    """The symbols, and the values that shapes, strides and constraints need."""
    values = Values(program)
    for spec in (*program.tensor_inputs, *program.outputs):
        for dim in (*spec.shape, *spec.strides):
            if values.number(dim) is None:
                values.index(dim)
    for constraint in program.constraints:
        condition = expression.parse_condition(constraint.condition)
        for side in (condition.left, condition.right):
            values.index(expression.unparse(side))
    return values


def index_names(program: Program) -> dict[tuple[str, str], str]:
    """Names of the indices of inputs and outputs, by space and name."""
    namer = Namer()
    return {
        (space, spec.name): namer.name(space + spec.name, "k" + pascal(f"{space}.{spec.name}"))
        for space, specs in (("input", program.inputs), ("output", program.outputs))
        for spec in specs
    }


def indices(program: Program) -> list[str]:
    """The enumerations of inputs and outputs."""
    names = index_names(program)
    lines: list[str] = []
    for enum, space, specs in (
        ("InputIndex", "input", program.inputs),
        ("OutputIndex", "output", program.outputs),
    ):
        if specs:
            members = [f"  {names[space, spec.name]}," for spec in specs]
            lines += [f"enum {enum} : size_t {{", *members, "};", ""]
    return lines


def table(array: str, size: int) -> str:
    """An ``aoti::Table`` of an array."""
    return f"{{{array}, std::size({array})}}" if size else "{nullptr, 0}"


def _numbers(dims: Sequence[Dim]) -> tuple[int, ...]:
    parsed = [expr.parse(dim) for dim in dims]
    return tuple(int(number) if number.is_Integer else DYNAMIC for number in parsed)


def dims(program: Program) -> list[str]:
    """Every shape and every list of strides once."""
    used = {_numbers(weight.shape) for weight in program.weights}
    for spec in (*program.tensor_inputs, *program.outputs):
        used |= {_numbers(spec.shape), _numbers(spec.strides)}
    lines = [
        line
        for numbers in sorted(used)
        if numbers
        for line in text.array(
            0, f"constexpr int64_t {_dims_name(numbers)}[]", [str(n) for n in numbers]
        )
    ]
    head = "// Shapes and strides, in elements"
    head += f"; {DYNAMIC} for what depends on the inputs." if program.symbols else "."
    return [head, *lines, ""] if lines else []


def _dims_name(dims: tuple[int, ...]) -> str:
    return "kDims" + "x".join("D" if n == DYNAMIC else str(n) for n in dims)


def dims_table(dims: Sequence[Dim]) -> str:
    """The ``aoti::Table`` of a shape or of strides."""
    numbers = _numbers(dims)
    return f"{{{_dims_name(numbers)}, {len(numbers)}}}" if numbers else "{nullptr, 0}"


def tables(program: Program, values: Values, passed: frozenset[str]) -> list[str]:
    """The tables of inputs and outputs, and of symbols and constraints where there are any.
    ``passed`` are the symbols that ``launch.passed_scalars`` gives for all programs."""
    names = index_names(program)
    groups: tuple[tuple[str, str, Sequence[InputSpec]], ...] = (
        ("kInputs", "input", program.inputs),
        ("kOutputs", "output", program.outputs),
    )
    layouts = [
        line
        for _, space, specs in groups
        for spec in specs
        if isinstance(spec, TensorSpec) and is_dynamic(spec)
        for line in _layout(names[space, spec.name], spec, values)
    ]
    lines: list[str] = []
    if layouts:
        lines += [
            "// Of tensors that depend on the inputs: expression, least and greatest value, and",
            "// index in the values, of each size and stride; and the most bytes.",
            "namespace layouts {",
            *layouts,
            "}  // namespace layouts",
            "",
        ]
    for array, space, specs in groups:
        if specs:
            lines += [f"constexpr aoti::TensorDescription {array}[] = {{"]
            for spec in specs:
                lines += text.braced(4, _cells(spec, names[space, spec.name], values))
            lines += ["};", ""]
    if program.symbols:
        lines += symbol_table(program, names, passed)
    if program.constraints:
        lines += constraint_table(program, values)
    return lines


def text_of(dims: Sequence[Dim]) -> str:
    """Sizes or strides, for a comment: ``[s0, 64]``."""
    numbers = _numbers(dims)
    texts = [
        str(dim) if number == DYNAMIC else str(number)
        for dim, number in zip(dims, numbers, strict=True)
    ]
    return f"[{', '.join(texts)}]"


def is_row_major(shape: Sequence[Dim], strides: Sequence[Dim]) -> bool:
    """Whether strides are those of a contiguous tensor, as far as can be told of expressions."""
    step = expr.parse(1)
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if expr.parse(stride) != step:
            return False
        parsed = expr.parse(size)
        step = step * (max(int(parsed), 1) if parsed.is_Integer else parsed)
    return True


def is_dynamic(spec: InputSpec) -> bool:
    """Whether some size or stride of a tensor depends on the inputs."""
    return isinstance(spec, TensorSpec) and DYNAMIC in _numbers((*spec.shape, *spec.strides))


def _cells(spec: InputSpec, name: str, values: Values) -> list[str]:
    if isinstance(spec, ScalarSpec):
        kind = [text.string(spec.name), cpp_dtype.constant(DType.INT64)]
        kind += ["{nullptr, 0}", "{nullptr, 0}", text.string(spec.path)]
        return [*kind, "AOTI_TENSOR_SCALAR", "nullptr", values.index(spec.symbol)]
    cells = [text.string(spec.name), cpp_dtype.constant(spec.dtype)]
    cells += [dims_table(spec.shape), dims_table(spec.strides), text.string(spec.path)]
    flags = "AOTI_TENSOR_MUTATED" if spec.mutated else "0"
    if is_dynamic(spec):
        cells += [flags, f"&layouts::{name}"]
    elif spec.mutated:
        cells.append(flags)
    return cells


def _layout(name: str, spec: TensorSpec, values: Values) -> list[str]:
    lines: list[str] = []
    fields: list[str] = []
    for what, members in (("shape", spec.shape), ("strides", spec.strides)):
        rows, places = [], []
        for dim in members:
            number = values.number(dim)
            range_ = _range(dim, values)
            shown = str(dim) if number is None else str(number)
            rows.append(f"{{{text.string(shown)}, {range_.minimum}, {range_.maximum}}}")
            places.append(values.index(dim) if number is None else "aoti::kFixed")
        infos, indices = f"{name}_{what}", f"{name}_{what}_values"
        lines += text.array(0, f"constexpr AotiDimInfo {infos}[]", rows)
        lines += text.array(0, f"constexpr int32_t {indices}[]", places)
        fields += [infos, indices]
    fields.append(str(greatest_bytes(spec, values)))
    return [*lines, *text.braced_value(f"constexpr aoti::DynamicLayout {name}", fields)]


def _range(dim: Dim, values: Values) -> Bounds:
    """Of a size or stride, which are never negative, and fit 64 bits."""
    found = values.bounds(dim)
    return Bounds(*(min(max(n, 0), expression.INT64_MAX) for n in (found.minimum, found.maximum)))


def range_of(dim: Dim, values: Values) -> Bounds:
    """Between what a size or stride can be."""
    return _range(dim, values)


def greatest_bytes(spec: TensorSpec, values: Values) -> int:
    """The most bytes that a tensor can have, from its first element to one past its last."""
    shape = [_range(size, values).maximum for size in spec.shape]
    strides = [_range(stride, values).maximum for stride in spec.strides]
    if 0 in shape:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    return min((last + 1) * INFO[spec.dtype].itemsize, expression.INT64_MAX)


def origin(program: Program, symbol: str) -> tuple[int, int | None]:
    """The input that gives a symbol its value, and its dimension; ``None`` for a scalar."""
    for i, spec in enumerate(program.inputs):
        if isinstance(spec, ScalarSpec):
            if spec.symbol == symbol:
                return i, None
        elif symbol in spec.shape:
            return i, spec.shape.index(symbol)
    raise AssertionError(f"validation let {symbol} through")


def symbol_table(
    program: Program, names: Mapping[tuple[str, str], str], passed: frozenset[str]
) -> list[str]:
    """The table of symbols; ``names`` as ``index_names`` gives them."""
    lines = [
        "// Name, range, input and dimension, whether a CUDA graph is made for one value.",
        "constexpr aoti::SymbolDescription kSymbols[] = {",
    ]
    for symbol in program.symbols:
        i, dimension = origin(program, symbol.name)
        minimum = "INT64_MIN" if symbol.minimum == expression.INT64_MIN else str(symbol.minimum)
        cells = [text.string(symbol.name), minimum, str(symbol.maximum)]
        cells += [names["input", program.inputs[i].name]]
        cells += ["aoti::kFixed" if dimension is None else str(dimension)]
        lines += text.braced(4, [*cells, "false" if symbol.name in passed else "true"])
    return [*lines, "};", ""]


def constraint_table(program: Program, values: Values) -> list[str]:
    """The table of constraints."""
    lines = [
        "// In terms of inputs, in terms of symbols; the two sides, and what is between them.",
        "constexpr aoti::ConstraintDescription kConstraints[] = {",
    ]
    for constraint in program.constraints:
        condition = expression.parse_condition(constraint.condition)
        sides = [
            values.index(expression.unparse(side)) for side in (condition.left, condition.right)
        ]
        cells = [text.string(constraint.text), text.string(constraint.condition), *sides]
        lines += text.braced(4, [*cells, text.string(condition.comparison)])
    return [*lines, "};", ""]


def symbol_fields(program: Program) -> list[str]:
    """The last fields of the ``ModelDescription`` of a program that has symbols."""
    return [
        "    {kSymbols, std::size(kSymbols)},",
        f"    {table('kConstraints', len(program.constraints))},",
        "    ComputeSizes,",
        f"    {SIZES}::{COUNT},",
    ]
