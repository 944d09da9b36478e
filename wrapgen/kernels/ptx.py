"""TTIR to PTX, with Triton's own passes and its LLVM.

Triton compiles for the machine it runs on; here the target is declared. What is chosen for each
target stands in one table, ``code_path``:

* ``sm_80``, ``sm_90`` and so on: what ``triton.compile`` does for that capability, to the letter,
  where it is given the same ptxas. From Hopper on that is code for ``sm_90a``, ``sm_100a`` or
  ``sm_120a``, which no other device runs.
* ``compute_90``: PTX that any later device can run, which rules out what is particular to Hopper:
  ``wgmma`` and ``setmaxnreg`` exist on ``sm_90a`` alone. Triton chooses them by capability in its
  passes, so the passes are told 8.9, the last generation with ``mma.sync`` as its best and with
  8-bit floats; LLVM then generates instructions for plain ``sm_90``, which has all of those.
  ``compute_100`` and ``compute_120`` likewise: ``tcgen05`` is of ``sm_100a``. ``compute_80`` to
  ``compute_89`` need no such care: they have nothing that later devices lack.

The version (ISA) of portable PTX is 8.0, which every CUDA 12 driver reads, or 8.4 for a kernel with
matrix products of 8-bit floats, or the first that knows the target: a driver refuses PTX newer than
itself, but takes machine code of any toolkit of its major version (CUDA Compatibility, "Minor
Version Compatibility").

Triton assembles for 10.0 and later with the second ptxas in its wheel, of CUDA 13.1. Here all is
assembled by one, 12.8, the first that knows them: a driver of CUDA 12 loads the code, and an action
has one assembler among its inputs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Final

from wrapgen.kernels import stages
from wrapgen.kernels.errors import KernelCompileError
from wrapgen.kernels.launch import Launch, check_resources
from wrapgen.target import Target

_TRIPLE: Final = "nvptx64-nvidia-cuda"


@dataclasses.dataclass(frozen=True)
class CodePath:
    """The choices that lead from a target to code.

    ``passes`` is the capability that Triton's passes are told, ``processor`` what LLVM generates
    instructions for, ``ptx_version`` ten times the version of the PTX ISA, ``assemble_for`` what
    ptxas is given as ``--gpu-name``.
    """

    passes: int
    processor: str
    ptx_version: int
    assemble_for: str


_SASS_PTX_VERSION: Final = 87  # what Triton 3.7.1 takes for the ptxas 12.8 in its wheel
_PORTABLE_PTX_VERSION: Final = 80
_FLOAT8_PTX_VERSION: Final = 84
_TENSOR_DESCRIPTORS: Final = 90  # from which Triton makes TMA code of tensor descriptors
_FLOAT8_PRODUCT: Final = re.compile(r"\bmma\.sync\.\S*\.e[45]m[23]\b")

_CODE_PATHS: Final = {
    Target(80, "sm"): CodePath(80, "sm_80", _SASS_PTX_VERSION, "sm_80"),
    Target(80, "compute"): CodePath(80, "sm_80", _PORTABLE_PTX_VERSION, "sm_80"),
    Target(86, "sm"): CodePath(86, "sm_86", _SASS_PTX_VERSION, "sm_86"),
    Target(86, "compute"): CodePath(86, "sm_86", _PORTABLE_PTX_VERSION, "sm_86"),
    Target(89, "sm"): CodePath(89, "sm_89", _SASS_PTX_VERSION, "sm_89"),
    Target(89, "compute"): CodePath(89, "sm_89", _PORTABLE_PTX_VERSION, "sm_89"),
    Target(90, "sm"): CodePath(90, "sm_90a", _SASS_PTX_VERSION, "sm_90a"),
    Target(90, "compute"): CodePath(89, "sm_90", _PORTABLE_PTX_VERSION, "sm_90"),
    Target(100, "sm"): CodePath(100, "sm_100a", _SASS_PTX_VERSION, "sm_100a"),
    Target(100, "compute"): CodePath(89, "sm_100", 86, "sm_100"),  # PTX ISA, ".target"
    Target(120, "sm"): CodePath(120, "sm_120a", _SASS_PTX_VERSION, "sm_120a"),
    Target(120, "compute"): CodePath(89, "sm_120", 87, "sm_120"),
}


@dataclasses.dataclass(frozen=True)
class TensorMap:
    """What ``cuTensorMapEncodeTiled`` is to be told of a parameter: position among the launch's
    parameters, the enumerators of element type and swizzle, and what is copied at a time, in
    elements, outermost dimension first (cuda.h: CUtensorMapDataType, CUtensorMapSwizzle)."""

    param: int
    element: int
    swizzle: int
    box: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Ptx:
    """PTX of one kernel and what Triton says about it.

    ``version`` is ten times that of the PTX ISA. ``warps`` counts the warps of a block, helpers of
    warp specialisation included; ``shared_memory`` is dynamic, in bytes a block; the scratch sizes
    are bytes of device memory a block that the launch would have to provide.
    """

    text: str
    version: int
    warps: int
    shared_memory: int
    global_scratch: int
    scratch_alignment: int
    profile_scratch: int
    tensor_maps: tuple[TensorMap, ...]


def code_path(target: Target) -> CodePath:
    """Returns the choices for ``target``; raises ``KernelCompileError`` where there are none."""
    try:
        return _CODE_PATHS[target]
    except KeyError:
        known = ", ".join(str(each) for each in sorted(_CODE_PATHS))
        raise KernelCompileError(f"{target}: kernels compile for {known} only") from None


def preload() -> None:
    """Imports Triton and sets up LLVM, so that processes forked from this one need not."""
    triton = stages.load()
    context = triton.ir.context()
    triton.ir.load_dialects(context)
    triton.cuda(90).load_dialects(context)
    triton.llvm.init_targets()


def generate(ttir: bytes, launch: Launch, target: Target) -> Ptx:
    """Compiles TTIR for ``target`` and checks it against the launch.

    Works in the current directory, which must be private and empty, with the environment as it is:
    callers see to it that no variable that steers Triton or LLVM is set (wrapgen.kernels.process).
    Raises ``KernelCompileError``; what Triton printed about the reason is on stderr.
    """
    check_resources(launch, target)
    path = code_path(target)
    triton = stages.load()
    stages.settle(triton)
    backend = triton.cuda(path.passes)
    module = stages.parse(triton, backend, ttir, launch)
    said: dict[str, Any] = {}
    with stages.failing(f"kernel {launch.name} does not compile for {target} with {launch.config}"):
        options = backend.parse_options(_options(launch, path))
        if path.passes < _TENSOR_DESCRIPTORS:
            stages.use_pointers(triton, module)
        module = backend.make_ttgir(module, said, options, path.passes)
        llir = backend.make_llir(module, said, options, path.passes)
        version = path.ptx_version
        text = _translate(triton, llir, path.processor, version)
        if target.kind == "compute" and _FLOAT8_PRODUCT.search(text):
            version = max(version, _FLOAT8_PTX_VERSION)
            text = _translate(triton, llir, path.processor, version)
    ptx = Ptx(
        text=text,
        version=version,
        warps=int(said.get("num_warps", launch.num_warps)),
        shared_memory=int(said["shared"]),
        global_scratch=int(said["global_scratch_size"] or 0),
        scratch_alignment=int(said["global_scratch_align"] or 1),
        profile_scratch=int(said["profile_scratch_size"] or 0),
        tensor_maps=_tensor_maps(launch, said["tensordesc_meta"]),
    )
    _check(launch.name, ptx, path)
    return ptx


def _tensor_maps(launch: Launch, said: Sequence[dict[str, Any]]) -> tuple[TensorMap, ...]:
    """Triton's word on the tensor maps among the parameters."""
    params = [i for i, param in enumerate(launch.params) if param.kind == "tensor_map"]
    if len(said) != len(params):
        raise KernelCompileError(
            f"kernel {launch.name}: the launch passes {len(params)} tensor maps, Triton describes "
            f"{len(said)}"
        )
    return tuple(
        TensorMap(
            param=param,
            element=_HOST_ELEMENT.get(each["elem_type"], each["elem_type"]),
            swizzle=each["swizzle"],
            box=tuple(each["block_size"]),
        )
        for param, each in zip(params, said, strict=True)
    )


