"""Targets: what a model is built for, spelled as XLA, nvcc and LLVM spell it.

``sm_90`` is machine code (SASS) for compute capability 9.0; ``compute_90`` is PTX that the driver
of any newer GPU compiles at load. A program is lowered once per compute capability, so
``compute_90`` shares the lowering of ``sm_90``. Machine code for 9.0 and later is made for one
architecture's own instructions, and runs on devices of exactly that capability; before, on those of
its major number from its minor number on (CUDA C++ Programming Guide, "Feature Availability").
``gfx942`` is machine code for one architecture of
AMD's, which no other runs. The runtime of a library speaks CUDA or HIP, not both, so a model's
targets are of one platform.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final, Literal

Platform = Literal["cuda", "hip"]
"""Whose driver a library calls: NVIDIA's or AMD's."""

RUNTIME_DRIVERS: Final[dict[Platform, int]] = {"cuda": 12000, "hip": 60000000}
"""The least version of a driver that the runtime itself needs, as cuDriverGetVersion spells it:
12000 is CUDA 12.0; or hipRuntimeGetVersion: 60000000 is HIP 6.0."""


class TargetError(ValueError):
    """A target that is not known, or that does not go with the others; the message lists them."""


@dataclasses.dataclass(frozen=True)
class Device:
    """The properties of a GPU that lowering uses in place of a detected one.

    Sizes in bytes; counts an SM, or AMD's compute unit, unless said otherwise. ``capability`` is
    what PyTorch calls it, of AMD's too; ``architecture`` is LLVM's name of AMD's, else empty.
    ``bandwidth`` in bytes a second and ``tensor_flops`` in dense fp16 operations a second are the
    vendor's figures, used to rank kernel configurations, never to report speed.
    Sources: CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability";
    the data sheets of the device named; for caches NVIDIA's papers on its architecture (GA102, Ada,
    Blackwell). Of AMD's, besides: ROCm documentation, "Accelerator and GPU
    hardware specifications"; "AMD Instinct MI200" and "MI300 Instruction Set Architecture".
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    max_threads_per_multiprocessor: int
    max_threads_per_block: int
    registers_per_multiprocessor: int
    shared_memory_per_multiprocessor: int
    shared_memory_per_block: int
    shared_memory_per_block_optin: int
    l2_cache: int
    total_memory: int
    bandwidth: float
    tensor_flops: float
    warp_size: int = 32
    architecture: str = ""

    @property
    def platform(self) -> Platform:
        """Whose driver runs it."""
        return "hip" if self.architecture else "cuda"


_GIB: Final = 1 << 30
_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

DEVICES: Final[dict[int, Device]] = {
    80: Device(
        name="NVIDIA A100",
        capability=(8, 0),
        multiprocessors=108,
        max_threads_per_multiprocessor=2048,
        max_threads_per_block=1024,
        registers_per_multiprocessor=65536,
        shared_memory_per_multiprocessor=164 * _KIB,
        shared_memory_per_block=48 * _KIB,
        shared_memory_per_block_optin=163 * _KIB,
        l2_cache=40 * _MIB,
        total_memory=80 * _GIB,
        bandwidth=2.0e12,
        tensor_flops=312e12,
    ),
    86: Device(
        name="NVIDIA A10",
        capability=(8, 6),
        multiprocessors=72,
        max_threads_per_multiprocessor=1536,
        max_threads_per_block=1024,
        registers_per_multiprocessor=65536,
        shared_memory_per_multiprocessor=100 * _KIB,
        shared_memory_per_block=48 * _KIB,
        shared_memory_per_block_optin=99 * _KIB,
        l2_cache=6 * _MIB,
        total_memory=24 * _GIB,
        bandwidth=0.6e12,
        tensor_flops=125e12,
    ),
    89: Device(
        name="NVIDIA L4",
        capability=(8, 9),
        multiprocessors=58,
        max_threads_per_multiprocessor=1536,
        max_threads_per_block=1024,
        registers_per_multiprocessor=65536,
        shared_memory_per_multiprocessor=100 * _KIB,
        shared_memory_per_block=48 * _KIB,
        shared_memory_per_block_optin=99 * _KIB,
        l2_cache=48 * _MIB,
        total_memory=24 * _GIB,
        bandwidth=0.3e12,
        tensor_flops=121e12,
    ),
    90: Device(
        name="NVIDIA H100",
        capability=(9, 0),
        multiprocessors=132,
        max_threads_per_multiprocessor=2048,
        max_threads_per_block=1024,
        registers_per_multiprocessor=65536,
        shared_memory_per_multiprocessor=228 * _KIB,
        shared_memory_per_block=48 * _KIB,
        shared_memory_per_block_optin=227 * _KIB,
        l2_cache=50 * _MIB,
        total_memory=80 * _GIB,
        bandwidth=3.35e12,
        tensor_flops=989e12,
    ),
    100: Device(
        name="NVIDIA B200",
        capability=(10, 0),
        multiprocessors=148,
        max_threads_per_multiprocessor=2048,
        max_threads_per_block=1024,
        registers_per_multiprocessor=65536,
        shared_memory_per_multiprocessor=228 * _KIB,
        shared_memory_per_block=48 * _KIB,
        shared_memory_per_block_optin=227 * _KIB,
        l2_cache=126 * _MIB,
        total_memory=180 * _GIB,
        bandwidth=8.0e12,
        tensor_flops=2250e12,
    ),
    120: Device(
        name="NVIDIA GeForce RTX 5090",
        capability=(12, 0),
        multiprocessors=170,
        max_threads_per_multiprocessor=1536,
        max_threads_per_block=1024,
        registers_per_multiprocessor=65536,
        shared_memory_per_multiprocessor=100 * _KIB,
        shared_memory_per_block=48 * _KIB,
        shared_memory_per_block_optin=99 * _KIB,
        l2_cache=96 * _MIB,
        total_memory=32 * _GIB,
        bandwidth=1.792e12,
        tensor_flops=209.5e12,  # with sums in float32, which a GeForce makes at half the rate
    ),
}
"""The declared device of each compute capability that lowering knows. Triton 3.7.1 supports none
below 8.0; 10.3 and 12.1 need a newer ptxas than the one that kernels are assembled with, and run
PTX for 10.0 and 12.0."""

