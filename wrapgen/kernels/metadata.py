"""What downstream must know of a compiled kernel, gathered from witnesses that must agree.

The launch as lowering declared it, Triton's statement, ptxas's report, and the binary itself. Where
the binary says it, its word is what is written.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any, Final

from wrapgen.kernels import cubin, hsaco
from wrapgen.kernels.amdgcn import Amdgcn
from wrapgen.kernels.cubin import Cubin, Slot
from wrapgen.kernels.errors import KernelCompileError, KernelResourceError
from wrapgen.kernels.hsaco import Hsaco
from wrapgen.kernels.launch import POINTER_BYTES, Launch
from wrapgen.kernels.ptx import Ptx, TensorMap
from wrapgen.kernels.ptxas import Assembled
from wrapgen.target import Target

SCHEMA_VERSION: Final = 2

SCRATCH_PARAMS: Final = ("global_scratch", "profile_scratch")
"""The pointers that Triton 3.7 appends to every kernel's parameters."""

_REGISTER_UNIT: Final = 256
"""Registers are allocated to a warp in multiples of this, for compute capability 3.0 and later
(CUDA occupancy calculator, "register allocation unit size")."""

_AMD_REGISTER_UNIT: Final = 8 * 64
"""Of AMD's: vector registers are allocated to a wavefront in eights of 64 lanes (LLVM, "User Guide
for AMDGPU Backend", ``GRANULATED_WORKITEM_VGPR_COUNT`` of GFX90A)."""

_HIP_DRIVER: Final = 60000000
"""The HIP of ROCm 6.0, whose functions the runtime calls; its loader takes code objects of version
5, which it is the first to make by default."""


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Facts about one compiled kernel; the fields of ``<kernel>.json``.

    ``size`` in bytes and ``sha256`` are the image's; ``format`` is ``cubin``, ``ptx`` or ``hsaco``;
    ``ptx_version`` is empty for the last. ``threads`` of a block,
    ``num_warps`` of a block, ``num_ctas`` blocks of a cluster; ``shared_memory`` in bytes a block,
    all dynamic. ``registers``, ``local_memory`` (stack, spills included), ``spill_stores`` and
    ``spill_loads`` are a thread's, the last three in bytes; for PTX they hold on the device it
    is named after, a later device's driver may decide otherwise. Of AMD's, ``registers`` are vector
    registers, and ``spill_loads`` is what ``spill_stores`` is: each register spilled counts once.
    ``params`` are offset and size in bytes of each parameter, the two scratch pointers at the end
    included; what HIP adds behind them it also fills in. ``global_scratch`` and ``profile_scratch``
    are bytes of device memory a block that a launch must provide, the former at a multiple of
    ``global_scratch_align``; ``tensor_maps`` says how each tensor map among the parameters is to be
    encoded. ``driver`` is the least CUDA version a driver must have, as cuDriverGetVersion spells
    it: 12080 is 12.8; or HIP version, as hipRuntimeGetVersion does: 60000000 is 6.0.
    """

    schema_version: int
    name: str
    target: str
    format: str
    size: int
    sha256: str
    ttir_sha256: str
    ptx_version: str
    driver: int
    threads: int
    num_warps: int
    num_ctas: int
    shared_memory: int
    registers: int
    local_memory: int
    spill_stores: int
    spill_loads: int
    params: tuple[Slot, ...]
    global_scratch: int
    profile_scratch: int
    global_scratch_align: int = 1
    tensor_maps: tuple[TensorMap, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Returns the metadata as plain JSON values."""
        fields = dataclasses.asdict(self)
        fields["params"] = list(fields["params"])
        fields["tensor_maps"] = [
            {**each, "box": list(each["box"])} for each in fields["tensor_maps"]
        ]
        return fields


