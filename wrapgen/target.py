"""Targets: what a model is built for, spelled as XLA and nvcc spell it.

``sm_90`` is machine code (SASS) for compute capability 9.0; ``compute_90`` is PTX that the driver
of any newer GPU compiles at load. A program is lowered once per compute capability, so
``compute_90`` shares the lowering of ``sm_90``.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Final


class TargetError(ValueError):
    """A target that is not known; the message lists those that are."""


@dataclasses.dataclass(frozen=True)
class Device:
    """The properties of a GPU that lowering uses in place of a detected one.

    Sizes in bytes; counts an SM unless said otherwise. ``bandwidth`` in bytes a second and
    ``tensor_flops`` in dense fp16 operations a second are the vendor's figures, used to rank kernel
    configurations, never to report speed.
    Sources: CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability";
    the data sheets of the device named.
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
}
"""The declared device of each compute capability that lowering knows."""


@dataclasses.dataclass(frozen=True, order=True)
class Target:
    """One entry of a model's ``targets``: ``kind`` is ``sm`` (SASS) or ``compute`` (PTX)."""

    capability: int
    kind: str

    def __str__(self) -> str:
        return f"{self.kind}_{self.capability}"

    @property
    def device(self) -> Device:
        """The device that lowering for this target assumes."""
        return DEVICES[self.capability]

    @property
    def lowering(self) -> Target:
        """The target whose program this one is compiled from."""
        return Target(self.capability, "sm")


def parse(text: str) -> Target:
    """Parses ``sm_90`` or ``compute_90``; raises ``TargetError`` for anything else."""
    match = re.fullmatch(r"(sm|compute)_([1-9][0-9]{1,3})", text)
    if not match or int(match[2]) not in DEVICES:
        known = ", ".join(f"sm_{c}, compute_{c}" for c in sorted(DEVICES))
        raise TargetError(f"unknown target {text!r}: expected one of {known}")
    return Target(int(match[2]), match[1])
