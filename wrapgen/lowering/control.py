"""Branches and loops: ``torch.cond``, ``while_loop`` and ``map`` as steps that the device decides
about.

A graph with such nodes is cut at each of them, and every piece, and every graph inside, is lowered
by itself. What one piece computes and another one needs is a temporary with the layout that it has
in the graph. The steps inside a branch or loop name no memory of the caller's
(``wrapgen.program.If``): what they need of an input is copied before.

A loop's carried values are temporaries that its body updates in place, wherever that is right
(``passes.update``). ``map`` becomes a loop over the rows, or its body's operations for each row
where there are few.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sympy
import torch
from torch._prims_common import is_non_overlapping_and_dense_or_false
from torch.fx import Graph, GraphModule, Node

from wrapgen import set_condition
from wrapgen.dtype import INFO
from wrapgen.lowering import errors, folding, passes, rewrites
from wrapgen.lowering.declared_device import CUDA
from wrapgen.lowering.graph_file import dtype_of
from wrapgen.lowering.ir_lines import Result, Translated
from wrapgen.program import Buffer, Copy, If, Procedure, Ref, SourceNode, Step, While

if TYPE_CHECKING:
    from wrapgen.lowering.model import State

aten = torch.ops.aten

COND: Final = torch.ops.higher_order.cond
WHILE: Final = torch.ops.higher_order.while_loop

FEW_ROWS: Final = 8
"""Up to so many rows, ``map`` becomes its body's operations for each."""


def is_control(node: Node) -> bool:
    """Whether a node is a branch or a loop that becomes a step."""
    return node.target in (COND, WHILE)


def has_control(graph: Graph) -> bool:
    """Whether a graph has branches or loops."""
    return any(is_control(node) for node in graph.nodes)


def graphs(module: GraphModule) -> Iterator[GraphModule]:
    """A graph and all inside it, from the outside inwards."""
    yield module
    for node in module.graph.find_nodes(op="get_attr"):
        inside = getattr(module, str(node.target), None)
        if isinstance(inside, GraphModule):
            yield from graphs(inside)


# What is refused.


def refusals(module: GraphModule, platform: str) -> Iterator[tuple[Node, str]]:
    """Yields the nodes that call a graph and cannot be lowered, and those in such a graph that
    draw random numbers, which would be the same in each round; with the reason, a clause."""
    for caller in passes.higher_order(module.graph):
        reason = _refusal(caller, platform)
        if reason:
            yield caller, reason
        for operand in caller.all_input_nodes:
            inside = getattr(module, str(operand.target), None)
            if operand.op != "get_attr" or not isinstance(inside, GraphModule):
                continue
            for node in inside.graph.nodes:
                if node.op == "call_function":
                    node.meta["custom"] = _custom(caller)
                    if folding.is_random(node):
                        yield node, errors.RANDOM_INSIDE
            yield from refusals(inside, platform)


def _custom(caller: Node) -> dict[str, Any]:
    """What the nodes of a graph have in ``meta["custom"]`` that a node calls."""
    return {passes.ORIGIN: passes.origins(caller), passes.INSIDE: True}


def _refusal(node: Node, platform: str) -> str:
    if not is_control(node) and not _is_map(node):
        return "control flow other than cond, while_loop and map is not supported"
    if platform != "cuda":
        return "branches and loops need CUDA graphs that decide, which AMD's GPUs do not have"
    if node.target is COND and not isinstance(_value(node.args[0]), torch.Tensor):
        return (
            "its predicate is a number of the host's, which sizes decide: make a tensor of it, "
            "such as `torch.full((), x.shape[0]) > 4`"
        )
    if node.target is WHILE and not all(
        isinstance(_value(each), torch.Tensor) for each in _sequence(node.args[2])
    ):
        return (
            "it carries a number of the host's: carry a tensor, such as "
            "`torch.zeros((), dtype=torch.int64)`"
        )
    values = node.meta.get("val", ())
    if not all(isinstance(value, torch.Tensor) for value in _sequence(values)):
        return "it returns a number: return a tensor"
    return ""


