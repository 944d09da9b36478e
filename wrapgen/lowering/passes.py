"""Rewrites of the exported graph before it is divided and lowered.

The graph is decomposed into what Inductor lowers, and devices are rewritten to the declared GPU;
convolution.py has what is done to convolutions before and after. All of it is symbolic: weights
have shapes here and no values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch._inductor.lowering  # Inductor's decompositions look it up as an attribute
from torch._dispatch.python import enable_python_dispatcher
from torch._inductor.decomposition import select_decomp_table
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.fx import Graph, GraphModule, Node
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from wrapgen.lowering.declared_device import CUDA
from wrapgen.lowering.errors import LoweringError
from wrapgen.user_kernel_op import triton_kernel

aten = torch.ops.aten
prims = torch.ops.prims

VIEWS: Final = frozenset(
    {
        aten.alias.default,
        aten.as_strided.default,
        aten.detach.default,
        aten.expand.default,
        aten.permute.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.squeeze.default,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.t.default,
        aten.transpose.int,
        aten.unsqueeze.default,
        aten.view.default,
    }
)
"""Operations whose result is another look at their first operand's memory."""

ORIGIN: Final = "wrapgen.origin"
"""Key in a node's ``meta["custom"]``: names of the exported nodes it comes from."""

LABEL: Final = "wrapgen.label"
"""Key in a node's ``meta["custom"]``: a readable name of a value computed from weights."""


INSIDE: Final = "wrapgen.inside"
"""Key in a node's ``meta["custom"]``: it is in a branch or loop, which is its origin."""


def mark_origins(module: GraphModule) -> None:
    """Writes each node's own name into its metadata; decomposition hands it on.

    Nodes of a graph inside (a ``with`` block, say) get the name of the node that calls it.
    """
    for node in module.graph.nodes:
        if node.op == "call_function":
            _mark(node, module, (node.name,))


def _mark(node: Node, module: GraphModule, names: tuple[str, ...]) -> None:
    node.meta["custom"] = {ORIGIN: names}
    for operand in node.all_input_nodes:
        inner = getattr(module, str(operand.target), None) if operand.op == "get_attr" else None
        if isinstance(inner, GraphModule):
            for inside in inner.graph.nodes:
                if inside.op == "call_function":
                    _mark(inside, inner, names)


def origins(node: Node) -> tuple[str, ...]:
    """The names of the exported nodes that ``node`` comes from; empty where nobody recorded it."""
    custom = node.meta.get("custom") or {}
    found: tuple[str, ...] = custom.get(ORIGIN, ())
    return found


def label(node: Node) -> str:
    """The readable name that was given to the value ``node`` computes; empty where none was."""
    custom = node.meta.get("custom") or {}
    found: str = custom.get(LABEL, "")
    return found


def decompose(
    program: ExportedProgram, own: Mapping[Any, Callable[..., Any] | None]
) -> ExportedProgram:
    """Decomposes a program into the operations that Inductor lowers, without in-place ones.

    ``own`` gives decompositions in place of Inductor's; ``None`` keeps an operation.
    """
    table: dict[Any, Callable[..., Any]] = dict(select_decomp_table())
    # Left alone it becomes flash attention, which on the CPU, where models are exported, is a
    # library call. The table's other entries know no device.
    table[aten.scaled_dot_product_attention.default] = _attention
    for operation, decomposition in own.items():
        table.pop(operation, None)
        if decomposition is not None:
            table[operation] = decomposition
    decomposed: ExportedProgram = program.run_decompositions(table)
    return decomposed


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """``scaled_dot_product_attention`` as its documentation defines it."""
    result, _ = aten._scaled_dot_product_attention_math.default(
        query, key, value, attn_mask, dropout_p, is_causal, None, scale=scale, enable_gqa=enable_gqa
    )
    assert isinstance(result, torch.Tensor)
    return result


def symbolic(node: Node) -> bool:
    """Whether a node's value has a size known only at run time, or is one."""
    value = node.meta.get("val")
    return isinstance(value, torch.SymInt) or (
        isinstance(value, torch.Tensor) and not all(isinstance(n, int) for n in value.shape)
    )


def drop_effects(program: ExportedProgram) -> None:
    """Removes what orders the error checks of linear algebra.

    Whatever is checked has no kernel and is reported itself. Other effects are left in.
    """
    graph = program.graph
    for node in list(graph.nodes):
        if node.target is torch.ops.higher_order.with_effects:
            token, op = node.args[:2]
            if op is aten._linalg_check_errors.default:
                for user in list(node.users):
                    user.replace_all_uses_with(token)
                    graph.erase_node(user)
                graph.erase_node(node)


