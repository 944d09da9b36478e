"""What can go wrong between a shard of TTIR and its binaries."""

from __future__ import annotations


class KernelCompileError(Exception):
    """A kernel that cannot be compiled or must not be launched as declared.

    The message names the file or kernel, the target, what was expected and what came.
    """


class KernelResourceError(KernelCompileError):
    """A kernel that compiles, but whose launch configuration the declared device cannot run."""
