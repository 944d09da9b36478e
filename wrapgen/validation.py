"""What makes a program impossible beyond the types of its fields: names that nothing has, reads of
what nothing wrote, addresses outside their memory, values out of range.

Reports all faults, in the order of the file. Where a size is no number, a fault by itself, what
would follow from it is not checked. What depends on symbols is checked at some of their values, the
least and the greatest among them: a temporary that is too small, or an address outside its memory,
shows at one of these. What a run checks itself, such as grids, is not.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Final

from wrapgen import expression, set_condition
from wrapgen import target as target_module
from wrapgen.dtype import INFO, DType
from wrapgen.program import (
    ALIGNMENT,
    IDENTIFIER,
    SCHEMA_VERSION,
    Buffer,
    Constraint,
    Copy,
    Dim,
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
    Weight,
    While,
    extent,
    inner,
    integer_range,
    weight_nbytes,
)


def faults_of(program: Program) -> Iterator[str]:
    """Yields every fault as its place in the file, a colon and what is wrong."""
    if program.schema_version != SCHEMA_VERSION:
        yield f"schema_version: {program.schema_version} is not {SCHEMA_VERSION}"
    yield from _target_faults(program.target)
    if program.num_shards < 1:
        yield f"num_shards: {program.num_shards} is less than 1"
    yield from _name_faults(program)
    symbols = {symbol.name for symbol in program.symbols}
    yield from _symbol_faults(program)
    for i, constraint in enumerate(program.constraints):
        yield from _constraint_faults(f"constraints[{i}]", constraint, symbols)
    yield from _interface_faults(program, symbols)
    for i, weight in enumerate(program.weights):
        for j, size in enumerate(weight.shape):
            yield from _size_faults(f"weights[{i}].shape[{j}]", size, symbols)
        yield from _bytes_faults(f"weights[{i}]", _known_weight_size(weight))
    for i, buffer in enumerate(program.constants):
        yield from _buffer_faults(f"constants[{i}]", buffer, None)
    for i, kernel in enumerate(program.kernels):
        yield from _kernel_faults(f"kernels[{i}]", kernel, program.num_shards)
    yield from _procedure_faults(program, "folding", program.folding, None)
    yield from _procedure_faults(program, "main", program.main, symbols)
    if program.symbols:
        yield from _faults_at_points(program)


def _faults_at_points(program: Program) -> Iterator[str]:
    """Faults of sizes and addresses at some values of the symbols: the first of each."""
    found: set[str] = set()
    for values in _points(program):
        at_point = ", ".join(f"{name} = {value}" for name, value in values.items())
        known = _Evaluated(values)
        for place, fault in _memory_faults(program, known):
            if place not in found:
                found.add(place)
                yield f"{place}: {fault}, where {at_point}"


def _points(program: Program) -> Iterator[dict[str, int]]:
    """Values of all symbols that fulfil the constraints: all at their least or greatest, one at its
    least and the others at their greatest, one a bit above its least or at its greatest and the
    others at their least."""
    least = {symbol.name: symbol.minimum for symbol in program.symbols}
    greatest = {symbol.name: symbol.maximum for symbol in program.symbols}
    points = [least]
    points += [
        least | {symbol.name: min(value, symbol.maximum)}
        for symbol in program.symbols
        for value in (symbol.minimum + 1, symbol.minimum + 2, symbol.maximum)
    ]
    points += [greatest | {symbol.name: symbol.minimum} for symbol in program.symbols]
    points.append(greatest)
    for point in points:
        try:
            if all(expression.holds(one.condition, point) for one in program.constraints):
                yield point
        except expression.ExpressionError:
            continue  # a fault of its own, or one that a run reports


class _Evaluated:
    """Sizes at some values of the symbols; ``None`` for one that has no value, or a negative one
    where it is to be a size."""

    def __init__(self, values: dict[str, int]) -> None:
        self._values = values
        self._known: dict[Dim, int | None] = {}

    def value(self, dim: Dim) -> int | None:
        """The value of a size."""
        if dim not in self._known:
            try:
                self._known[dim] = expression.evaluate(dim, self._values)
            except expression.ExpressionError:
                self._known[dim] = None
        return self._known[dim]

    def extent(self, tensor: TensorSpec | Buffer) -> int | None:
        """The bytes of a tensor."""
        shape = [self.value(size) for size in tensor.shape]
        strides = [self.value(stride) for stride in tensor.strides]
        sizes = [size for size in shape if size is not None and size >= 0]
        steps = [stride for stride in strides if stride is not None and stride >= 0]
        if len(sizes) != len(shape) or len(steps) != len(sizes) or len(steps) != len(strides):
            return None
        return extent(sizes, steps, INFO[tensor.dtype].itemsize)


def _memory_faults(program: Program, known: _Evaluated) -> Iterator[tuple[str, str]]:
    """Yields place and fault of what does not lie within its memory."""
    sizes: dict[_Block, int | None] = {}
    for space, specs in (("input", program.tensor_inputs), ("output", program.outputs)):
        sizes |= {(space, spec.name): known.extent(spec) for spec in specs}
    sizes |= {("weight", weight.name): _known_weight_size(weight) for weight in program.weights}
    sizes |= {("constant", one.name): _known_size(one.nbytes) for one in program.constants}
    for i, buffer in enumerate(program.main.buffers):
        nbytes, needed = known.value(buffer.nbytes), known.extent(buffer)
        sizes["arena", buffer.name] = nbytes
        if nbytes is not None and needed is not None and nbytes < needed:
            fault = f"{nbytes}, but the tensor stored there has {needed} bytes"
            yield f"main.buffers[{i}].nbytes", fault
    for at, step in _placed("main.steps", program.main.steps):
        if isinstance(step, Launch) and any(known.value(size) == 0 for size in step.grid):
            continue
        for field, ref, _, length in _accesses(step):
            offset, size = known.value(ref.offset), sizes.get((ref.space, ref.name))
            nbytes = known.value(length)
            if offset is None or size is None or nbytes is None:
                continue
            if offset < 0 or offset + nbytes > size:
                ends = f"bytes {offset}..{offset + nbytes}" if nbytes else f"offset {offset}"
                if nbytes == 0 and not isinstance(step, Launch):
                    continue  # nothing is copied
                where = f"{ref.space} {ref.name!r}, which has {size} bytes"
                yield f"{at}.{field}", f"{ends} is outside {where}"


def _placed(at: str, steps: Sequence[Step]) -> Iterator[tuple[str, Step]]:
    """Yields every step with its place, those inside others too."""
    for i, step in enumerate(steps):
        yield f"{at}[{i}]", step
        for field, inside in inner(step):
            yield from _placed(f"{at}[{i}].{field}", inside)


def _interface_faults(program: Program, symbols: set[str]) -> Iterator[str]:
    for group, specs in (("inputs", program.inputs), ("outputs", program.outputs)):
        for i, spec in enumerate(specs):
            at = f"{group}[{i}]"
            if not _is_line(spec.path):
                yield f"{at}.path: {spec.path!r} is empty or has unprintable characters"
            if isinstance(spec, ScalarSpec):
                if spec.symbol not in symbols:
                    yield f"{at}.symbol: {spec.symbol!r} is no symbol of the program"
                continue
            yield from _layout_faults(at, spec.shape, spec.strides, symbols)
            yield from _bytes_faults(at, _known_extent(spec))
            if spec.mutated and group == "outputs":
                yield f"{at}.mutated: is for inputs"
    for i, fixed in enumerate(program.fixed):
        for field, text in dataclasses.asdict(fixed).items():
            if not _is_line(text):
                yield f"fixed[{i}].{field}: {text!r} is empty or has unprintable characters"


def _symbol_faults(program: Program) -> Iterator[str]:
    sizes = {size for spec in program.tensor_inputs for size in spec.shape}
    values = {spec.symbol for spec in program.scalar_inputs}
    for i, symbol in enumerate(program.symbols):
        if not expression.INT64_MIN <= symbol.minimum <= symbol.maximum <= expression.INT64_MAX:
            yield (
                f"symbols[{i}]: the range {symbol.minimum}..{symbol.maximum} is empty or does not "
                "fit 64 bits"
            )
        elif symbol.name in sizes and symbol.minimum < 0:
            yield f"symbols[{i}].minimum: {symbol.minimum}, but {symbol.name!r} is a size"
        if symbol.name not in sizes | values:
            yield (
                f"symbols[{i}]: {symbol.name!r} has no value: it is no dimension of an input by "
                "itself, and no scalar input's symbol"
            )
    if len(program.scalar_inputs) > len(values):
        names = [spec.symbol for spec in program.scalar_inputs]
        for name in sorted(name for name in values if names.count(name) > 1):
            yield f"inputs: symbol {name!r} is that of two scalars"


_Symbols = set[str] | None  # None where no symbol has a value: while constants are computed


def _constraint_faults(at: str, constraint: Constraint, symbols: set[str]) -> Iterator[str]:
    if not _is_line(constraint.text):
        yield f"{at}.text: {constraint.text!r} is empty or has unprintable characters"
    try:
        condition = expression.parse_condition(constraint.condition)
    except expression.ExpressionError as error:
        yield f"{at}.condition: {error}"
        return
    found = {*expression.names(condition.left), *expression.names(condition.right)}
    for name in sorted(found - symbols):
        yield (
            f"{at}.condition: {constraint.condition!r} names {name!r}, which is no symbol of the "
            "program"
        )
    if not found:
        yield f"{at}.condition: {constraint.condition!r} names no symbol"


def _target_faults(text: str) -> Iterator[str]:
    try:
        target = target_module.parse(text)
    except target_module.TargetError as error:
        yield f"target: {error}"
    else:
        if target != target.lowering:
            yield f"target: {text} is PTX; a program is lowered for SASS, here {target.lowering}"


def _name_faults(program: Program) -> Iterator[str]:
    identifiers = {
        "symbols": [symbol.name for symbol in program.symbols],
        "inputs": [spec.name for spec in program.inputs],
        "outputs": [spec.name for spec in program.outputs],
        "kernels": [kernel.name for kernel in program.kernels],
    }
    names = {
        "weights": [weight.name for weight in program.weights],
        "constants": [buffer.name for buffer in program.constants],
    }
    for group, members in (identifiers | names).items():
        yield from _duplicates(group, members)
    for group, members in identifiers.items():
        for i, name in enumerate(members):
            if not IDENTIFIER.match(name):
                yield f"{group}[{i}].name: {name!r} is not an identifier"
    for group, members in names.items():
        for i, name in enumerate(members):
            if not _is_line(name):
                yield f"{group}[{i}].name: {name!r} is empty or has unprintable characters"


def _is_line(text: str) -> bool:
    """Whether a text can be a name: not empty, one line, all of it visible."""
    return bool(text) and text.isprintable()


def _dim_faults(at: str, dim: Dim, symbols: _Symbols) -> Iterator[str]:
    """Faults of an integer or expression as such, whatever its value."""
    try:
        if isinstance(dim, int):
            expression.evaluate(dim)
            return
        tree = expression.parse(dim)
        for name in expression.names(tree):
            if symbols is None:
                yield f"{at}: {dim!r} names {name!r}, but constants are computed before any input"
            elif name not in symbols:
                yield f"{at}: {dim!r} names {name!r}, which is no symbol of the program"
        if not expression.names(tree):
            expression.evaluate(dim)
    except expression.ExpressionError as error:
        yield f"{at}: {error}"


def _size_faults(at: str, dim: Dim, symbols: _Symbols) -> Iterator[str]:
    """Faults of a number that counts something."""
    yield from _dim_faults(at, dim, symbols)
    value = _known(dim)
    if value is not None and value < 0:
        yield f"{at}: {value} is negative"


def _known(dim: Dim) -> int | None:
    """The value of a dim that depends on no symbol, else ``None``."""
    try:
        return expression.evaluate(dim)
    except expression.ExpressionError:
        return None


def _known_size(dim: Dim) -> int | None:
    """The same of a number that counts something; ``None`` for a negative one."""
    value = _known(dim)
    return None if value is None or value < 0 else value


def _layout_faults(
    at: str, shape: Sequence[Dim], strides: Sequence[Dim], symbols: _Symbols
) -> Iterator[str]:
    if len(shape) != len(strides):
        yield f"{at}.strides: {len(strides)} strides for {len(shape)} dimensions"
    for field, dims in (("shape", shape), ("strides", strides)):
        for i, dim in enumerate(dims):
            yield from _size_faults(f"{at}.{field}[{i}]", dim, symbols)


def _bytes_faults(at: str, nbytes: int | None) -> Iterator[str]:
    """Faults of a tensor's size, which is computed in 64 bits where it is used."""
    if nbytes is not None and nbytes > expression.INT64_MAX:
        yield f"{at}: its {nbytes} bytes do not fit 64 bits"