def write_back(program: ExportedProgram) -> tuple[str, ...]:
    """Leaves the user's results as the graph's; new values of inputs are copied into those.

    Decomposition makes what a model changes in place a result of the graph. Inductor lets the
    kernel that computes such a value write it where the copy would, wherever that is right.

    Returns the names of the inputs that are written, in the order in which they are.

    Raises:
      LoweringError: the model changes its own state.
    """
    graph = program.graph
    (output,) = graph.find_nodes(op="output")
    placeholders = {node.name: node for node in graph.find_nodes(op="placeholder")}
    results: list[Any] = []
    faults: list[str] = []
    new_values: dict[Node, Node] = {}
    for result, spec in zip(output.args[0], program.graph_signature.output_specs, strict=True):
        if spec.kind is OutputKind.USER_INPUT_MUTATION:
            assert spec.target is not None
            new_values[placeholders[spec.target]] = result
        elif spec.kind is OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument):
            results.append(result)
        elif spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION):
            faults.append(
                f"  the model changes {spec.target} when it is called"
                f" ({spec.kind.name.lower().replace('_', ' ')}): weights are shared by all callers"
                " and stay as they are; take it as an argument instead, which may be changed in"
                " place, or return the new value"
            )
    if faults:
        raise LoweringError("\n".join(["cannot lower the model:", *faults]))
    output.args = (tuple(results),)
    update(graph, new_values)
    return tuple(target.name for target in new_values)


def update(graph: Graph, new_values: dict[Node, Node]) -> None:
    """Has placeholders end up with new values: copies them at the end of a graph."""
    (output,) = graph.find_nodes(op="output")
    for target, value in new_values.items():
        if _viewed(value) in new_values:
            # What another copy overwrites is put aside first.
            with graph.inserting_before(output):
                aside = graph.call_function(aten.clone.default, (value,))
            aside.meta["val"] = torch.empty_like(value.meta["val"])
            aside.meta["custom"] = {ORIGIN: origins(value)}
            new_values[target] = aside
    for target, value in new_values.items():
        with graph.inserting_before(output):
            copy = graph.call_function(aten.copy_.default, (target, value))
        copy.meta["val"] = target.meta["val"]
        copy.meta["custom"] = {ORIGIN: origins(value)}


def _viewed(node: Node) -> Node:
    """What a chain of views looks at."""
    while node.target in VIEWS:
        node = node.all_input_nodes[0]
    return node


def is_write_back(node: Node) -> bool:
    """Whether a node writes a new value into an input."""
    return node.target is aten.copy_.default


def higher_order(graph: Graph) -> list[Node]:
    """The nodes that call a graph (branches, loops) or have an effect (printing)."""
    return [
        node
        for node in graph.nodes
        if isinstance(node.target, torch._ops.HigherOrderOperator) and not calls_own_kernel(node)
    ]


def calls_own_kernel(node: Node) -> bool:
    """Whether a node calls a user-defined kernel on copies of what it writes, until Inductor finds
    where no copy is needed."""
    functionalised = node.target is torch.ops.higher_order.auto_functionalized_v2
    return functionalised and node.args[0] is triton_kernel


def move_to_gpu(graph: Graph) -> None:
    """Rewrites every device in the graph to the declared GPU and drops checks of devices."""
    for node in list(graph.nodes):
        if node.target is aten._assert_tensor_metadata.default:
            graph.erase_node(node)
            continue
        node.args = _on_gpu(node.args)
        node.kwargs = _on_gpu(node.kwargs)
        if _is_factory(node):
            node.kwargs = {**node.kwargs, "device": CUDA}


def _is_factory(node: Node) -> bool:
    """Whether a node makes a tensor from none, so that its device is an argument."""
    schema = getattr(node.target, "_schema", None)
    if schema is None or any(isinstance(arg.type, torch.TensorType) for arg in schema.arguments):
        return False
    return any(arg.name == "device" for arg in schema.arguments)


def _on_gpu(value: Any) -> Any:
    if isinstance(value, torch.device):
        return CUDA
    if isinstance(value, (list, tuple)):
        return type(value)(_on_gpu(item) for item in value)
    if isinstance(value, dict):
        return {key: _on_gpu(item) for key, item in value.items()}
    return value


def dense_outputs(graph: Graph) -> list[tuple[int, ...]]:
    """Copies outputs that are views with gaps or overlaps, so that each fills its own memory.

    Returns the outputs' strides as exported; row-major for those that are copied.
    """
    (output,) = graph.find_nodes(op="output")
    results, strides = [], []
    for result in output.args[0]:
        if not torch._prims_common.is_non_overlapping_and_dense_or_false(result.meta["val"]):
            value = result.meta["val"]
            with graph.inserting_before(output):
                copy = graph.call_function(
                    aten.clone.default, (result,), {"memory_format": torch.contiguous_format}
                )
            copy.meta["custom"] = {ORIGIN: origins(result)}
            copy.meta["val"] = torch.empty_like(value, memory_format=torch.contiguous_format)
            result = copy
        results.append(result)
        strides.append(tuple(result.meta["val"].stride()))
    output.args = (tuple(results),)
    return strides


def python_dispatch(mode: Any) -> contextlib.AbstractContextManager[None]:
    """Has PyTorch do in Python what in C++ it can do for sizes that are numbers only."""
    dynamic = bool(mode.shape_env.backed_var_to_val)
    return enable_python_dispatcher() if dynamic else contextlib.nullcontext()


def propagate(module: GraphModule, mode: Any) -> list[torch.Tensor]:
    """Recomputes shapes, strides and devices with every input on the GPU; returns the inputs."""
    with mode:
        inputs = [
            _fake_on_gpu(node.meta.get("val")) for node in module.graph.find_nodes(op="placeholder")
        ]
    with python_dispatch(mode):
        FakeTensorProp(module, mode).propagate_dont_convert_inputs(*inputs)
    return inputs


def _fake_on_gpu(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=CUDA)
