"""Runs pytest under Bazel's test protocol: shards, filters, the XML report, private directories."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest


class Sharding:
    """Keeps this shard's share of the test functions."""

    def __init__(self, index: int, total: int) -> None:
        self.index = index
        self.total = total

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Deals the functions out in order, so that slow neighbours part."""
        ours = items[self.index :: self.total]
        config.hook.pytest_deselected(items=[item for item in items if item not in ours])
        items[:] = ours


def main() -> int:
    """Returns pytest's status; an empty shard passes, an empty test does not."""
    environ = os.environ
    scratch = Path(environ["TEST_TMPDIR"])
    home = scratch / "home"
    home.mkdir(exist_ok=True)
    environ.update(HOME=str(home), XDG_CACHE_HOME=str(home / ".cache"), TMPDIR=str(scratch))
    # What tests start as `python -m ...` finds the packages that this process found.
    environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)

    args = ["-p", "no:cacheprovider", "--import-mode=importlib", "--durations=5", "--color=no"]
    args += ["--rootdir=.", f"--basetemp={scratch / 'pytest'}"]
    if "XML_OUTPUT_FILE" in environ:
        args += [f"--junitxml={environ['XML_OUTPUT_FILE']}", "-o", "junit_family=xunit1"]
    if environ.get("TESTBRIDGE_TEST_ONLY"):
        args += ["-k", environ["TESTBRIDGE_TEST_ONLY"]]
    plugins: list[object] = []
    total = int(environ.get("TEST_TOTAL_SHARDS", "1"))
    if total > 1:
        Path(environ["TEST_SHARD_STATUS_FILE"]).touch()
        plugins.append(Sharding(int(environ["TEST_SHARD_INDEX"]), total))
    status = pytest.main([*args, *sys.argv[1:]], plugins=plugins)
    if status == pytest.ExitCode.NO_TESTS_COLLECTED and total > 1:
        return 0
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
