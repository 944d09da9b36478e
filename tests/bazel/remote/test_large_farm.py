"""Bazel with a scheduler and two workers, of which one is killed while it compiles a kernel."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.bazel.integration import nested
from tests.bazel.remote import remote
from tools.farm import large

KERNELS = "//tests/bazel/small:kernels"
DIRECTORY = f"{nested.SMALL}/small.kernels"


def test_a_killed_worker_costs_time_and_nothing_else(tmp_path: Path) -> None:
    workspace = nested.Workspace(tmp_path / "workspace", environ={})
    killed: list[str | None] = []
    over = threading.Event()
    try:
        with large.LargeFarm(tmp_path / "farm") as farm:
            flags = remote.flags(farm.address, f"--remote_cache=grpc://{farm.storage}")

            def kill() -> None:
                killed.append(farm.kill_worker_at("wrapgen/compile", over=over))

            killing = threading.Thread(target=kill)
            killing.start()
            build = workspace.build(KERNELS, flags=[*flags, "--remote_download_outputs=all"])
            over.set()
            killing.join()
            (name,) = killed
            assert name is not None, "no worker was killed"
            assert build.counts()["AotiCompile"] == 16
            assert remote.runners(build) == {"remote"}
            built = nested.digests(workspace.directory / "bazel-bin" / DIRECTORY)
            assert built == nested.digests(Path(DIRECTORY))

            # It comes back, and all is in the cache.
            farm.start_worker(name)
            workspace.clean()
            again = workspace.build(KERNELS, flags=flags)
            assert remote.runners(again) == {"remote cache hit"}
    finally:
        over.set()
        workspace.close()
