"""Runs Inductor on one graph and hands back its wrapper lines.

Everything Inductor is told is here: its configuration, where kernels come from, which candidate of
a template is taken. Nothing is measured, no library call is offered, no cache is read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from unittest import mock

import sympy
import torch
from torch._C._dynamo.guards import compute_overlapping_tensors
from torch._inductor import config, ir, select_algorithm
from torch._inductor.codegen import common, triton_utils
from torch._inductor.codegen.triton import TritonScheduling
from torch._inductor.codegen.wrapper import PythonWrapperCodegen, WrapperLine
from torch._inductor.debug import DebugContext
from torch._inductor.fx_passes import post_grad, reinplace
from torch._inductor.fx_passes.post_grad import post_grad_passes
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import BaseSchedulerNode
from torch._inductor.utils import aggregate_origins
from torch._inductor.virtualized import V
from torch.fx import GraphModule, Node

from wrapgen import sizes, user_kernel_op
from wrapgen.lowering import (
    choices,
    errors,
    operators,
    random_numbers,
    templates,
    user_kernels,
)
from wrapgen.lowering import sites as sites_module
from wrapgen.lowering.folding import is_random
from wrapgen.lowering.passes import is_write_back
from wrapgen.lowering.sites import Sites
from wrapgen.lowering.templates import cost, direct
from wrapgen.lowering.templates.problem import Problem
from wrapgen.tuning.lock import Config

SETTINGS: Final[dict[str, Any]] = {
    "assert_indirect_indexing": False,  # Triton drops the assertions anyway
    "allow_buffer_reuse": False,  # the arena is planned from liveness later
    "autotune_in_subproc": False,
    "autotune_local_cache": False,
    "autotune_remote_cache": False,
    "benchmark_epilogue_fusion": False,
    "benchmark_fusion": False,
    "benchmark_kernel": False,
    "bundled_autotune_remote_cache": False,
    "comment_origin": False,
    "compile_threads": 1,
    "coordinate_descent_tuning": False,
    "fx_graph_cache": False,
    "fx_graph_remote_cache": False,
    "fx_wrapper": True,
    "implicit_fallbacks": True,  # so that all of them are found, and reported together
    "layout_optimization": True,
    "max_autotune": True,
    "max_autotune_conv_backends": "TRITON",
    "max_autotune_gemm": True,
    "max_autotune_gemm_backends": "TRITON",
    "memory_planning": False,
    "size_asserts": False,
    "triton.autotune_at_compile_time": False,
    "triton.decompose_sort_ops": True,  # beyond 512 elements; operators.py takes long rows
    "triton.descriptive_names": False,
    "triton.multi_kernel": 0,
    "triton.store_cubin": False,
    "triton.unique_kernel_names": True,
    "worker_start_method": "subprocess",
}
"""Inductor's configuration wherever it differs from, or must not differ from, the defaults."""

OPTIONS: Final = {
    "cooperative_reductions": "triton.cooperative_reductions",
    "dependent_launch": "triton.enable_pdl",
}
"""What Inductor calls the options of ``wrapgen.options``."""


@dataclasses.dataclass(frozen=True)
class KernelSource:
    """A Triton module as Inductor wrote it; ``template`` is empty for generated kernels."""

    name: str
    source: str
    template: str


@dataclasses.dataclass
class FillLine(WrapperLine):
    """Zeroes a workspace before a kernel that counts in it."""

    name: str


@dataclasses.dataclass
class OriginsLine(WrapperLine):
    """The FX nodes that the next kernel call computes, in order."""

    nodes: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Missing:
    """An FX node with no kernel, and why (a clause)."""

    node: Node
    reason: str


@dataclasses.dataclass(frozen=True)
class Lowered:
    """What Inductor made of a graph.

    Attributes:
      lines: wrapper lines in execution order.
      kernels: the kernels that calls name.
      outputs: the IR of the results, in order.
      missing: nodes that would need a library; if there are any, nothing else is meaningful.
      computed: sizes that Inductor gave a symbol of its own, by that symbol.
    """

    lines: tuple[Any, ...]
    kernels: dict[str, KernelSource]
    outputs: tuple[Any, ...]
    missing: tuple[Missing, ...]
    computed: Mapping[Any, Any] = dataclasses.field(default_factory=dict)

    def resolve(self, value: Any) -> Any:
        """A size in terms of the model's symbols alone."""
        expr = sympy.sympify(value)
        while not expr.free_symbols.isdisjoint(self.computed):
            expr = expr.xreplace(self.computed)
        return expr


