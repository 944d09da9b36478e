"""The exported program run by PyTorch on the CPU: as exported, and in float64.

The archive is opened by ``torch.export.load``, which unpickles. That is right here and nowhere
else: the test runs what its own build made or was given to build, with no more rights than it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    InputKind,
    OutputKind,
    SymIntArgument,
    TensorArgument,
)
from torch.utils._pytree import tree_map

from aoti.testing import user_kernels

aten = torch.ops.aten

_CHECKS = {
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
}
"""What compares with dtypes and devices of the export."""


class EagerError(RuntimeError):
    """PyTorch cannot run the program. The message names the node."""


@dataclasses.dataclass(frozen=True)
class Results:
    """What a run gives, on the CPU.

    Attributes:
      outputs: the tensors that the model returns, in order.
      mutated: input name to its value after the run, for all tensor inputs.
      emulated: names of operations that PyTorch lacks on the CPU in the program's dtype; they were
        computed in float32 and rounded.
    """

    outputs: tuple[torch.Tensor, ...]
    mutated: dict[str, torch.Tensor]
    emulated: tuple[str, ...]


class Eager:
    """A ``.pt2`` file."""

    def __init__(self, path: Path) -> None:
        self.program: ExportedProgram = user_kernels.load(path)

    def run(self, inputs: Mapping[str, Any], precision: torch.dtype | None = None) -> Results:
        """Runs the program operation by operation; ``inputs`` stay as they are.

        Args:
          inputs: name to tensor or, for scalars, integer.
          precision: ``None`` for the dtypes of the export; or the floating-point type that stands
            for all narrower ones, in weights, inputs and in between.

        Raises:
          EagerError: an operation fails.
        """
        program = self.program
        state = {**program.state_dict, **program.constants}
        arguments: list[Any] = []
        tensors: dict[str, torch.Tensor] = {}
        for spec in program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                if isinstance(spec.arg, (TensorArgument, SymIntArgument)):
                    if spec.arg.name not in inputs and isinstance(spec.arg, SymIntArgument):
                        raise EagerError(f"input {spec.arg.name} has no value")
                    # An input that no operation reads is none of the library's.
                    value = inputs.get(spec.arg.name)
                    value = widened(value, precision, copy=True)
                    if isinstance(value, torch.Tensor):
                        tensors[spec.arg.name] = value
                else:
                    value = getattr(spec.arg, "value", None)
            else:
                assert spec.target is not None
                value = state[spec.target]
                value = value.detach() if isinstance(value, torch.Tensor) else value
                value = widened(value, precision, copy=spec.kind is InputKind.BUFFER)
            arguments.append(value)
        interpreter = Interpreter(program.graph_module, precision)
        with torch.no_grad():
            results = interpreter.run(*arguments)
        outputs = []
        for spec, value in zip(program.graph_signature.output_specs, results, strict=True):
            if spec.kind is OutputKind.USER_INPUT_MUTATION:
                assert spec.target is not None
                tensors[spec.target] = value
            elif spec.kind is OutputKind.USER_OUTPUT and isinstance(value, torch.Tensor):
                outputs.append(value)
        return Results(tuple(outputs), tensors, tuple(sorted(interpreter.emulated)))


def widened(value: Any, precision: torch.dtype | None, *, copy: bool = False) -> Any:
    """A tensor in a wider floating-point type if its own is narrower; all else as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    if precision is not None and _narrower(value.dtype, precision):
        return value.to(precision)
    if not copy:
        return value
    result = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype)
    return result.copy_(value)


def _narrower(dtype: torch.dtype, precision: torch.dtype) -> bool:
    return bool(dtype.is_floating_point and dtype.itemsize < precision.itemsize)


