"""What the tests of both farms do with Bazel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bazel.integration import nested

SMALL_PACKAGE = "//tests/bazel/small:small.package"


def flags(address: str, *more: str) -> list[str]:
    """Options of a build that runs all actions on a farm."""
    return [
        "--config=remote",
        f"--remote_executor=grpc://{address}",
        "--jobs=4",
        # gcc looks for its headers beside itself, and the image's /bin is no link to /usr/bin.
        "--repo_env=CC=/usr/bin/gcc",
        *more,
    ]


def runners(build: nested.Build) -> set[str]:
    """Returns how a build's spawns were run."""
    return {str(spawn["runner"]) for spawn in build.spawns}


def present(workspace: nested.Workspace, package: str, suffixes: Sequence[str]) -> list[str]:
    """Returns the paths of files with these suffixes that are on this machine."""
    root = workspace.directory / "bazel-bin" / package
    return sorted(
        str(path.relative_to(root))
        for path in Path(root).rglob("*")
        if path.suffix in suffixes and path.is_file()
    )
