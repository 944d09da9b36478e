"""How PyTorch is to treat dynamic sizes, when a model is exported and when it is lowered.

By default it takes for granted that no dynamic size is 0 or 1, and some of its functions ask for
the sizes of the example. Inside ``general`` it decides for sizes in general; what cannot be decided
that way becomes a guard, which is an error or a constraint, but never goes unnoticed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import torch.fx.experimental._config as symbolic_config
from torch._C import DispatchKey
from torch._subclasses import fake_impls

_compute_stride: Any = fake_impls._compute_stride
_RESHAPE: Any = torch.ops.aten.reshape.default
_COPY: Any = torch.ops.aten.copy.default
_OVERLAP: Any = torch._debug_has_internal_overlap
_TOO_HARD = 2
"""What ``torch._debug_has_internal_overlap`` answers where it does not know."""


@contextlib.contextmanager
def general() -> Iterator[None]:
    """Has PyTorch assume nothing about dynamic sizes while the context is open."""
    with (
        symbolic_config.patch(backed_size_oblivious=True),
        _kernel(_RESHAPE, DispatchKey.CompositeImplicitAutograd, _reshape),
        _kernel(_COPY, DispatchKey.Meta, _copy),
        mock.patch.object(torch, "_debug_has_internal_overlap", _internal_overlap),
    ):
        yield


@contextlib.contextmanager
def general_views() -> Iterator[None]:
    """Has Inductor view memory in another shape only where that is right whatever the sizes.

    Where it is not, Inductor computes indices or copies. By itself it asks whether sizes are 1, as
    of ``x[:, 0]``, whose elements do not follow one another.
    """

    def strides(shape: Any, stride: Any, new: Any, **_: Any) -> Any:
        return _compute_stride(shape, stride, new, size_oblivious=True)

    with mock.patch.object(fake_impls, "_compute_stride", strides):
        yield


@contextlib.contextmanager
def _kernel(overload: Any, key: Any, function: Callable[..., Any]) -> Iterator[None]:
    """Has an operation done by ``function`` while the context is open."""
    with mock.patch.dict(overload.py_kernels, {key: function}):
        overload._dispatch_cache.clear()
        try:
            yield
        finally:
            overload._dispatch_cache.clear()


def _reshape(x: torch.Tensor, shape: list[Any]) -> torch.Tensor:
    """``reshape`` as a view where it is one whatever the sizes, else as a copy.

    PyTorch's own asks whether some size is 1.
    """
    if all(isinstance(size, int) for size in (*x.shape, *x.stride(), *shape)):
        result = _RESHAPE._op_dk(DispatchKey.CompositeImplicitAutograd, x, shape)
        assert isinstance(result, torch.Tensor)
        return result
    sizes = list(torch._prims_common.infer_size(tuple(shape), x.numel()))
    if _compute_stride(x.shape, x.stride(), sizes, size_oblivious=True) is None:
        x = torch.clone(x, memory_format=torch.contiguous_format)
    return torch.ops.aten.view.default(x, sizes)


def _internal_overlap(x: torch.Tensor) -> int:
    """Whether elements share memory, which ``copy_`` refuses; asks whether some size is 1."""
    known = all(isinstance(size, int) for size in (*x.shape, *x.stride()))
    return int(_OVERLAP(x)) if known else _TOO_HARD


def _copy(x: torch.Tensor, src: torch.Tensor, _non_blocking: bool = False) -> torch.Tensor:
    """``aten.copy`` of tensors without values."""
    src.expand(x.shape)  # says what is wrong if it does not fit
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