def _is_map(node: Node) -> bool:
    target = node.target
    return isinstance(target, torch._ops.HigherOrderOperator) and target.name() == "map_impl"


def _value(argument: Any) -> Any:
    return argument.meta.get("val") if isinstance(argument, Node) else argument


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (tuple, list)) else (value,)


# map, as loops or row by row.


def expand_maps(module: GraphModule) -> None:
    """Rewrites every ``map`` in a graph and those inside it."""
    for each in list(graphs(module)):
        for node in list(each.graph.nodes):
            if _is_map(node):
                _expand_map(each, node)
        each.recompile()


def _expand_map(module: GraphModule, node: Node) -> None:
    body_attribute, over, others = node.args
    assert isinstance(body_attribute, Node)
    body = getattr(module, str(body_attribute.target))
    rows = _value(_sequence(over)[0]).shape[0]
    before = set(module.graph.nodes)
    with module.graph.inserting_before(node):
        if isinstance(rows, int) and rows <= FEW_ROWS:
            results = _row_by_row(module, body, rows, list(over), list(others))
        else:
            results = _loop_over_rows(module, node, body, list(over), list(others))
    for made in module.graph.nodes:
        if made not in before and made.op == "call_function":
            made.meta["custom"] = {passes.ORIGIN: passes.origins(node)}
    for getitem in list(node.users):
        getitem.replace_all_uses_with(results[getitem.args[1]])
        module.graph.erase_node(getitem)
    module.graph.erase_node(node)


def _inline(graph: Graph, target: Any, body: GraphModule, arguments: Sequence[Any]) -> list[Node]:
    """Copies a graph's operations into another one, of the module ``target``."""
    copies: dict[Node, Any] = {}
    given = iter(arguments)
    for node in body.graph.nodes:
        if node.op == "placeholder":
            copies[node] = next(given)
        elif node.op == "output":
            return [copies[result] for result in _sequence(node.args[0])]
        elif node.op == "get_attr":
            name = _fresh(target, str(node.target))
            setattr(target, name, getattr(body, str(node.target)))
            copies[node] = graph.get_attr(name)
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    raise AssertionError("a graph without an output")


def _fresh(module: Any, name: str) -> str:
    """A name that a module has no attribute of yet."""
    found, count = name, 0
    while hasattr(module, found):
        count += 1
        found = f"{name}_{count}"
    return found


def _row_by_row(
    module: GraphModule, body: GraphModule, rows: int, over: list[Node], others: list[Any]
) -> list[Node]:
    graph = module.graph
    made = []
    for row in range(rows):
        slices = [graph.call_function(aten.select.int, (each, 0, row)) for each in over]
        results = _inline(graph, module, body, [*slices, *others])
        made.append([graph.call_function(aten.unsqueeze.default, (each, 0)) for each in results])
    return [
        graph.call_function(aten.cat.default, (list(each),)) for each in zip(*made, strict=True)
    ]