class Interpreter(torch.fx.Interpreter):
    """Runs a graph of ATen operations on the CPU, whatever device it was made for.

    With a ``precision``, every narrower floating-point type becomes that one, in arguments that
    name a dtype and in results. Without, an operation that PyTorch lacks on the CPU in some dtype
    is computed in float32 and rounded to what the graph says; ``emulated`` has its name.
    """

    def __init__(self, module: torch.fx.GraphModule, precision: torch.dtype | None = None) -> None:
        super().__init__(module)
        self.extra_traceback = False  # errors name the node already
        self.precision = precision
        self.emulated: set[str] = set()
        self._node: torch.fx.Node | None = None

    def run_node(self, n: torch.fx.Node) -> Any:
        """Runs a node; errors bear its name and its place in the model."""
        self._node = n
        try:
            return super().run_node(n)
        except EagerError:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise EagerError(f"{n.name} ({n.target}): {lines[0]}") from error

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Calls an operation with dtypes and devices replaced."""
        if target in _CHECKS:
            return None
        if target is aten.view.default:
            target = aten.reshape.default  # the same values, also where memory has another order
        if target is torch.ops.higher_order.wrap_with_set_grad_enabled:
            return self._inside(args[1], args[2:])
        if isinstance(target, torch._ops.HigherOrderOperator) and target.name() in _CONTROL:
            return _CONTROL[target.name()](self._inside, *args, **kwargs)
        if target is not aten.view.dtype:
            args, kwargs = tree_map(self._argument, (tuple(args), dict(kwargs)))
        try:
            result = super().call_function(target, args, kwargs)
        except RuntimeError as error:
            if self.precision is not None or "not implemented for" not in str(error):
                raise
            result = self._emulate(target, args, kwargs)
        if self.precision is None or target is aten.view.dtype:
            return result
        if args and result is args[0]:
            result = self._copied(result)
        return tree_map(lambda value: widened(value, self.precision), result)

    def _copied(self, value: Any) -> Any:
        """A copy of an operand that is its own result where the export's is a conversion to another
        type, and so a copy: what changes one in place must not change the other."""
        assert self._node is not None
        source = self._node.args[0]
        before = source.meta.get("val") if isinstance(source, torch.fx.Node) else None
        after = self._node.meta.get("val")
        if isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
            return value.clone() if before.dtype != after.dtype else value
        return value

    def _inside(self, module: torch.fx.GraphModule, arguments: Sequence[Any]) -> Any:
        """Runs a graph inside this one."""
        inside = Interpreter(module, self.precision)
        result = inside.run(*arguments)
        self.emulated |= inside.emulated
        return result

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu")
        if isinstance(value, torch.dtype) and self.precision is not None:
            return self.precision if _narrower(value, self.precision) else value
        return value

    def _emulate(self, target: Any, args: Any, kwargs: Any) -> Any:
        assert self._node is not None
        self.emulated.add(str(target))
        wide = tree_map(lambda value: widened(value, torch.float32), (tuple(args), dict(kwargs)))
        result = super().call_function(target, *wide)
        declared = self._node.meta.get("val")

        def rounded(value: Any, like: Any) -> Any:
            if isinstance(value, torch.Tensor) and isinstance(like, torch.Tensor):
                return value.to(like.dtype)
            return value

        if isinstance(result, (tuple, list)):
            assert isinstance(declared, (tuple, list))
            return type(result)(map(rounded, result, declared))
        return rounded(result, declared)


_Run = Callable[[torch.fx.GraphModule, Sequence[Any]], Any]


def _cond(run: _Run, predicate: Any, yes: Any, no: Any, operands: Sequence[Any] = ()) -> Any:
    return run(yes if predicate else no, operands)


def _while_loop(
    run: _Run, condition: Any, body: Any, carried: Sequence[Any], others: Sequence[Any]
) -> Any:
    values = tuple(carried)
    while run(condition, (*values, *others)):
        values = tuple(run(body, (*values, *others)))
    return values


def _map(run: _Run, body: Any, over: Sequence[Any], others: Sequence[Any]) -> Any:
    rows = [run(body, (*row, *others)) for row in zip(*over, strict=True)]
    return tuple(torch.stack(results) for results in zip(*rows, strict=True))


_CONTROL: Final[dict[str, Callable[..., Any]]] = {
    "cond": _cond,
    "while_loop": _while_loop,
    "map_impl": _map,
}
"""What branches and loops do, for any way to run the graphs inside."""
