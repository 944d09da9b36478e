"""Reads ``graph.json``: the exported program without weight values."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import sympy
import torch
from torch._export.serde import schema, serialize
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from wrapgen import user_kernels
from wrapgen.dtype import DType
from wrapgen.lowering import arguments, device_numbers, guards, passes
from wrapgen.lowering.errors import CUSTOM, LoweringError, Offence, unsupported
from wrapgen.lowering.symbols import Input, Symbols, declare, expression_of
from wrapgen.program import SourceNode, Weight
from wrapgen.user_kernel_op import triton_kernel  # noqa: F401 (graphs may call it)

SCHEMA_VERSION = 3


@dataclasses.dataclass(frozen=True)
class GraphFile:
    """A model as exported, with fake weights.

    Attributes:
      program: the exported program. All its tensors are fake, weights contiguous.
      weights: placeholder name to tensor of the weights file, in the program's order.
      sources: node name to where it comes from.
      inputs: every argument, flat and in order, constants included.
      symbols: the sizes and integers that are known only at run time.
      mode: what made the fake tensors.
      kernels: the model's own Triton kernels.
    """

    program: ExportedProgram
    weights: dict[str, Weight]
    sources: dict[str, SourceNode]
    inputs: tuple[Input, ...]
    symbols: Symbols
    mode: FakeTensorMode
    kernels: user_kernels.UserKernels = user_kernels.NONE

    @property
    def names(self) -> dict[str, str]:
        """Placeholder name to qualified name of each weight."""
        return {placeholder: weight.name for placeholder, weight in self.weights.items()}


def read(path: Path) -> GraphFile:
    """Reads a graph that ``wrapgen split`` wrote.

    Raises:
      LoweringError: the file is not such a graph, or one of another version of the format.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document["schema_version"]
        serialised, tensors = document["exported_program"], document["tensors"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise LoweringError(f"{path}: not a graph written by `wrapgen split`: {error}") from error
    if version != SCHEMA_VERSION:
        raise LoweringError(
            f"{path}: schema_version is {version!r}, this wrapgen reads {SCHEMA_VERSION}; "
            "split the model again with this version"
        )
    kernels = user_kernels.NONE
    if "triton_kernels" in document:
        try:
            kernels = user_kernels.parse(document["triton_kernels"], f"{path}: triton_kernels")
        except user_kernels.KernelFormatError as error:
            raise LoweringError(str(error)) from error
    _refuse_custom(serialised["graph_module"]["graph"])
    # PyTorch would compile guards; guards.py reads them.
    program = _deserialise(serialised | {"guards_code": []}, tensors)
    sources = {
        node["name"]: _source(node)
        for node in serialised["graph_module"]["graph"]["nodes"]
        if node.get("name")
    }
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            device_numbers.keep(module.graph, sources)
            module.recompile()
    symbols, made = _declare(program, serialised.get("guards_code", ()))
    mode = symbols.fake_mode()
    weights = _use_fakes(program, symbols, made, mode)
    return GraphFile(
        program=program,
        weights=weights,
        sources=sources,
        inputs=tuple(arguments.inputs_of(program)),
        symbols=symbols,
        mode=mode,
        kernels=kernels,
    )


def _refuse_custom(graph: Mapping[str, Any]) -> None:
    """Raises if a node, or one of a graph inside, calls an operator that PyTorch does not have."""
    offences = []
    pending = [graph]
    while pending:
        for node in pending.pop()["nodes"]:
            if not _is_known(node["target"]):
                op = node["target"].removeprefix("torch.ops.")
                offences.append(Offence(op, CUSTOM, _source(node) if node.get("name") else None))
            values = [named["arg"] for named in node["inputs"]]
            pending += [value["as_graph"]["graph"] for value in values if "as_graph" in value]
    if offences:
        raise unsupported(offences, "any target")


def _is_known(target: str) -> bool:
    if not target.startswith("torch.ops."):
        return True
    found: Any = torch.ops
    for part in target.split(".")[2:]:
        try:
            found = getattr(found, part)
        except AttributeError:
            return False
    return True


def torch_dtype(dtype: DType) -> torch.dtype:
    """PyTorch's object for an element type."""
    found = getattr(torch, dtype.value)
    assert isinstance(found, torch.dtype)
    return found


def dtype_of(dtype: torch.dtype) -> DType:
    """The element type of a PyTorch dtype; raises ``LoweringError`` for one that has none."""
    name = str(dtype).removeprefix("torch.")
    try:
        return DType(name)
    except ValueError:
        known = ", ".join(DType)
        raise LoweringError(f"tensors of dtype {name} are not supported, only {known}") from None


_ROLES: Final[Mapping[InputKind, Literal["parameter", "buffer", "constant"]]] = {
    InputKind.PARAMETER: "parameter",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
}


def _deserialise(serialised: Any, tensors: dict[str, dict[str, Any]]) -> ExportedProgram:
    """Runs PyTorch's own deserialiser, with tensors on the meta device for weights."""
    state: dict[str, torch.Tensor] = {}
    constants: dict[str, torch.Tensor] = {}
    transient = {
        spec["buffer"]["buffer_name"]
        for spec in serialised["graph_module"]["signature"]["input_specs"]
        if "buffer" in spec and not spec["buffer"].get("persistent", True)
    }
    for fqn, spec in sorted(tensors.items()):
        value = torch.empty(spec["shape"], dtype=torch_dtype(DType(spec["dtype"])), device="meta")
        if spec["kind"] == "parameter":
            state[fqn] = torch.nn.Parameter(value, requires_grad=False)
        elif spec["kind"] == "buffer" and fqn not in transient:
            state[fqn] = value
        else:
            # Buffers that are not persistent are in no state dict.
            constants[fqn] = value
    parse: Any = serialize._dict_to_dataclass
    program = parse(schema.ExportedProgram, serialised)
    return serialize.ExportedProgramDeserializer().deserialize(program, state, constants)


def _refuse_sizes_from_values(program: ExportedProgram, sources: Mapping[str, SourceNode]) -> None:
    """Raises if a size depends on what a tensor holds (``nonzero``, ``item``)."""
    known: set[sympy.Symbol] = set()
    offences = []
    for node in program.graph.nodes:
        found = free_unbacked_symbols(node.meta.get("val")) - known
        if found and node.op == "call_function":
            known |= found
            reason = "sizes and numbers that depend on a tensor's values are known on the GPU alone"
            offences.append(Offence(str(node.target), reason, sources.get(node.name)))
    if offences:
        raise unsupported(offences, "any target")


def _declare(
    program: ExportedProgram, texts: Sequence[str]
) -> tuple[Symbols, dict[sympy.Symbol, Any]]:
    """Makes symbols of the export's; assertions about sizes leave the graph for the constraints."""
    inputs = arguments.inputs_of(program)
    given = arguments.arguments_of(program, inputs)
    conditions = [guards.condition(text, given) for text in texts]
    for node in program.graph.find_nodes(
        op="call_function", target=torch.ops.aten._assert_scalar.default
    ):
        asserted = node.args[0]
        value = asserted.meta.get("val") if isinstance(asserted, Node) else asserted
        if isinstance(value, torch.SymBool):
            conditions.append(value.node.expr)
        program.graph.erase_node(node)
    return declare(inputs, program.range_constraints, conditions)


def _use_fakes(
    program: ExportedProgram, symbols: Symbols, made: Mapping[sympy.Symbol, Any], mode: Any
) -> dict[str, Weight]:
    """Gives every node a value of ``mode`` whose sizes are in ``symbols``; returns the weights.

    Weights are contiguous as in the weights file. The exported program may have other strides (a
    model in ``channels_last``).
    """

    def size(value: Any) -> Any:
        if isinstance(value, int):
            return value
        return symbols.size(expression_of(value).xreplace(made))

    placeholders = {node.name: node for node in program.graph.find_nodes(op="placeholder")}
    weights: dict[str, Weight] = {}
    for spec in program.graph_signature.input_specs:
        node = placeholders[spec.arg.name]
        value = node.meta.get("val")
        if isinstance(value, torch.SymInt):
            node.meta["val"] = size(value)
        if not isinstance(value, torch.Tensor):
            continue
        kind = {"dtype": value.dtype, "device": value.device}
        with mode:
            if spec.kind is InputKind.USER_INPUT:
                shape, strides = map(size, value.shape), map(size, value.stride())
                node.meta["val"] = torch.empty_strided(tuple(shape), tuple(strides), **kind)
                continue
            value = torch.empty(value.shape, **kind)
        assert spec.target is not None
        node.meta["val"] = value
        if spec.target in program._state_dict:
            is_parameter = spec.kind is InputKind.PARAMETER
            program._state_dict[spec.target] = (
                torch.nn.Parameter(value, requires_grad=False) if is_parameter else value
            )
        if spec.target in program._constants:
            program._constants[spec.target] = value
        weights[node.name] = Weight(
            name=spec.target,
            dtype=dtype_of(value.dtype),
            shape=tuple(value.shape),
            role=_ROLES[spec.kind],
        )
    inputs = [node.meta.get("val") for node in placeholders.values()]
    with passes.python_dispatch(mode):
        FakeTensorProp(program.graph_module, mode).propagate_dont_convert_inputs(*inputs)
    return weights


_FRAME = re.compile(
    r'File "(?P<file>[^"\n]*)"(?:, in (?P<function>[^\n]*))?(?:\n(?P<code>[^\n]*))?'
)


def _source(node: dict[str, Any]) -> SourceNode:
    metadata = node.get("metadata") or {}
    frame = _FRAME.match(metadata.get("stack_trace") or "")
    place = {
        key: (text or "").strip() for key, text in (frame.groupdict() if frame else {}).items()
    }
    op = node["target"].removeprefix("torch.ops.")
    if node["target"] == user_kernels.OPERATOR:
        op = f"triton.{node['inputs'][0]['arg']['as_string'].partition('.')[0]}"
    return SourceNode(
        name=node["name"],
        op=op,
        module=_module(metadata.get("nn_module_stack") or ""),
        **place,
    )


def _module(stack: str) -> str:
    """Gives the innermost qualified name of ``key,name,class;key,name,class``."""
    if not stack:
        return ""
    # A key may hold commas of its own; name and class hold none.
    parts = stack.split(";")[-1].rsplit(",", 2)
    return parts[1] if len(parts) == 3 else ""