def _buffer_faults(at: str, buffer: Buffer, symbols: _Symbols) -> Iterator[str]:
    yield from _layout_faults(at, buffer.shape, buffer.strides, symbols)
    yield from _size_faults(f"{at}.nbytes", buffer.nbytes, symbols)
    nbytes, needed = _known_size(buffer.nbytes), _known_extent(buffer)
    if nbytes is not None and needed is not None and nbytes < needed:
        yield f"{at}.nbytes: {nbytes}, but the tensor stored there has {needed} bytes"


def _known_extent(tensor: TensorSpec | Buffer) -> int | None:
    shape = [_known_size(size) for size in tensor.shape]
    strides = [_known_size(stride) for stride in tensor.strides]
    if len(shape) != len(strides) or None in shape or None in strides:
        return None
    sizes = [size for size in shape if size is not None]
    steps = [stride for stride in strides if stride is not None]
    return extent(sizes, steps, INFO[tensor.dtype].itemsize)


def _known_weight_size(weight: Weight) -> int | None:
    return None if min(weight.shape, default=0) < 0 else weight_nbytes(weight)


_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")


def _kernel_faults(at: str, kernel: Kernel, num_shards: int) -> Iterator[str]:
    if not 0 <= kernel.shard < num_shards:
        yield f"{at}.shard: {kernel.shard} is not in 0..{num_shards - 1}"
    if not _SHA256.match(kernel.ttir_sha256):
        yield f"{at}.ttir_sha256: {kernel.ttir_sha256!r} is not 64 lowercase hexadecimal digits"
    for field, number, maximum in (
        ("num_warps", kernel.num_warps, 32),
        ("num_ctas", kernel.num_ctas, 16),
    ):
        if number not in (1, 2, 4, 8, 16, 32) or number > maximum:
            yield f"{at}.{field}: {number} is not a power of two between 1 and {maximum}"
    if kernel.num_stages < 1:
        yield f"{at}.num_stages: {kernel.num_stages} is less than 1"
    if kernel.cooperative and kernel.launch_pdl:
        yield f"{at}.launch_pdl: true, but the kernel is cooperative, whose grid starts at once"
    yield from _duplicates(f"{at}.params", [param.name for param in kernel.params])
    for i, param in enumerate(kernel.params):
        if not IDENTIFIER.match(param.name):
            yield f"{at}.params[{i}].name: {param.name!r} is not an identifier"
        yield from _block_faults(f"{at}.params[{i}].block", param)


