"""Puts a model's own Triton kernels into its exported program, as data.

``torch.export`` leaves an operator of ``torch.library.triton_op`` as one opaque node, and a call of
``wrap_triton`` as a node that refers to a Python object: neither can be read in another process.
Here, where the user's code runs anyway, such an operator is traced into the operators and kernel
calls that it consists of; each call becomes a node of ``wrapgen::triton_kernel``, and its kernel
TTIR (``wrapgen/user_kernels.py``).

Triton compiles a kernel anew for each kind of argument, and so does this: an integer that is 1 at
every call is a constant of the kernel, its type is of 32 bits where every value fits. What Triton
asks of addresses and numbers that are multiples of 16 is left open; lowering knows.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import inspect
import io
import tempfile
import textwrap
import tokenize
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final, NoReturn
from unittest import mock

import sympy
import torch
from torch._higher_order_ops import triton_kernel_wrap
from torch._library import triton as triton_library
from torch._library.custom_ops import OPDEFS
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols
from torch.fx.node import map_arg
from torch.utils import _triton as pytorch_triton
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy
from triton import language as tl
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import ASTSource, make_backend
from triton.runtime import driver as triton_driver
from triton.runtime.autotuner import Autotuner, Config
from triton.runtime.jit import JITFunction
from triton.tools.tensor_descriptor import TensorDescriptor

from wrapgen import user_kernels
from wrapgen.dtype import INFO, DType
from wrapgen.target import KNOWN, Target
from wrapgen.user_kernel_op import triton_kernel

_WRAPPERS: Final = (
    triton_kernel_wrap.triton_kernel_wrapper_mutation,
    triton_kernel_wrap.triton_kernel_wrapper_functional,
)
_DESCRIPTORS: Final = "wrapgen.descriptors"
"""Among a call's constant arguments: what is said of tensors that it passes as descriptors."""

_BLOCKS: Final = (
    torch.ops.higher_order.wrap_with_autocast,
    torch.ops.higher_order.wrap_with_set_grad_enabled,
)
"""What ``with`` blocks become."""

_TARGETS: Final = tuple(target for target in KNOWN.values() if target.lowering == target)

_SCALARS: Final[dict[str, DType]] = {
    "i1": DType.BOOL,
    "u1": DType.BOOL,
    "i8": DType.INT8,
    "i16": DType.INT16,
    "i32": DType.INT32,
    "i64": DType.INT64,
    "fp16": DType.FLOAT16,
    "bf16": DType.BFLOAT16,
    "fp32": DType.FLOAT32,
    "f32": DType.FLOAT32,
    "fp64": DType.FLOAT64,
}
"""Types of numbers in a kernel's signature, as Triton spells them."""

_INT32: Final = (-(1 << 31), (1 << 31) - 1)
_INT64: Final = (-(1 << 63), (1 << 63) - 1)


class CaptureError(ValueError):
    """A kernel, or a call of one, cannot be exported. The message says which and why."""


class _Nowhere:
    """Triton's driver while a model is traced: there is no GPU, whatever machine it is."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(
            "a Triton kernel is called where PyTorch cannot trace it: outside of wrap_triton, with"
            " strict=True, or in a branch or the body of a loop (torch.cond, while_loop); call it"
            " outside of those"
        )


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Has PyTorch see no GPU that Triton kernels could run on.

    Where there is one it traces more, and loses kernels in branches without a word.
    """
    with (
        mock.patch.object(pytorch_triton, "has_triton", lambda: False),
        _driver(_Nowhere()),
        _descriptors_traced(),
    ):
        yield


