"""Our own Triton templates, and the lowerings that use them in place of Inductor's.

``installed`` is what lowering enters around Inductor's ``GraphLowering``. product.py holds the
templates, geometry.py and cost.py the choice of their configuration, operations.py the lowerings;
of attention, the files that are called so.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from wrapgen.lowering.sites import Sites


@contextlib.contextmanager
def installed(sites: Sites) -> Iterator[None]:
    """Replaces Inductor's lowerings of the operations that have a template here.

    ``sites`` chooses each template's configuration. Where a
    template does not apply, Inductor's own lowering is used. It is put back on leaving.
    """
    import torch
    from torch._inductor import config
    from torch._inductor.lowering import lowerings

    from wrapgen.lowering.templates import attention_lowering, operations

    aten = torch.ops.aten
    replaced: dict[Any, Any] = {}
    for packet, own in (
        (aten.convolution, operations.convolution),
        (aten.mm, operations.matrix_product),
        (aten.addmm, operations.matrix_product_plus),
        (aten.bmm, operations.sum_of_products),
    ):
        for key in (packet, packet.default):
            replaced[key] = _first(functools.partial(own, sites), lowerings[key])
    own_attention = torch.ops.wrapgen.attention.default
    replaced[own_attention] = functools.partial(attention_lowering.lower, sites)
    # A sum of partial products reads up to 16 of them at a place: that is still one kernel.
    with (
        mock.patch.dict(lowerings, replaced),
        config.patch(realize_acc_reads_threshold=40),
    ):
        yield


def _first(own: Callable[..., Any], inductors: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inductors)
    def lowering(*args: Any, **kwargs: Any) -> Any:
        result = own(*args, **kwargs)
        return inductors(*args, **kwargs) if result is None else result

    return lowering
