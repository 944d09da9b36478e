"""What lowering says when it cannot build a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from wrapgen.lowering import random_numbers
from wrapgen.program import SourceNode

REPORT_VERSION: Final = 2
"""Of the JSON that ``LoweringError.report`` gives."""


class LoweringError(ValueError):
    """The model cannot be lowered. The message lists every reason found and what to do.

    ``report`` is the same as data where operators have no kernel, else ``None``; docs/operators.md
    describes it.
    """

    def __init__(self, message: str, report: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.report = report


@dataclasses.dataclass(frozen=True)
class Offence:
    """One operation that has no Triton kernel, at one place in the model.

    ``op`` is the operation the user called, ``reason`` why it cannot be built, a clause without a
    full stop.
    """

    op: str
    reason: str
    source: SourceNode | None


ADVICE: Final = (
    "replace it by operators that docs/operators.md lists, or run it outside the exported part"
)

_ADVICE: Final = {
    "aten._assert_async.msg": "remove the check, or make it on the host before the call",
    "aten._assert_scalar.default": "remove the check, or make it on the host before the call",
    "aten._local_scalar_dense.default": "return the tensor that it is read from",
    "aten.bincount.default": "sum `torch.nn.functional.one_hot(x, n)` over the elements",
    "aten.equal.default": "return `(a == b).all()`, a tensor",
    "aten.item.default": "return the tensor that it is read from",
    "aten.masked_select.default": (
        "the result's size depends on values: keep the size and use `torch.where(mask, x, 0)`"
    ),
    "aten.nonzero.default": (
        "the result's size depends on values: keep the size and use `torch.where(mask, x, 0)`"
    ),
    "aten.unique_dim.default": "the result's size depends on values: run it outside the model",
    "aten._unique2.default": "the result's size depends on values: run it outside the model",
}


def advice(op: str, reason: str) -> str:
    """What the user can do about an operator that cannot be lowered; a clause."""
    if reason == RANDOM:
        return random_numbers.ADVICE
    if reason == RANDOM_INSIDE:
        return "draw them outside of it: it can read the tensor of them"
    if reason == CUSTOM:
        return (
            "if it is made of Triton kernels (torch.library.triton_op), export with aoti_export or"
            " `wrapgen export`, which carry those; else make it of Triton kernels or of operators"
            " that docs/operators.md lists"
        )
    return _ADVICE.get(op, ADVICE)


RANDOM: Final = "it draws random numbers"
"""The reason for which generators of random numbers are refused."""

RANDOM_INSIDE: Final = "it draws random numbers in a branch or loop"
"""The same of those that no seed reaches."""

CUSTOM: Final = "a custom operator: the archive has its name and no kernel"
"""The reason for which operators that are not PyTorch's are refused."""


def where(source: SourceNode) -> str:
    """As in ``net.py, in forward, module fc [linear]: y = self.fc(x)``."""
    code = f": {source.code}" if source.code else ""
    return f"{source.place or 'no place recorded'} [{source.name}]{code}"


def unsupported(offences: Sequence[Offence], target: str) -> LoweringError:
    """Makes one error of all offences: grouped by operator and reason, with their places."""
    groups: dict[tuple[str, str], list[SourceNode]] = {}
    for offence in offences:
        places = groups.setdefault((offence.op, offence.reason), [])
        if offence.source is not None and offence.source not in places:
            places.append(offence.source)
    operators = [
        {
            "op": op,
            "reason": reason,
            "advice": advice(op, reason),
            "count": max(len(places), 1),
            "places": [
                {
                    "node": place.name,
                    "module": place.module,
                    "file": place.file,
                    "function": place.function,
                    "code": place.code,
                }
                for place in places
            ],
        }
        for (op, reason), places in sorted(groups.items(), key=lambda item: item[0])
    ]
    report = {"schema_version": REPORT_VERSION, "target": target, "operators": operators}
    return LoweringError(_text(report), report)


def _text(report: Mapping[str, Any]) -> str:
    operators = report["operators"]
    lines = [
        f"cannot lower the model for {report['target']}:"
        f" {len(operators)} operation(s) have no kernel"
    ]
    for operator in operators:
        count = f" ({operator['count']} times)" if operator["count"] > 1 else ""
        lines.append(f"  {operator['op']}{count}: {operator['reason']}")
        for place in operator["places"]:
            named = {key: value for key, value in place.items() if key != "node"}
            source = SourceNode(name=place["node"], op=operator["op"], **named)
            lines.append(f"    {where(source)}")
        lines.append(f"    What to do: {operator['advice']}.")
    lines.append(
        "Every kernel is built ahead of time, so nothing may call a library at run time."
        " `wrapgen check --json` gives this list as data."
    )
    return "\n".join(lines)
