"""Reads the tensor maps that the simulated driver encodes; the layout is in tensor_map.h."""

from __future__ import annotations

import struct
from typing import Final

from simulator.interpreter.errors import InterpreterError
from simulator.interpreter.ttir import Type
from simulator.interpreter.values import MappedTensor
from wrapgen.kernels.launch import TENSOR_MAP_BYTES

FORMAT: Final = f"{TENSOR_MAP_BYTES}s"
"""How ``struct`` spells the parameter."""

_LAYOUT: Final = struct.Struct("<8sQQ5Q4Q5H4B")
_MAGIC: Final = b"TENSMAP1"
_LARGE: Final = 1 << 21
_SMALL_BYTES: Final = 128 * 1024
_NAN: Final = 1
_TF32: Final = 11

_ELEMENTS: Final = {
    0: ("i8", "f8E4M3FN", "f8E5M2"),
    1: ("i16",),
    2: ("i32",),
    3: ("i32",),
    4: ("i64",),
    5: ("i64",),
    6: ("f16",),
    7: ("f32",),
    8: ("f64",),
    9: ("bf16",),
    10: ("f32",),
    _TF32: ("f32",),
}
"""Types of TTIR by CUtensorMapDataType."""

_BYTES: Final = {
    "i8": 1,
    "f8E4M3FN": 1,
    "f8E5M2": 1,
    "i16": 2,
    "f16": 2,
    "bf16": 2,
    "i32": 4,
    "f32": 4,
    "i64": 8,
    "f64": 8,
}


def read(value: bytes, kind: Type, where: str) -> MappedTensor:
    """Returns the tensor that a parameter's bytes describe, for a parameter of type ``kind``.

    Raises ``InterpreterError``, whose message begins with ``where``, for bytes that no driver
    encoded, or for another parameter than this.
    """
    magic, large, address, *rest = _LAYOUT.unpack_from(value)
    sizes, steps, box = rest[:5], rest[5:9], rest[9:14]
    element, rank, _, fill = rest[14:]
    assert kind.pointee is not None
    block, name = kind.pointee.shape, kind.pointee.element
    if not any(value):  # of a tensor without elements
        return MappedTensor(0, (0,) * len(block), (1,) * len(block))
    if magic != _MAGIC:
        raise InterpreterError(f"{where}: its bytes are no tensor map that the driver encoded")
    if rank != len(block) or name not in _ELEMENTS[element]:
        raise InterpreterError(
            f"{where}: a tensor map of {rank} dimensions and element type {element} of "
            f"CUtensorMapDataType, the kernel takes {kind}"
        )
    shape = tuple(reversed(sizes[:rank]))
    strides = (*(step // _BYTES[name] for step in reversed(steps[: rank - 1])), 1)
    copied = tuple(reversed(box[:rank]))
    if any(size % each for size, each in zip(block, copied, strict=True)):
        raise InterpreterError(
            f"{where}: a tensor map that copies {list(copied)} at a time, the kernel takes {kind}"
        )
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) * _BYTES[name]
    if bool(large & _LARGE) == (last + 1 < _SMALL_BYTES):
        raise InterpreterError(f"{where}: a tensor map whose bit for large tensors is wrong")
    return MappedTensor(address, shape, strides, nan=fill == _NAN, tf32=element == _TF32)
