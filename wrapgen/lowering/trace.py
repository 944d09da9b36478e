"""From a kernel's readable source, edited or not, to its TTIR: for trying a change of one kernel.

``sources/KERNEL.py`` is what lowering wrote for a reader. Its function is a Triton function; what
its parameters are, which are compile-time constants, and how many warps run it is in the program.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from wrapgen import program as programs
from wrapgen import target as targets
from wrapgen.dtype import INFO
from wrapgen.lowering import kernel as kernels
from wrapgen.lowering.errors import LoweringError
from wrapgen.program import KernelParam

_ALIGNED: Final = [["tt.divisibility", 16]]


def trace(source: Path, program: Path, out: Path) -> None:
    """Writes the TTIR of the kernel whose source is ``source``, named as its file is.

    An unedited source gives what lowering wrote into ``shards``, to the byte. Raises
    ``LoweringError`` where the source is of no kernel of ``program``, or takes other parameters.
    """
    loaded = programs.load(program)
    try:
        kernel = loaded.kernel(source.stem)
    except KeyError:
        known = ", ".join(each.name for each in loaded.kernels) or "none"
        raise LoweringError(
            f"{source}: {program} has no kernel {source.stem}; it has {known}"
        ) from None
    try:
        function = getattr(kernels.import_module(source, f"wrapgen_{source.stem}"), kernel.name)
    except AttributeError as error:
        raise LoweringError(f"{source}: has no function {kernel.name}") from error
    constants = {name: _value(value) for name, value in kernel.config.items()}
    params = {param.name: param for param in kernel.params}
    names = list(function.arg_names)
    if set(names) != {*constants, *params}:
        raise LoweringError(
            f"{source}: {kernel.name} takes {', '.join(names)}, expected the parameters "
            f"{', '.join(params)} and the constants {', '.join(constants) or 'none'}: launch code "
            "passes those"
        )
    signature = {name: _type(params[name]) if name in params else "constexpr" for name in names}
    attributes = {(names.index(name),): _ALIGNED for name in names if _is_aligned(params.get(name))}
    device = targets.parse(loaded.target).device
    options = {
        "num_warps": kernel.num_warps,
        "num_stages": kernel.num_stages,
        "num_ctas": kernel.num_ctas,
    }
    ttir = kernels.make_ttir(function, signature, constants, attributes, options, device)
    out.write_text(ttir, encoding="utf-8")


def _type(param: KernelParam) -> str:
    """How Triton spells a parameter's type."""
    return ("*" if param.kind == "pointer" else "") + INFO[param.dtype].triton


def _is_aligned(param: KernelParam | None) -> bool:
    return param is not None and param.divisible_by_16


def _value(value: Any) -> Any:
    """A constant of the program file, where a floating-point number is ``float.hex``."""
    is_float = isinstance(value, str) and value.lstrip("-").startswith(("0x", "inf", "nan"))
    return float.fromhex(value) if is_float else value