@contextlib.contextmanager
def _descriptors_traced() -> Iterator[None]:
    """Has PyTorch trace tensors that are passed as descriptors, which it otherwise loses."""

    def call(self: Any, variable: Any, grids: Any, arguments: dict[str, Any], tx: Any) -> Any:
        plain, described = dict(arguments), {}
        for name, value in arguments.items():
            if isinstance(value, TensorDescriptor):
                tensor = value.base
                same = (*value.shape, *value.strides) == (*tensor.shape, *tensor.stride())
                if not same:
                    raise RuntimeError(
                        f"{name} describes a part of a tensor: expected"
                        " TensorDescriptor.from_tensor(tensor, block_shape)"
                    )
                plain[name] = tensor
                described[name] = {
                    "block": tuple(value.block_shape),
                    "padding": value.padding,
                    "round_to_tf32": value.round_f32_to_tf32,
                }
        if described:
            plain[_DESCRIPTORS] = described
        return original(self, variable, grids, plain, tx)

    hopifier = triton_kernel_wrap.TracingTritonHOPifier
    original = hopifier.call_HOP
    with mock.patch.object(hopifier, "call_HOP", call):
        yield


def capture(program: ExportedProgram, relative: Callable[[str], str]) -> user_kernels.UserKernels:
    """Replaces the program's operators of ``triton_op`` and its kernel calls, in place.

    Args:
      program: as ``torch.export.export`` returned it.
      relative: gives a source file's path as it is to be shown.

    Returns:
      the kernels that the program now names; none where it has none of its own.

    Raises:
      CaptureError: as the class says.
    """
    return _Capture(program, relative).run()