def _loop_over_rows(
    module: GraphModule, node: Node, body: GraphModule, over: list[Node], others: list[Any]
) -> list[Node]:
    """A ``while_loop`` that counts the rows, and puts each result into its place."""
    outputs = list(node.meta["val"])
    (rows, *_) = _value(over[0]).shape
    graph = module.graph
    number = rows
    operands = [*over, *others]
    if not isinstance(rows, int):
        number = graph.call_function(aten.sym_size.int, (over[0], 0))
        number.meta["val"] = rows
        operands.append(number)

    condition, root = Graph(), torch.nn.Module()
    carried = [condition.placeholder(f"carried_{i}") for i in range(1 + len(outputs))]
    given = [condition.placeholder(f"given_{i}") for i in range(len(operands))]
    last = rows if isinstance(rows, int) else given[-1]
    condition.output((condition.call_function(aten.lt.Scalar, (carried[0], last)),))
    conditions = GraphModule(root, condition)

    loop, root = Graph(), torch.nn.Module()
    carried = [loop.placeholder(f"carried_{i}") for i in range(1 + len(outputs))]
    given = [loop.placeholder(f"given_{i}") for i in range(len(operands))]
    at = carried[0]
    slices = [loop.call_function(aten.index.Tensor, (each, [at])) for each in given[: len(over)]]
    results = _inline(loop, root, body, [*slices, *given[len(over) : len(over) + len(others)]])
    placed = [
        loop.call_function(aten.index_put.default, (whole, [at], row))
        for whole, row in zip(carried[1:], results, strict=True)
    ]
    loop.output((loop.call_function(aten.add.Tensor, (at, 1)), *placed))
    bodies = GraphModule(root, loop)

    attributes = []
    for name, inside in (("map_condition", conditions), ("map_body", bodies)):
        name = _fresh(module, name)
        setattr(module, name, inside)
        attributes.append(graph.get_attr(name))
    begin = graph.call_function(aten.full.default, ([], 0), {"dtype": torch.int64, "device": CUDA})
    empty = []
    for value in outputs:
        shape = [number, *value.shape[1:]]
        made = graph.call_function(
            aten.full.default, (shape, 0), {"dtype": value.dtype, "device": CUDA}
        )
        empty.append(made)
    whole = graph.call_function(WHILE, (*attributes, (begin, *empty), tuple(operands)))
    picks = range(1, 1 + len(outputs))
    return [graph.call_function(operator.getitem, (whole, i)) for i in picks]


# Lowering.


@dataclasses.dataclass
class _Piece:
    """What is being made of one graph: the steps so far, and where values are, by node."""

    prefix: str
    memory: dict[str, Ref]
    steps: list[Step] = dataclasses.field(default_factory=list)


