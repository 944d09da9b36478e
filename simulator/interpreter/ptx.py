"""Inline assembly: ``tt.elementwise_inline_asm`` of straight-line PTX.

What kernels write in assembly is a few instructions on registers: a rounding mode, an
approximation, a shift. Those are executed here, named as the PTX ISA names them. Branches, memory,
special registers and vectors are not supported; neither is more than one element to a register.

A kernel that may start before the one ahead of it has ended says in assembly when it waits for that
(``griddepcontrol``). Kernels run one after the other here, so there is nothing to wait for.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any, Final

import torch

from simulator.interpreter import elementwise as lanes
from simulator.interpreter import libdevice
from simulator.interpreter.errors import InterpreterError
from simulator.interpreter.floats import convert, dtype_of
from simulator.interpreter.ttir import Op
from simulator.interpreter.values import Tensor

_REGISTER: Final = {
    "h": torch.int16,
    "r": torch.int32,
    "f": torch.float32,
    "l": torch.int64,
    "d": torch.float64,
}
"""The type of an operand by its constraint's letter."""

_TYPES: Final = {
    "b16": torch.int16,
    "b32": torch.int32,
    "b64": torch.int64,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "f32": torch.float32,
    "f64": torch.float64,
    "pred": torch.bool,
    "s16": torch.int16,
    "s32": torch.int32,
    "s64": torch.int64,
    "u16": torch.int16,
    "u32": torch.int32,
    "u64": torch.int64,
}

_ELEMENT: Final = {"f16": "f16", "bf16": "bf16", "f32": "f32", "f64": "f64"}

_IGNORED: Final = frozenset(
    ("approx", "ftz", "full", "rn", "lo", "wrap", "noftz", "relu_", "uni", "to")
)
"""Modifiers that change nothing here: what is approximate on hardware is precise."""

_UNARY: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "abs": torch.abs,
    "brev": libdevice.FUNCTIONS["__nv_brev"],
    "clz": lambda a: lanes.leading_zeros(a).to(torch.int32),
    "cos": torch.cos,
    "ex2": torch.exp2,
    "lg2": torch.log2,
    "mov": lambda a: a,
    "neg": torch.neg,
    "not": torch.bitwise_not,
    "popc": lambda a: lanes.count_ones(a).to(torch.int32),
    "rcp": torch.reciprocal,
    "rsqrt": torch.rsqrt,
    "sin": torch.sin,
    "sqrt": torch.sqrt,
    "tanh": torch.tanh,
}

_BINARY: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "add": torch.add,
    "and": torch.bitwise_and,
    "copysign": lambda a, b: torch.copysign(b, a),
    "or": torch.bitwise_or,
    "sub": torch.sub,
    "xor": torch.bitwise_xor,
}

_GRID_CONTROL: Final = frozenset(("griddepcontrol.wait", "griddepcontrol.launch_dependents"))
"""What orders kernels. Triton gives each a result, which is not set and not used."""

_COMPARISONS: Final = ("eq", "ne", "lt", "le", "gt", "ge")


def evaluate(op: Op, operands: list[Tensor]) -> Any:
    """The results of inline assembly for each lane.

    Raises ``InterpreterError`` that quotes the instruction that is not supported.
    """
    text = op.words[0]
    constraints = [
        part.strip().lstrip("=&") for part in str(op.attributes["constraints"]).split(",")
    ]
    if int(op.attributes.get("packed_element", 1)) != 1:
        raise InterpreterError(
            f"inline assembly {text!r}: more than one element at a time is not supported"
        )
    if len(constraints) < len(op.results) + len(operands):
        raise InterpreterError(f"inline assembly {text!r}: constraints do not fit the operands")
    if set(_statements(text)) <= _GRID_CONTROL:
        return [torch.zeros((1,), dtype=dtype_of(kind.element)) for kind in op.result_types]
    state: dict[str, Tensor] = {}
    inputs = constraints[len(op.results) : len(op.results) + len(operands)]
    for i, (constraint, value) in enumerate(zip(inputs, operands, strict=True)):
        state[f"${len(op.results) + i}"] = _to_register(text, constraint, value)
    for statement in _statements(text):
        _execute(text, statement, state)
    results = []
    for i, kind in enumerate(op.result_types):
        if f"${i}" not in state:
            raise InterpreterError(f"inline assembly {text!r} does not set ${i}")
        target = dtype_of(kind.element)
        value = state[f"${i}"]
        if value.dtype.itemsize > target.itemsize:  # the lower part of a register
            bits = {1: torch.int8, 2: torch.int16, 4: torch.int32}[target.itemsize]
            value = lanes.bitcast(value, _integer(value.dtype)).to(bits)
        value = lanes.bitcast(value, target)
        results.append(value.reshape(value.shape or (1,) * (len(kind.shape) + 1)))
    return results