AMD_DEVICES: Final[dict[int, Device]] = {
    0x90A: Device(
        name="AMD Instinct MI250X",  # one of its two dies, which is what HIP calls a device
        capability=(9, 0),
        multiprocessors=110,
        max_threads_per_multiprocessor=2048,
        max_threads_per_block=1024,
        registers_per_multiprocessor=131072,  # 4 SIMDs, 512 registers of 64 lanes each
        shared_memory_per_multiprocessor=64 * _KIB,
        shared_memory_per_block=64 * _KIB,
        shared_memory_per_block_optin=64 * _KIB,
        l2_cache=8 * _MIB,
        total_memory=64 * _GIB,
        bandwidth=1.6e12,
        tensor_flops=191.5e12,
        warp_size=64,
        architecture="gfx90a",
    ),
    0x942: Device(
        name="AMD Instinct MI300X",
        capability=(9, 4),
        multiprocessors=304,
        max_threads_per_multiprocessor=2048,
        max_threads_per_block=1024,
        registers_per_multiprocessor=131072,
        shared_memory_per_multiprocessor=64 * _KIB,
        shared_memory_per_block=64 * _KIB,
        shared_memory_per_block_optin=64 * _KIB,
        l2_cache=4 * _MIB,  # of each die
        total_memory=192 * _GIB,
        bandwidth=5.3e12,
        tensor_flops=1307e12,
        warp_size=64,
        architecture="gfx942",
    ),
}
"""The declared device of each of AMD's architectures that lowering knows, by number."""


@dataclasses.dataclass(frozen=True, order=True)
class Target:
    """One entry of a model's ``targets``.

    ``kind`` is ``sm`` (SASS), ``compute`` (PTX) or ``gfx`` (machine code of AMD's).
    ``capability`` is the number behind it: the compute capability, 90 for 9.0; or that of AMD's
    architecture, whose last two digits LLVM writes in hexadecimal, 0x90a for ``gfx90a``.
    """

    capability: int
    kind: str

    def __str__(self) -> str:
        if self.kind == "gfx":
            return f"gfx{self.capability:x}"
        return f"{self.kind}_{self.capability}"

    @property
    def platform(self) -> Platform:
        """Whose driver loads it."""
        return "hip" if self.kind == "gfx" else "cuda"

    @property
    def is_machine_code(self) -> bool:
        """Whether it is what a GPU runs, and not PTX."""
        return self.kind != "compute"

    @property
    def device(self) -> Device:
        """The device that lowering for this target assumes."""
        return (AMD_DEVICES if self.kind == "gfx" else DEVICES)[self.capability]

    @property
    def lowering(self) -> Target:
        """The target whose program this one is compiled from."""
        return Target(self.capability, "sm") if self.kind == "compute" else self


KNOWN: Final[dict[str, Target]] = {
    str(target): target
    for target in (
        *(Target(number, kind) for number in sorted(DEVICES) for kind in ("sm", "compute")),
        *(Target(number, "gfx") for number in sorted(AMD_DEVICES)),
    )
}
"""Every target, by its one spelling: files and directories are named by it."""


def parse(text: str) -> Target:
    """Parses ``sm_90``, ``compute_90`` or ``gfx942``; raises ``TargetError`` for anything else."""
    try:
        return KNOWN[text]
    except KeyError:
        known = ", ".join(KNOWN)
        raise TargetError(f"unknown target {text!r}: expected one of {known}") from None


def platform_of(targets: Iterable[Target]) -> Platform:
    """The platform of a model's targets; raises ``TargetError`` if they are of two, or none."""
    by_platform: dict[Platform, list[str]] = {}
    for target in targets:
        by_platform.setdefault(target.platform, []).append(str(target))
    if not by_platform:
        raise TargetError("no target: name at least one, such as sm_90 or gfx942")
    if len(by_platform) > 1:
        raise TargetError(
            f"targets {', '.join(by_platform['cuda'])} run on NVIDIA's GPUs and "
            f"{', '.join(by_platform['hip'])} on AMD's: a library calls one vendor's driver; "
            "build one for each"
        )
    return next(iter(by_platform))
