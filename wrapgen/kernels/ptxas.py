"""PTX to cubin: runs ptxas so that its output depends on its input alone.

With line information ptxas records the name and the modification time of the PTX file, and the
PTX itself; without, nothing but the code. File names are fixed and relative all the same, and the
environment is empty.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Final

from wrapgen.kernels.errors import KernelCompileError, KernelResourceError
from wrapgen.kernels.launch import Launch

_SOURCE: Final = "kernel.ptx"
_BINARY: Final = "kernel.cubin"
_ARGUMENTS: Final = (
    "--verbose",
    # As Triton calls it; works around a fault of newer versions.
    "--regAllocOptLevel=2",
)


@dataclasses.dataclass(frozen=True)
class Report:
    """What ptxas says of a kernel: registers a thread; bytes of stack, spilled stores and spilled
    loads a thread; bytes of static shared memory a block.
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    static_shared_memory: int


@dataclasses.dataclass(frozen=True)
class Assembled:
    """A cubin and ptxas's report on it."""

    cubin: bytes
    report: Report


def default_ptxas() -> Path:
    """Returns the ptxas in Triton's wheel, without importing Triton."""
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        raise KernelCompileError("there is no triton package: name a ptxas with --ptxas")
    path = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / "ptxas"
    return check_ptxas(path)


def check_ptxas(path: Path) -> Path:
    """Returns the absolute path of a ptxas; raises ``KernelCompileError`` if it cannot be run."""
    if not os.access(path, os.X_OK) or path.is_dir():
        raise KernelCompileError(f"{path}: no executable file: expected NVIDIA's ptxas")
    return path.absolute()


def assemble(launch: Launch, ptx: str, arch: str, ptxas: Path) -> Assembled:
    """Assembles a kernel's PTX for ``arch``, such as ``sm_90a``.

    Works in the current directory, which must be private. Raises ``KernelCompileError`` with what
    ptxas said; ``KernelResourceError`` if it could not do with the registers a thread may have.
    """
    name = launch.name
    Path(_SOURCE).write_text(ptx, encoding="utf-8")
    command = [str(ptxas), *_ARGUMENTS, f"--gpu-name={arch}", _SOURCE, "--output-file", _BINARY]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"TMPDIR": "."},
            check=False,
        )
    except OSError as error:
        raise KernelCompileError(f"{ptxas}: cannot be run: {error.strerror}") from error
    said = done.stdout.decode("utf-8", errors="replace")
    if done.returncode != 0:
        how = f"code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        kind = KernelResourceError if "Insufficient registers" in said else KernelCompileError
        raise kind(
            f"kernel {name}: ptxas failed for {arch} with {launch.config} ({how}):\n{said.rstrip()}"
        )
    report = _report(name, said)
    return Assembled(Path(_BINARY).read_bytes(), report)


def _report(name: str, said: str) -> Report:
    """Reads what ``--verbose`` prints of the entry function."""
    compiled = re.findall(r"Compiling entry function '([^']+)'", said)
    properties = re.search(
        rf"Function properties for {re.escape(name)}\n"
        r"\s*(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads",
        said,
    )
    used = re.search(r"Used (\d+) registers(.*)", said)
    if compiled != [name] or not properties or not used:
        raise KernelCompileError(
            f"kernel {name}: cannot read ptxas's report; expected that of ptxas 12.8:\n{said}"
        )
    static = re.search(r"(\d+) bytes smem", used[2])
    return Report(
        registers=int(used[1]),
        stack=int(properties[1]),
        spill_stores=int(properties[2]),
        spill_loads=int(properties[3]),
        static_shared_memory=int(static[1]) if static else 0,
    )
