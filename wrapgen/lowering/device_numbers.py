"""Numbers read from tensors (``.item()``), which stay on the device.

``x * scale.item()`` reads a number back, waits for the GPU to do so, and hands the number to the
next kernel. Here it never leaves: before a graph is decomposed, each such number becomes a tensor
of no dimensions, arithmetic on it operators on such tensors, and an operator that takes it the one
that takes a tensor there. So a run stays asynchronous, and one CUDA graph.

Results are those of Python's numbers: a number takes no part in type promotion, and is rounded to
the type that the operator computes in, float32 for the halves.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

import sympy
import torch
from torch.fx import Graph, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from wrapgen.lowering.errors import Offence, unsupported
from wrapgen.program import SourceNode

aten = torch.ops.aten

_READS: Final = (aten.item.default, aten._local_scalar_dense.default)

# Operators by the overload that takes tensors, with the places of the operands. What computes in
# float32 for the halves is in _ARITHMETIC; the rest only chooses among its operands.
_ARITHMETIC: Final[dict[Any, tuple[Any, tuple[int, ...]]]] = {
    aten.add.Tensor: (aten.add.Tensor, (0, 1)),
    aten.add.Scalar: (aten.add.Tensor, (0, 1)),
    aten.sub.Tensor: (aten.sub.Tensor, (0, 1)),
    aten.sub.Scalar: (aten.sub.Tensor, (0, 1)),
    aten.rsub.Scalar: (aten.sub.Tensor, (1, 0)),
    aten.rsub.Tensor: (aten.sub.Tensor, (1, 0)),
    aten.mul.Tensor: (aten.mul.Tensor, (0, 1)),
    aten.mul.Scalar: (aten.mul.Tensor, (0, 1)),
    aten.div.Tensor: (aten.div.Tensor, (0, 1)),
    aten.div.Scalar: (aten.div.Tensor, (0, 1)),
    aten.div.Tensor_mode: (aten.div.Tensor_mode, (0, 1)),
    aten.div.Scalar_mode: (aten.div.Tensor_mode, (0, 1)),
    aten.floor_divide.default: (aten.floor_divide.default, (0, 1)),
    aten.floor_divide.Scalar: (aten.floor_divide.default, (0, 1)),
    aten.remainder.Tensor: (aten.remainder.Tensor, (0, 1)),
    aten.remainder.Scalar: (aten.remainder.Tensor, (0, 1)),
    aten.remainder.Scalar_Tensor: (aten.remainder.Tensor, (0, 1)),
    aten.fmod.Scalar: (aten.fmod.Tensor, (0, 1)),
    aten.pow.Tensor_Scalar: (aten.pow.Tensor_Tensor, (0, 1)),
    aten.pow.Scalar: (aten.pow.Tensor_Tensor, (0, 1)),
    aten.lerp.Scalar: (aten.lerp.Tensor, (0, 1, 2)),
}
_CHOICES: Final[dict[Any, tuple[Any, tuple[int, ...]]]] = {
    aten.bitwise_and.Scalar: (aten.bitwise_and.Tensor, (0, 1)),
    aten.bitwise_or.Scalar: (aten.bitwise_or.Tensor, (0, 1)),
    aten.bitwise_xor.Scalar: (aten.bitwise_xor.Tensor, (0, 1)),
    aten.clamp.default: (aten.clamp.Tensor, (0, 1, 2)),
    aten.clamp_max.default: (aten.clamp_max.Tensor, (0, 1)),
    aten.clamp_min.default: (aten.clamp_min.Tensor, (0, 1)),
    aten.where.Scalar: (aten.where.self, (1, 2)),
    aten.where.ScalarOther: (aten.where.self, (1, 2)),
    aten.where.ScalarSelf: (aten.where.self, (1, 2)),
    aten.masked_fill.Scalar: (aten.masked_fill.Tensor, (0, 2)),
    aten.fill.Scalar: (aten.fill.Tensor, (0, 1)),
    aten.index_fill.int_Scalar: (aten.index_fill.int_Tensor, (0, 3)),
}
_COMPARISONS: Final[dict[Any, tuple[Any, tuple[int, ...]]]] = {
    getattr(aten, name).Scalar: (getattr(aten, name).Tensor, (0, 1))
    for name in ("eq", "ne", "lt", "le", "gt", "ge")
}
_FILLS: Final = {
    aten.full.default: 1,
    aten.full_like.default: 1,
    aten.new_full.default: 2,
    aten.scalar_tensor.default: 0,
}
"""Where in its arguments an operator has the number that it fills a new tensor with."""

_PYTHON: Final[dict[Any, Callable[..., Any]]] = {
    operator.add: aten.add.Tensor,
    operator.sub: aten.sub.Tensor,
    operator.mul: aten.mul.Tensor,
    operator.truediv: aten.div.Tensor,
    operator.mod: aten.remainder.Tensor,
    operator.pow: aten.pow.Tensor_Tensor,
    operator.neg: aten.neg.default,
    operator.pos: aten.alias.default,
    operator.eq: aten.eq.Tensor,
    operator.ne: aten.ne.Tensor,
    operator.lt: aten.lt.Tensor,
    operator.le: aten.le.Tensor,
    operator.gt: aten.gt.Tensor,
    operator.ge: aten.ge.Tensor,
    operator.and_: aten.bitwise_and.Tensor,
    operator.or_: aten.bitwise_or.Tensor,
    torch.sym_not: aten.logical_not.default,
    torch.sym_max: aten.maximum.default,
    torch.sym_min: aten.minimum.default,
    math.ceil: aten.ceil.default,
    math.floor: aten.floor.default,
    math.trunc: aten.trunc.default,
    torch.sym_int: aten.trunc.default,
    torch.sym_float: aten.alias.default,
} | {
    function: getattr(aten, name).default
    for name in ("sqrt", "cos", "cosh", "sin", "sinh", "tan", "tanh", "asin", "acos", "atan")
    if (function := getattr(torch, f"_sym_{name}", None)) is not None
}
"""What Python computes with numbers, as operators on tensors of int64, float64 or bool."""

_REASON: Final = (
    "it takes a number that is on the GPU, which reading back would wait for: pass a tensor"
)
_RESULT: Final = "the model returns a number that is on the GPU: return it as a tensor"
_SIZE: Final = "sizes and numbers that depend on a tensor's values are known on the GPU alone"
_VIEW: Final = (
    "it is a view at a place that is known on the GPU alone, and memory is changed in place behind"
    " it: use index_select and index_copy, or change it before"
)
_CHECK: Final = "it checks a number that is on the GPU, which would have to be waited for"


def keep(graph: Graph, sources: dict[str, SourceNode]) -> None:
    """Rewrites an exported graph; its nodes have the values that PyTorch's deserialiser gave.

    ``sources`` says where nodes come from; those that compute a number are added.

    Raises:
      LoweringError: a size depends on a number, a check does, or an operator takes one that has no
        overload for it; the message lists all.
    """
    rewrite = _Rewrite(graph, sources)
    if rewrite.offences:
        raise unsupported(
            [
                Offence(str(node.target), reason, sources.get(node.name))
                for node, reason in rewrite.offences
            ],
            "any target",
        )


class _Rewrite:
    def __init__(self, graph: Graph, sources: dict[str, SourceNode]) -> None:
        self._graph = graph
        self._sources = sources
        self._numbers: dict[Node, Node] = {}
        self._flags: set[sympy.Symbol] = set()
        self.offences: list[tuple[Node, str]] = []
        known: set[sympy.Symbol] = set()
        for node in list(graph.nodes):
            if node.op == "call_function":
                value = node.meta.get("val")
                new = free_unbacked_symbols(value) - known
                known |= new
                if node.target is aten.select.int and self._takes(node):
                    self._select(node)
                elif isinstance(value, torch.Tensor) and free_unbacked_symbols(value):
                    if new or self._takes(node):
                        self.offences.append((node, _SIZE))
                else:
                    self._visit(node, new)
            elif node.op == "output" and self._takes(node):
                number = next(n for n in node.all_input_nodes if n in self._numbers)
                self.offences.append((number, _RESULT))
        if not self.offences:
            for node in reversed(list(self._numbers)):
                graph.erase_node(node)

    def _takes(self, node: Node) -> bool:
        return any(operand in self._numbers for operand in node.all_input_nodes)

    def _visit(self, node: Node, new: set[sympy.Symbol]) -> None:
        if node.target in _READS:
            self._flags |= new if isinstance(node.meta["val"], torch.SymBool) else set()
            self._read(node)
        elif not self._takes(node):
            return
        elif node.target is aten._assert_scalar.default:
            self._check(node)
        elif node.target in _PYTHON or node.target in (torch.sym_ite, operator.floordiv):
            self._compute(node)
        elif node.target in _FILLS:
            self._fill(node, _FILLS[node.target])
        elif node.target in _ARITHMETIC:
            self._operate(node, *_ARITHMETIC[node.target])
        elif node.target in _CHOICES:
            target, places = _CHOICES[node.target]
            self._replace(node, target, places, node.meta["val"].dtype)
        elif node.target in _COMPARISONS:
            target, places = _COMPARISONS[node.target]
            self._replace(node, target, places, self._compared(node))
        elif (functional := _functional(node.target)) is not None:
            self._update(node, functional)
        else:
            self.offences.append((node, _REASON))

    def _call(self, like: Node, target: Any, *args: Any, **kwargs: Any) -> Node:
        """A new node in front of ``like``, with its place in the model."""
        with self._graph.inserting_before(like):
            node = self._graph.call_function(target, args, kwargs)
        node.meta = {
            key: like.meta[key] for key in ("stack_trace", "nn_module_stack") if key in like.meta
        }
        return node

    def _computed(self, made: Node, node: Node) -> None:
        """Notes that a new node computes what ``node`` did."""
        if node.name in self._sources:
            self._sources[made.name] = self._sources[node.name]

    def _cast(self, like: Node, number: Node, dtype: torch.dtype) -> Node:
        """A number on the device, in a type."""
        base = self._numbers[number]
        if base.meta["val"].dtype == dtype:
            return base
        node = self._call(like, aten.to.dtype, base, dtype)
        node.meta["val"] = base.meta["val"].to(dtype)
        return node

    def _operand(self, like: Node, value: Any, dtype: torch.dtype) -> Any:
        """An operand of ``like`` as a tensor of a type."""
        if isinstance(value, Node) and value in self._numbers:
            return self._cast(like, value, dtype)
        if isinstance(value, Node) and isinstance(value.meta.get("val"), torch.Tensor):
            if value.meta["val"].dtype == dtype:
                return value
            node = self._call(like, aten.to.dtype, value, dtype)
            node.meta["val"] = value.meta["val"].to(dtype)
            return node
        if value is None:
            return None
        return self._call(like, aten.scalar_tensor.default, value, dtype=dtype)

    def _read(self, node: Node) -> None:
        (tensor,) = node.args
        assert isinstance(tensor, Node)
        value = tensor.meta["val"]
        scalar = tensor
        if value.dim():
            scalar = self._call(node, aten.reshape.default, tensor, [])
            scalar.meta["val"] = value.new_empty(())
        if self._written_later(node):
            # The number is what the tensor held when it was read.
            scalar = self._call(node, aten.clone.default, scalar)
            scalar.meta["val"] = value.new_empty(())
        self._numbers[node] = scalar

    def _written_later(self, node: Node) -> bool:
        """Whether anything is changed in place behind a node."""
        while (node := node.next).op != "output":
            schema = getattr(node.target, "_schema", None)
            if node.op == "call_function" and schema is not None and schema.is_mutable:
                return True
        return False

    def _kind(self, node: Node) -> torch.dtype:
        """The type in which Python's number is held."""
        value = node.meta["val"]
        if isinstance(value, (bool, torch.SymBool)):
            return torch.bool
        return torch.float64 if isinstance(value, (float, torch.SymFloat)) else torch.int64

    def _compute(self, node: Node) -> None:
        """Arithmetic among numbers."""
        kinds = [self._kind(arg) if isinstance(arg, Node) else _kind_of(arg) for arg in node.args]
        result = self._kind(node)
        wide = max([*kinds, result], key=_WIDTH.index)
        first = 0
        operands: list[Any] = []
        if node.target is torch.sym_ite:
            operands, first, wide = [self._operand(node, node.args[0], torch.bool)], 1, result
        elif node.target in _BETWEEN_INTEGERS and wide is torch.bool:
            wide = torch.int64
        operands += [self._operand(node, arg, wide) for arg in node.args[first:]]
        if node.target is operator.floordiv:
            made = self._call(node, aten.div.Tensor_mode, *operands, rounding_mode="floor")
        elif node.target is torch.sym_ite:
            made = self._call(node, aten.where.self, *operands)
        else:
            made = self._call(node, _PYTHON[node.target], *operands)
        like = next(iter(self._numbers.values())).meta["val"]
        made.meta["val"] = like.new_empty((), dtype=wide)
        if node.target in _COMPARING:
            made.meta["val"] = like.new_empty((), dtype=torch.bool)
        self._numbers[node] = made
        self._computed(made, node)
        if made.meta["val"].dtype != result:
            self._numbers[node] = self._cast(node, node, result)

    def _fill(self, node: Node, place: int) -> None:
        """A new tensor full of a number."""
        value = node.meta["val"]
        number = node.args[place]
        if not isinstance(number, Node) or number not in self._numbers:
            self.offences.append((node, _SIZE))
            return
        scalar = self._cast(node, number, value.dtype)
        if scalar.op == "call_function":
            self._computed(scalar, node)
        result = self._call(node, aten.alias.default, scalar)
        if value.dim():
            wide = self._call(node, aten.expand.default, scalar, list(self._shape(node)))
            result = self._call(
                node, aten.clone.default, wide, memory_format=torch.contiguous_format
            )
        self._finish(node, result)

    def _shape(self, node: Node) -> Sequence[Any]:
        if node.target is aten.full_like.default:
            like = node.args[0]
            return [
                size if isinstance(size, int) else self._call(node, aten.sym_size.int, like, i)
                for i, size in enumerate(node.meta["val"].shape)
            ]
        shape: Any = node.args[1 if node.target is aten.new_full.default else 0]
        return list(shape)

    def _operate(self, node: Node, target: Any, places: tuple[int, ...]) -> None:
        dtype = node.meta["val"].dtype
        wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
        alpha = node.kwargs.get("alpha", node.args[2] if _has_alpha(node) else 1)
        args = list(node.args)
        if alpha != 1:
            scaled = self._call(
                node,
                aten.mul.Tensor,
                self._operand(node, args[1], wide),
                self._operand(node, alpha, wide),
            )
            scaled.meta["val"] = args[1].meta["val"].to(wide) if isinstance(args[1], Node) else None
            args[1] = scaled
        operands = [self._operand(node, args[place], wide) for place in places]
        kwargs = {key: value for key, value in node.kwargs.items() if key != "alpha"}
        made = self._call(node, target, *operands, **kwargs)
        if wide != dtype:
            made = self._call(node, aten.to.dtype, made, dtype)
        self._finish(node, made)

    def _select(self, node: Node) -> None:
        """One place along a dimension: a value of its own, where PyTorch's is a view."""
        tensor, dim, number = node.args
        if not isinstance(tensor, Node) or tensor in self._numbers or dim in self._numbers:
            self.offences.append((node, _REASON))
            return
        if self._written_later(node):
            self.offences.append((node, _VIEW))
            return
        size: Any = tensor.meta["val"].shape[dim]
        if not isinstance(size, int):
            size = self._call(node, aten.sym_size.int, tensor, dim)
        index = self._operand(node, number, torch.int64)
        last = self._operand(node, size, torch.int64)
        from_end = self._call(node, aten.add.Tensor, index, last)
        negative = self._call(node, aten.lt.Scalar, index, 0)
        place = self._call(node, aten.where.self, negative, from_end, index)
        place = self._call(node, aten.reshape.default, place, [1])
        one = self._call(node, aten.index_select.default, tensor, dim, place)
        self._finish(node, self._call(node, aten.squeeze.dim, one, dim))

    def _compared(self, node: Node) -> torch.dtype:
        """The type in which a tensor is compared with a number."""
        tensor: Any = node.args[0]
        own: torch.dtype = tensor.meta["val"].dtype
        kind = self._kind(node.args[1])
        if kind is torch.float64 and not own.is_floating_point:
            return torch.get_default_dtype()
        return torch.int64 if own is torch.bool and kind is torch.int64 else own

    def _replace(
        self, node: Node, target: Any, places: tuple[int, ...], dtype: torch.dtype
    ) -> None:
        """Calls another overload, with the operands at ``places`` as tensors of a type."""
        args = list(node.args)
        for place in places:
            if place < len(args):
                args[place] = self._operand(node, args[place], dtype)
        kwargs = {
            key: self._operand(node, value, dtype)
            if isinstance(value, (int, float)) or value in self._numbers
            else value
            for key, value in node.kwargs.items()
        }
        self._finish(node, self._call(node, target, *args, **kwargs))

    def _update(self, node: Node, functional: Any) -> None:
        """An operator in place: the new value, copied."""
        target: Any = node.args[0]
        value = self._call(node, functional, *node.args, **node.kwargs)
        value.meta["val"] = node.meta["val"]
        copy = self._call(node, aten.copy_.default, target, value)
        self._visit(value, set())
        self._finish(node, copy)

    def _check(self, node: Node) -> None:
        """A check that always holds goes; PyTorch makes such of a bool's values."""
        asserted = node.args[0]
        value = asserted.meta.get("val") if isinstance(asserted, Node) else asserted
        if isinstance(value, torch.SymBool):
            condition = value.node.expr
            if not self._holds(condition):
                self.offences.append((node, _CHECK))
                return
        self._graph.erase_node(node)

    def _holds(self, condition: Any) -> bool:
        symbols = condition.free_symbols
        if not symbols <= self._flags or len(symbols) != 1:
            return False
        (flag,) = symbols
        return all(condition.xreplace({flag: sympy.Integer(i)}) == sympy.true for i in (0, 1))

    def _finish(self, node: Node, made: Node) -> None:
        """Puts ``made`` in the place of ``node``, under its name."""
        made.meta = {**node.meta, "val": node.meta["val"]}
        node.replace_all_uses_with(made)
        name = node.name
        self._graph.erase_node(node)
        made.name = name


_WIDTH: Final = (torch.bool, torch.int64, torch.float64)
_BETWEEN_INTEGERS: Final = (operator.add, operator.sub, operator.mul, operator.neg, operator.mod)
_COMPARING: Final = (
    operator.eq,
    operator.ne,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    torch.sym_not,
)


def _kind_of(value: Any) -> torch.dtype:
    if isinstance(value, bool):
        return torch.bool
    return torch.float64 if isinstance(value, float) else torch.int64


def _has_alpha(node: Node) -> bool:
    schema = node.target._schema
    return len(node.args) > 2 and schema.arguments[2].name == "alpha"


def _functional(target: Any) -> Any:
    """The operator that computes what one in place would write; ``None`` where there is none."""
    schema = getattr(target, "_schema", None)
    if schema is None or not schema.name.endswith("_") or schema.name.endswith("__"):
        return None
    packet = getattr(aten, schema.name.removeprefix("aten::")[:-1], None)
    found = getattr(packet, schema.overload_name or "default", None)
    return found if found in {*_ARITHMETIC, *_CHOICES, *_COMPARISONS} else None
