"""From Inductor's wrapper lines to the steps of a procedure.

Lines name buffers; steps name memory. ``Memory`` keeps which is where: a buffer is a whole block
(an input, a weight, a temporary) or a place inside another's.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sympy
import torch
from torch._inductor import ir
from torch._inductor.codegen import wrapper as lines
from torch._inductor.codegen.common import WorkspaceArg
from torch._inductor.utils import LineContext, sympy_product
from torch.fx import Node
from torch.utils._sympy.functions import Min
from triton.compiler.errors import CompilationError

from wrapgen.dtype import INFO, DType
from wrapgen.lowering import grids, passes
from wrapgen.lowering.errors import LoweringError, where
from wrapgen.lowering.graph_file import dtype_of
from wrapgen.lowering.inductor import FillLine, Lowered, OriginsLine
from wrapgen.lowering.kernel import Builder, Built
from wrapgen.lowering.symbols import Symbols
from wrapgen.lowering.user_kernels import UserBuilder, UserKernelLine
from wrapgen.program import (
    ALIGNMENT,
    Arg,
    Buffer,
    Copy,
    Dim,
    Fill,
    If,
    Launch,
    PointerArg,
    Procedure,
    Ref,
    ScalarArg,
    SourceNode,
    Step,
    TensorMapArg,
    While,
)


@dataclasses.dataclass(frozen=True)
class Result:
    """Where a result of a procedure goes: the space and name, and its layout in elements.

    ``node`` is the lowered graph's node whose value it is.
    """

    ref: Ref
    dtype: DType
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    nbytes: Dim
    node: str


@dataclasses.dataclass(frozen=True)
class Translated:
    """A procedure, and its results with the layouts they have."""

    procedure: Procedure
    results: tuple[Result, ...]


def translate(
    lowered: Lowered,
    known: Mapping[str, Ref],
    results: Sequence[Ref],
    builder: Builder,
    own: UserBuilder,
    sources: Mapping[str, SourceNode],
    symbols: Symbols,
    prefix: str = "",
) -> Translated:
    """Translates what Inductor made of one graph.

    Args:
      lowered: its lines, kernels and outputs.
      known: the memory of each of the graph's placeholders.
      results: the memory that each of the graph's outputs must end up in.
      builder: makes kernels.
      own: makes the user-defined ones.
      sources: exported node name to where it comes from.
      symbols: what sizes are expressions of.
      prefix: begins the names of temporaries.
    """
    return _Translation(lowered, known, results, builder, own, sources, symbols, prefix).run()


@dataclasses.dataclass(frozen=True)
class _Place:
    """An address, ``offset`` in bytes."""

    space: Any
    name: str
    offset: sympy.Expr = sympy.S.Zero


class _Translation:
    def __init__(
        self,
        lowered: Lowered,
        known: Mapping[str, Ref],
        results: Sequence[Ref],
        builder: Builder,
        own: UserBuilder,
        sources: Mapping[str, SourceNode],
        symbols: Symbols,
        prefix: str,
    ) -> None:
        self._lowered = lowered
        self._prefix = prefix
        self._memory = {node: _Place(ref.space, ref.name) for node, ref in known.items()}
        self._symbols = symbols
        self._results = results
        self._builder = builder
        self._own = own
        self._sources = sources
        self._buffers: dict[str, Buffer] = {}
        self._taken_over: dict[str, str] = {}
        self._written: set[str] = set()
        self._steps: list[Step] = []
        self._origins: tuple[SourceNode, ...] = ()

    def run(self) -> Translated:
        direct = self._direct_results()
        for line in self._lowered.lines:
            self._line(line, direct)
        results = tuple(
            self._result(node, ref)
            for node, ref in zip(self._lowered.outputs, self._results, strict=True)
        )
        used = {ref.name for step in self._steps for ref in refs_of(step) if ref.space == "arena"}
        buffers = tuple(buffer for name, buffer in self._buffers.items() if name in used)
        return Translated(Procedure(buffers=buffers, steps=tuple(self._steps)), results)

    def _direct_results(self) -> dict[str, Ref]:
        """Blocks that can be allocated where a result is wanted, so that no copy is needed."""
        allocated, base = _allocations(self._lowered.lines)
        direct: dict[str, Ref] = {}
        for node, ref in zip(self._lowered.outputs, self._results, strict=True):
            name, layout = _storage(node)
            name = base.get(name, name)
            if (
                name in allocated
                and name not in direct
                and layout.offset == 0
                and allocated[name] == (layout.dtype, _extent(layout.size, layout.stride))
            ):
                direct[name] = ref
        return direct

    def _line(self, line: Any, direct: Mapping[str, Ref]) -> None:
        match line:
            case lines.AllocateLine():
                self._allocate(line.node, direct)
            case lines.ReinterpretLine():
                layout = line.layout
                if isinstance(layout, ir.NonOwningLayout):
                    layout = layout.view.get_layout()
                self._alias(line.reused_as, line.node, layout.offset)
            case lines.ReuseLine():
                self._alias(line.reused_as, line.node, 0)
                self._taken_over[line.reused_as.get_name()] = _node_name(line.reused_as)
            case OriginsLine():
                self._origins = self._source_nodes(line.nodes)
            case lines.KernelCallLine():
                self._launch(line)
            case UserKernelLine():
                self._launch_own(line)
            case FillLine():
                buffer = self._buffers[self._memory[line.name].name]
                self._steps.append(
                    Fill(
                        dst=self._ref(self._memory[line.name]),
                        byte=0,
                        nbytes=buffer.nbytes,
                        sources=self._origins,
                    )
                )
            case (
                lines.FreeIfNotReusedLine()
                | lines.FreeLine()
                | lines.NullLine()
                | lines.CommentLine()
                | lines.SymbolicCallArgLine()
                | lines.EnterDeviceContextManagerLine()
                | lines.ExitDeviceContextManagerLine()
                | lines.EnterSubgraphLine()
                | lines.ExitSubgraphLine()
                | LineContext()
            ):
                pass
            case _:
                text = line.strip() if isinstance(line, str) else type(line).__name__
                if text:
                    raise LoweringError(f"Inductor wrote a line that is not supported: {text}")

    def _allocate(self, node: Any, direct: Mapping[str, Ref]) -> None:
        name = node.get_name()
        if name in direct:
            self._memory[name] = _Place(direct[name].space, direct[name].name)
            return
        dtype = dtype_of(_signed(node.get_dtype()))
        shape = tuple(node.get_size())
        if isinstance(node, WorkspaceArg):
            strides: tuple[Any, ...] = (sympy.S.One,)
            elements = sympy_product(shape)
            node_name = ""
        else:
            strides = tuple(node.get_stride())
            elements = self._elements(shape, strides)
            node_name = _node_name(node)
        # A workspace may be allocated again under its name; the blocks are different memory.
        block = self._prefix + name
        while block in self._buffers:
            block += "_"
        self._buffers[block] = Buffer(
            name=block,
            dtype=dtype,
            shape=self._dims(shape),
            strides=self._dims(strides),
            nbytes=self._dim(elements * INFO[dtype].itemsize),
            node=node_name,
        )
        self._memory[name] = _Place("arena", block)

    def _alias(self, new: Any, old: Any, offset: Any) -> None:
        base = self._memory[old.get_name()]
        self._memory[new.get_name()] = _moved(base, offset, old.get_dtype().itemsize)

    def _ref(self, place: _Place) -> Ref:
        return Ref(space=place.space, name=place.name, offset=self._dim(place.offset))

    def _dim(self, value: Any) -> Dim:
        return self._symbols.dim(self._lowered.resolve(value))

    def _dims(self, values: Sequence[Any]) -> tuple[Dim, ...]:
        return tuple(self._dim(value) for value in values)

    def _elements(self, shape: Sequence[Any], strides: Sequence[Any]) -> Any:
        """Elements from the first to the last of a strided tensor; 0 where it is empty."""
        extent, number = _extent(shape, strides), sympy.expand(sympy_product(shape))
        empty = not all(self._symbols.always(sympy.Ge(size, 1)) for size in shape)
        # Without gaps both are the same, and right for empty ones too.
        return Min(1, number) * extent if empty and extent != number else extent

    def _launch(self, line: Any) -> None:
        source = self._lowered.kernels.get(line.kernel_name)
        if source is None or not line.triton:
            raise LoweringError(f"Inductor calls {line.kernel_name}, which is no Triton kernel")
        try:
            built = self._builder.build(source.source, source.name, source.template)
        except CompilationError as error:
            places = "\n".join(f"    {where(each)}" for each in self._origins)
            fault = str(error).strip().splitlines()[-1]
            raise LoweringError(
                f"cannot lower the model: Triton refuses the kernel of\n{places}\n  {fault}\n"
                "It is likely that an operation has no kernel for this element type: convert its"
                " operands to float32 before, and back afterwards"
            ) from error
        access = _accesses(built)
        for param, position in zip(built.kernel.params, built.arguments, strict=True):
            # What holds nothing yet the kernel writes before it reads it.
            if _is_workspace(param.name) and not self._holds(line.call_args[position]):
                access[param.name] = "write"
        args: list[Arg] = []
        for param, position in zip(built.kernel.params, built.arguments, strict=True):
            value = line.call_args[position]
            if param.kind == "pointer":
                ref = self._ref(self._memory[value])
                args.append(PointerArg(ref=ref, access=access[param.name]))
                if access[param.name] != "read":
                    self._first_value(value)
            else:
                args.append(ScalarArg(dtype=param.dtype, value=self._dim(_number(value))))
        self._builder.grids[built.kernel.name] = functools.partial(self._grid, line.call_args)
        x, y, z = self._grid(line.call_args, built)
        self._steps.append(
            Launch(
                kernel=built.kernel.name,
                grid=(x, y, z),
                args=tuple(args),
                sources=self._origins,
            )
        )

    def _grid(self, call_args: Sequence[Any], built: Built) -> tuple[Dim, Dim, Dim]:
        """The grid of a call of a kernel, or of the same one in another configuration."""
        x, y, z = (self._dim(extent) for extent in _grid(built, call_args))
        return x, y, z

    def _launch_own(self, line: UserKernelLine) -> None:
        """A call of a user-defined kernel."""
        kernel = self._own.kernel(line.kernel)
        self._origins = self._source_nodes(line.nodes)
        tensors = {"written": line.written, "read": line.read}
        values: list[Any] = []
        divisible = []
        for param in kernel.params:
            if param.pointer:
                name, offset = tensors[param.operand][param.index]
                place = _moved(self._memory[name], offset, 1)
                values.append(place)
                divisible.append(self._divisible(place.offset))
            elif param.operand == "ints":
                number = self._lowered.resolve(line.ints[param.index])
                values.append(number)
                divisible.append(param.dtype != DType.BOOL and self._divisible(number))
            else:
                values.append(float(line.floats[param.index]).hex())
                divisible.append(False)
        built = self._builder.add(self._own.build(line.kernel, tuple(divisible)))
        args: list[Arg] = []
        for i, (param, value) in enumerate(zip(kernel.params, values, strict=True)):
            if not param.pointer:
                number = value if isinstance(value, str) else self._dim(value)
                args.append(ScalarArg(dtype=param.dtype, value=number))
                continue
            access: Access = "read"
            if param.operand == "written":
                # What nothing has written yet, the kernel can but write.
                fresh = value.space in ("arena", "output") and value.name not in self._written
                access = "write" if fresh else "read_write"
            if not param.block:
                args.append(PointerArg(ref=self._ref(value), access=access))
                continue
            if not self._divisible(value.offset):
                raise LoweringError(
                    f"cannot lower the model: the Triton kernel {kernel.name} takes {param.name} as"
                    " a tensor descriptor, whose address is a multiple of 16, and gets a view that"
                    " begins elsewhere: pass a copy, x.clone()"
                )
            rank = len(param.block)
            extents = [self._dim(each) for each in values[i + 1 : i + 1 + 2 * rank]]
            args.append(
                TensorMapArg(
                    ref=self._ref(value),
                    access=access,
                    shape=tuple(extents[:rank]),
                    strides=tuple(extents[rank:]),
                    padding="nan" if param.padding == "nan" else "zero",
                    round_to_tf32=param.round_to_tf32,
                )
            )
        for name, _ in line.written:
            self._unnamed(name)
        chosen = self._own.choose(line.kernel)
        x, y, z = (self._dim(extent) for extent in line.grid[3 * chosen : 3 * chosen + 3])
        self._steps.append(
            Launch(
                kernel=built.kernel.name,
                grid=(x, y, z),
                args=tuple(args),
                sources=self._origins,
            )
        )

    def _divisible(self, number: Any) -> bool:
        """Whether a number is a multiple of 16, whatever the sizes."""
        number = self._lowered.resolve(number)
        return self._symbols.always(sympy.Eq(sympy.Mod(number, ALIGNMENT), 0))

    def _unnamed(self, name: str) -> None:
        """Notes that a user-defined kernel writes a buffer: what that holds is no node's value."""
        block = self._memory[name].name
        self._written.add(block)
        if block in self._buffers:
            self._buffers[block] = dataclasses.replace(self._buffers[block], node="")

    def _holds(self, name: str) -> bool:
        """Whether a workspace was written, if only with zeros."""
        block = self._memory[name].name
        filled = (step.dst.name for step in self._steps if isinstance(step, Fill))
        return block in self._written or block in filled

    def _first_value(self, name: str) -> None:
        """Notes that a launch writes a buffer by this name.

        A kernel that computes a value and at once another in its place calls it by the latter's
        name: that is what memory holds.
        """
        block = self._memory[name].name
        if block not in self._written and name in self._taken_over and block in self._buffers:
            buffer = self._buffers[block]
            self._buffers[block] = dataclasses.replace(buffer, node=self._taken_over[name])
        self._written.add(block)

    def _result(self, node: Any, ref: Ref) -> Result:
        """Copies a result where it is wanted, unless it was written there."""
        name, layout = _storage(node)
        dtype = dtype_of(layout.dtype)
        itemsize = INFO[dtype].itemsize
        src = self._ref(_moved(self._memory[name], layout.offset, itemsize))
        nbytes = self._dim(self._elements(layout.size, layout.stride) * itemsize)
        if src != ref and nbytes != 0:
            self._steps.append(Copy(dst=ref, src=src, nbytes=nbytes, sources=self._origins))
        return Result(
            ref=ref,
            dtype=dtype,
            shape=self._dims(layout.size),
            strides=self._dims(layout.stride),
            nbytes=nbytes,
            node=_node_name(node),
        )

    def _source_nodes(self, nodes: Sequence[Node]) -> tuple[SourceNode, ...]:
        found: dict[str, SourceNode] = {}
        for node in nodes:
            for name in passes.origins(node):
                if name in self._sources:
                    found[name] = self._sources[name]
        order = {name: i for i, name in enumerate(self._sources)}
        return tuple(sorted(found.values(), key=lambda source: order[source.name]))