def _integer(dtype: torch.dtype) -> torch.dtype:
    return {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]


def _to_register(text: str, constraint: str, value: Tensor) -> Tensor:
    dtype = _REGISTER.get(constraint)
    if dtype is None:
        raise InterpreterError(f"inline assembly {text!r}: constraint {constraint!r}")
    if value.dtype.itemsize < dtype.itemsize:
        bits = value.to(torch.int8) if value.dtype == torch.bool else value
        value = lanes.extend(lanes.bitcast(bits, _integer(bits.dtype)), dtype, signed=False)
    return lanes.bitcast(value, dtype)


def _statements(text: str) -> list[str]:
    """The instructions, without comments, braces and declarations."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    text = re.sub(r"//[^\n]*", " ", text)
    found = [part.strip().strip("{}").strip() for part in text.split(";")]
    return [part for part in found if part and not part.startswith(".reg")]


def _execute(text: str, statement: str, state: dict[str, Tensor]) -> None:
    mnemonic, _, rest = statement.partition(" ")
    parts = mnemonic.split(".")
    names = [name.strip() for name in rest.split(",")]
    try:
        state[names[0]] = _result(parts, names[1:], state)
    except (KeyError, ValueError, NotImplementedError) as error:
        raise InterpreterError(
            f"inline assembly {text!r}: {statement!r} is not supported ({error})"
        ) from error


def _result(parts: list[str], names: list[str], state: dict[str, Tensor]) -> Tensor:
    name, modifiers = parts[0], parts[1:]
    types = [part for part in modifiers if part in _TYPES]
    flags = [part for part in modifiers if part not in _TYPES and part not in _IGNORED]
    kind = types[-1]
    if name == "cvt":
        return _cvt(types, flags, _read(names[0], types[1], state))
    if name == "selp":
        a, b = (_read(operand, kind, state) for operand in names[:2])
        return torch.where(_read(names[2], "pred", state), a, b)
    if name in ("shl", "shr"):
        a, b = _read(names[0], kind, state), _read(names[1], "u32", state)
        return _shift(name, kind, a, lanes.unsigned(b).to(a.dtype))
    values = [_read(operand, kind, state) for operand in names]
    if name in _UNARY and not flags:
        return _UNARY[name](*values)
    if name in _BINARY and not flags:
        return _BINARY[name](*values)
    if name == "setp" and len(flags) == 1 and flags[0] in _COMPARISONS:
        if kind.startswith("u"):
            return lanes.compare_unsigned(flags[0], *values)
        return getattr(torch, flags[0])(*values)  # type: ignore[no-any-return]
    if name in ("min", "max") and not flags:
        return _extreme(name, kind, *values)
    if name in ("mul", "mad"):
        return _multiply(flags, kind, *values)
    return _floating(name, kind, flags, values)


def _floating(name: str, kind: str, flags: list[str], values: list[Tensor]) -> Tensor:
    """Division and fused multiplication, and arithmetic with a rounding mode."""
    if name == "div" and not flags:
        return torch.div(*values) if kind.startswith("f") else lanes.div_signed(*values)
    if name == "fma" and not flags:
        return lanes.fma(*values)
    modes = {"rz": "rz", "rm": "rd", "rp": "ru"}
    if len(flags) == 1 and flags[0] in modes and kind in ("f32", "f64"):
        letter = "f" if kind == "f32" else "d"
        mode = modes[flags[0]]
        symbol = f"__nv_fma{'f' if kind == 'f32' else ''}_{mode}" if name == "fma" else ""
        return libdevice.FUNCTIONS[symbol or f"__nv_{letter}{name}_{mode}"](*values)
    raise NotImplementedError(".".join([name, *flags, kind]))


def _multiply(flags: list[str], kind: str, *values: Tensor) -> Tensor:
    a, b = values[:2]
    if kind.startswith(("f", "bf")):
        if flags:
            return _floating("mul", kind, flags, list(values))
        return a * b if len(values) == 2 else lanes.fma(*values)
    if flags == ["hi"]:
        high = lanes.mul_high_unsigned if kind.startswith("u") else lanes.mul_high_signed
        product = high(a, b)
    elif flags == ["wide"]:
        wide = lanes.unsigned if kind.startswith("u") else (lambda v: v.to(torch.int64))
        product = wide(a) * wide(b)
    elif not flags:
        product = a * b
    else:
        raise NotImplementedError(str(flags))
    return product + values[2].to(product.dtype) if len(values) > 2 else product


def _extreme(name: str, kind: str, a: Tensor, b: Tensor) -> Tensor:
    if kind.startswith(("f", "bf")):
        return torch.fmax(a, b) if name == "max" else torch.fmin(a, b)
    if kind.startswith("u"):
        keep = lanes.compare_unsigned("ge" if name == "max" else "le", a, b)
        return torch.where(keep, a, b)
    return torch.maximum(a, b) if name == "max" else torch.minimum(a, b)


def _shift(name: str, kind: str, a: Tensor, distance: Tensor) -> Tensor:
    a, distance = torch.broadcast_tensors(a, distance)
    if name == "shl":
        return lanes.shift_left(a, distance)
    if kind.startswith("s"):
        return lanes.shift_right_signed(a, distance)
    return lanes.shift_right_unsigned(a, distance)


_INTEGRAL: Final = {"rni": torch.round, "rzi": torch.trunc, "rmi": torch.floor, "rpi": torch.ceil}


def _cvt(types: list[str], flags: list[str], value: Tensor) -> Tensor:
    """``cvt.FLAGS.TO.FROM``."""
    target, source = types
    dtype = _TYPES[target]
    if target in _ELEMENT and source in _ELEMENT:
        for flag in flags:
            if flag in _INTEGRAL and target == source:
                return _INTEGRAL[flag](value)
        if flags not in ([], ["rz"]):
            raise NotImplementedError(str(flags))
        return convert(value, source, target, "rtz" if flags else "rtne")
    if target in _ELEMENT and not flags:
        return lanes.int_to_float(value, dtype, signed=source.startswith("s"))
    if source in _ELEMENT and len(flags) == 1:
        rounded = _INTEGRAL[flags[0]](value)
        return lanes.float_to_int(rounded, dtype, signed=target.startswith("s"))
    if flags:
        raise NotImplementedError(str(flags))
    if dtype.itemsize > value.dtype.itemsize:
        return lanes.extend(value, dtype, signed=source.startswith("s"))
    return value.to(dtype)


def _read(name: str, kind: str, state: dict[str, Tensor]) -> Tensor:
    """A register or an immediate as the type of the instruction."""
    dtype = _TYPES[kind]
    if name in state:
        value = state[name]
        if value.dtype.itemsize > dtype.itemsize:  # a 16-bit operand in a 32-bit register
            value = lanes.bitcast(value, _integer(value.dtype)).to(_integer(dtype))
        return lanes.bitcast(value, dtype)
    if re.fullmatch(r"0[fF][0-9A-Fa-f]{8}", name):
        return torch.tensor(struct.unpack("<f", struct.pack("<I", int(name[2:], 16)))[0])
    if re.fullmatch(r"0[dD][0-9A-Fa-f]{16}", name):
        number = struct.unpack("<d", struct.pack("<Q", int(name[2:], 16)))[0]
        return torch.tensor(number, dtype=torch.float64)
    if re.fullmatch(r"-?(0[xX][0-9A-Fa-f]+|\d+)U?", name):
        number = int(name.rstrip("U"), 0)
        if dtype.is_floating_point:
            return torch.tensor(float(number), dtype=dtype)
        bits = 8 * dtype.itemsize
        return torch.tensor((number + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1), dtype=dtype)
    if re.fullmatch(r"-?\d+\.\d*", name):
        return torch.tensor(float(name), dtype=dtype)
    raise KeyError(f"operand {name}")
