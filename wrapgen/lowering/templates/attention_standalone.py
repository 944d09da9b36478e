"""Renders the attention template as a kernel of its own, without Inductor.

For tests (through Triton's interpreter) and measurements. Inductor renders the same source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from wrapgen.lowering.templates import attention

Extent = int | str
"""A number, or the name of a scalar parameter."""


def render(
    name: str,
    constants: Mapping[str, Any],
    sizes: Mapping[str, Sequence[Extent]],
    strides: Mapping[str, Sequence[Extent]],
    dtype: str,
) -> str:
    """Returns Python source that defines the kernel ``name``.

    Its parameters are ``Q``, ``K``, ``V``, ``MASK`` (if the constants say so), ``OUT``, then the
    names among ``sizes`` and ``strides``, sorted.

    Args:
      name: an identifier.
      constants: the template's constants, ``INDEX_DTYPE`` included.
      sizes: of ``Q`` and ``K``.
      strides: of each operand and of ``OUT``, in elements; ``OUT`` has one more dimension, the
        first, where ``SPLIT`` is more than 1.
      dtype: of the result, a name in ``triton.language``.
    """
    extents = [extent for group in (sizes, strides) for row in group.values() for extent in row]
    scalars = sorted({extent for extent in extents if isinstance(extent, str)})

    def def_kernel(*operands: str) -> str:
        lines = [f"def {name}({', '.join([*operands, 'OUT', *scalars])}):"]
        lines += [f"    {key}: tl.constexpr = {value}" for key, value in constants.items()]
        return "\n".join(lines)

    def size(operand: str, axis: int) -> str:
        return str(sizes[operand][axis])

    def stride(operand: str, axis: int) -> str:
        return str(strides[operand][axis])

    def store_output(indices: Sequence[str], value: str, mask: str, **_: object) -> str:
        offset = " + ".join(
            f"{index} * {step}" for index, step in zip(indices, strides["OUT"], strict=True)
        )
        return f"tl.store(OUT + ({offset}), {value}.to({dtype}), {mask})"

    # It is Python that is rendered, not HTML.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
    body = environment.from_string(attention.ATTENTION).render(
        def_kernel=def_kernel, size=size, stride=stride, store_output=store_output, **constants
    )
    return f"import triton\nimport triton.language as tl\n\n\n@triton.jit\n{body.lstrip()}\n"