def gather(
    launch: Launch, target: Target, ptx: Ptx, assembled: Assembled
) -> tuple[Metadata, bytes]:
    """Returns the metadata and the image: the cubin, or the PTX if that is the target's kind.

    Raises ``KernelCompileError`` that lists every disagreement, ``KernelResourceError`` where the
    declared device cannot run the launch.
    """
    binary = cubin.read(assembled.cubin)
    faults = list(_faults(launch, ptx, assembled, binary))
    if faults:
        raise KernelCompileError("\n".join(f"kernel {launch.name}: {fault}" for fault in faults))
    registers = -(-binary.registers * target.device.warp_size // _REGISTER_UNIT) * _REGISTER_UNIT
    _check_room(launch, target, ptx.shared_memory, binary.threads, registers * ptx.warps)
    portable = target.kind == "compute"
    image = ptx.text.encode("utf-8") if portable else assembled.cubin
    # PTX 8.0 to 8.5 came with CUDA 12.0 to 12.5, 8.6 and 8.7 with 12.7 and 12.8 (PTX ISA, "Release
    # Notes"). Machine code runs with any driver of the major version whose toolkit made it.
    release = ptx.version - 80 + (ptx.version > 85)
    driver = 12000 + 10 * release if portable else 1000 * (binary.cuda // 10)
    major, minor = divmod(ptx.version, 10)
    metadata = Metadata(
        schema_version=SCHEMA_VERSION,
        name=binary.entry,
        target=str(target),
        format="ptx" if portable else "cubin",
        size=len(image),
        sha256=hashlib.sha256(image).hexdigest(),
        ttir_sha256=launch.ttir_sha256,
        ptx_version=f"{major}.{minor}",
        driver=driver,
        threads=binary.threads,
        num_warps=ptx.warps,
        num_ctas=binary.cluster,
        shared_memory=ptx.shared_memory,
        registers=binary.registers,
        local_memory=binary.stack,
        spill_stores=assembled.report.spill_stores,
        spill_loads=assembled.report.spill_loads,
        params=binary.params,
        global_scratch=ptx.global_scratch,
        profile_scratch=ptx.profile_scratch,
        global_scratch_align=ptx.scratch_alignment,
        tensor_maps=ptx.tensor_maps,
    )
    return metadata, image


def _faults(launch: Launch, ptx: Ptx, assembled: Assembled, binary: Cubin) -> Iterator[str]:
    """Yields every point on which the witnesses disagree."""
    report = assembled.report
    for what, expected, got, source in (
        ("entry point", launch.name, binary.entry, "the cubin"),
        ("blocks of a cluster", launch.num_ctas, binary.cluster, "the cubin"),
        ("threads of a block", 32 * ptx.warps, binary.threads, "the cubin"),
        ("registers", report.registers, binary.registers, "the cubin, not ptxas,"),
        ("bytes of stack frame", report.stack, binary.frame, "the cubin, not ptxas,"),
        ("bytes of static shared memory", 0, report.static_shared_memory, "ptxas"),
    ):
        if expected != got:
            yield f"{what}: expected {expected}, {source} says {got}"
    if ptx.warps < launch.num_warps:
        yield f"warps of a block: expected {launch.num_warps}, Triton says {ptx.warps}"
    yield from _param_faults(launch, binary.params, "the cubin")
    yield from _scratch_faults(ptx.profile_scratch)


def _param_faults(launch: Launch, params: tuple[Slot, ...], source: str) -> Iterator[str]:
    """Yields every parameter that the binary takes otherwise than the launch passes it."""
    expected_params = [(param.name, param.nbytes) for param in launch.params]
    expected_params += [(name, POINTER_BYTES) for name in SCRATCH_PARAMS]
    if len(expected_params) != len(params):
        yield (
            f"parameters: expected {len(expected_params)} ({len(launch.params)} of the launch and "
            f"{len(SCRATCH_PARAMS)} that Triton appends), {source} has {len(params)}"
        )
    else:
        for i, ((name, size), slot) in enumerate(zip(expected_params, params, strict=True)):
            if size != slot.size:
                yield (
                    f"parameter {i} ({name!r}): expected {size} bytes, {source} has "
                    f"{slot.size} bytes at offset {slot.offset}"
                )


def _scratch_faults(profile_scratch: int) -> Iterator[str]:
    if profile_scratch:
        yield (
            f"needs {profile_scratch} bytes of profile scratch memory a block, which no launch "
            "provides; compile it without profiling"
        )


def gather_hsaco(launch: Launch, target: Target, code: Amdgcn) -> Metadata:
    """Returns the metadata of a kernel compiled for AMD's. Raises as ``gather`` does."""
    binary = hsaco.read(code.hsaco)
    faults = list(_hsaco_faults(launch, target, code, binary))
    if faults:
        raise KernelCompileError("\n".join(f"kernel {launch.name}: {fault}" for fault in faults))
    unit = _AMD_REGISTER_UNIT
    registers = -(-binary.registers * binary.wavefront // unit) * unit
    _check_room(launch, target, code.shared_memory, binary.threads, registers * code.warps)
    return Metadata(
        schema_version=SCHEMA_VERSION,
        name=binary.entry,
        target=str(target),
        format="hsaco",
        size=len(code.hsaco),
        sha256=hashlib.sha256(code.hsaco).hexdigest(),
        ttir_sha256=launch.ttir_sha256,
        ptx_version="",
        driver=_HIP_DRIVER,
        threads=binary.threads,
        num_warps=code.warps,
        num_ctas=1,
        shared_memory=code.shared_memory,
        registers=binary.registers,
        local_memory=binary.stack,
        spill_stores=4 * binary.spills,
        spill_loads=4 * binary.spills,
        params=binary.params,
        global_scratch=code.global_scratch,
        profile_scratch=code.profile_scratch,
        global_scratch_align=code.scratch_alignment,
    )


def _hsaco_faults(launch: Launch, target: Target, code: Amdgcn, binary: Hsaco) -> Iterator[str]:
    wavefront = target.device.warp_size
    for what, expected, got in (
        ("entry point", launch.name, binary.entry),
        ("architecture", str(target), binary.architecture),
        ("threads of a wavefront", wavefront, binary.wavefront),
        ("threads of a block", wavefront * code.warps, binary.threads),
        ("bytes of static shared memory", 0, binary.shared_memory),
    ):
        if expected != got:
            yield f"{what}: expected {expected}, the code object says {got}"
    if code.warps < launch.num_warps:
        yield f"warps of a block: expected {launch.num_warps}, Triton says {code.warps}"
    yield from _param_faults(launch, binary.params, "the code object")
    yield from _scratch_faults(code.profile_scratch)


def _check_room(
    launch: Launch, target: Target, shared_memory: int, threads: int, registers: int
) -> None:
    """Raises ``KernelResourceError`` if one block needs more than the device has."""
    device = target.device
    excesses = [
        f"a block needs {need} {what}, the device has {limit}"
        for what, need, limit in (
            ("bytes of shared memory", shared_memory, device.shared_memory_per_block_optin),
            ("threads", threads, device.max_threads_per_block),
            ("registers", registers, device.registers_per_multiprocessor),
        )
        if need > limit
    ]
    if excesses:
        raise KernelResourceError(
            f"kernel {launch.name}: {launch.config} is impossible on {target} ({device.name}): "
            f"{'; '.join(excesses)}"
        )
