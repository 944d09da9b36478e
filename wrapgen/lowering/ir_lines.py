"""From Inductor's wrapper lines to the steps of a procedure.

Lines name buffers; steps name memory. ``Memory`` keeps which is where: a buffer is a whole block
(an input, a weight, a temporary) or a place inside another's.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import sympy
from torch._inductor import ir
from torch._inductor.codegen import wrapper as lines
from torch._inductor.codegen.common import WorkspaceArg
from torch._inductor.runtime.triton_heuristics import GridExpr
from torch._inductor.utils import LineContext
from torch.fx import Node

from wrapgen.dtype import INFO, DType
from wrapgen.lowering import passes
from wrapgen.lowering.errors import LoweringError
from wrapgen.lowering.graph_file import dtype_of
from wrapgen.lowering.inductor import FillLine, Lowered, OriginsLine
from wrapgen.lowering.kernel import Builder, Built
from wrapgen.program import (
    Arg,
    Buffer,
    Copy,
    Fill,
    Launch,
    PointerArg,
    Procedure,
    Ref,
    ScalarArg,
    SourceNode,
    Step,
)


@dataclasses.dataclass(frozen=True)
class Result:
    """Where a result of a procedure goes: the space and name, and its layout in elements."""

    ref: Ref
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]


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
    sources: Mapping[str, SourceNode],
) -> Translated:
    """Translates what Inductor made of one graph.

    Args:
      lowered: its lines, kernels and outputs.
      known: the memory of each of the graph's placeholders.
      results: the memory that each of the graph's outputs must end up in.
      builder: makes kernels.
      sources: exported node name to where it comes from.
    """
    return _Translation(lowered, known, results, builder, sources).run()


class _Translation:
    def __init__(
        self,
        lowered: Lowered,
        known: Mapping[str, Ref],
        results: Sequence[Ref],
        builder: Builder,
        sources: Mapping[str, SourceNode],
    ) -> None:
        self._lowered = lowered
        self._memory = dict(known)
        self._results = results
        self._builder = builder
        self._sources = sources
        self._buffers: dict[str, Buffer] = {}
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
                and int(layout.offset) == 0
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
            case OriginsLine():
                self._origins = self._source_nodes(line.nodes)
            case lines.KernelCallLine():
                self._launch(line)
            case FillLine():
                buffer = self._buffers[self._memory[line.name].name]
                self._steps.append(
                    Fill(
                        dst=self._memory[line.name],
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
            self._memory[name] = direct[name]
            return
        dtype = dtype_of(node.get_dtype())
        shape = tuple(int(extent) for extent in node.get_size())
        if isinstance(node, WorkspaceArg):
            strides: tuple[int, ...] = (1,)
            elements = math.prod(shape)
        else:
            strides = tuple(int(stride) for stride in node.get_stride())
            elements = _extent(shape, strides)
        # A workspace may be allocated again under its name; the blocks are different memory.
        block = name
        while block in self._buffers:
            block += "_"
        self._buffers[block] = Buffer(
            name=block,
            dtype=dtype,
            shape=shape,
            strides=strides,
            nbytes=elements * INFO[dtype].itemsize,
        )
        self._memory[name] = Ref(space="arena", name=block)

    def _alias(self, new: Any, old: Any, offset: Any) -> None:
        self._memory[new.get_name()] = self._at(old, offset)

    def _at(self, buffer: Any, offset: Any) -> Ref:
        base = self._memory[buffer.get_name()]
        itemsize = buffer.get_dtype().itemsize
        assert isinstance(base.offset, int)
        return dataclasses.replace(base, offset=base.offset + int(offset) * itemsize)

    def _launch(self, line: Any) -> None:
        source = self._lowered.kernels.get(line.kernel_name)
        if source is None or not line.triton:
            raise LoweringError(f"Inductor calls {line.kernel_name}, which is no Triton kernel")
        built = self._builder.build(source.source, source.name, source.template)
        access = _accesses(built)
        args: list[Arg] = []
        for param, position in zip(built.kernel.params, built.arguments, strict=True):
            value = line.call_args[position]
            if param.kind == "pointer":
                args.append(PointerArg(ref=self._memory[value], access=access[param.name]))
            else:
                args.append(ScalarArg(dtype=param.dtype, value=_scalar(value)))
        self._steps.append(
            Launch(
                kernel=built.kernel.name,
                grid=_grid(built, line.call_args),
                args=tuple(args),
                sources=self._origins,
            )
        )

    def _result(self, node: Any, ref: Ref) -> Result:
        """Copies a result where it is wanted, unless it was written there."""
        name, layout = _storage(node)
        dtype = dtype_of(layout.dtype)
        shape = tuple(int(extent) for extent in layout.size)
        strides = tuple(int(stride) for stride in layout.stride)
        itemsize = INFO[dtype].itemsize
        base = self._memory[name]
        assert isinstance(base.offset, int)
        src = dataclasses.replace(base, offset=base.offset + int(layout.offset) * itemsize)
        if src != ref:
            self._steps.append(
                Copy(
                    dst=ref,
                    src=src,
                    nbytes=_extent(shape, strides) * itemsize,
                    sources=self._origins,
                )
            )
        return Result(ref=ref, dtype=dtype, shape=shape, strides=strides)

    def _source_nodes(self, nodes: Sequence[Node]) -> tuple[SourceNode, ...]:
        found: dict[str, SourceNode] = {}
        for node in nodes:
            for name in passes.origins(node):
                if name in self._sources:
                    found[name] = self._sources[name]
        order = {name: i for i, name in enumerate(self._sources)}
        return tuple(sorted(found.values(), key=lambda source: order[source.name]))


def refs_of(step: Step) -> list[Ref]:
    """Every address in a step."""
    if isinstance(step, Copy):
        return [step.dst, step.src]
    if isinstance(step, Fill):
        return [step.dst]
    return [arg.ref for arg in step.args if isinstance(arg, PointerArg)]


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


def _extent(shape: Sequence[Any], strides: Sequence[Any]) -> int:
    """Elements from the first to the last of a strided tensor, both included."""
    if any(int(extent) == 0 for extent in shape):
        return 0
    return 1 + sum((int(n) - 1) * int(s) for n, s in zip(shape, strides, strict=True))


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
        if name.startswith(("ws_ptr", "sem_ptr")):
            access[name] = "read_write"
        elif name.startswith(("out_ptr", "in_out_ptr")):
            access[name] = "read_write" if name in built.loaded else "write"
        else:
            access[name] = "read"
    return access


def _scalar(value: Any) -> int | str:
    if isinstance(value, (int, sympy.Integer)):
        return int(value)
    raise LoweringError(f"a kernel takes a number that is not known when it is built: {value}")


def _grid(built: Built, call_args: Sequence[Any]) -> tuple[int, int, int]:
    """The grid of a call, from the chosen configuration."""
    names = list(built.meta.get("extra_launcher_args", ()))
    # A size of 1 is a constant of the kernel.
    scope: dict[str, Any] = dict(built.kernel.config)
    for name, position in zip(
        (param.name for param in built.kernel.params), built.arguments, strict=True
    ):
        value = call_args[position]
        if isinstance(value, (int, sympy.Integer)):
            scope[name] = int(value)
    scope.update(
        {
            name: int(value)
            for name, value in zip(names, call_args[len(call_args) - len(names) :], strict=True)
        }
    )
    grid = GridExpr.from_meta(dict(built.meta), dict(built.config)).eval_slow(scope)
    x, y, z = (int(extent) for extent in grid)
    return x, y, z


__all__ = ["Result", "Translated", "refs_of", "translate"]
