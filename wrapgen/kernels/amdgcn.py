"""TTIR to AMD's machine code, with Triton's own passes, its LLVM and its linker.

All of it runs in this process: LLVM assembles, and the linker (lld) is a function of Triton's
library. Triton's own last step passes objects through temporary files of random names; here they
have fixed, relative ones.

The stages are what ``triton.compile`` does for ``gfx90a`` and ``gfx942``, to the letter. AMD's
device functions (``__ocml_*``) come from the bitcode in Triton's wheel and are linked in.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Final

from wrapgen.kernels import stages
from wrapgen.kernels.errors import KernelCompileError
from wrapgen.kernels.launch import Launch, check_resources
from wrapgen.target import Target

_OBJECT: Final = "kernel.o"
_BINARY: Final = "kernel.hsaco"

_NVIDIAS: Final = re.compile(r'symbol = "(__nv_\w+)"')


@dataclasses.dataclass(frozen=True)
class Amdgcn:
    """Assembly and machine code of one kernel, and what Triton says about it.

    ``warps`` counts the wavefronts of a block; ``shared_memory`` is dynamic, in bytes a block; the
    scratch sizes are bytes of device memory a block that the launch has to provide, the global one
    at a multiple of ``scratch_alignment``.
    """

    text: str
    hsaco: bytes
    warps: int
    shared_memory: int
    global_scratch: int
    profile_scratch: int
    scratch_alignment: int = 1


def preload() -> None:
    """Imports Triton and sets up LLVM, so that processes forked from this one need not."""
    triton = stages.load()
    context = triton.ir.context()
    triton.ir.load_dialects(context)
    triton.amd_bindings.load_dialects(context)
    triton.llvm.init_targets()


def generate(ttir: bytes, launch: Launch, target: Target) -> Amdgcn:
    """Compiles TTIR for ``target`` and checks it against the launch.

    Works in the current directory, which must be private and empty, with the environment as it is,
    like ``ptx.generate``. Raises ``KernelCompileError``; what Triton printed about the reason is on
    stderr.
    """
    check_resources(launch, target)
    if launch.maxnreg is not None:
        raise KernelCompileError(
            f"kernel {launch.name}: maxnreg={launch.maxnreg}: only NVIDIA's compiler is told a "
            f"number of registers, and the target is {target}; do without"
        )
    triton = stages.load()
    stages.settle(triton)
    backend = triton.hip(target.device)
    module = stages.parse(triton, backend, ttir, launch)
    _check_functions(launch, module.str_nodebug(), target)
    # What Triton takes from a launch's options into what it says of the kernel, and reads there.
    said: dict[str, Any] = {"num_ctas": launch.num_ctas}
    with stages.failing(f"kernel {launch.name} does not compile for {target} with {launch.config}"):
        options = backend.parse_options(
            {
                "num_warps": launch.num_warps,
                "num_stages": launch.num_stages,
                "num_ctas": launch.num_ctas,
            }
        )
        stages.use_pointers(triton, module)
        module = backend.make_ttgir(module, said, options)
        llir = backend.make_llir(module, said, options)
        global_scratch = module.get_int_attr("ttg.global_scratch_memory_size")
        alignment = module.get_int_attr("ttg.global_scratch_memory_alignment")
        text = str(
            triton.llvm.translate_to_asm(
                llir,
                triton.amd_bindings.TARGET_TRIPLE,
                options.arch,
                "",
                [],
                options.enable_fp_fusion,
                False,
            )
        )
        binary = triton.amd_bindings.assemble_amdgcn(text, options.arch, "")
        if not binary:
            raise ValueError(
                "its assembly is refused; what the kernel itself writes in assembly must be AMD's"
            )
        Path(_OBJECT).write_bytes(binary)
        triton.amd_bindings.link_hsaco(_OBJECT, _BINARY)
    return Amdgcn(
        text=text,
        hsaco=Path(_BINARY).read_bytes(),
        warps=int(said["num_warps"]),
        shared_memory=int(said["shared"]),
        global_scratch=int(global_scratch or 0),
        profile_scratch=int(said["profile_scratch_size"] or 0),
        scratch_alignment=int(alignment or 1),
    )


def _check_functions(launch: Launch, ttir: str, target: Target) -> None:
    """Refuses TTIR that calls NVIDIA's device functions, by whose names no one finds AMD's."""
    names = sorted(set(_NVIDIAS.findall(ttir)))
    if names:
        raise KernelCompileError(
            f"kernel {launch.name}: calls {', '.join(names)} of NVIDIA's device library, and the "
            f"target is {target}; make the TTIR for that target"
        )
