"""Our own Triton templates, and the lowerings that use them in place of Inductor's.

``installed`` is what lowering enters around Inductor's ``GraphLowering``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from wrapgen.target import Device


@contextlib.contextmanager
def installed(device: Device) -> Iterator[None]:
    """Replaces Inductor's lowerings of the operations that have a template here.

    ``device`` is the declared device, from which each template's configuration is chosen. Inductor's
    own lowerings are put back on leaving.
    """
    yield
