"""The operator that stands for a call of a user-defined Triton kernel in an exported graph.

``wrapgen::triton_kernel(kernel, written, read, ints, floats, strides, grid)``

- ``kernel``: the key of a kernel in ``wrapgen/user_kernels.py``'s format.
- ``written``: tensors that the kernel writes to, in place; ``read``: those that it only reads.
- ``ints``, ``floats``: its numbers.
- ``strides``: those of ``written`` and ``read`` when the model was exported, one after the other.
  The kernel's numbers may come from them.
- ``grid``: programs in x, y and z for each configuration of the kernel.
"""

from __future__ import annotations

from typing import Any, Final

import torch

_LIBRARY: Final = torch.library.Library("wrapgen", "FRAGMENT")
_LIBRARY.define(
    "triton_kernel(str kernel, Tensor(a!)[] written, Tensor[] read, SymInt[] ints, float[] floats,"
    " SymInt[] strides, SymInt[] grid) -> ()",
    tags=(torch.Tag.pt2_compliant_tag,),
)

triton_kernel: Final[Any] = torch.ops.wrapgen.triton_kernel.default
"""The operator."""


def _fake(
    _kernel: str,
    _written: list[torch.Tensor],
    _read: list[torch.Tensor],
    _ints: list[Any],
    _floats: list[float],
    _strides: list[Any],
    _grid: list[Any],
) -> None:
    """It returns nothing."""


torch.library.impl("wrapgen::triton_kernel", "Meta", lib=_LIBRARY)(_fake)