class Pieces:
    """Lowers a graph that has branches and loops."""

    def __init__(self, state: State, cache: Path) -> None:
        self._state = state
        self._cache = cache
        self._buffers: list[Buffer] = []
        self._staged: dict[str, Ref] = {}

    def translate(
        self, module: GraphModule, known: Mapping[str, Ref], results: Sequence[Ref]
    ) -> Translated:
        """Lowers a graph, as ``State.run`` does; what is wrong is in the state's offences."""
        steps, found = self._graph(module, known, results, "")
        return Translated(Procedure(buffers=tuple(self._buffers), steps=tuple(steps)), found)

    def _graph(
        self, module: GraphModule, known: Mapping[str, Ref], results: Sequence[Ref], prefix: str
    ) -> tuple[list[Step], tuple[Result, ...]]:
        """Lowers one graph; ``prefix`` begins the names of its temporaries."""
        passes.propagate(module, self._state.mode)
        _dense_operands(module.graph)
        passes.propagate(module, self._state.mode)
        (output,) = module.graph.find_nodes(op="output")
        pieces = _cut(module.graph)
        piece = _Piece(prefix, dict(known))
        found: tuple[Result, ...] = ()
        for i, nodes in enumerate(pieces.nodes):
            last = i == len(pieces.controls)
            wanted = pieces.results[i]
            places = list(results)
            strides = output.meta["original_output_strides"]
            if not last:
                places = [self._boundary(piece, node) for node in wanted]
                strides = [node.meta["val"].stride() for node in wanted]
            found = self._piece(module, piece, i, nodes, wanted, strides, places)
            if not last:
                self._control(module, piece, pieces.controls[i])
            if self._state.offences:
                return [], ()
        return piece.steps, found

    def _piece(
        self,
        module: GraphModule,
        piece: _Piece,
        number: int,
        nodes: AbstractSet[Node],
        wanted: Sequence[Node],
        strides: Sequence[Any],
        places: Sequence[Ref],
    ) -> tuple[Result, ...]:
        """Lowers the nodes between two branches or loops."""
        if not nodes and not wanted:
            return ()
        needed = {*wanted, *(operand for node in nodes for operand in node.all_input_nodes)}
        given = {node for node in needed - nodes if node.op != "placeholder"}
        keep = nodes | {node for node in needed if node.op == "placeholder"}
        part = folding.extract(module, keep, wanted, strides, given)
        prefix = f"{piece.prefix}{number}."
        done = self._state.lower(part, piece.memory, list(places), self._cache, prefix)
        # Nodes of graphs inside, and those that rewriting a piece has made, have no names outside.
        names = set() if piece.prefix else {node.name for node in nodes}
        for buffer in done.procedure.buffers:
            node = buffer.node if buffer.node in names else ""
            self._buffers.append(dataclasses.replace(buffer, node=node))
        piece.steps += done.procedure.steps
        return done.results

    def _boundary(self, piece: _Piece, node: Node) -> Ref:
        """A temporary for a value that other pieces need."""
        return self._temporary(piece, node.name, node.meta["val"], node.name)

    def _temporary(self, piece: _Piece, name: str, value: torch.Tensor, node: str = "") -> Ref:
        """A temporary for a value, laid out as the value is, which is what ``node`` computes."""
        buffer = self._buffer(f"{piece.prefix}{name}", value, "" if piece.prefix else node)
        ref = Ref(space="arena", name=buffer.name)
        if node:
            piece.memory[node] = ref
        return ref

    def _buffer(self, name: str, value: torch.Tensor, node: str = "") -> Buffer:
        dim = self._state.read.symbols.dim
        dtype = dtype_of(value.dtype)
        buffer = Buffer(
            name=name,
            dtype=dtype,
            shape=tuple(map(dim, value.shape)),
            strides=tuple(map(dim, value.stride())),
            nbytes=dim(_bytes(value, INFO[dtype].itemsize)),
            node=node,
        )
        self._buffers.append(buffer)
        return buffer

    def _operand(self, piece: _Piece, node: Node) -> Ref:
        """Where an operand of a branch or loop is. What is the caller's is copied, once."""
        ref = piece.memory[node.name]
        if ref.space != "input":
            return ref
        if ref.name not in self._staged:
            # Only the outermost graph knows of inputs, and it reads them before it writes any.
            buffer = self._buffer(f"staged.{ref.name}", node.meta["val"])
            staged = Ref(space="arena", name=buffer.name)
            piece.steps.append(Copy(dst=staged, src=ref, nbytes=buffer.nbytes, sources=()))
            self._staged[ref.name] = staged
        return self._staged[ref.name]

    def _control(self, module: GraphModule, piece: _Piece, node: Node) -> None:
        sources = self._state.sources_of(node)
        if node.target is COND:
            self._cond(module, piece, node, sources)
        else:
            self._while(module, piece, node, sources)

    def _cond(
        self, module: GraphModule, piece: _Piece, node: Node, sources: tuple[SourceNode, ...]
    ) -> None:
        predicate, yes, no, operands = node.args
        assert isinstance(predicate, Node)
        values = [_dense(value, self._state.mode) for value in node.meta["val"]]
        results = [
            self._temporary(piece, f"{node.name}.{i}", value) for i, value in enumerate(values)
        ]
        branches = {
            "then": _copied(module, yes, node),
            "otherwise": _copied(module, no, node),
        }
        at = self._operand(piece, predicate)
        inside = self._operands(piece, _sequence(operands), list(branches.values()))
        steps = {}
        for field, branch in branches.items():
            memory = _arguments(branch.graph, _sequence(operands), inside)
            _set_strides(branch.graph, [value.stride() for value in values])
            prefix = f"{piece.prefix}{node.name}.{field}."
            steps[field] = tuple(self._inside(branch, memory, results, prefix))
        piece.steps.append(
            If(
                kernel=set_condition.NAME,
                predicate=at,
                dtype=dtype_of(predicate.meta["val"].dtype),
                then=steps["then"],
                otherwise=steps["otherwise"],
                sources=sources,
            )
        )
        self._give(piece, node, results, values)

    def _while(
        self, module: GraphModule, piece: _Piece, node: Node, sources: tuple[SourceNode, ...]
    ) -> None:
        condition, body, carried, others = node.args
        values = [each.meta["val"] for each in _sequence(carried)]
        results = []
        for i, (first, value) in enumerate(zip(_sequence(carried), values, strict=True)):
            results.append(self._temporary(piece, f"{node.name}.{i}", value))
            nbytes = self._buffers[-1].nbytes
            if nbytes != 0:
                src = piece.memory[first.name]
                piece.steps.append(Copy(dst=results[-1], src=src, nbytes=nbytes, sources=sources))
        decides, repeated = _copied(module, condition, node), _copied(module, body, node)
        arguments = [*_sequence(carried), *_sequence(others)]
        inside = self._operands(piece, arguments, [decides, repeated], len(values))

        memory = _arguments(decides.graph, arguments, inside, results)
        passes.propagate(decides, self._state.mode)
        (output,) = decides.graph.find_nodes(op="output")
        flag = output.args[0][0].meta["val"]
        _set_strides(decides.graph, [flag.stride()])
        predicate = self._temporary(piece, f"{node.name}.condition", flag)
        prefix = f"{piece.prefix}{node.name}.condition."
        decide = self._inside(decides, memory, [predicate], prefix)

        memory = _arguments(repeated.graph, arguments, inside, results)
        passes.propagate(repeated, self._state.mode)
        (output,) = repeated.graph.find_nodes(op="output")
        new = zip(repeated.graph.find_nodes(op="placeholder"), output.args[0], strict=False)
        passes.update(repeated.graph, {old: value for old, value in new if old is not value})
        output.args = ((),)
        _set_strides(repeated.graph, [])
        repeat = self._inside(repeated, memory, [], f"{piece.prefix}{node.name}.body.")
        piece.steps.append(
            While(
                kernel=set_condition.NAME,
                predicate=predicate,
                dtype=dtype_of(flag.dtype),
                condition=tuple(decide),
                body=tuple(repeat),
                sources=sources,
            )
        )
        self._give(piece, node, results, values)

    def _operands(
        self,
        piece: _Piece,
        arguments: Sequence[Any],
        modules: Sequence[GraphModule],
        begin: int = 0,
    ) -> dict[str, Ref]:
        """Where the arguments from the one at ``begin`` on are that some graph inside reads."""
        read = {
            i
            for module in modules
            for i, placeholder in enumerate(module.graph.find_nodes(op="placeholder"))
            if placeholder.users
        }
        return {
            argument.name: self._operand(piece, argument)
            for i, argument in enumerate(arguments)
            if i >= begin and i in read and isinstance(_value(argument), torch.Tensor)
        }

    def _inside(
        self, module: GraphModule, memory: Mapping[str, Ref], results: Sequence[Ref], prefix: str
    ) -> list[Step]:
        """Lowers a graph inside a branch or loop."""
        state = self._state
        passes.propagate(module, state.mode)
        with passes.python_dispatch(state.mode):
            rewrites.decomposed(module, state.mode)
        steps, _ = self._graph(module, memory, results, prefix)
        return steps

    def _give(
        self, piece: _Piece, node: Node, results: Sequence[Ref], values: Sequence[torch.Tensor]
    ) -> None:
        """Tells where a branch's or loop's results are, and how they are laid out."""
        for getitem in node.users:
            index = getitem.args[1]
            assert isinstance(index, int)
            piece.memory[getitem.name] = results[index]
            getitem.meta["val"] = values[index]
            if not piece.prefix:
                name = results[index].name
                at = next(i for i, buffer in enumerate(self._buffers) if buffer.name == name)
                self._buffers[at] = dataclasses.replace(self._buffers[at], node=getitem.name)


