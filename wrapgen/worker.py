"""Runs a command-line program once, or as a persistent worker of Bazel's.

A persistent worker reads requests from its standard input and answers on its standard output, one
JSON object a line (https://bazel.build/remote/creating). It serves one request at a time, each in
a process forked from this one: imports are shared, and nothing else outlives a request, be it the
working directory, the environment, a cache or a crash. What a request prints is its response's
``output``; the worker's own standard output carries responses only.

A request's arguments are appended to those the worker was started with, as Bazel splits them::

    program compile @params          # once: the file's lines are arguments
    program compile --persistent_worker    # worker: the lines come with the requests
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, BinaryIO, Final, TextIO

from wrapgen.kernels.process import describe_exit, die_with_parent

Main = Callable[[list[str]], int]
"""A program: takes arguments without the program's name, returns its exit code."""

FLAG: Final = "--persistent_worker"
_FORK: Final = multiprocessing.get_context("fork")


def run(
    main: Main,
    argv: Sequence[str] | None = None,
    *,
    preload: Callable[[], None] | None = None,
) -> int:
    """Runs ``main`` on ``argv`` (by default the process's), or serves requests if asked to.

    Returns the exit code. An argument ``@FILE`` stands for the lines of the file. A worker calls
    ``preload`` once, before the first request, to import what every request needs. ``main``
    reports faults it expects itself; any other exception is printed with its traceback and makes
    the exit code 1, with and without a worker.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if FLAG not in arguments:
        return _once(main, arguments)
    arguments.remove(FLAG)
    return _serve(main, arguments, preload)


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


@dataclasses.dataclass(frozen=True)
class _Request:
    """A WorkRequest. Its inputs' digests are of no use here: nothing is cached."""

    arguments: tuple[str, ...]
    request_id: int
    cancel: bool


def _parse(line: bytes) -> _Request:
    data = json.loads(line)
    arguments = data.get("arguments", [])
    if not isinstance(arguments, list) or not all(isinstance(each, str) for each in arguments):
        raise ValueError(f"arguments are {arguments!r}: expected a list of strings")
    return _Request(tuple(arguments), int(data.get("requestId", 0)), bool(data.get("cancel")))


def _serve(main: Main, arguments: list[str], preload: Callable[[], None] | None) -> int:
    requests, responses = _claim_streams()
    if preload is not None:
        preload()
    for line in requests:
        if not line.strip():
            continue
        try:
            request = _parse(line)
        except (ValueError, AttributeError, TypeError) as error:
            # There is nothing to answer to: the request's number is unknown.
            print(f"worker: malformed request: {error}: {line[:200]!r}", file=sys.stderr)
            return 1
        if request.cancel:
            continue  # one request at a time: what this one cancels has been answered already
        code, output = _serve_one(main, [*arguments, *request.arguments])
        response: dict[str, Any] = {
            "exitCode": code,
            "output": output,
            "requestId": request.request_id,
        }
        responses.write(json.dumps(response) + "\n")
        responses.flush()
    return 0


def _claim_streams() -> tuple[BinaryIO, TextIO]:
    """Takes standard input and output for the protocol and leaves others in their place.

    From here on, who reads standard input finds it empty, and what is printed on standard output,
    by native code too, goes to standard error, which Bazel keeps in the worker's log.
    """
    sys.stdout.flush()
    requests = os.fdopen(os.dup(0), "rb")
    responses = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, responses


def _serve_one(main: Main, arguments: list[str]) -> tuple[int, str]:
    """Runs one request in a child; returns its exit code and what it printed."""
    with tempfile.TemporaryFile(prefix="wrapgen-worker-") as log:
        child: ForkProcess = _FORK.Process(target=_child, args=(main, arguments, log.fileno()))
        child.start()
        try:
            child.join()
        except BaseException:
            child.kill()
            raise
        code = child.exitcode or 0
        log.seek(0)
        output = log.read().decode("utf-8", errors="replace")
    if code < 0:
        output += f"the process {describe_exit(code)}\n"
        code = 1
    return code, output


def _child(main: Main, arguments: list[str], log: int) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.dup2(log, 1)
    os.dup2(log, 2)
    code = _once(main, arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