def refs_of(step: Step) -> list[Ref]:
    """Every address that a step itself names."""
    if isinstance(step, Copy):
        return [step.dst, step.src]
    if isinstance(step, Fill):
        return [step.dst]
    if isinstance(step, If | While):
        return [step.predicate]
    return [arg.ref for arg in step.args if not isinstance(arg, ScalarArg)]


def _storage(node: Any) -> tuple[str, Any]:
    """The buffer that an output lies in, and the output's layout."""
    if isinstance(node, (ir.TensorBox, ir.StorageBox)):
        return _storage(node.data)
    if isinstance(node, ir.ReinterpretView):
        name, _ = _storage(node.data)
        return name, node.get_layout()
    if isinstance(node, ir.Buffer):
        return node.get_name(), node.get_layout()
    raise LoweringError(f"an output is no tensor but {type(node).__name__}")


def _allocations(all_lines: Sequence[Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Gives dtype and extent of each block allocated once, and the blocks that others reuse."""
    allocated: dict[str, Any] = {}
    base: dict[str, str] = {}
    for line in all_lines:
        if isinstance(line, lines.AllocateLine) and not isinstance(line.node, WorkspaceArg):
            node = line.node
            extent = _extent(node.get_size(), node.get_stride())
            allocated[node.get_name()] = (node.get_dtype(), extent)
        elif isinstance(line, lines.ReuseLine):
            old = line.node.get_name()
            base[line.reused_as.get_name()] = base.get(old, old)
    return allocated, base


def _extent(shape: Sequence[Any], strides: Sequence[Any]) -> Any:
    """Elements from the first to the last of a strided tensor, both included; 0 if a size is 0."""
    if any(extent == 0 for extent in shape):
        return sympy.S.Zero
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    return sympy.expand(sympy.sympify(last + 1))


def _moved(place: _Place, elements: Any, itemsize: int) -> _Place:
    return dataclasses.replace(place, offset=place.offset + sympy.sympify(elements) * itemsize)


def _node_name(node: Any) -> str:
    """The node of the lowered graph whose value a buffer is for; empty where unknown.

    Inductor remembers it as well as it can; what does not fit the buffer is another node's.
    """
    found = _buffer_of(node)
    origin = found.get_origin_node() if found is not None else None
    if origin is None:
        return ""
    value = origin.meta.get("val")
    if not isinstance(value, torch.Tensor) or value.dtype != found.get_dtype():
        return ""
    fits = list(map(str, value.shape)) == list(map(str, found.get_size()))
    return str(origin.name) if fits else ""


def _buffer_of(node: Any) -> Any:
    while isinstance(node, (ir.TensorBox, ir.StorageBox)):
        node = node.data
    return node if isinstance(node, ir.Buffer) else None


def _signed(dtype: torch.dtype) -> torch.dtype:
    """Semaphores are unsigned, which says nothing of memory."""
    return torch.int32 if dtype == torch.uint32 else dtype


def _is_workspace(name: str) -> bool:
    return name.startswith(("ws_ptr", "sem_ptr"))


Access = Literal["read", "write", "read_write"]


def _accesses(built: Built) -> dict[str, Access]:
    """What a kernel does with each pointer, from Inductor's names of its parameters.

    ``out_ptr`` and ``in_out_ptr`` are written, and read only where there is a load from them (an
    update in place, an atomic addition); ``ws_ptr`` and ``sem_ptr`` are scratch, zeroed before
    where it matters; all else is only read.
    """
    access: dict[str, Access] = {}
    for param in built.kernel.params:
        name = param.name
        if _is_workspace(name):
            access[name] = "read_write"
        elif name.startswith(("out_ptr", "in_out_ptr")):
            access[name] = "read_write" if name in built.loaded else "write"
        else:
            access[name] = "read"
    return access


def _number(value: Any) -> Any:
    """An integer argument of a call, as a sympy expression."""
    if isinstance(value, lines.SymbolicCallArg):
        value = value.inner_expr
    if isinstance(value, (int, sympy.Expr)):
        return sympy.sympify(value)
    raise LoweringError(f"a kernel takes a number that is not known when it is built: {value}")


def _grid(built: Built, call_args: Sequence[Any]) -> tuple[Any, Any, Any]:
    """The grid of a call, from the chosen configuration."""
    names = list(built.meta.get("extra_launcher_args", ()))
    # A size of 1 is a constant of the kernel.
    scope: dict[str, Any] = dict(built.kernel.config)
    for param, position in zip(built.kernel.params, built.arguments, strict=True):
        if param.kind == "scalar":
            scope[param.name] = _number(call_args[position])
    last = call_args[len(call_args) - len(names) :]
    scope |= {name: _number(value) for name, value in zip(names, last, strict=True)}
    return grids.evaluate(built.meta, built.config, scope)


__all__ = ["Result", "Translated", "refs_of", "translate"]
