"""How far a result may be from the exact one.

A library computes in the model's own precision, as eager PyTorch does, but fuses and adds in
another order. So its error against a float64 run may be a small multiple of eager's own error
against that run, and some roundings more, for where eager happens to be exact. Two norms: the
relative L2 error of the whole tensor, and the largest error of an element relative to the largest
element, which a single wrong element does not hide from.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

import torch

FACTOR: Final = 3.0
"""Times eager's own error, in the L2 norm; elementwise twice that, as maxima scatter more."""

FLOOR: Final[dict[torch.dtype, float]] = {
    # Roundings to nearest of the output's type; wide types add up many products at their own
    # precision, in an order that the hardware chooses.
    torch.float8_e4m3fn: 4,
    torch.float8_e5m2: 4,
    torch.float8_e4m3fnuz: 4,
    torch.float8_e5m2fnuz: 4,
    torch.bfloat16: 4,
    torch.float16: 4,
    torch.float32: 64,
    torch.float64: 4096,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor compared.

    ``error`` and ``largest`` are the two norms, ``limit`` and ``largest_limit`` what they may be,
    ``eager`` eager's own L2 error. For integers and bool, ``error`` is the share of elements that
    differ. ``fault`` says in words what is wrong; it is empty where all is well.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    error: float
    eager: float
    limit: float
    largest: float
    largest_limit: float
    fault: str

    @property
    def passed(self) -> bool:
        """Whether the tensor is right."""
        return not self.fault


def floor_of(dtype: torch.dtype) -> float:
    """The error that is permitted where eager has none, relative."""
    return FLOOR[dtype] * float(torch.finfo(dtype).eps) / 2


def compare(
    name: str,
    got: torch.Tensor,
    eager: torch.Tensor,
    exact: torch.Tensor,
    *,
    tolerance: float | None = None,
    factor: float = FACTOR,
) -> Row:
    """Compares a result with eager's and with the exact one.

    Args:
      name: the tensor's.
      got: what the library gave.
      eager: what eager PyTorch gave, of the same dtype and shape.
      exact: what PyTorch gave in a wider type; same shape.
      tolerance: a limit for both norms in place of the computed ones.
      factor: how many times eager's error ours may be.
    """
    dtype, shape = str(got.dtype).removeprefix("torch."), tuple(got.shape)

    def row(error: float, fault: str, *rest: float) -> Row:
        eager_error, limit, largest, largest_limit = rest or (0.0, 0.0, 0.0, 0.0)
        return Row(name, dtype, shape, error, eager_error, limit, largest, largest_limit, fault)

    if got.dtype != eager.dtype or got.shape != eager.shape:
        theirs = f"{str(eager.dtype).removeprefix('torch.')}{list(eager.shape)}"
        return row(math.inf, f"is {dtype}{list(shape)}, eager gives {theirs}")
    if got.numel() == 0:
        return row(0.0, "")
    if not got.dtype.is_floating_point:
        # Where eager and the exact run differ, rounding decides (an argmax of near ties): there
        # is no right answer to compare with.
        wrong = (got != eager) & (eager == exact.to(eager.dtype))
        share = wrong.double().mean().item()
        if not share:
            return row(0.0, "")
        at = first(wrong)
        return row(
            share,
            f"{int(wrong.sum())} of {got.numel()} elements differ, first {list(at)}:"
            f" {got[at].item()} for {eager[at].item()}",
        )

    ours, own, truth = got.double(), eager.double(), exact.double()
    if fault := _not_finite(ours, own, truth):
        return row(math.inf, fault)
    finite = ours.isfinite() & own.isfinite() & truth.isfinite()
    ours, own, truth = (torch.where(finite, t, 0.0) for t in (ours, own, truth))
    # A result that is zero throughout has no scale of its own.
    norm = truth.norm().item() or math.sqrt(got.numel())
    peak = truth.abs().max().item() or 1.0
    error, own_error = ((t - truth).norm().item() / norm for t in (ours, own))
    largest, own_largest = ((t - truth).abs().max().item() / peak for t in (ours, own))
    floor = floor_of(got.dtype)
    limit = factor * own_error + floor if tolerance is None else tolerance
    largest_limit = 2 * (factor * own_largest + floor) if tolerance is None else tolerance
    fault = ""
    if error > limit or largest > largest_limit:
        difference = (ours - truth).abs()
        at = tuple(int(i) for i in torch.unravel_index(difference.argmax(), difference.shape))
        over = difference > largest_limit * peak
        start = first(over) if over.any() else at
        fault = (
            f"relative error {error:.2e} (limit {limit:.2e}), largest {largest:.2e} (limit"
            f" {largest_limit:.2e}); {int(over.sum())} of {got.numel()} elements beyond it; first"
            f" wrong element {list(start)}: {ours[start].item():.6g} for {truth[start].item():.6g};"
            f" worst {list(at)}: {ours[at].item():.6g} for {truth[at].item():.6g}"
        )
    return row(error, fault, own_error, limit, largest, largest_limit)


def _not_finite(ours: torch.Tensor, theirs: torch.Tensor, truth: torch.Tensor) -> str:
    """Says where a NaN or an infinity is not as in eager; empty where all are.

    Where eager overflows and the exact result does not, ours may do either.
    """
    same = (ours == theirs) | (ours.isnan() & theirs.isnan())
    permitted = same | (ours.isfinite() & (theirs.isfinite() | truth.isfinite()))
    if permitted.all():
        return ""
    at = first(~permitted)
    return (
        f"{int((~permitted).sum())} of {ours.numel()} elements are finite on one side alone, or"
        f" differ in kind; first {list(at)}: {ours[at].item()} for {theirs[at].item()}"
    )


def first(where: torch.Tensor) -> tuple[int, ...]:
    """The index of the first true element, in row-major order."""
    flat = int(where.reshape(-1).to(torch.uint8).argmax())
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), where.shape))


def table(rows: Sequence[Row]) -> str:
    """A line a tensor, in columns."""
    head = ("output", "type", "error", "limit", "eager's", "largest", "limit", "")
    cells = [head] + [
        (
            row.name,
            f"{row.dtype}[{', '.join(map(str, row.shape))}]",
            f"{row.error:.2e}",
            f"{row.limit:.2e}",
            f"{row.eager:.2e}",
            f"{row.largest:.2e}",
            f"{row.largest_limit:.2e}",
            "" if row.passed else "WRONG",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )
