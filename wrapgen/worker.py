"""Runs a command-line program once, or as a persistent worker of Bazel's.

A persistent worker reads requests from its standard input and answers on its standard output, one
JSON object a line (https://bazel.build/remote/creating). It serves as many at once as it is asked
to (a multiplex worker), each in a process forked from this one: imports are shared, and nothing
else outlives a request, be it the working directory, the environment, a cache, a temporary file or
a crash. What a request prints is its response's ``output``; the worker's own standard output
carries responses only.

A request may name a directory to work in, ``sandboxDir`` (multiplex sandboxing), and may be
cancelled: its processes are killed and the answer is ``wasCancelled``.

A request's arguments are appended to those the worker was started with, as Bazel splits them::

    program compile @params          # once: the file's lines are arguments
    program compile --persistent_worker    # worker: the lines come with the requests

There is one thread, or a fork would copy locks that another one holds: an event loop waits for
requests and for the ends of children.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import selectors
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Final, NoReturn, Self

from wrapgen.processes import describe_exit, die_with_parent

Main = Callable[[list[str]], int]
"""A program: takes arguments without the program's name, returns its exit code."""

FLAG: Final = "--persistent_worker"

_CHUNK: Final = 1 << 16


def run(
    main: Main,
    argv: Sequence[str] | None = None,
    *,
    preload: Callable[[], None] | None = None,
) -> int:
    """Runs ``main`` on ``argv`` (by default the process's), or serves requests if asked to.

    Returns the exit code. An argument ``@FILE`` stands for the lines of the file. A worker calls
    ``preload`` once, when the first request comes, to import what every request needs. ``main``
    reports faults it expects itself; any other exception is printed with its traceback and makes
    the exit code 1, with and without a worker.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if FLAG not in arguments:
        return _once(main, arguments)
    arguments.remove(FLAG)
    requests, responses = _claim_streams()
    with _Server(main, arguments, preload, requests, responses) as server:
        return server.serve()


def _once(main: Main, arguments: Sequence[str]) -> int:
    try:
        return main(_expand(arguments))
    except SystemExit as stop:  # argparse, for one
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1


def _expand(arguments: Sequence[str]) -> list[str]:
    """Replaces each ``@FILE`` by the file's lines, as Bazel does before it asks a worker.

    Like Bazel, leaves alone what begins with ``@@`` or is a label, ``@repository//...``.
    """
    expanded: list[str] = []
    for argument in arguments:
        if argument.startswith("@") and not argument.startswith("@@") and "//" not in argument:
            lines = Path(argument[1:]).read_text(encoding="utf-8").split("\n")
            if lines[-1] == "":  # after the last newline
                lines.pop()
            expanded += _expand(lines)
        else:
            expanded.append(argument)
    return expanded


# Requests.


@dataclasses.dataclass(frozen=True)
class _Request:
    """A WorkRequest. Its inputs' digests are of no use here: nothing is cached."""

    arguments: tuple[str, ...]
    id: int
    cancel: bool
    sandbox: str


class _ProtocolError(ValueError):
    """What came is no request. ``request`` is its number, if that much can be read."""

    def __init__(self, message: str, request: int | None = None) -> None:
        super().__init__(message)
        self.request = request


def _parse(line: bytes) -> _Request:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise _ProtocolError(str(error)) from error
    if not isinstance(data, dict):
        raise _ProtocolError("expected an object")
    number = data.get("requestId", 0)
    if type(number) is not int:
        raise _ProtocolError(f"requestId is {number!r}: expected an integer")
    arguments = data.get("arguments", [])
    if not isinstance(arguments, list) or not all(isinstance(each, str) for each in arguments):
        raise _ProtocolError(f"arguments are {arguments!r}: expected a list of strings", number)
    cancel = data.get("cancel", False)
    if not isinstance(cancel, bool):
        raise _ProtocolError(f"cancel is {cancel!r}: expected true or false", number)
    sandbox = data.get("sandboxDir", "")
    if not isinstance(sandbox, str):
        raise _ProtocolError(f"sandboxDir is {sandbox!r}: expected a path", number)
    return _Request(tuple(arguments), number, cancel, sandbox)


