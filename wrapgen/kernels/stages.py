"""Triton's stages one by one, as the ways to PTX (``ptx``) and to AMD's code (``amdgcn``) use them.

Its caches, random file names and driver detection are passed by.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from wrapgen.kernels.errors import KernelCompileError
from wrapgen.kernels.launch import Launch, check_ttir
from wrapgen.target import Device

TRITON_VERSION: Final = "3.7.1"
"""The one version that the stages are driven for and tested with."""


@dataclasses.dataclass(frozen=True)
class Triton:
    """The parts of Triton used here."""

    ir: Any
    llvm: Any
    passes: Any
    knobs: Any
    nvidia: Any
    amd: Any
    amd_bindings: Any
    gpu_target: Any

    def cuda(self, capability: int) -> Any:
        """NVIDIA's backend for a compute capability."""
        return self.nvidia.CUDABackend(self.gpu_target("cuda", capability, 32))

    def hip(self, device: Device) -> Any:
        """AMD's backend for an architecture."""
        return self.amd.HIPBackend(self.gpu_target("hip", device.architecture, device.warp_size))


def load() -> Triton:
    """Imports Triton, without torch and without a driver."""
    # Without this, Triton reads the metadata of every installed package to find its backends, and
    # loads whatever other package claims to be one.
    known = os.environ.get("TRITON_BACKENDS_IN_TREE")
    os.environ["TRITON_BACKENDS_IN_TREE"] = "1"
    try:
        import triton
        from triton._C.libtriton import amd, ir, llvm, passes
        from triton.backends.amd import compiler as amd_compiler
        from triton.backends.compiler import GPUTarget
        from triton.backends.nvidia import compiler as nvidia_compiler
    finally:
        if known is None:
            del os.environ["TRITON_BACKENDS_IN_TREE"]
        else:
            os.environ["TRITON_BACKENDS_IN_TREE"] = known
    if triton.__version__ != TRITON_VERSION:
        raise KernelCompileError(
            f"Triton is {triton.__version__}: expected {TRITON_VERSION}, the version that this "
            "wrapgen drives"
        )
    return Triton(ir, llvm, passes, triton.knobs, nvidia_compiler, amd_compiler, amd, GPUTarget)


def settle(triton: Triton) -> None:
    """Gives Triton's settings their defaults, whatever the process that forked this one did."""
    knobs = triton.knobs
    for group in (knobs.compilation, knobs.language, knobs.nvidia, knobs.amd, knobs.runtime):
        group.reset()
    # No line tables: they would record the name of the TTIR file.
    knobs.compilation.disable_line_info = True


def parse(triton: Triton, backend: Any, ttir: bytes, launch: Launch) -> Any:
    """Parses TTIR and checks it against the launch; returns the module."""
    # A fixed relative name: operations without a location get that of the file they are read from.
    source = Path(f"{launch.name}.ttir")
    source.write_bytes(ttir)
    context = triton.ir.context()
    triton.ir.load_dialects(context)
    backend.load_dialects(context)
    with failing(f"the TTIR of kernel {launch.name} does not parse"):
        module = triton.ir.parse_mlir_module(str(source), context)
    module.context = context  # keeps it alive, and is where Triton's stages look for it
    check_ttir(launch, module.str_nodebug())
    return module


def use_pointers(triton: Triton, module: Any) -> None:
    """Replaces tensor descriptors that the kernel makes by address arithmetic, where code for TMA
    cannot be had."""
    passes = triton.ir.pass_manager(module.context)
    triton.passes.ttir.add_rewrite_tensor_descriptor_to_pointer(passes)
    triton.passes.common.add_canonicalizer(passes)
    passes.run(module, "use_pointers")


@contextlib.contextmanager
def failing(message: str) -> Iterator[None]:
    """Turns what Triton's bindings raise into a ``KernelCompileError`` that says what failed."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        raise KernelCompileError(f"{message}: {error}") from error