class _Capture:
    def __init__(self, program: ExportedProgram, relative: Callable[[str], str]) -> None:
        self._program = program
        self._relative = relative
        self._ranges: dict[sympy.Symbol, ValueRanges[Any]] = dict(program.range_constraints)
        self._builder = _Builder()

    def run(self) -> user_kernels.UserKernels:
        self._visit(self._program.graph_module, plain=True)
        return user_kernels.UserKernels(
            dict(sorted(self._builder.kernels.items())), dict(sorted(self._builder.ttir.items()))
        )

    def _visit(self, module: GraphModule, *, plain: bool) -> None:
        """A graph and those inside. ``plain``: it runs once whenever the model does."""
        changed = False
        while found := [node for node in module.graph.nodes if _is_triton_op(node)]:
            for node in found:
                self._expect(node, plain=plain)
                self._trace(node, module.graph)
            changed = True
        for node in list(module.graph.nodes):
            if node.target in _WRAPPERS:
                self._expect(node, plain=plain)
                self._replace(node, module.graph)
                changed = True
            elif _refers_to_triton_op(node):
                raise CaptureError(
                    f"{_where(node)}: the program was decomposed after its export, and an"
                    " operator of torch.library.triton_op in it can no longer be traced:"
                    " return it as torch.export.export gives it"
                )
            elif isinstance(node.target, torch._ops.HigherOrderOperator):
                for operand in node.all_input_nodes:
                    inner = getattr(module, str(operand.target), None)
                    if operand.op == "get_attr" and isinstance(inner, GraphModule):
                        self._visit(inner, plain=plain and node.target in _BLOCKS)
        if changed:
            module.graph.eliminate_dead_code(is_impure_node=_has_effect)
            module.recompile()

    def _expect(self, node: Node, *, plain: bool) -> None:
        if not plain:
            raise CaptureError(
                f"{_where(node)}: a Triton kernel in a branch or in the body of a loop (torch.cond,"
                " while_loop) is not supported: call it outside"
            )

    def _trace(self, node: Node, graph: Graph) -> None:
        """Puts what an operator consists of in its place."""
        assert isinstance(node.target, torch._ops.OpOverload)
        name = node.target._schema.name
        function = inspect.getclosurevars(OPDEFS[name]._init_fn).nonlocals["fn"]
        operands = list(node.all_input_nodes)

        def run(*values: Any) -> Any:
            env = dict(zip(operands, values, strict=True))
            args, kwargs = map_arg((node.args, node.kwargs), env.__getitem__)
            return function(*args, **kwargs)

        values = [operand.meta["val"] for operand in operands]
        mode = next((v.fake_mode for v in values if isinstance(v, torch.Tensor)), None)
        if mode is None:
            raise CaptureError(f"{_where(node)}: {name} takes no tensor")
        env = mode.shape_env
        guards = len(env.guards) if env is not None else 0
        with mode, _descriptors_traced():
            traced = make_fx(run)(*values)
        if env is not None and len(env.guards) != guards:
            assumed = ", ".join(str(guard.expr) for guard in env.guards[guards:])
            raise CaptureError(
                f"{_where(node)}: {name} does not do the same for all sizes: it assumes {assumed}"
            )
        inner = dict(zip(traced.graph.find_nodes(op="placeholder"), operands, strict=True))
        with graph.inserting_before(node):
            for each in traced.graph.nodes:
                if each.op == "call_function":
                    copy = graph.node_copy(each, inner.__getitem__)
                    copy.meta = _meta(node, each.meta.get("val"))
                    inner[each] = copy
                elif each.op not in ("placeholder", "output"):
                    raise CaptureError(
                        f"{_where(node)}: {name} holds a tensor of its own ({each.target}): pass it"
                        " as an argument"
                    )
        (output,) = traced.graph.find_nodes(op="output")
        self._take_place(graph, node, map_arg(output.args[0], inner.__getitem__))

    def _take_place(self, graph: Graph, node: Node, result: Any) -> None:
        """Makes the users of ``node`` users of ``result``, the program's signature included."""
        if isinstance(result, Node):
            replaced = [(node, result)]
        else:
            replaced = [(user, result[user.args[1]]) for user in node.users]
        for old, new in replaced:
            old.replace_all_uses_with(new)
            if graph is self._program.graph:
                self._program.graph_signature.replace_all_uses(old.name, new.name)
            graph.erase_node(old)
        if not isinstance(result, Node):
            graph.erase_node(node)

    def _replace(self, node: Node, graph: Graph) -> None:
        """Makes a call of a kernel a node that names it."""
        if node.target is not triton_kernel_wrap.triton_kernel_wrapper_mutation:
            raise CaptureError(
                f"{_where(node)}: the program was decomposed after its export: return it as"
                " torch.export.export gives it"
            )
        call = _Call(node, self._ranges)
        key = self._builder.key(call, self._relative)
        grid = [extent for programs in node.kwargs["grid"] for extent in programs]
        with graph.inserting_before(node):
            read = [
                tensor if scalar is None else _on_device(graph, node, tensor, scalar)
                for tensor, scalar in call.operands["read"]
            ]
            written = [tensor for tensor, _ in call.operands["written"]]
            strides: list[Any] = []
            for tensor in (*written, *read):
                strides += _strides(graph, node, tensor)
            new = graph.call_function(
                triton_kernel,
                (
                    key,
                    written,
                    read,
                    call.operands["ints"],
                    call.operands["floats"],
                    strides,
                    grid,
                ),
            )
        new.meta = _meta(node, None)
        graph.erase_node(node)


def _is_triton_op(node: Node) -> bool:
    return (
        isinstance(node.target, torch._ops.OpOverload)
        and node.target._schema.name in triton_library.triton_ops_to_kernels
    )


def _refers_to_triton_op(node: Node) -> bool:
    """Whether a node calls such an operator by way of another, as after functionalisation."""
    return any(
        isinstance(arg, torch._ops.OpOverload)
        and arg._schema.name in triton_library.triton_ops_to_kernels
        for arg in node.args
    )


def _has_effect(node: Node) -> bool:
    if node.op in ("placeholder", "output") or node.is_impure():
        return True
    schema = getattr(node.target, "_schema", None)
    return (schema is None and "_operator" not in getattr(node.target, "__module__", "")) or bool(
        schema is not None and schema.is_mutable
    )


def _where(node: Node) -> str:
    trace = (node.meta.get("stack_trace") or "").strip().splitlines()
    lines = [line.strip() for line in trace if line.strip().startswith("File ")]
    return f"{node.name} ({lines[-1]})" if lines else node.name


