"""What an action of a farm sees of the machine beside its own inputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def mounts() -> Iterator[tuple[Path, Path]]:
    """Yields (place outside, place inside) of directories to read: a worker's image.

    That is ``/usr`` and the links into it, for the C library, a shell and the C++ compiler. No
    ``/etc``, no home, no temporary files of others, and no Python that lies elsewhere.
    """
    yield Path("/usr"), Path("/usr")
    for name in ("bin", "lib", "lib64"):
        # bubblewrap would take a link literally, and not find the other end.
        yield Path("/", name).resolve(), Path("/", name)


def runner_arguments() -> list[str]:
    """Returns options for what starts a runner, buildbox-casd or buildbox-worker."""
    return [f"--runner-arg=--ro-bind-mount={outside}:{inside}" for outside, inside in mounts()]