def lower_graph(
    module: GraphModule,
    inputs: Sequence[Any],
    mode: Any,
    sites: Sites,
    cache: Path,
    options: Sequence[str] = (),
) -> Lowered:
    """Lowers a decomposed graph of static shapes, inside ``declared(sites.device)``.

    Args:
      module: the graph; every node has ``meta["val"]``.
      inputs: fake tensors on the declared GPU, one a placeholder.
      mode: their ``FakeTensorMode``.
      sites: chooses the templates' configurations for the declared device.
      cache: an empty directory that Inductor may write to; nothing in it is used afterwards.
      options: those of ``wrapgen.options`` that hold.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_settings(mode, cache))
        stack.enter_context(config.patch({OPTIONS[name]: True for name in options}))
        stack.enter_context(_own_backend())
        stack.enter_context(_deterministic_choice(sites))
        stack.enter_context(templates.installed(sites))
        stack.enter_context(random_numbers.one_word_a_counter())
        stack.enter_context(user_kernels.installed())
        _post_grad(module)
        graph = _Graph(
            module,
            example_inputs=inputs,
            shape_env=mode.shape_env,
            is_inference=True,
            fx_wrapper=True,
            layout_opt=_has_convolution(module),
        )
        with V.set_graph_handler(graph), sizes.general_views():
            graph.run(*inputs)
            if graph.missing:
                return Lowered((), {}, (), tuple(graph.missing))
            graph.codegen()
            wrapper = graph.wrapper_code
            assert isinstance(wrapper, _Wrapper)
            return Lowered(
                lines=tuple(wrapper.finished),
                kernels=wrapper.kernels,
                outputs=tuple(graph.graph_outputs),
                missing=(),
                computed=dict(graph.sizevars.inv_precomputed_replacements),
            )


@contextlib.contextmanager
def _settings(mode: Any, cache: Path) -> Iterator[None]:
    """Inductor as it is configured here."""
    environment = {
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, environment))
        stack.enter_context(config.patch(SETTINGS))
        # For AMD's, Inductor promises that memory behind a pointer ends within 2 GiB. No parameter
        # of a program records that; and templates are promised it whatever the configuration says.
        within = mock.patch.object(triton_utils, "_is_tensor_within_2gb", lambda _: False)
        stack.enter_context(within)
        stack.enter_context(V.set_fake_mode(mode))
        stack.enter_context(V.set_debug_handler(DebugContext()))
        yield


def rewrite(module: GraphModule, mode: Any, cache: Path) -> None:
    """Rewrites a graph as ``lower_graph`` does before it lowers it: the nodes are then those whose
    names buffers bear.

    Calls of user-defined kernels stay as they are before it, without effects: what such a call
    writes is a value of its own.
    """
    kept = mock.patch.object(post_grad, "decompose_auto_functionalized", lambda _graph: None)
    with _settings(mode, cache), kept:
        _post_grad(module)


def _post_grad(module: GraphModule) -> None:
    """Inductor's own rewrites of a graph, with what is wrong in them put right."""
    overlapping = mock.patch.object(reinplace, "compute_overlapping_tensors", _overlapping)
    origins = {node: node.meta.get("custom") for node in module.graph.nodes}
    with overlapping, _copies_kept(module):
        post_grad_passes(module, True)
    if any(node.target is user_kernel_op.triton_kernel for node in module.graph.nodes):
        # PyTorch says of what a kernel writes to that it comes from the call.
        for node in module.graph.nodes:
            if origins.get(node):
                node.meta["custom"] = origins[node]


def _overlapping(tensors: list[torch.Tensor]) -> set[int]:
    """Which of tensors with one storage share elements; all, where that depends on sizes."""
    sizes = [size for x in tensors for size in (*x.shape, *x.stride(), x.storage_offset())]
    if all(isinstance(size, int) for size in sizes):
        return set(compute_overlapping_tensors(tensors))
    return set(range(len(tensors)))


@contextlib.contextmanager
def _copies_kept(module: GraphModule) -> Iterator[None]:
    """Inductor drops copies even of inputs that are overwritten before the copy is read."""
    if any(is_write_back(node) for node in module.graph.nodes):
        kept = {op: rule for op, rule in post_grad.noop_registry.items() if op not in _COPIES}
        with mock.patch.dict(post_grad.noop_registry, kept, clear=True):
            yield
    else:
        yield