def _meta(like: Node, value: Any) -> dict[str, Any]:
    """Metadata of a node that stands for (a part of) ``like``: its place in the model."""
    kept = {key: like.meta[key] for key in ("stack_trace", "nn_module_stack") if key in like.meta}
    return kept | {"val": value}


def _on_device(graph: Graph, call: Node, value: Node, dtype: DType) -> Node:
    """A number that is known on the device alone, as a tensor of one element."""
    kind = getattr(torch, dtype.value)
    node = graph.call_function(
        torch.ops.aten.scalar_tensor.default, (value,), {"dtype": kind, "device": "cpu"}
    )
    mode = torch._guards.detect_fake_mode([n.meta.get("val") for n in call.graph.nodes])
    assert mode is not None
    with mode:
        node.meta = _meta(call, torch.empty((), dtype=kind))
    return node


def _strides(graph: Graph, call: Node, tensor: Node) -> list[Any]:
    """The strides of a tensor as arguments: integers, or nodes where they are symbolic."""
    found: list[Any] = []
    for i, stride in enumerate(tensor.meta["val"].stride()):
        if not isinstance(stride, int):
            node = graph.call_function(torch.ops.aten.sym_stride.int, (tensor, i))
            node.meta = _meta(call, stride)
            stride = node
        found.append(stride)
    return found


