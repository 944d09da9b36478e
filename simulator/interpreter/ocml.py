"""AMD's device library: what ``tt.extern_elementwise`` calls in kernels for its GPUs, by symbol.

There is no simulated GPU of AMD's, but a program lowered for one can be run kernel by kernel, which
shows that it computes what it should. Names are those of ROCm's OCML (``__ocml_NAME_f32``) and of
the functions that Triton's AMD backend replaces itself (``__triton_hip_NAME``).
"""

from __future__ import annotations

from typing import Final

import torch

from simulator.interpreter import libdevice
from simulator.interpreter.libdevice import Function

_CALLED_OTHERWISE: Final = {
    "i0": "cyl_bessel_i0",
    "i1": "cyl_bessel_i1",
    "isfinite": "finited",
    "isinf": "isinfd",
    "isnan": "isnand",
    "pown": "powi",
    "signbit": "signbitd",
}
"""Names of OCML's, and CUDA's for the same."""

_NAMES: Final = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc erfcx erfinv exp "
    "exp10 exp2 expm1 fdim floor fma fmax fmin fmod hypot ilogb j0 j1 ldexp lgamma log log10 log1p "
    "log2 logb nearbyint nextafter pow remainder rint round rsqrt scalbn sin sinh sinpi sqrt tan "
    "tanh tgamma trunc y0 y1"
).split()

_REPLACED: Final[dict[str, Function]] = {
    "fabs": torch.abs,
    "fast_expf": torch.exp,
    "fast_fdividef": torch.div,
    "fast_tanhf": torch.tanh,
    "iabs": torch.abs,
    "llrint": libdevice.FUNCTIONS["__nv_llrint"],
    "rint": torch.round,
}


def _all() -> dict[str, Function]:
    same = {name: name for name in _NAMES} | _CALLED_OTHERWISE
    found = {
        f"__ocml_{name}_{kind}": libdevice.FUNCTIONS[f"__nv_{theirs}"]
        for name, theirs in sorted(same.items())
        for kind in ("f32", "f64")
    }
    return found | {f"__triton_hip_{name}": function for name, function in _REPLACED.items()}


FUNCTIONS: Final[dict[str, Function]] = _all()
"""By symbol: a function of values of the symbol's parameter types, of broadcastable shapes."""
