"""Element types in generated C++: ``DLDataType`` constants and literals of scalar arguments."""

from __future__ import annotations

import math
import struct

from wrapgen.codegen.errors import CodegenError
from wrapgen.codegen.names import pascal
from wrapgen.dtype import DLPACK_CODES, INFO, DType


def constant(dtype: DType) -> str:
    """Name of the dtype's ``DLDataType`` constant in model.cc."""
    return "k" + pascal(dtype)


def dldatatype(dtype: DType) -> str:
    """The dtype as an initialiser of ``DLDataType``: code, bits, lanes."""
    row = INFO[dtype]
    return f"{{{DLPACK_CODES[row.dlpack_code]}, {8 * row.itemsize}, 1}}"


def float_literal(dtype: DType, text: str) -> str:
    """A C++ literal for ``float.hex`` text, rounded to ``dtype`` (to nearest, ties to even).

    float16 and bfloat16 values are their bits, as ``DTypeInfo.cpp`` says. Raises ``CodegenError``
    for a finite value beyond the dtype's range and for 8-bit floats, which no kernel takes by
    value.
    """
    value = float.fromhex(text)
    if dtype == DType.FLOAT64:
        return _decimal(value, "double", "")
    try:
        if dtype == DType.FLOAT32:
            return _decimal(struct.unpack("<f", struct.pack("<f", value))[0], "float", "f")
        if dtype == DType.FLOAT16:
            return f"0x{struct.unpack('<H', struct.pack('<e', value))[0]:04x}"
        if dtype == DType.BFLOAT16:
            return f"0x{_bfloat16(value):04x}"
    except OverflowError as error:
        raise CodegenError(f"{text} ({value!r}) is beyond the range of {dtype}") from error
    raise CodegenError(f"{dtype} arguments by value are not supported")


def _decimal(value: float, cpp: str, suffix: str) -> str:
    """The shortest decimal that reads back as ``value``, or the name of what no literal spells."""
    if math.isnan(value):
        return f"std::numeric_limits<{cpp}>::quiet_NaN()"
    if math.isinf(value):
        return ("-" if value < 0 else "") + f"std::numeric_limits<{cpp}>::infinity()"
    return repr(value) + suffix


def _bfloat16(value: float) -> int:
    if math.isnan(value):
        return 0x7FC0
    if math.isinf(value) or value == 0:
        bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
        return bits >> 16
    # Round once, from double: 8 significant bits, 7 fewer at the least where it is subnormal.
    exponent = max(math.frexp(value)[1], -125)
    unit = math.ldexp(1.0, exponent - 8)
    rounded = round(value / unit) * unit  # round() takes ties to even; both operations are exact
    if abs(rounded) > float.fromhex("0x1.fep+127"):
        raise OverflowError
    bits = struct.unpack("<I", struct.pack("<f", rounded))[0]
    return bits >> 16