class _Call:
    """The arguments of a kernel call: which are constants, and where parameters come from.

    Attributes:
      function: the ``JITFunction``.
      configs: its configurations.
      options: how it is launched.
      constants: the compile-time constants of every configuration.
      params: what the call passes, in the function's order.
      device_scalars: names of parameters that are numbers, read from device memory.
      operands: for each of ``user_kernels.OPERANDS`` the arguments; for tensors with the type to
        convert to where it is a number.
    """

    def __init__(self, node: Node, ranges: Mapping[sympy.Symbol, ValueRanges[Any]]) -> None:
        self._node = node
        self._ranges = ranges
        kernel = triton_kernel_wrap.kernel_side_table.get_kernel(node.kwargs["kernel_idx"])
        self.configs: list[Config] = kernel.configs if isinstance(kernel, Autotuner) else []
        self.function: Any = kernel.fn if isinstance(kernel, Autotuner) else kernel
        self.name: str = self.function.fn.__name__
        if not isinstance(self.function, JITFunction):
            self.refuse(f"is a {type(self.function).__name__}, not a function of @triton.jit")
        if self.function.debug:
            self.refuse("is compiled for debugging (debug=True), which checks on the device")
        self.plain = not isinstance(kernel, Autotuner)
        self.options = {"launch_cooperative_grid": False, "launch_pdl": False}
        self.constants: dict[str, Any] = {}
        self.params: list[tuple[Any, str, Any]] = []
        self.operands: dict[str, list[Any]] = {name: [] for name in user_kernels.OPERANDS}
        self.device_scalars: dict[str, DType] = {}
        self.descriptors: dict[str, Mapping[str, Any]] = {}
        self._sort()

    def refuse(self, what: str) -> NoReturn:
        """Raises an error about this call."""
        raise CaptureError(f"{_where(self._node)}: the Triton kernel {self.name} {what}")

    def _sort(self) -> None:
        """Divides the arguments into constants and parameters."""
        kwargs: Any = self._node.kwargs
        given = {
            **triton_kernel_wrap.kernel_side_table.get_constant_args(kwargs["constant_args_idx"]),
            **kwargs["kwargs"],
        }
        if kwargs["tma_descriptor_metadata"]:
            self.refuse("takes descriptors of another kind than triton.tools.tensor_descriptor's")
        self.descriptors = given.pop(_DESCRIPTORS, {})
        names = [param.name for param in self.function.params]
        for option in self.options:
            if option not in names:
                self.options[option] = bool(given.pop(option, False))
        for name in given:
            if name not in names:
                self.refuse(f"is launched with {name}={given[name]!r}, an option not supported")
        tuned = {name for config in self.configs for name in config.kwargs}
        for param in self.function.params:
            if param.name in tuned:
                continue
            if param.name not in given and not param.has_default:
                self.refuse(f"is called without its argument {param.name}")
            value = given.get(param.name, param.default)
            kind = None if param.is_constexpr or value is None else self._kind(param, value)
            if kind is None:
                self.constants[param.name] = value
            else:
                self.params.append((param, kind, value))

    def _kind(self, param: Any, value: Any) -> str | None:
        """The type of a parameter as Triton's signatures spell it; ``None`` for a constant."""
        known = value.meta.get("val") if isinstance(value, Node) else value
        annotated: str = param.annotation_type
        if isinstance(known, torch.Tensor):
            pointer = self._pointer(param, known)
            if param.name not in self.descriptors:
                return pointer
            block = ", ".join(map(str, self.descriptors[param.name]["block"]))
            return f"tensordesc<{pointer.lstrip('*k')}[{block}]>"
        if isinstance(known, (bool, torch.SymBool)):
            return self._known_kind(param, annotated or "i1")
        if isinstance(known, (float, torch.SymFloat)):
            return self._known_kind(param, annotated or "fp32")
        if isinstance(known, int) and known == 1 and not annotated and not param.do_not_specialize:
            return None
        if isinstance(known, (int, torch.SymInt)):
            return self._known_kind(param, annotated or self._width(known))
        what = type(known).__name__
        return self.refuse(
            f"gets {param.name}, a {what}: expected a tensor, a number, a constant (tl.constexpr)"
            " or None"
        )

    def _known_kind(self, param: Any, kind: str) -> str:
        unsigned = {"u8": "i8", "u16": "i16", "u32": "i32", "u64": "i64"}
        kind = unsigned.get(kind, kind)
        if kind not in _SCALARS:
            self.refuse(f"takes {param.name} as {kind}: expected one of {', '.join(_SCALARS)}")
        return kind

    def _pointer(self, param: Any, value: torch.Tensor) -> str:
        try:
            dtype = DType(str(value.dtype).removeprefix("torch."))
        except ValueError:
            self.refuse(
                f"gets {param.name}, a tensor of {value.dtype}: expected one of {', '.join(DType)}"
            )
        return f"*{'k' if param.is_const else ''}{INFO[dtype].triton}"

    def _width(self, value: Any) -> str:
        """``i32`` where every value of an integer fits, else ``i64``."""
        if isinstance(value, int):
            low = high = value
        else:
            bounds = bound_sympy(value.node.expr, self._ranges)
            low, high = bounds.lower, bounds.upper
        if low >= _INT32[0] and high <= _INT32[1]:
            return "i32"
        if isinstance(value, int) and not _INT64[0] <= value <= _INT64[1]:
            self.refuse(f"gets {value}, which does not fit 64 bits")
        return "i64"

    def assign(self, mutated: Callable[[list[str]], set[str]]) -> list[user_kernels.Param]:
        """Says for each parameter which operand it is.

        ``mutated`` gives, of the names of pointers, those that the kernel may write to. A tensor
        that shares memory with such a one counts as written too: so both stay one memory.
        """
        pointers = [
            param.name for param, kind, _ in self.params if kind.startswith(("*", "tensordesc"))
        ]
        written = mutated(pointers)
        storages = {_storage(value) for param, _, value in self.params if param.name in written}
        found = []
        for param, kind, value in self.params:
            aligned = not (param.do_not_specialize or param.do_not_specialize_on_alignment)
            if kind.startswith(("*", "tensordesc")):
                dtype = DType(str(value.meta["val"].dtype).removeprefix("torch."))
                operand = "written" if _storage(value) in storages else "read"
                index = self._index(operand, (value, None))
                if param.name in self.descriptors:
                    said = self.descriptors[param.name]
                    found.append(
                        user_kernels.Param(param.name, operand, index, dtype, False, **said)
                    )
                    found += self._extents(param.name, value)
                    continue
            else:
                dtype = _SCALARS[kind]
                known = value.meta.get("val") if isinstance(value, Node) else value
                if not isinstance(known, (int, float)) and (
                    not isinstance(known, torch.SymInt) or free_unbacked_symbols(known)
                ):
                    self.device_scalars[param.name] = dtype
                    operand, aligned = "read", False
                    index = self._index(operand, (value, dtype))
                elif "float" in dtype:
                    operand, aligned = "floats", False
                    index = self._index(operand, float(known))
                else:
                    operand, aligned = "ints", aligned and dtype != DType.BOOL
                    number = value if isinstance(value, Node) else self._wrapped(int(value), dtype)
                    index = self._index(operand, number, again=True)
            found.append(user_kernels.Param(param.name, operand, index, dtype, aligned))
        return found

    def _extents(self, name: str, value: Node) -> list[user_kernels.Param]:
        """The parameters behind a descriptor: sizes, then strides."""
        graph, tensor = value.graph, value.meta["val"]
        found = []
        with graph.inserting_before(self._node):
            for what, target, dtype, extents in (
                ("shape", torch.ops.aten.sym_size.int, DType.INT32, tensor.shape),
                ("stride", torch.ops.aten.sym_stride.int, DType.INT64, tensor.stride()),
            ):
                for i, extent in enumerate(extents):
                    number: Any = extent
                    if not isinstance(extent, int):
                        number = graph.call_function(target, (value, i))
                        number.meta = _meta(self._node, extent)
                    index = self._index("ints", number, again=True)
                    place = f"{name}_{what}_{i}"
                    found.append(user_kernels.Param(place, "ints", index, dtype, False))
        return found

    def _index(self, operand: str, value: Any, *, again: bool = False) -> int:
        """The place of a value among the operands, where it may be already."""
        values = self.operands[operand]
        if again or value not in values:
            values.append(value)
            return len(values) - 1
        return values.index(value)

    def _wrapped(self, value: int, dtype: DType) -> int:
        """An unsigned number as the signed one of the same bits."""
        bits = 8 * INFO[dtype].itemsize
        if dtype == DType.BOOL:
            return int(bool(value))
        if not -(1 << bits - 1) <= value < 1 << bits:
            self.refuse(f"gets {value}, which does not fit its type {dtype}")
        return value - (1 << bits) if value >= 1 << bits - 1 else value