def _bytes(value: torch.Tensor, itemsize: int) -> Any:
    """Bytes of a dense tensor."""
    elements: Any = sympy.S.One
    for size in value.shape:
        elements = elements * (size.node.expr if isinstance(size, torch.SymInt) else size)
    return sympy.expand(elements * itemsize)


def _dense(value: torch.Tensor, mode: Any) -> torch.Tensor:
    """A value of the same shape without gaps, of the same strides where it has none."""
    if is_non_overlapping_and_dense_or_false(value):
        return value
    with mode:
        return torch.empty_like(value, memory_format=torch.contiguous_format)


def _dense_operands(graph: Graph) -> None:
    """Copies operands of branches and loops that are views with gaps or overlaps."""
    for node in list(graph.nodes):
        if not is_control(node):
            continue
        for operand in node.all_input_nodes:
            value = operand.meta.get("val")
            if not isinstance(value, torch.Tensor) or is_non_overlapping_and_dense_or_false(value):
                continue
            with graph.inserting_before(node):
                copy = graph.call_function(
                    aten.clone.default, (operand,), {"memory_format": torch.contiguous_format}
                )
            copy.meta["custom"] = {passes.ORIGIN: passes.origins(operand)}
            node.replace_input_with(operand, copy)


def _copied(outside: GraphModule, attribute: Any, caller: Node) -> GraphModule:
    """A copy of a graph inside, to be changed, whose result is a tuple. Its nodes come from the
    node that calls it."""
    module = getattr(outside, str(attribute.target))
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in module.graph.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.op == "call_function":
            copies[node].meta["custom"] = _custom(caller)
    (output,) = graph.find_nodes(op="output")
    output.args = (tuple(_sequence(output.args[0])),)
    return GraphModule(module, graph)