_COPIES: Final = (torch.ops.aten.clone.default, torch.ops.aten.copy.default)


def _has_convolution(module: GraphModule) -> bool:
    return any(node.target is torch.ops.aten.convolution.default for node in module.graph.nodes)


class _Wrapper(PythonWrapperCodegen):
    """Keeps the wrapper's lines instead of writing Python from them."""

    supports_caching = False

    def __init__(self) -> None:
        super().__init__()
        self.kernels: dict[str, KernelSource] = {}
        self.finished: list[Any] = []

    @classmethod
    def create(cls, *_: Any) -> _Wrapper:
        return cls()

    def codegen_inputs(self) -> None:
        pass

    def make_zero_buffer(self, name: str) -> Any:
        return FillLine(name)

    def make_comment(self, line: Any) -> None:
        pass

    def write_provenance_debug_handle(self, *args: Any, **kwargs: Any) -> None:
        pass

    def register_alignment_check_inputs(self) -> None:
        pass

    def codegen_deferred_alignment_copies(self, input_names: Any) -> None:
        pass

    def _generate(self, is_inference: bool) -> tuple[Any, Any]:
        self.run_wrapper_ir_passes(is_inference)
        self.finished = list(self.lines)
        return None, None


class _Scheduling(TritonScheduling):
    """Triton kernels only; they are handed over as source, with the nodes they compute."""

    def can_fuse(self, node1: Any, node2: Any) -> bool:
        return direct.may_fuse(node1, node2) and bool(super().can_fuse(node1, node2))

    can_fuse_vertical = can_fuse_horizontal = can_fuse

    def codegen_comment(self, node_schedule: Any, *_: Any) -> None:
        graph = _graph()
        line = OriginsLine(graph.computed_by(node_schedule))
        graph.wrapper_code.writeline(line)

    def _emit_kernel_to_wrapper(
        self,
        wrapper: Any,
        _kernel: Any,
        src_code: str,
        kernel_name: str,
        _subs_name: str,
        node_schedule: Any,
        *_: Any,
    ) -> None:
        names = [_graph().sites[name].template for name in _templates(node_schedule)]
        wrapper.kernels[kernel_name] = KernelSource(kernel_name, src_code, "".join(names[:1]))


def _templates(schedule: Any) -> list[str]:
    """Names of the template buffers among scheduled nodes that were chosen here."""
    return [
        name
        for node in schedule
        if isinstance(node, BaseSchedulerNode)
        for name in node.get_buffer_names()
        if name in _graph().sites
    ]


@dataclasses.dataclass(frozen=True)
class _Site:
    """A template's use: its name, and the FX node that asked for it."""

    template: str
    node: Node


class _Graph(GraphLowering):
    """Records beside Inductor's own work which FX nodes each kernel computes."""

    def __init__(self, module: GraphModule, **options: Any) -> None:
        super().__init__(module, **options)
        self.sites: dict[str, _Site] = {}
        self.missing: list[Missing] = []
        self._order = {node: i for i, node in enumerate(module.graph.nodes)}
        self._computed: dict[str, set[Node]] = {}

    def register_operation(self, operation: Any) -> str:
        if isinstance(operation, ir.ExternKernel) and not isinstance(
            operation, (ir.NopKernel, user_kernels.UserKernelCall)
        ):
            self.missing.append(Missing(self.current_node, "there is no Triton kernel for it"))
        name: str = super().register_operation(operation)
        return name

    def run_node(self, node: Node) -> Any:
        """Lowers a node.

        A fault is noted and a value of the right shape takes its place, so that all are found.
        """
        value = node.meta.get("val")
        if is_random(node) and isinstance(value, torch.Tensor):
            self.missing.append(Missing(node, errors.RANDOM))
            return _stand_in(value.shape, value.dtype, value.device)
        refusal = operators.refusal(node)
        if refusal:
            assert isinstance(value, torch.Tensor)
            self.missing.append(Missing(node, refusal))
            return _stand_in(value.shape, value.dtype, value.device)
        try:
            return super().run_node(node)
        except Exception as error:
            if node.op != "call_function" or not isinstance(value, torch.Tensor):
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            self.missing.append(Missing(node, f"Inductor cannot lower it: {reason[0]}"))
            return _stand_in(value.shape, value.dtype, value.device)

    def computed_by(self, schedule: Any) -> tuple[Node, ...]:
        """The FX nodes that a kernel computes, in the graph's order.

        Inductor's own answer has too many: nodes that were about to be inlined but were stored by
        an earlier kernel, and consumers that asked for another layout. So what the kernels that
        wrote this one's operands compute is taken away, and so are other kernels' templates.
        """
        own = {self.sites[name].node for name in _templates(schedule)}
        foreign = {site.node for site in self.sites.values()} - own
        nodes = {node for node in aggregate_origins(schedule) if node in self._order} - foreign
        before: set[Node] = set()
        for scheduled in schedule:
            if isinstance(scheduled, BaseSchedulerNode):
                for dependency in scheduled.read_writes.reads:
                    before |= self._computed.get(dependency.name, set())
        result = (nodes - before) or nodes
        for scheduled in schedule:
            if isinstance(scheduled, BaseSchedulerNode):
                for name in scheduled.get_buffer_names():
                    self._computed[name] = nodes
        return tuple(sorted(result, key=self._order.__getitem__))


