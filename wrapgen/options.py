"""Options: of lowering, ways to make kernels that are not always the faster ones; and what debug
builds do besides.

None is on by itself. An option of lowering holds where the target's hardware has what it needs, and
changes nothing for other targets, so that one list serves a model that is built for several.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from wrapgen.target import Target

OPTIONS: Final = {
    "cooperative_reductions": (
        "a reduction of many elements to at most 16 is one kernel whose blocks wait for each "
        "other, in place of two kernels"
    ),
    "dependent_launch": (
        "a generated kernel starts while the one before it ends, from compute capability 9.0 on"
    ),
}
"""What each option does, a clause."""

DEBUG_MODES: Final = ("launches", "nan", "nvtx", "sync", "values")
"""What debug builds can do at each step (docs/runtime.md, "Debug builds")."""

_NEEDS: Final = {"cooperative_reductions": 60, "dependent_launch": 90}
"""The least compute capability, as targets spell it."""


class OptionError(ValueError):
    """An option that is not known; the message lists those that are."""


def check(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the options sorted, each once. Raises ``OptionError``."""
    found = sorted(set(names))
    for name in found:
        if name not in OPTIONS:
            raise OptionError(f"unknown option {name!r}: expected one of {', '.join(OPTIONS)}")
    return tuple(found)


def that_hold(names: Iterable[str], target: Target) -> tuple[str, ...]:
    """Those of the options that hold for a target."""
    if target.platform != "cuda":
        return ()
    return tuple(name for name in names if target.capability >= _NEEDS[name])
