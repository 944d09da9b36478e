"""CUDA's device library: what ``tt.extern_elementwise`` calls, by symbol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor

_F32_F64: Final[dict[str, Callable[..., Tensor]]] = {
    "acos": torch.acos,
    "acosh": torch.acosh,
    "asin": torch.asin,
    "asinh": torch.asinh,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "atan2": torch.atan2,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "erfinv": torch.erfinv,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "floor": torch.floor,
    "fmod": torch.fmod,
    "hypot": torch.hypot,
    "lgamma": torch.lgamma,
    "log": torch.log,
    "log10": torch.log10,
    "log1p": torch.log1p,
    "log2": torch.log2,
    "nearbyint": torch.round,
    "rint": torch.round,
    "nextafter": torch.nextafter,
    "pow": torch.pow,
    "rsqrt": torch.rsqrt,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "tan": torch.tan,
    "tanh": torch.tanh,
    "trunc": torch.trunc,
    "copysign": torch.copysign,
}

FUNCTIONS: Final[dict[str, Callable[..., Tensor]]] = {
    f"__nv_{name}{suffix}": function for name, function in _F32_F64.items() for suffix in ("", "f")
}

_PREDICATES: Final[dict[str, Callable[..., Tensor]]] = {
    "signbit": torch.signbit,
    "isinf": torch.isinf,
    "isnan": torch.isnan,
    "finite": torch.isfinite,
}


def _number(predicate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda value: predicate(value).to(torch.int32)


FUNCTIONS |= {
    f"__nv_{name}{suffix}": _number(function)
    for name, function in _PREDICATES.items()
    for suffix in "df"
}
FUNCTIONS |= {"__nv_isfinited": _number(torch.isfinite)}