def _storage(value: Any) -> Any:
    found = value.meta["val"]
    return found.untyped_storage()._cdata


class _Builder:
    """Makes TTIR of kernels; equal ones are one."""

    def __init__(self) -> None:
        self.kernels: dict[str, user_kernels.UserKernel] = {}
        self.ttir: dict[str, str] = {}

    def key(self, call: _Call, relative: Callable[[str], str]) -> str:
        """The key of the kernel that a call needs."""
        configs: list[Mapping[str, Any]]
        options: list[Mapping[str, Any]]
        if call.plain:
            configs, options = [{}], [{}]
        else:
            configs = [config.kwargs for config in call.configs]
            options = [self._options(call, config) for config in call.configs]
        targets = [
            target
            for target in _TARGETS
            if not call.descriptors or (target.kind == "sm" and target.capability >= 90)
        ]
        texts = [
            self._build_all(call, own, option, targets)
            for own, option in zip(configs, options, strict=True)
        ]
        modules = {text for by_target in texts for text, _ in by_target.values()}
        params = call.assign(lambda names: _mutated(sorted(modules), call, names))
        built = []
        for own, by_target in zip(configs, texts, strict=True):
            builds = {}
            for target, (text, launch) in by_target.items():
                text = _loading(text, call, params)
                fault = user_kernels.ttir_fault(text)
                if fault:
                    call.refuse(f"cannot be exported: {fault}")
                digest = hashlib.sha256(text.encode()).hexdigest()
                self.ttir[digest] = text
                builds[target] = user_kernels.Build(digest, *launch)
            constants = {**call.constants, **own}
            built.append(
                user_kernels.Config(
                    {name: _plain(value) for name, value in sorted(constants.items())}, builds
                )
            )
        code = call.function.fn.__code__
        kernel = user_kernels.UserKernel(
            name=call.name,
            file=relative(code.co_filename),
            source=_source(call.function, relative),
            params=tuple(params),
            configs=tuple(built),
            cooperative=call.options["launch_cooperative_grid"],
            launch_pdl=call.options["launch_pdl"],
        )
        key = user_kernels.key_of(kernel)
        self.kernels[key] = kernel
        return key

    def _options(self, call: _Call, config: Config) -> dict[str, int]:
        for name in ("maxnreg", "ir_override"):
            if getattr(config, name, None) is not None:
                call.refuse(f"has a configuration with {name}, which is not supported")
        return {
            "num_warps": config.num_warps,
            "num_stages": config.num_stages,
            "num_ctas": config.num_ctas,
        }

    def _build_all(
        self,
        call: _Call,
        own: Mapping[str, Any],
        options: Mapping[str, Any],
        targets: Sequence[Target],
    ) -> dict[str, tuple[str, tuple[int, int, int]]]:
        """A configuration for each target that can have it: clusters and some types are not for
        all. Raises the first error where none can."""
        found = {}
        faults = []
        for target in targets:
            try:
                found[str(target)] = self._build(call, own, options, target)
            except CaptureError as error:
                faults.append(error)
        if not found:
            raise faults[0]
        return found

    def _build(
        self, call: _Call, own: Mapping[str, Any], options: Mapping[str, Any], target: Target
    ) -> tuple[str, tuple[int, int, int]]:
        """TTIR of a configuration for a target, and warps, stages and blocks of a cluster."""
        constants = {**call.constants, **own}
        kinds = {param.name: kind for param, kind, _ in call.params}
        signature = {name: kinds.get(name, "constexpr") for name in call.function.arg_names}
        gpu = _gpu_target(target)
        with _active(gpu):
            backend = make_backend(gpu)
            context = ir.context()
            ir.load_dialects(context)
            backend.load_dialects(context)
            source = ASTSource(call.function, signature, constants, {})
            stages: dict[str, Any] = {}
            try:
                parsed = backend.parse_options(dict(options))
                backend.add_stages(stages, parsed, source.language)
                module: Any = source.make_ir(
                    gpu,
                    parsed,
                    backend.get_codegen_implementation(parsed),
                    backend.get_module_map(),
                    context,
                )
                module = stages["ttir"](module, {})
            except Exception as error:
                shown = ", ".join(f"{name}={value}" for name, value in sorted(own.items()))
                raise CaptureError(
                    f"{_where(call._node)}: Triton refuses the kernel {call.name}"
                    f"{f' with {shown}' if shown else ''} for {target}: {str(error).strip()}"
                ) from error
            text = str(module.str_nodebug())
        entry = module.get_entry_func_name()
        return (
            text.replace(f"@{entry}(", f"@{user_kernels.ENTRY}("),
            (parsed.num_warps, parsed.num_stages, parsed.num_ctas),
        )