_HOST_ELEMENT: Final = {8: 10, 9: 8, 10: 9}
"""Triton numbers element types as the hardware does; cuda.h differs in these three: float32 that
flushes subnormals, float64, bfloat16."""


def complete(text: bytes, launch: Launch, target: Target) -> Ptx:
    """Completes a kernel that is written in PTX, without the lines that say the version and the
    target: those that ``generate`` would take. It has no dynamic shared memory."""
    path = code_path(target)
    major, minor = divmod(path.ptx_version, 10)
    head = f".version {major}.{minor}\n.target {path.processor}\n.address_size 64\n\n"
    ptx = Ptx(
        text=head + text.decode("utf-8"),
        version=path.ptx_version,
        warps=launch.num_warps,
        shared_memory=0,
        global_scratch=0,
        scratch_alignment=1,
        profile_scratch=0,
        tensor_maps=(),
    )
    _check(launch.name, ptx, path)
    return ptx


def _options(launch: Launch, path: CodePath) -> dict[str, Any]:
    return {
        "num_warps": launch.num_warps,
        "num_stages": launch.num_stages,
        "num_ctas": launch.num_ctas,
        "maxnreg": launch.maxnreg,
        "ptx_version": path.ptx_version,  # else Triton runs ptxas to ask its version
    }


def _translate(triton: stages.Triton, llir: str, processor: str, version: int) -> str:
    """Runs LLVM's code generator, with the flag and the contraction of products and sums that
    Triton chooses by default.
    """
    fuse_products_and_sums = True
    return str(
        triton.llvm.translate_to_asm(
            llir,
            _TRIPLE,
            processor,
            f"+ptx{version}",
            ["nvptx-mad-wide-opt"],
            fuse_products_and_sums,
            False,
        )
    )


def _check(name: str, ptx: Ptx, path: CodePath) -> None:
    """Checks that the PTX is what was asked for, and what Triton says of it."""
    major, minor = divmod(ptx.version, 10)
    for what, pattern, expected in (
        ("entry points", r"^\.visible \.entry (\w+)\(", name),
        ("version", r"^\.version (\S+)$", f"{major}.{minor}"),
        ("target", r"^\.target (.+)$", path.processor),
    ):
        found = re.findall(pattern, ptx.text, re.MULTILINE)
        if found != [expected]:
            raise KernelCompileError(
                f"kernel {name}: {what} of the PTX: expected {expected}, got {', '.join(found)}"
            )
    uses = ".extern .shared" in ptx.text
    if uses != (ptx.shared_memory > 0):
        raise KernelCompileError(
            f"kernel {name}: Triton says {ptx.shared_memory} bytes of shared memory, the PTX "
            f"{'uses' if uses else 'does not use'} shared memory"
        )