def _arguments(
    graph: Graph,
    arguments: Sequence[Any],
    inside: Mapping[str, Ref],
    first: Sequence[Ref] = (),
) -> dict[str, Ref]:
    """Gives a graph's placeholders the values of its arguments; returns where they are: the first
    ones at ``first``, the others as ``inside`` says."""
    memory: dict[str, Ref] = {}
    placeholders = graph.find_nodes(op="placeholder")
    for i, (placeholder, argument) in enumerate(zip(placeholders, arguments, strict=True)):
        value = _value(argument)
        placeholder.meta["val"] = value
        if isinstance(value, torch.Tensor):
            ref = first[i] if i < len(first) else inside.get(argument.name)
            if ref is not None:
                memory[placeholder.name] = ref
    return memory


def _set_strides(graph: Graph, strides: Sequence[Any]) -> None:
    (output,) = graph.find_nodes(op="output")
    output.meta["original_output_strides"] = list(strides)


@dataclasses.dataclass(frozen=True)
class _Cut:
    """A graph cut at its branches and loops, ``controls``: the nodes of each piece, one more than
    those, and which of them other pieces need; the last one's results are the graph's."""

    controls: tuple[Node, ...]
    nodes: tuple[AbstractSet[Node], ...]
    results: tuple[tuple[Node, ...], ...]


def _cut(graph: Graph) -> _Cut:
    """Cuts a graph. A value is computed in the first piece that needs it; sizes and views are made
    anew in each that does."""
    controls = [node for node in graph.nodes if is_control(node)]
    number = {node: i for i, node in enumerate(controls)}
    (output,) = graph.find_nodes(op="output")
    where: dict[Node, set[int]] = {output: {len(controls)}}
    crossing: list[list[Node]] = [[] for _ in range(len(controls) + 1)]
    for node in reversed(graph.nodes):
        if node.op != "call_function" or node in number or _picks(node, number):
            continue
        by_control = {number[user] for user in node.users if user in number}
        by_others = {i for user in node.users if user not in number for i in where.get(user, ())}
        if passes.is_write_back(node):
            by_others.add(len(controls))
        if not isinstance(node.meta.get("val"), torch.Tensor):
            where[node] = by_others
        elif node.target in passes.VIEWS:
            where[node] = by_others | ({min(by_control)} if by_control else set())
            if by_control:
                crossing[min(by_control)].append(node)
        elif by_control | by_others:
            first = min(by_control | by_others)
            where[node] = {first}
            if by_control or by_others - {first}:
                crossing[first].append(node)
    pieces: list[set[Node]] = [set() for _ in range(len(controls) + 1)]
    for node, places in where.items():
        for i in places if node is not output else ():
            pieces[i].add(node)
    results = [tuple(reversed(each)) for each in crossing[:-1]]
    return _Cut(tuple(controls), tuple(pieces), (*results, tuple(output.args[0])))


def _picks(node: Node, controls: Collection[Node]) -> bool:
    """Whether a node is one of the results of a branch or loop."""
    return node.target is operator.getitem and node.args[0] in controls
