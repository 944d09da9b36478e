"""How processes end: together with their parents, and in words."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


def die_with_parent() -> None:
    """Makes this process end when the process that forked it does, whatever ends that one."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)


def describe_exit(code: int) -> str:
    """Says how a process ended, given ``Process.exitcode``: ``died of SIGSEGV`` or ``exited 3``."""
    if code >= 0:
        return f"exited {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"
