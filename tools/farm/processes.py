"""The processes of a farm: in namespaces of their own, so that nothing of them stays behind.

All live in one PID and one mount namespace. They end together: when they are told to, or when the
thread that started the namespace does, whatever ends that. With them go the file systems that they
mounted, for the namespace is the only place that has them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_PATIENCE: Final = 120.0
"""Seconds that a process gets to start or to end."""


class FarmError(Exception):
    """A part of the farm does not start, or has ended; the message has its last words."""


@dataclasses.dataclass(frozen=True)
class Process:
    """A process by its number and the time at which it began, as numbers are given out again.

    The time is in clock ticks after the machine's start (proc(5), ``starttime`` of ``stat``).
    """

    pid: int
    began: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """Returns the process that has this number now; raises ``FarmError`` if there is none."""
        began = _began(pid)
        if began is None:
            raise FarmError(f"there is no process {pid}")
        return cls(pid, began)

    def alive(self) -> bool:
        """Whether it runs still. A zombie does not."""
        return _began(self.pid) == self.began

    def kill(self, number: signal.Signals) -> None:
        """Sends a signal, if it runs still."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def children(self) -> list[Process]:
        """Returns what its threads started and have not waited for."""
        text = ""
        with contextlib.suppress(OSError):  # it, or a thread of it, ends meanwhile
            for thread in Path(f"/proc/{self.pid}/task").iterdir():
                text += (thread / "children").read_text()
        found = ((int(pid), _began(int(pid))) for pid in text.split())
        return [Process(pid, began) for pid, began in found if began is not None]

    def descendants(self) -> list[Process]:
        """Returns its children, and theirs, and so on."""
        children = self.children()
        return children + [below for child in children for below in child.descendants()]

    def command(self) -> str:
        """Returns its command line; empty once it has ended."""
        try:
            text = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return text.replace(b"\0", b" ").decode(errors="replace").strip()


def _began(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return None if fields[0] == "Z" else int(fields[19])


def free_port() -> int:
    """Returns a port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Namespace:
    """Where the processes of a farm run. ``directory`` gets their logs, and ``pids``: the number
    and the start of each, one a line, for people."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir(parents=True, exist_ok=True)
        self._started: dict[str, tuple[subprocess.Popen[bytes], Process]] = {}
        # Who is not root can be it in a user namespace, and there make the others.
        self._own_users = os.geteuid() != 0
        users = ["--user", "--map-root-user"] if self._own_users else []
        self._holder = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL"),
                *("unshare", *users, "--mount", "--propagation", "private"),
                *("--pid", "--fork", "--kill-child", "--mount-proc"),
                *("sh", "-c", "echo ready; exec sleep infinity"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"]},
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            _, said = self._holder.communicate()
            raise FarmError(
                f"no namespaces for the farm: {said.decode(errors='replace').strip()}\n"
                "It needs root, or user namespaces: sysctl user.max_user_namespaces, "
                "kernel.unprivileged_userns_clone"
            )
        (self._init,) = Process.of(self._holder.pid).children()

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        port: int | None = None,
    ) -> Process:
        """Starts a process under a name that is free, and waits until it listens on ``port``."""
        running = self._started.get(name)
        if running is not None and running[1].alive():
            raise FarmError(f"{name} runs already, as {running[1].pid}")
        enter = ["nsenter", "--target", str(self._init.pid), "--mount", "--pid"]
        if self._own_users:
            enter += ["--user", "--preserve-credentials"]
        with self._log(name).open("ab") as log:
            entering = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *enter, "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], **environ},
            )
        began = time.monotonic()
        process: Process | None = None
        # nsenter stays outside, and the process is its child.
        while process is None or (port is not None and not _listens(port)):
            if entering.poll() is not None or (process is not None and not process.alive()):
                raise FarmError(f"{name} has ended:\n{self.last_words(name)}")
            if time.monotonic() - began > _PATIENCE:
                raise FarmError(f"{name} is not ready:\n{self.last_words(name)}")
            children = Process.of(entering.pid).children() if process is None else []
            process = children[0] if children else process
            time.sleep(0.02)
        self._started[name] = (entering, process)
        with (self._directory / "pids").open("a") as file:
            file.write(f"{name} {process.pid} {process.began}\n")
        return process

    def process(self, name: str) -> Process:
        """Returns a process that was started."""
        return self._started[name][1]

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Sends a signal that should end a process, and waits until it has."""
        entering, process = self._started.pop(name)
        process.kill(number)
        try:
            entering.wait(_PATIENCE)
        except subprocess.TimeoutExpired as error:
            process.kill(signal.SIGKILL)
            entering.wait()
            raise FarmError(
                f"{name} did not end on {number.name}:\n{self.last_words(name)}"
            ) from error

    def last_words(self, name: str) -> str:
        """Returns the end of a process's log."""
        lines = self._log(name).read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])

    def _log(self, name: str) -> Path:
        return self._directory / f"{name}.log"

    def close(self) -> None:
        """Ends all processes, at once."""
        self._init.kill(signal.SIGKILL)  # the kernel kills the others before it lets go of this one
        self._holder.communicate()
        for entering, _ in self._started.values():
            entering.wait()
        self._started.clear()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