def _gpu_target(target: Target) -> GPUTarget:
    device = target.device
    if target.kind == "gfx":
        return GPUTarget("hip", str(target), device.warp_size)
    return GPUTarget("cuda", target.capability, device.warp_size)


def _active(target: GPUTarget) -> contextlib.AbstractContextManager[None]:
    """Makes Triton's front end see a GPU: kernels may ask which it is."""
    return _driver(SimpleNamespace(get_current_target=lambda: target))


@contextlib.contextmanager
def _driver(driver: Any) -> Iterator[None]:
    before = triton_driver._active
    triton_driver.set_active(driver)
    try:
        yield
    finally:
        triton_driver._active = before


def _mutated(modules: Sequence[str], call: _Call, names: list[str]) -> set[str]:
    """The pointers that a kernel may write to, by PyTorch's analysis of its TTIR; all of them
    where that finds no answer."""
    order = []
    for param, _, value in call.params:
        order.append(param.name)
        if param.name in call.descriptors:
            order += [f"{param.name}.{i}" for i in range(2 * value.meta["val"].dim())]
    found: set[str] = set()
    for text in modules:
        found |= _written(text, order, [order.index(name) for name in names])
    return found & set(names)


def _written(text: str, order: Sequence[str], pointers: Sequence[int]) -> set[str]:
    context = ir.context()
    ir.load_dialects(context)
    module = _parsed(text, context)
    try:
        functions = triton_kernel_wrap.ttir_to_functions(module)
        triton_kernel_wrap.analyze_kernel_access.reset()
        triton_kernel_wrap.get_tma_stores.reset()
        accesses = triton_kernel_wrap.analyze_kernel_access(
            functions, next(iter(functions)), len(order), tuple(order), frozenset(pointers)
        )
    except Exception:
        return {order[i] for i in pointers}
    return {dependency.name for dependency in accesses.read_writes.writes}


