"""Bazel with a remote cache and no workers: what one machine has built, others take from it.

The cache is BuildGrid. The small farm's buildbox-casd does not return results with directories in
directories, unless it has run the action itself: it wants a blob of each, which Bazel does not
upload.
"""

from __future__ import annotations

from pathlib import Path

from tests.bazel.integration import nested
from tests.bazel.remote import remote
from tools.farm.large import LargeFarm

KERNELS = "//tests/bazel/small:kernels"
DIRECTORY = f"{nested.SMALL}/small.kernels"
LOCAL = {"linux-sandbox", "local", "processwrapper-sandbox", "worker"}


def test_a_cache_serves_another_workspace(tmp_path: Path) -> None:
    with LargeFarm(tmp_path / "farm") as farm:
        flags = [f"--remote_cache=grpc://{farm.address}", "--remote_download_outputs=all"]
        for place, runners in (("one", LOCAL), ("another/deeper", {"remote cache hit"})):
            workspace = nested.Workspace(tmp_path / place, environ={})
            try:
                build = workspace.build(KERNELS, flags=flags)
                assert build.counts()["AotiCompile"] == 16
                assert remote.runners(build) <= runners
                built = nested.digests(workspace.directory / "bazel-bin" / DIRECTORY)
                assert built == nested.digests(Path(DIRECTORY))
            finally:
                workspace.close()
