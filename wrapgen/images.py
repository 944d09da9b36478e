"""Whether a compiled kernel's image is the one that was compiled.

Between the step that compiles and those that use an image lie caches and networks. The compile step
writes size and digest of each image into the kernel's metadata; the steps behind it ask here before
they build on an image. A driver would refuse a damaged one only where the model is loaded, and
might not even then.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def damage(path: Path, data: bytes, *, size: int, sha256: str, kernel: str, target: str) -> str:
    """Says how the image ``data``, read from ``path``, differs from what was compiled.

    ``size`` in bytes and ``sha256`` are what the kernel's metadata says. Returns an empty string if
    the image is as it says, else a message that names the kernel and the file, what was expected,
    what came, and what to do.
    """
    found = hashlib.sha256(data).hexdigest()
    if len(data) == size and found == sha256:
        return ""
    return (
        f"{path}: the image of kernel {kernel} for {target} is damaged: expected {size} bytes with "
        f"SHA-256 {sha256}, as {path.with_suffix('.json').name} says, found {len(data)} bytes with "
        f"SHA-256 {found}. Compile its shard again. Under Bazel it came from a cache: run `bazel "
        "clean` and build once with --noremote_accept_cached and --disk_cache=, which puts sound "
        "results in the place of those in the remote cache"
    )