def _claim_streams() -> tuple[int, BinaryIO]:
    """Takes standard input and output for the protocol and leaves others in their place.

    From here on, who reads standard input finds it empty, and what is printed on standard output,
    by native code too, goes to standard error, which Bazel keeps in the worker's log.
    """
    sys.stdout.flush()
    requests = os.dup(0)
    responses = os.fdopen(os.dup(1), "wb", buffering=0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, responses


# The server.


class _Server:
    """Serves requests, each in a child. Leaving it as a context ends all children."""

    def __init__(
        self,
        main: Main,
        arguments: Sequence[str],
        preload: Callable[[], None] | None,
        requests: int,
        responses: BinaryIO,
    ) -> None:
        self._main = main
        self._arguments = tuple(arguments)
        self._preload = preload
        self._requests = requests
        self._responses = responses
        self._running: dict[int, _Child] = {}

    def __enter__(self) -> Self:
        # A signal makes a byte in this pipe, and so ends the wait for requests.
        self._signals, self._signalled = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(self._signalled, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, _terminate)
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._running.values():
            child.kill()
            child.end()
        self._running.clear()

    def serve(self) -> int:
        """Serves until there are no more requests and the last is answered; returns the exit
        code: 1 after what is no request, or when nobody reads the responses."""
        try:
            for line in self._lines():
                if line.strip():
                    self._handle(line)
        except _ProtocolError as error:
            print(f"worker: malformed request: {error}", file=sys.stderr, flush=True)
            return 1
        except BrokenPipeError:
            print("worker: nobody reads the responses", file=sys.stderr, flush=True)
            return 1
        return 0

    def _lines(self) -> Iterator[bytes]:
        """Yields requests, a line each; in between, answers those whose children have ended."""
        buffer = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._signals, selectors.EVENT_READ)
            selector.register(self._requests, selectors.EVENT_READ)
            open_ = True
            while open_ or self._running:
                ready = {key.fd for key, _ in selector.select()}
                if self._signals in ready:
                    with contextlib.suppress(BlockingIOError):
                        while os.read(self._signals, _CHUNK):
                            pass
                    self._answer()
                if self._requests in ready:
                    chunk = os.read(self._requests, _CHUNK)
                    *lines, buffer = (buffer + chunk).split(b"\n")
                    if not chunk:
                        open_ = False
                        selector.unregister(self._requests)
                        lines, buffer = [*lines, buffer], b""
                    yield from lines

    def _handle(self, line: bytes) -> None:
        try:
            request = _parse(line)
            if request.id in self._running and not request.cancel:
                raise _ProtocolError(f"request {request.id} is running already")
        except _ProtocolError as error:
            if error.request is None:  # there is nothing to answer to
                raise _ProtocolError(f"{error}: {line[:200]!r}") from error
            self._respond(error.request, 1, f"worker: malformed request: {error}\n")
            return
        if not request.cancel:
            self._load(request.sandbox)
            arguments = [*self._arguments, *request.arguments]
            self._running[request.id] = _Child(self._main, arguments, request.sandbox)
        elif request.id in self._running:  # else it has been answered
            self._running[request.id].cancel()

    def _load(self, sandbox: str) -> None:
        if self._preload is None:
            return
        _find_packages(sandbox)
        self._preload()
        self._preload = None
        # What is there now stays there: children's collectors need not look at it, which would
        # copy the pages that they share with this process.
        gc.collect()
        gc.freeze()

    def _answer(self) -> None:
        for number, child in list(self._running.items()):
            if not child.ended():
                continue
            del self._running[number]
            code, output = child.end()
            if child.cancelled:
                self._send({"requestId": number, "wasCancelled": True})
                continue
            if code < 0:
                output += f"the process {describe_exit(code)}\n"
                code = 1
            self._respond(number, code, output)

    def _respond(self, number: int, code: int, output: str) -> None:
        self._send({"exitCode": code, "output": output, "requestId": number})

    def _send(self, response: dict[str, Any]) -> None:
        left = memoryview(json.dumps(response).encode() + b"\n")
        while left:
            left = left[self._responses.write(left) :]


def _find_packages(sandbox: str) -> None:
    """Mends ``sys.path`` of a multiplex worker in a sandbox.

    Of the tool's inputs Bazel puts the files where the worker runs, and not the directories that
    are one input each, which hold Python's packages. They are in the sandbox of each request, as
    links to where they stay.
    """
    here = Path.cwd()
    for index, entry in enumerate(sys.path):
        path = Path(entry)
        if sandbox and path.is_relative_to(here) and not path.exists():
            found = here / sandbox / path.relative_to(here)
            if found.is_dir():
                sys.path[index] = str(found.resolve())


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


class _Child:
    """A request that runs: its processes, which are one group, and its temporary directory."""

    def __init__(self, main: Main, arguments: Sequence[str], sandbox: str) -> None:
        self.cancelled = False
        self._scratch = Path(tempfile.mkdtemp(prefix="wrapgen-worker-"))
        self._log = os.open(self._scratch / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        temporary = self._scratch / "tmp"
        temporary.mkdir()
        sys.stdout.flush()  # or the child would print it once more
        sys.stderr.flush()
        # Blocked, a signal cannot find the child with this process's handlers in place.
        known = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        self._pid = os.fork()
        if self._pid == 0:
            _be_child(main, arguments, sandbox, temporary, self._log, known)
        # Here and in the child: whoever is first.
        with contextlib.suppress(OSError):
            os.setpgid(self._pid, self._pid)
        signal.pthread_sigmask(signal.SIG_SETMASK, known)

    def cancel(self) -> None:
        self.cancelled = True
        self.kill()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)

    def ended(self) -> bool:
        """Whether it has ended. Until ``end`` its number is no other process's."""
        return os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> tuple[int, str]:
        """Waits for its end and clears up; returns its exit code, negative for a signal, and what
        it printed."""
        os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        self.kill()  # what it may have left running
        _, status = os.waitpid(self._pid, 0)
        os.lseek(self._log, 0, os.SEEK_SET)
        with os.fdopen(self._log, "rb") as log:
            output = log.read().decode("utf-8", errors="replace")
        shutil.rmtree(self._scratch, ignore_errors=True)
        return os.waitstatus_to_exitcode(status), output


def _be_child(
    main: Main,
    arguments: Sequence[str],
    sandbox: str,
    temporary: Path,
    log: int,
    signals: Collection[int],
) -> NoReturn:
    """The life of a child: it leaves nothing but the exit code, the log and its outputs."""
    code = 1
    try:
        os.setpgid(0, 0)
        die_with_parent()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["TMPDIR"] = str(temporary)
        tempfile.tempdir = None  # it may be known already
        code = _in_sandbox(main, arguments, sandbox)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # above all KeyboardInterrupt
        traceback.print_exc()
    finally:
        os._exit(code)


def _in_sandbox(main: Main, arguments: Sequence[str], sandbox: str) -> int:
    if sandbox:
        try:
            os.chdir(sandbox)
        except OSError as error:
            print(f"worker: sandboxDir: {error.filename}: {error.strerror}", file=sys.stderr)
            return 1
    return _once(main, arguments)
