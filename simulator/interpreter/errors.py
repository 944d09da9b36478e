"""What can go wrong while a kernel is evaluated."""

from __future__ import annotations

import dataclasses
from typing import Final

OUT_OF_BOUNDS: Final = "out of bounds"
MISALIGNED: Final = "misaligned"
USE_AFTER_FREE: Final = "use after free"
UNINITIALISED: Final = "uninitialised read"
RACE: Final = "two programs write different values"
HAZARD: Final = "one program reads what another writes"
ASSERTION: Final = "assertion failed"
READ_ONLY: Final = "write to what is declared read-only"
STUCK: Final = "no program can go on"
BAD_INDEX: Final = "index out of range"
BAD_ARGUMENT: Final = "bad argument"


class InterpreterError(Exception):
    """TTIR that cannot be read or evaluated: a limit of the interpreter, not a fault of memory.

    The message names the kernel and the line of TTIR.
    """


@dataclasses.dataclass
class KernelFault(Exception):  # noqa: N818
    """A kernel did what hardware would let pass, or stop without saying why.

    Attributes:
      kernel: the kernel's name.
      parameter: the pointer parameter that the address derives from; empty where that is unknown.
      launch: what the caller calls the launch.
      program: (x, y, z) of the first program at fault; of the second writer for a race.
      what: one of the constants of this module.
      address: the byte address; -1 where there is none.
      detail: what is there and what was expected.
      line: the line of the kernel's TTIR, from 1; 0 for the launch as a whole.
    """

    kernel: str
    parameter: str
    launch: str
    program: tuple[int, int, int]
    what: str
    address: int
    detail: str
    line: int

    def __str__(self) -> str:
        parameter = f", parameter {self.parameter}" if self.parameter else ""
        address = f" at address {self.address:#x}" if self.address >= 0 else ""
        line = f" (line {self.line} of its TTIR)" if self.line else ""
        return (
            f"kernel {self.kernel}{parameter}, launch {self.launch}, program {self.program}: "
            f"{self.what}{address}: {self.detail}{line}"
        )