def _graph() -> _Graph:
    """The graph being lowered."""
    graph = V.graph
    assert isinstance(graph, _Graph)
    return graph


@contextlib.contextmanager
def _own_backend() -> Iterator[None]:
    """Registers the classes above as Inductor's backend for ``cuda``."""
    common.init_backend_registration()
    own = common.DeviceCodegen(_Scheduling, _Wrapper, _Wrapper, _Wrapper)
    with mock.patch.dict(common.device_codegens, {"cuda": own}):
        yield


@contextlib.contextmanager
def _deterministic_choice(sites: Sites) -> Iterator[None]:
    """Replaces Inductor's measuring of candidates by ``choices.select``, or the tuning lock's word
    where the template is Inductor's."""

    def choose(
        _cache: Any,
        name: str,
        candidates: list[Any],
        input_nodes: Any,
        layout: Any,
        *_: Any,
        **__: Any,
    ) -> tuple[Any, Any]:
        try:
            ranked = choices.select(name, input_nodes, layout, candidates, sites.device)
            best = ranked[0]
            if cost.TILE not in best.annotations:
                best = _choose(sites, name, input_nodes, ranked)
        except choices.NoChoiceError as error:
            reason = " ".join(str(error).split())
            if not candidates:
                operands = ", ".join(_describe(operand) for operand in input_nodes)
                reason = f"no Triton template takes operands {operands} with these arguments"
            _graph().missing.append(Missing(V.graph.current_node, reason))
            return _stand_in(layout.size, layout.dtype, layout.device), None
        result = best.output_node()
        template = best.name.removeprefix("triton_").rstrip("0123456789").rstrip("_")
        _graph().sites[result.get_name()] = _Site(template, V.graph.current_node)
        return result, best

    with mock.patch.object(select_algorithm.AlgorithmSelectorCache, "__call__", choose):
        yield


def _choose(sites: Sites, name: str, input_nodes: Sequence[Any], ranked: Sequence[Any]) -> Any:
    """One of the candidates of Inductor's own template."""
    options: dict[tuple[Any, ...], Any] = {}
    for candidate in ranked:
        config = choices.offered_config(candidate)
        options.setdefault(tuple(sorted(config.items())), (config, candidate))

    def refusal(config: Config) -> str:
        wrong = sites_module.missing_fields(config, choices.offered_config(ranked[0]))
        return wrong or "Inductor does not offer it here, or it exceeds the device"

    problem = None
    target = V.graph.current_node.target
    if target in _PRODUCTS and len(input_nodes) == 2:
        problem = Problem.of(target, input_nodes, lambda a, b: (a, b))
    key = " ".join([name, *map(sites_module.operand, input_nodes)])
    return sites.choose(key, list(options.values()), refusal, problem)


_PRODUCTS: Final = (torch.ops.aten.bmm.default, torch.ops.aten.mm.default)


def _describe(operand: Any) -> str:
    """Such as ``float32[8, 3, 7, 7]``."""
    dtype = str(operand.get_dtype()).removeprefix("torch.")
    return f"{dtype}[{', '.join(str(extent) for extent in operand.get_size())}]"


def _stand_in(shape: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """A tensor of the right shape, so that lowering goes on and finds the other faults."""
    from torch._inductor.lowering import full

    return full(list(shape), 0, dtype=dtype, device=device)
