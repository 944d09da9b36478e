"""The one table of element types: PyTorch, C++, Triton, DLPack and safetensors names side by side.

Nothing else in the project spells a dtype for another system; look it up here. Not in it is what
has no counterpart elsewhere: complex numbers, with which no Triton kernel computes;
``float8_e8m0fnu`` and ``float4_e2m1fn_x2``, which Triton has as bytes alone; integers of fewer than
8 bits; PyTorch's old quantised types.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Final


class DType(enum.StrEnum):
    """An element type, spelled as PyTorch spells it without the ``torch.`` prefix."""

    BOOL = "bool"
    UINT8 = "uint8"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT8_E4M3FN = "float8_e4m3fn"
    FLOAT8_E5M2 = "float8_e5m2"
    FLOAT8_E4M3FNUZ = "float8_e4m3fnuz"
    FLOAT8_E5M2FNUZ = "float8_e5m2fnuz"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


@dataclasses.dataclass(frozen=True)
class DTypeInfo:
    """How other systems spell one element type.

    Attributes:
      itemsize: bytes an element.
      cpp: C++ type of the same size and, where C++17 has it, meaning; 16- and 8-bit floats travel
        as unsigned integers of their size.
      triton: name in a Triton signature and in TTIR types (``*fp16`` is a pointer to it).
      ttir: element type in TTIR.
      dlpack_code: value of ``DLDataTypeCode``; the bit count is ``8 * itemsize``, lanes 1
        (https://dmlc.github.io/dlpack/latest/c_api.html).
      safetensors: name in a safetensors header.
    """

    itemsize: int
    cpp: str
    triton: str
    ttir: str
    dlpack_code: str
    safetensors: str


INFO: dict[DType, DTypeInfo] = {
    DType.BOOL: DTypeInfo(1, "bool", "i1", "i1", "kDLBool", "BOOL"),
    DType.UINT8: DTypeInfo(1, "uint8_t", "u8", "i8", "kDLUInt", "U8"),
    DType.INT8: DTypeInfo(1, "int8_t", "i8", "i8", "kDLInt", "I8"),
    DType.INT16: DTypeInfo(2, "int16_t", "i16", "i16", "kDLInt", "I16"),
    DType.INT32: DTypeInfo(4, "int32_t", "i32", "i32", "kDLInt", "I32"),
    DType.INT64: DTypeInfo(8, "int64_t", "i64", "i64", "kDLInt", "I64"),
    DType.UINT16: DTypeInfo(2, "uint16_t", "u16", "i16", "kDLUInt", "U16"),
    DType.UINT32: DTypeInfo(4, "uint32_t", "u32", "i32", "kDLUInt", "U32"),
    DType.UINT64: DTypeInfo(8, "uint64_t", "u64", "i64", "kDLUInt", "U64"),
    DType.FLOAT8_E4M3FN: DTypeInfo(
        1, "uint8_t", "fp8e4nv", "f8E4M3FN", "kDLFloat8_e4m3fn", "F8_E4M3"
    ),
    DType.FLOAT8_E5M2: DTypeInfo(1, "uint8_t", "fp8e5", "f8E5M2", "kDLFloat8_e5m2", "F8_E5M2"),
    # Of AMD's CDNA 3: no NVIDIA GPU computes with them.
    DType.FLOAT8_E4M3FNUZ: DTypeInfo(
        1, "uint8_t", "fp8e4b8", "f8E4M3FNUZ", "kDLFloat8_e4m3fnuz", "F8_E4M3FNUZ"
    ),
    DType.FLOAT8_E5M2FNUZ: DTypeInfo(
        1, "uint8_t", "fp8e5b16", "f8E5M2FNUZ", "kDLFloat8_e5m2fnuz", "F8_E5M2FNUZ"
    ),
    DType.FLOAT16: DTypeInfo(2, "uint16_t", "fp16", "f16", "kDLFloat", "F16"),
    DType.BFLOAT16: DTypeInfo(2, "uint16_t", "bf16", "bf16", "kDLBfloat", "BF16"),
    DType.FLOAT32: DTypeInfo(4, "float", "fp32", "f32", "kDLFloat", "F32"),
    DType.FLOAT64: DTypeInfo(8, "double", "fp64", "f64", "kDLFloat", "F64"),
}

DLPACK_CODES: Final[dict[str, int]] = {
    "kDLInt": 0,
    "kDLUInt": 1,
    "kDLFloat": 2,
    "kDLBfloat": 4,
    "kDLBool": 6,
    "kDLFloat8_e4m3fn": 10,
    "kDLFloat8_e4m3fnuz": 11,
    "kDLFloat8_e5m2": 12,
    "kDLFloat8_e5m2fnuz": 13,
}
"""Values of ``DLDataTypeCode`` (https://dmlc.github.io/dlpack/latest/c_api.html). Generated code
has the numbers, as headers of DLPack before 1.1 lack some of the names."""


def info(dtype: DType) -> DTypeInfo:
    """Returns the table's row for ``dtype``."""
    return INFO[dtype]
