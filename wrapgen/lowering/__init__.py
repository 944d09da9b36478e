"""From an exported graph to a program of Triton kernels; the only code that uses Inductor."""

from __future__ import annotations

from wrapgen.lowering.errors import REPORT_VERSION, LoweringError
from wrapgen.lowering.model import lower

__all__ = ["REPORT_VERSION", "LoweringError", "lower", "preload"]


def preload() -> None:
    """Readies a worker: importing this package has imported PyTorch and Inductor already."""
