"""User-defined Triton kernels: from a call in the graph to a kernel of the program.

Export has made TTIR of each kernel, for each of its configurations (``wrapgen/user_kernels.py``).
What is left is to choose the configuration, to promise what holds of the arguments of a call, and
to see that the kernel finds its tensors in the layout that it was exported with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal
from unittest import mock

import torch
from torch._inductor import ir, lowering
from torch._inductor.codegen.wrapper import WrapperLine
from torch._inductor.virtualized import V
from torch.fx import Node
from torch.utils._ordered_set import OrderedSet

from wrapgen import kernels as compiler
from wrapgen import user_kernels
from wrapgen.lowering.errors import LoweringError
from wrapgen.lowering.kernel import Builder, Built
from wrapgen.program import Kernel, KernelParam
from wrapgen.target import Target
from wrapgen.user_kernel_op import triton_kernel
from wrapgen.user_kernels import Build, Param, UserKernel, UserKernels


@dataclasses.dataclass
class UserKernelLine(WrapperLine):
    """A call of a user-defined kernel.

    ``written`` and ``read`` are pairs of a buffer's name and an offset in bytes; ``grid`` has three
    extents for each configuration.
    """

    kernel: str
    written: tuple[tuple[str, Any], ...]
    read: tuple[tuple[str, Any], ...]
    ints: tuple[Any, ...]
    floats: tuple[float, ...]
    grid: tuple[Any, ...]
    nodes: tuple[Node, ...]


class UserKernelCall(ir.ExternKernel):
    """The call in Inductor's IR. It writes to ``written`` in place and has no result."""

    def __init__(
        self,
        kernel: str,
        written: Sequence[Any],
        read: Sequence[Any],
        ints: Sequence[Any],
        floats: Sequence[float],
        grid: Sequence[Any],
    ) -> None:
        operands = [
            ir.InputsKernel.unwrap_storage_for_input(self.realize_input(tensor))
            for tensor in (*written, *read)
        ]
        device = operands[0].get_device()
        super().__init__(None, ir.NoneLayout(device=device), operands, (*ints, *grid))
        self.call_device = device
        self.kernel_key = kernel
        self.number_written = len(written)
        self.ints = tuple(ints)
        self.floats = tuple(floats)
        self.grid = tuple(grid)
        self.nodes = (V.graph.current_node,)
        self.mutation_outputs = [
            ir.MutationOutput(ir.NoneLayout(device=device), tensor, self) for tensor in written
        ]
        V.graph.register_operation(self)

    def codegen(self, wrapper: Any) -> None:
        """Writes the line."""
        places = [_place(tensor) for tensor in self.inputs]
        wrapper.writeline(
            UserKernelLine(
                kernel=self.kernel_key,
                written=tuple(places[: self.number_written]),
                read=tuple(places[self.number_written :]),
                ints=self.ints,
                floats=self.floats,
                grid=self.grid,
                nodes=self.nodes,
            )
        )

    def get_outputs(self) -> list[Any]:
        """What stands for the tensors written."""
        return list(self.mutation_outputs)

    def get_device(self) -> torch.device | None:
        """The declared GPU."""
        return self.call_device

    def get_unbacked_symbol_defs(self) -> Any:
        """It defines no sizes."""
        return OrderedSet[Any]()


def _place(tensor: Any) -> tuple[str, Any]:
    """The buffer that a tensor lies in, and its offset in bytes."""
    layout = tensor.get_layout()
    offset = layout.offset if isinstance(tensor, ir.ReinterpretView) else 0
    return tensor.get_name(), offset * tensor.get_dtype().itemsize


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Makes Inductor lower calls of user-defined kernels."""
    with (
        mock.patch.dict(lowering.lowerings, {triton_kernel: _lower}),
        mock.patch.dict(lowering._maybe_layout_constraints, {triton_kernel: _as_exported}),
    ):
        yield


def _lower(
    kernel: str,
    written: Sequence[Any],
    read: Sequence[Any],
    ints: Sequence[Any],
    floats: Sequence[float],
    _strides: Sequence[Any],
    grid: Sequence[Any],
) -> None:
    UserKernelCall(kernel, written, read, ints, floats, grid)


def _as_exported(_node: Node, *args: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Gives each tensor the strides of the export, by a copy where it has others.

    What is written to a copy is copied back, which Inductor does.
    """
    kernel, written, read, ints, floats, strides, grid = args
    left = list(strides)

    def exact(tensor: Any) -> Any:
        own, left[:] = left[: len(tensor.get_size())], left[len(tensor.get_size()) :]
        return ir.ExternKernel.require_exact_strides(tensor, own)

    return (
        kernel,
        [exact(tensor) for tensor in written],
        [exact(tensor) for tensor in read],
        ints,
        floats,
        strides,
        grid,
    ), {}


