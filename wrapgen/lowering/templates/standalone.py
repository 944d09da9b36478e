"""Renders a matrix-product template as a kernel of its own, without Inductor.

For tests (through Triton's interpreter) and measurements. Inductor renders the same source; what
differs is the epilogue, which here is a bias, a residual and a ReLU at most.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2


@dataclasses.dataclass(frozen=True)
class Epilogue:
    """What is done to a tile before it is stored as ``dtype`` (a name in ``triton.language``)."""

    dtype: str
    bias: bool = False
    residual: bool = False
    relu: bool = False


def parameters(source_operands: Sequence[str], epilogue: Epilogue) -> list[str]:
    """The kernel's parameters in order; all are pointers."""
    optional = [("BIAS", epilogue.bias), ("RESIDUAL", epilogue.residual)]
    return [*source_operands, *(name for name, wanted in optional if wanted), "OUT"]


def render(
    source: str,
    name: str,
    constants: Mapping[str, Any],
    strides: Mapping[str, Sequence[int]],
    epilogue: Epilogue,
) -> str:
    """Returns Python source that defines the kernel ``name``.

    Args:
      source: ``product.MATMUL`` or ``product.CONVOLUTION``.
      name: an identifier.
      constants: the template's constants.
      strides: of each operand, in elements, by its name in the template. The result, the residual
        and the partial sums are contiguous.
      epilogue: applies to the sum, so only where ``SPLIT_K`` is 1.
    """

    def def_kernel(*operands: str) -> str:
        lines = [f"def {name}({', '.join(parameters(operands, epilogue))}):"]
        lines += [f"    {key}: tl.constexpr = {value}" for key, value in constants.items()]
        return "\n".join(lines)

    def stride(operand: str, axis: int) -> str:
        return str(strides[operand][axis])

    def store_output(indices: Sequence[str], value: str, mask: str, **_: object) -> str:
        offset = "idx_m * N + idx_n"
        if len(indices) == 3:
            return f"tl.store(OUT + idx_k * (M * N) + {offset}, {value}, {mask})"
        lines = [f"offset = {offset}"]
        if epilogue.bias:
            lines.append(f"{value} += tl.load(BIAS + idx_n, idx_n < N, other=0.0).to(tl.float32)")
        if epilogue.residual:
            lines.append(f"{value} += tl.load(RESIDUAL + offset, {mask}).to(tl.float32)")
        if epilogue.relu:
            lines.append(f"{value} = tl.maximum({value}, 0.0)")
        lines.append(f"tl.store(OUT + offset, {value}.to({epilogue.dtype}), {mask})")
        return "\n    ".join(lines)

    # It is Python that is rendered, not HTML.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
    body = environment.from_string(source).render(
        def_kernel=def_kernel, stride=stride, store_output=store_output, **constants
    )
    return f"import triton\nimport triton.language as tl\n\n\n@triton.jit\n{body.lstrip()}\n"
