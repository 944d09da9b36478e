"""Runs functions in forked children: a crash of native code becomes an error, state stays behind.

The Triton compiler is a C++ library that reads environment variables, keeps process-wide options
and may abort. In a child it can do none of that to us: the child has an environment, a working
directory and standard streams of its own, and returns its memory when it is done. A fork shares
what the parent has imported, so that it costs milliseconds.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import io
import multiprocessing
import multiprocessing.connection
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from wrapgen.processes import describe_exit, die_with_parent

_T = TypeVar("_T")
_FORK: Final = multiprocessing.get_context("fork")


@dataclasses.dataclass(frozen=True)
class Outcome(Generic[_T]):
    """How a task ended. ``output`` is what it and its native code printed.

    Exactly one of ``value`` (the task returned), ``error`` (it raised) and ``death`` (it ended
    without doing either; the text says how, such as ``died of SIGABRT``) is meaningful: ``death``
    if it is not empty, else ``error`` if it is not ``None``.
    """

    value: _T | None
    error: Exception | None
    death: str
    output: str


def run_all(
    tasks: Sequence[Callable[[], _T]],
    *,
    jobs: int,
    environment: dict[str, str],
    finished: Callable[[int], None] | None = None,
) -> list[Outcome[_T]]:
    """Runs each task in a child of its own, at most ``jobs`` at a time.

    A task runs with ``environment`` and no other variable, in an empty temporary directory that
    is removed afterwards. What it returns or raises must pickle. ``finished`` is called in this
    process with the index of each task that ends, in order of ending; the result is in order of
    ``tasks``.
    """
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}: expected at least 1")
    outcomes: dict[int, Outcome[_T]] = {}
    running: dict[Connection, _Child] = {}
    waiting = iter(enumerate(tasks))
    try:
        while True:
            for index, task in _take(waiting, jobs - len(running)):
                child = _Child(index, task, environment)
                running[child.results] = child
            if not running:
                break
            for ready in multiprocessing.connection.wait(list(running)):
                assert isinstance(ready, Connection)
                child = running.pop(ready)
                outcomes[child.index] = child.outcome()
                if finished is not None:
                    finished(child.index)
    finally:  # after an interrupt, leave nothing running
        for child in running.values():
            child.kill()
    return [outcomes[index] for index in range(len(tasks))]


def _take(items: Iterator[_T], count: int) -> Iterator[_T]:
    for _ in range(count):
        try:
            yield next(items)
        except StopIteration:
            return


class _Child:
    """A running task: its process, the pipe its result comes through, and its directory."""

    def __init__(self, index: int, task: Callable[[], Any], environment: dict[str, str]) -> None:
        self.index = index
        self._scratch = tempfile.TemporaryDirectory(prefix="wrapgen-")
        self._log = Path(self._scratch.name) / "log"
        self._log.touch()  # here, as a child may die before it opens it
        directory = Path(self._scratch.name) / "work"
        directory.mkdir()
        self.results, sender = _FORK.Pipe(duplex=False)
        self._process: ForkProcess = _FORK.Process(
            target=_run, args=(task, environment, directory, self._log, sender)
        )
        self._process.start()
        sender.close()  # so that the end of the child is the end of the stream

    def outcome(self) -> Outcome[Any]:
        try:
            value, error = self.results.recv()
            died = False
        except (EOFError, OSError):  # before, or while it sent the result
            value = error = None
            died = True
        self.results.close()
        self._process.join()
        death = describe_exit(self._process.exitcode or 0) if died else ""
        output = self._log.read_text(encoding="utf-8", errors="replace")
        self._scratch.cleanup()
        return Outcome(value, error, death, output)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.results.close()
        self._scratch.cleanup()


def _run(
    task: Callable[[], Any],
    environment: dict[str, str],
    directory: Path,
    log: Path,
    sender: Connection,
) -> None:
    """The life of a child."""
    die_with_parent()
    faulthandler.disable()  # it would write to a stream of the parent's
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    # Streams of this process, whatever the parent had put in their place.
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(stream, "w", closefd=False), "utf-8", "replace")
        for stream in (1, 2)
    )
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    try:
        result: tuple[Any, Exception | None] = (task(), None)
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))  # else it would stay here
        result = (None, error)
    sys.stdout.flush()
    sys.stderr.flush()
    sender.send(result)
    sender.close()
