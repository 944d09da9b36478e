"""What lowering says when it cannot build a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from wrapgen.program import SourceNode


class LoweringError(ValueError):
    """The model cannot be lowered. The message lists every reason found and what to do."""


@dataclasses.dataclass(frozen=True)
class Offence:
    """One operation that has no Triton kernel, at one place in the model.

    ``op`` is the operation the user called, ``reason`` why it cannot be built, a clause without a
    full stop.
    """

    op: str
    reason: str
    source: SourceNode | None


def unsupported(offences: Sequence[Offence], target: str) -> LoweringError:
    """Makes one error of all offences: grouped by operation and reason, with their places."""
    groups: dict[tuple[str, str], list[SourceNode]] = {}
    for offence in offences:
        places = groups.setdefault((offence.op, offence.reason), [])
        if offence.source is not None and offence.source not in places:
            places.append(offence.source)
    lines = [f"cannot lower the model for {target}: {len(groups)} operation(s) have no kernel"]
    for (op, reason), places in sorted(groups.items(), key=lambda item: item[0]):
        count = f" ({len(places)} times)" if len(places) > 1 else ""
        lines.append(f"  {op}{count}: {reason}")
        for place in places:
            where = ", in ".join(part for part in (place.location, place.module) if part)
            code = f": {place.code}" if place.code else ""
            lines.append(f"    {where or 'no place recorded'} [{place.name}]{code}")
    lines.append(
        "Every kernel is built ahead of time, so nothing may call a library at run time. Replace"
        " the operation by ones that are supported, or run it outside the exported part."
    )
    return LoweringError("\n".join(lines))
