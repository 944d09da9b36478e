"""How many blocks of a kernel a multiprocessor holds at a time: an upper bound, from the sizes that
the compiler reports."""

from __future__ import annotations

import dataclasses
from typing import Final

from wrapgen.target import Device

_BLOCKS: Final[dict[int, int]] = {
    75: 16,
    80: 32,
    86: 16,
    87: 16,
    89: 24,
    90: 32,
    100: 32,
    103: 32,
    120: 24,
    121: 24,
}
"""Blocks that a multiprocessor holds at most, by compute capability: CUDA C++ Programming Guide,
table "Technical Specifications per Compute Capability"."""

_REGISTER_UNIT: Final = 256
_WARP_UNIT: Final = 4
"""Registers are given to a warp in multiples of the first, and warps that have them to a
multiprocessor in multiples of the second, its parts: CUDA occupancy calculator."""

_SHARED_MEMORY_UNIT: Final = 128
_RESERVED_SHARED_MEMORY: Final = 1024
"""Shared memory is given to a block in multiples of the first; the system takes the second for each
block. For compute capability 8.0 and later: CUDA C++ Programming Guide, "Shared Memory" of 8.x."""

_AMD_REGISTER_UNIT: Final = 8
_AMD_REGISTERS: Final = 512
_AMD_SIMDS: Final = 4
"""Of gfx90a and gfx942: vector registers are given to a wavefront in multiples of the first; each
of a compute unit's SIMDs has so many for each lane: LLVM, "User Guide for AMDGPU Backend"."""


@dataclasses.dataclass(frozen=True)
class Occupancy:
    """``blocks`` of a kernel on a multiprocessor at a time, at the most; ``percent`` of the threads
    that it holds at the most; and what it is that is used up: ``limits``, in a fixed order."""

    blocks: int
    percent: int
    limits: tuple[str, ...]


def bound(device: Device, *, threads: int, registers: int, shared_memory: int) -> Occupancy:
    """Bounds a kernel's occupancy of a device.

    Args:
      device: the device it is compiled for.
      threads: of a block.
      registers: of a thread; of AMD's, vector registers.
      shared_memory: bytes of a block.

    Returns:
      The bound. No blocks where one does not fit: the compile step refuses such kernels.
    """
    warps = -(-threads // device.warp_size)
    limits = {"threads": device.max_threads_per_multiprocessor // (warps * device.warp_size)}
    if device.platform == "hip":
        used = _up(max(registers, 1), _AMD_REGISTER_UNIT)
        limits["registers"] = _AMD_SIMDS * (_AMD_REGISTERS // used) // warps
        if shared_memory:
            limits["shared memory"] = device.shared_memory_per_multiprocessor // shared_memory
    else:
        major, minor = device.capability
        limits["blocks"] = _BLOCKS[10 * major + minor]
        used = _up(max(registers, 1) * device.warp_size, _REGISTER_UNIT)
        resident = device.registers_per_multiprocessor // used // _WARP_UNIT * _WARP_UNIT
        limits["registers"] = resident // warps
        taken = _up(shared_memory, _SHARED_MEMORY_UNIT) + _RESERVED_SHARED_MEMORY
        limits["shared memory"] = device.shared_memory_per_multiprocessor // taken
    blocks = min(limits.values())
    held = blocks * warps * device.warp_size
    return Occupancy(
        blocks,
        100 * held // device.max_threads_per_multiprocessor,
        tuple(name for name, limit in limits.items() if limit == blocks),
    )


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