MAX_TENSOR_MAP_RANK: Final = 5
"""Dimensions of a tensor that TMA takes (CUDA driver API, cuTensorMapEncodeTiled)."""


def _block_faults(at: str, param: KernelParam) -> Iterator[str]:
    if param.kind != "tensor_map":
        if param.block:
            yield f"{at}: {list(param.block)}, but the parameter is a {param.kind}"
    elif not 1 <= len(param.block) <= MAX_TENSOR_MAP_RANK:
        yield f"{at}: {len(param.block)} dimensions, expected 1 to {MAX_TENSOR_MAP_RANK}"
    elif min(param.block) < 1:
        yield f"{at}: {list(param.block)} is no shape of a block: each size is at least 1"


def _duplicates(group: str, names: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    for i, name in enumerate(names):
        if name in seen:
            yield f"{group}[{i}].name: {name!r} occurs twice"
        seen.add(name)


def _procedure_faults(
    program: Program, label: str, procedure: Procedure, symbols: _Symbols
) -> Iterator[str]:
    yield from _duplicates(f"{label}.buffers", [buffer.name for buffer in procedure.buffers])
    for i, buffer in enumerate(procedure.buffers):
        at = f"{label}.buffers[{i}]"
        if not _is_line(buffer.name):
            yield f"{at}.name: {buffer.name!r} is empty or has unprintable characters"
        yield from _buffer_faults(at, buffer, symbols)
    check = _StepCheck(program, label, procedure, symbols)
    yield from check.steps(f"{label}.steps", procedure.steps, inside=False)
    yield from check.unwritten()


class _StepCheck:
    """Goes through the steps of a procedure in the order in which they are executed."""

    def __init__(
        self, program: Program, label: str, procedure: Procedure, symbols: _Symbols
    ) -> None:
        self._program = program
        self._label = label
        self._symbols = symbols
        self._folding = label == "folding"
        self._sizes = _block_sizes(program, procedure, self._folding)
        self._kernels = {kernel.name: kernel for kernel in program.kernels}
        # What holds a value: all but what the procedure is there to compute, and what is empty.
        given = {"input", "weight"} if self._folding else {"input", "weight", "constant"}
        self._written = {
            block for block, size in self._sizes.items() if block[0] in given or size == 0
        }

    def steps(self, at: str, steps: Sequence[Step], *, inside: bool) -> Iterator[str]:
        """Faults of steps; ``inside`` a branch or a loop they name nothing of the caller's."""
        for i, step in enumerate(steps):
            place = f"{at}[{i}]"
            yield from self._step(place, step, inside)
            if isinstance(step, If):
                before = self._written
                self._written = set(before)
                yield from self.steps(f"{place}.then", step.then, inside=True)
                then, self._written = self._written, set(before)
                yield from self.steps(f"{place}.otherwise", step.otherwise, inside=True)
                self._written &= then
            elif isinstance(step, While):
                yield from self.steps(f"{place}.condition", step.condition, inside=True)
                yield from self._predicate(place, step)
                after = set(self._written)
                yield from self.steps(f"{place}.body", step.body, inside=True)
                self._written = after  # it may never be executed

    def unwritten(self) -> Iterator[str]:
        """Results that no step has written."""
        for space, name in self._sizes:
            computed = space == ("constant" if self._folding else "output")
            if computed and (space, name) not in self._written:
                yield f"{self._label}.steps: no step writes {space} {name!r}"

    def _step(self, at: str, step: Step, inside: bool) -> Iterator[str]:
        for field, ref, access, nbytes in _accesses(step):
            yield from self._access(f"{at}.{field}", ref, access, nbytes, inside)
        match step:
            case Launch():
                yield from _launch_faults(at, step, self._kernels, self._symbols)
            case Copy():
                yield from _size_faults(f"{at}.nbytes", step.nbytes, self._symbols)
                yield from _overlap_faults(at, step)
            case Fill():
                yield from _size_faults(f"{at}.nbytes", step.nbytes, self._symbols)
                if not 0 <= step.byte <= 255:
                    yield f"{at}.byte: {step.byte} is not in 0..255"
            case If():
                yield from self._predicate(at, step)
                yield from self._setter(at, step)
            case While():
                yield from self._setter(at, step)
        for j, source in enumerate(step.sources):
            for field, text in dataclasses.asdict(source).items():
                if any(character in text for character in "\n\r\0"):
                    yield f"{at}.sources[{j}].{field}: {text!r} is more than one line"

    def _access(self, at: str, ref: Ref, access: str, nbytes: Dim, inside: bool) -> Iterator[str]:
        yield from _dim_faults(f"{at}.offset", ref.offset, self._symbols)
        block = (ref.space, ref.name)
        if block not in self._sizes:
            yield f"{at}: there is no {ref.space} called {ref.name!r} in {self._label}"
            return
        yield from _range_faults(at, ref, nbytes, self._sizes[block])
        if inside and ref.space in ("input", "output"):
            yield (
                f"{at}: {ref.space} {ref.name!r} is the caller's, and has another address in each "
                "run; a branch or loop names none: copy it from or to a temporary outside"
            )
        elif access != "read":
            yield from _write_faults(at, ref, self._program, self._label)
        if access != "write" and block not in self._written:
            yield f"{at}: {ref.space} {ref.name!r} is read before any step wrote it"
        self._written.add(block)

    def _predicate(self, at: str, step: If | While) -> Iterator[str]:
        if step.dtype not in set_condition.DTYPES:
            known = ", ".join(set_condition.DTYPES)
            yield f"{at}.dtype: a predicate is {step.dtype}, expected one of {known}"
        # Read by a kernel of the graph, as by a step inside.
        nbytes = INFO[step.dtype].itemsize
        yield from self._access(f"{at}.predicate", step.predicate, "read", nbytes, True)

    def _setter(self, at: str, step: If | While) -> Iterator[str]:
        kernel = self._kernels.get(step.kernel)
        if kernel is None:
            yield f"{at}.kernel: there is no kernel called {step.kernel!r}"
        elif kernel != set_condition.kernel(self._program.num_shards):
            yield f"{at}.kernel: {step.kernel!r} is not {set_condition.NAME}, which sets conditions"


def _write_faults(at: str, ref: Ref, program: Program, label: str) -> Iterator[str]:
    writable = {"arena", "constant"} if label == "folding" else {"arena", "output", "input"}
    if ref.space not in writable:
        yield f"{at}: {label} must not write {ref.space} {ref.name!r}"
    elif ref.space == "input" and not any(
        spec.name == ref.name and spec.mutated for spec in program.tensor_inputs
    ):
        yield f"{at}: input {ref.name!r} is written, but is not marked as mutated"


_Block = tuple[str, str]  # space and name


def _block_sizes(program: Program, procedure: Procedure, folding: bool) -> dict[_Block, int | None]:
    """Everything a procedure can address, with its bytes where they are known."""
    sizes: dict[_Block, int | None] = {}
    if not folding:
        sizes |= {("input", spec.name): _known_extent(spec) for spec in program.tensor_inputs}
        sizes |= {("output", spec.name): _known_extent(spec) for spec in program.outputs}
    sizes |= {("weight", weight.name): _known_weight_size(weight) for weight in program.weights}
    sizes |= {("constant", one.name): _known_size(one.nbytes) for one in program.constants}
    sizes |= {("arena", one.name): _known_size(one.nbytes) for one in procedure.buffers}
    return sizes


def _accesses(step: Step) -> Iterator[tuple[str, Ref, str, Dim]]:
    """Yields (field, address, access, bytes or 0) of what a step touches itself, reads before
    writes. A predicate is read when the steps that compute it are done, so it is not among them."""
    if isinstance(step, Copy):
        yield "src", step.src, "read", step.nbytes
        yield "dst", step.dst, "write", step.nbytes
    elif isinstance(step, Fill):
        yield "dst", step.dst, "write", step.nbytes
    elif isinstance(step, Launch):
        pointers = [
            (f"args[{i}].ref", arg.ref, arg.access, 0)
            for i, arg in enumerate(step.args)
            if not isinstance(arg, ScalarArg)
        ]
        yield from sorted(pointers, key=lambda pointer: pointer[2] == "write")


def _range_faults(at: str, ref: Ref, nbytes: Dim, size: int | None) -> Iterator[str]:
    begin, length = _known(ref.offset), _known(nbytes)
    if begin is None:
        return
    if begin < 0:
        yield f"{at}.offset: {begin} is negative"
    elif size is not None and begin + (length or 0) > size:
        ends = f"bytes {begin}..{begin + length}" if length else f"offset {begin}"
        yield f"{at}: {ends} is outside {ref.space} {ref.name!r}, which has {size} bytes"


def _overlap_faults(at: str, step: Copy) -> Iterator[str]:
    if (step.dst.space, step.dst.name) != (step.src.space, step.src.name):
        return
    dst, src, nbytes = _known(step.dst.offset), _known(step.src.offset), _known(step.nbytes)
    if dst is not None and src is not None and nbytes is not None and abs(dst - src) < nbytes:
        yield f"{at}: copies {nbytes} bytes from offset {src} to {dst} of the same memory"


def _launch_faults(
    at: str, launch: Launch, kernels: dict[str, Kernel], symbols: _Symbols
) -> Iterator[str]:
    for i, size in enumerate(launch.grid):
        yield from _size_faults(f"{at}.grid[{i}]", size, symbols)
    kernel = kernels.get(launch.kernel)
    if kernel is None:
        yield f"{at}.kernel: there is no kernel called {launch.kernel!r}"
        return
    if len(launch.args) != len(kernel.params):
        yield (
            f"{at}.args: {len(launch.args)} arguments for the {len(kernel.params)} parameters "
            f"of kernel {kernel.name}"
        )
        return
    for i, (arg, param) in enumerate(zip(launch.args, kernel.params, strict=True)):
        if arg.kind != param.kind:
            yield f"{at}.args[{i}]: parameter {param.name!r} is a {param.kind}, not a {arg.kind}"
        elif isinstance(arg, ScalarArg):
            yield from _scalar_faults(f"{at}.args[{i}]", arg, param, symbols)
        elif isinstance(arg, TensorMapArg):
            yield from _tensor_map_faults(f"{at}.args[{i}]", arg, param, symbols)
        elif param.divisible_by_16 and (_known(arg.ref.offset) or 0) % ALIGNMENT:
            yield (
                f"{at}.args[{i}].ref.offset: {arg.ref.offset} is no multiple of 16, as parameter "
                f"{param.name!r} of kernel {kernel.name} was promised"
            )


def _tensor_map_faults(
    at: str, arg: TensorMapArg, param: KernelParam, symbols: _Symbols
) -> Iterator[str]:
    """Faults of a tensor map: what the hardware cannot take is one (CUDA driver API,
    cuTensorMapEncodeTiled)."""
    rank = len(param.block)
    if len(arg.shape) != rank:
        yield f"{at}.shape: {len(arg.shape)} dimensions, parameter {param.name!r} has {rank}"
        return
    yield from _layout_faults(at, arg.shape, arg.strides, symbols)
    if (_known(arg.ref.offset) or 0) % ALIGNMENT:
        yield f"{at}.ref.offset: {arg.ref.offset} is no multiple of 16, as tensor maps need"
    for i, stride in enumerate(arg.strides):
        value = _known(stride)
        if i == rank - 1:
            if value != 1:
                yield f"{at}.strides[{i}]: {stride}, the last stride of a tensor map is 1"
        elif value is not None and value * INFO[param.dtype].itemsize % ALIGNMENT:
            yield (
                f"{at}.strides[{i}]: {value} elements are no multiple of 16 bytes, as tensor maps "
                "need"
            )
    if arg.round_to_tf32 and param.dtype != DType.FLOAT32:
        yield f"{at}.round_to_tf32: true, parameter {param.name!r} is {param.dtype}, not float32"


_FLOATS: Final = frozenset(dtype for dtype in DType if "float" in dtype)


def _scalar_faults(at: str, arg: ScalarArg, param: KernelParam, symbols: _Symbols) -> Iterator[str]:
    if arg.dtype != param.dtype:
        yield f"{at}.dtype: {arg.dtype}, parameter {param.name!r} is {param.dtype}"
    if arg.dtype in _FLOATS:
        if not isinstance(arg.value, str) or not _is_hex_float(arg.value):
            yield f"{at}.value: {arg.value!r} is not what float.hex() writes"
        return
    yield from _dim_faults(f"{at}.value", arg.value, symbols)
    value = _known(arg.value)
    if value is None:
        return
    minimum, maximum = integer_range(arg.dtype)
    if not minimum <= value <= maximum:
        yield f"{at}.value: {value} is not a value of {arg.dtype}"
    if param.divisible_by_16 and value % ALIGNMENT:
        yield (
            f"{at}.value: {value} is no multiple of 16, as parameter {param.name!r} was promised"
        )


def _is_hex_float(text: str) -> bool:
    try:
        return float.fromhex(text).hex() == text
    except (ValueError, OverflowError):
        return False
