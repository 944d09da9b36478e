"""Programs that take turns: for kernels in which one waits for what another writes.

Each program is a thread, of which one runs at a time. They start in the order of their numbers; one
runs to its end unless it waits in a loop for memory to change. Then the next has its turn, and so
round until all have ended. Where all that are left wait, and a round of turns changes nothing, none
ever will.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

MAX_PROGRAMS: Final = 4096
"""Programs that may wait at a time, each in a thread of its own."""

_STACK: Final = 16 << 20
"""Bytes of a thread's stack: what a deep nest of regions needs of Python's."""


class Stuck(Exception):  # noqa: N818 (it is no error of the interpreter)
    """All programs wait."""


class Turns:
    """Runs programs one at a time."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._running = -1
        self._stuck = False
        self._waiting: list[int] = []
        self._error: BaseException | None = None
        # Rises with each write to memory; what it was at a program's last turn.
        self._changes = 0
        self._seen: dict[int, int] = {}

    @property
    def changes(self) -> int:
        """Rises with each change of memory."""
        return self._changes

    def changed(self) -> None:
        """Notes that memory may have changed."""
        self._changes += 1

    def wait(self, number: int) -> None:
        """Called by a program that found nothing changed; returns when it has its turn again.

        Raises ``Stuck`` where it never will.
        """
        with self._condition:
            self._seen[number] = self._changes
            self._waiting.append(number)
            self._running = -1
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._running == number)
            if self._stuck:
                raise Stuck

    def run(self, count: int, program: Callable[[int], None]) -> None:
        """Calls ``program`` with each number below ``count``; raises what a program raises."""
        threads: list[threading.Thread] = []
        previous = threading.stack_size(_STACK)
        try:
            for number in range(count):
                if len(self._waiting) >= MAX_PROGRAMS:
                    self._stop()
                    break
                thread = threading.Thread(target=self._body, args=(program, number), daemon=True)
                threads.append(thread)
                self._turn(number, thread)
                if self._error is not None:
                    break
                # Those that waited first may have what they wait for.
                self._round()
            while self._waiting and self._error is None:
                if not self._round():
                    self._stop()
        finally:
            threading.stack_size(previous)
            self._stop()
            for thread in threads:
                thread.join()
        if self._error is not None:
            raise self._error

    def _body(self, program: Callable[[int], None], number: int) -> None:
        try:
            program(number)
        except BaseException as error:  # handed over to the thread that called ``run``
            if self._error is None:
                self._error = error
        with self._condition:
            self._running = -1
            self._condition.notify_all()

    def _turn(self, number: int, thread: threading.Thread | None = None) -> None:
        """Lets a program run until it ends or waits."""
        with self._condition:
            self._running = number
            self._condition.notify_all()
        if thread is not None:
            thread.start()
        with self._condition:
            self._condition.wait_for(lambda: self._running == -1)

    def _round(self) -> bool:
        """A turn for each that waits and has not seen memory as it is; whether there was any."""
        ready = [n for n in sorted(self._waiting) if self._seen[n] != self._changes]
        for number in ready:
            if self._error is not None:
                break
            self._waiting.remove(number)
            self._turn(number)
        return bool(ready)

    def _stop(self) -> None:
        """Ends the programs that still wait, in order, so that the first reports."""
        self._stuck = True
        while self._waiting:
            number = min(self._waiting)
            self._waiting.remove(number)
            self._turn(number)
