"""Inline assembly: ``tt.elementwise_inline_asm`` for straight-line PTX of a few instructions."""

from __future__ import annotations

from typing import Any

from simulator.interpreter.errors import InterpreterError
from simulator.interpreter.ttir import Op
from simulator.interpreter.values import Tensor


def evaluate(op: Op, operands: list[Tensor]) -> Any:
    """The results of inline assembly."""
    raise InterpreterError(
        f"inline assembly {op.words[0]!r} of {len(operands)} operands is not supported"
    )
