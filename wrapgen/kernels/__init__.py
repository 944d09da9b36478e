"""Compiles TTIR to cubins, portable PTX and hsaco, deterministically, and reads back what came out.

No torch, no GPU and no driver takes part. ``compile_shard`` is the step of a build;
``compile_kernels`` serves those who want to try configurations. Importing this package imports
neither Triton nor ELF libraries; compiling does.

Why the output depends on the input alone:

* each kernel is compiled in a forked process with an empty environment, in an empty directory with
  fixed relative file names (``process``): no variable, path or earlier kernel has a say;
* no line tables are made, in which ptxas would record names and times (``ptx``, ``ptxas``);
* Triton's caches, random file names and driver detection are passed by: its stages are called one
  by one (``ptx``, ``amdgcn``), ptxas is run here (``ptxas``).
"""

from __future__ import annotations

from wrapgen.kernels.errors import KernelCompileError, KernelResourceError
from wrapgen.kernels.launch import Launch, Param
from wrapgen.kernels.metadata import Metadata
from wrapgen.kernels.shard import (
    CompiledKernel,
    Request,
    compile_kernels,
    compile_shard,
    preload,
)
from wrapgen.kernels.single import compile_kernel

__all__ = [
    "CompiledKernel",
    "KernelCompileError",
    "KernelResourceError",
    "Launch",
    "Metadata",
    "Param",
    "Request",
    "compile_kernel",
    "compile_kernels",
    "compile_shard",
    "preload",
]