def _parsed(text: str, context: Any) -> Any:
    with tempfile.NamedTemporaryFile("w", suffix=".ttir", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        module = ir.parse_mlir_module(file.name, context)
    module.context = context
    return module


def _loading(text: str, call: _Call, params: Sequence[user_kernels.Param]) -> str:
    """The TTIR with parameters that are numbers on the device read from memory at its start."""
    lines = []
    found = user_kernels.signature(text)
    for (name, kind), param in zip(found, params, strict=True):
        if param.name not in call.device_scalars:
            continue
        pointer = f"{name}_at"
        if kind == "i1":
            lines += [
                f"    {pointer}_0 = tt.bitcast {pointer} : !tt.ptr<i1> -> !tt.ptr<i8>",
                f"    {pointer}_1 = tt.load {pointer}_0 : !tt.ptr<i8>",
                f"    {pointer}_2 = arith.constant 0 : i8",
                f"    {name} = arith.cmpi ne, {pointer}_1, {pointer}_2 : i8",
            ]
        else:
            lines.append(f"    {name} = tt.load {pointer} : !tt.ptr<{kind}>")
        text = text.replace(f"{name}: {kind}", f"{pointer}: !tt.ptr<{kind}>", 1)
    if not lines:
        return text
    head, brace, body = text.partition("attributes {noinline = false} {\n")
    if not brace:
        call.refuse("has TTIR of a form that is not known")
    text = head + brace + "\n".join(lines) + "\n" + body
    context = ir.context()
    ir.load_dialects(context)
    return str(_parsed(text, context).str_nodebug())


def _plain(value: Any) -> int | str | bool | None:
    if isinstance(value, tl.constexpr):
        value = value.value
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, JITFunction):
        return str(value.fn.__name__)
    return str(value)


def _source(function: Any, relative: Callable[[str], str]) -> str:
    """A kernel as it was written, without comments, behind the Triton functions of the user's that
    it calls."""
    found: dict[Any, str] = {}

    def visit(one: Any) -> None:
        if one in found:
            return
        code = one.fn.__code__
        lines, _ = inspect.getsourcelines(one.fn)
        text = textwrap.dedent("".join(lines))
        found[one] = f"# {relative(code.co_filename)}\n{_uncommented(text).rstrip()}\n"
        names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
        scope = {**one.fn.__globals__, **inspect.getclosurevars(one.fn).nonlocals}
        for name in sorted(names):
            other = scope.get(name)
            if isinstance(other, JITFunction) and not other.fn.__module__.startswith("triton."):
                visit(other)

    visit(function)
    return "\n\n".join(reversed(found.values()))


def _uncommented(text: str) -> str:
    """Takes out the comments of a function, and the lines that have nothing else."""
    lines = text.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            code = lines[row - 1][:column].rstrip()
            lines[row - 1] = f"{code}\n" if code else ""
    return "".join(lines)


__all__ = ["CaptureError", "capture"]