class UserBuilder:
    """Builds user-defined kernels for one target.

    Configurations are compiled in order, and the first that the device can run is taken: the order
    in ``triton.autotune`` is that of preference.
    """

    def __init__(self, found: UserKernels, target: Target, builder: Builder) -> None:
        self._found = found
        self._target = target
        self._num_shards = builder.num_shards
        self._chosen: dict[str, int] = {}

    def kernel(self, key: str) -> UserKernel:
        """The kernel that a call names."""
        try:
            return self._found.kernels[key]
        except KeyError:
            raise LoweringError(
                f"the graph calls a Triton kernel {key!r} that it does not have: split the model"
                " again"
            ) from None

    def choose(self, key: str) -> int:
        """The configuration that calls of a kernel use."""
        if key not in self._chosen:
            self._chosen[key] = self._choose(self.kernel(key))
        return self._chosen[key]

    def _choose(self, kernel: UserKernel) -> int:
        refused = []
        for i, config in enumerate(kernel.configs):
            shown = ", ".join(f"{name}={value}" for name, value in config.constants.items())
            build = config.builds.get(str(self._target))
            if build is None:
                known = ", ".join(config.builds)
                refused.append(f"  {shown}: Triton makes it for {known} alone")
                continue
            if len(kernel.configs) == 1:
                return 0  # the compile step says what is wrong with it, if anything is
            reason = self._misfit(kernel, build)
            if not reason:
                return i
            refused.append(f"  {shown}, num_warps={build.num_warps}: {reason}")
        listed = "\n".join(refused)
        raise LoweringError(
            f"cannot lower the model: {self._target.device.name} can run no configuration of the"
            f" Triton kernel {kernel.name} ({kernel.file}):\n{listed}\nOffer another one in"
            " triton.autotune; where the kernel takes tensor descriptors, make them in the kernel"
        )

    def _misfit(self, kernel: UserKernel, build: Build) -> str:
        """Why the device cannot run a configuration; empty if it can."""
        text = self._found.ttir[build.ttir]
        launch = compiler.Launch(
            name=user_kernels.ENTRY,
            ttir_sha256=build.ttir,
            num_warps=build.num_warps,
            num_stages=build.num_stages,
            num_ctas=build.num_ctas,
            params=tuple(
                compiler.Param(param.name, _kind(param), param.dtype, False, param.block)
                for param in kernel.params
            ),
        )
        request = compiler.Request(text.encode(), launch, self._target, kernel.file)
        (result,) = compiler.compile_kernels([request])
        if isinstance(result, compiler.KernelResourceError):
            return str(result).strip().splitlines()[0]
        if isinstance(result, compiler.KernelCompileError):
            raise LoweringError(f"cannot lower the model: {result}")
        return ""

    def build(self, key: str, divisible: tuple[bool, ...]) -> Built:
        """Builds a kernel.

        Args:
          key: what the call names.
          divisible: of each parameter, whether its address or number is a multiple of 16.
        """
        kernel = self.kernel(key)
        config = kernel.configs[self.choose(key)]
        build = config.builds[str(self._target)]
        promises = tuple(
            known and param.aligned for known, param in zip(divisible, kernel.params, strict=True)
        )
        masked = user_kernels.promised(self._found.ttir[build.ttir], user_kernels.ENTRY, promises)
        launch = [build.num_warps, build.num_stages, build.num_ctas]
        launch += [kernel.cooperative, kernel.launch_pdl]
        digest = hashlib.sha256(json.dumps([masked, launch, "user"]).encode()).hexdigest()[:12]
        name = f"{kernel.name}_{digest}"
        ttir = user_kernels.promised(self._found.ttir[build.ttir], name, promises)
        made = Kernel(
            name=name,
            shard=int(digest, 16) % self._num_shards,
            ttir_sha256=hashlib.sha256(ttir.encode()).hexdigest(),
            params=tuple(
                KernelParam(
                    name=param.name,
                    kind=_kind(param),
                    dtype=param.dtype,
                    divisible_by_16=promise,
                    block=param.block,
                )
                for param, promise in zip(kernel.params, promises, strict=True)
            ),
            num_warps=build.num_warps,
            num_stages=build.num_stages,
            num_ctas=build.num_ctas,
            template="",
            config=dict(sorted(config.constants.items())),
            cooperative=kernel.cooperative,
            launch_pdl=kernel.launch_pdl,
        )
        return Built(
            kernel=made,
            ttir=ttir,
            source=_readable(kernel, made),
            arguments=(),
            loaded=frozenset(),
            meta={},
            config=config.constants,
        )


def _kind(param: Param) -> Literal["pointer", "scalar", "tensor_map"]:
    if param.block:
        return "tensor_map"
    return "pointer" if param.pointer else "scalar"


def _readable(kernel: UserKernel, made: Kernel) -> str:
    constants = ", ".join(f"{name}={value}" for name, value in made.config.items())
    return (
        f"# {made.name}: the user's kernel {kernel.name}, {kernel.file}\n"
        f"# num_warps={made.num_warps}, num_stages={made.num_stages}\n"
        f"# constants: {constants or 'none'}\n\n{kernel.source}"
    )


__all__ = ["UserBuilder", "UserKernelCall", "UserKernelLine", "installed"]
