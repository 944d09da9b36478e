"""Writes the lock files next to this one from the ``.in`` files: ``python3.11 lock.py``.

Each group holds what the groups it stands on lack. Needs pip-tools. Hashes are of every file of a
release, so that a lock serves whatever index pip is configured with; of torch, only the CPU build's
is kept. Versions that are locked stay unless an ``.in`` file says otherwise; ``--upgrade`` takes
the newest.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

GROUPS = {
    "base": (),
    "triton": ("base",),
    "torch": ("base", "triton"),
    "nvtx": (),
    "dev": ("base", "triton", "torch"),
    "validators": ("base",),
    "transformers": ("base", "triton", "torch"),
    "farm": ("base", "triton", "torch", "dev"),
}
"""Each group and those it stands on, which come before it."""

HERE = Path(__file__).resolve().parent

Lock = dict[str, list[str]]


def compile_lock(sources: list[Path], out: Path) -> Lock:
    """Resolves ``sources`` together; returns {requirement: hashes}, sorted by name.

    Versions stay what they are in ``out``, which the result replaces.
    """
    command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes"]
    command += ["--allow-unsafe", "--no-header", "--no-annotate", "--strip-extras"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-options"]
    subprocess.run([*command, "--output-file", out, *sources], check=True)
    return read_lock(out)


def read_lock(path: Path) -> Lock:
    """Reads a lock file: {requirement: hashes}, sorted by name."""
    entries: Lock = {}
    for entry in re.split(r"\n(?=\S)", path.read_text()):
        match = re.match(r"([A-Za-z0-9_.-]+==\S+)", entry)
        if match:
            entries[match[1]] = sorted(re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry))
    return dict(sorted(entries.items()))


def render(entries: Lock) -> str:
    """The text of a lock file."""
    lines = ["# Written by lock.py. Each group holds what those it stands on lack.\n"]
    for requirement, hashes in entries.items():
        lines.append(" \\\n".join([requirement, *(f"    --hash={h}" for h in hashes)]) + "\n")
    return "".join(lines)


def main() -> int:
    """Rewrites all locks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    upgrade = parser.parse_args().upgrade
    locks: dict[str, Lock] = {}
    resolved: Lock = {}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "lock.txt")
        for group, below in GROUPS.items():
            lock = HERE / f"requirements_{group}.txt"
            pinned = {} if upgrade or not lock.exists() else read_lock(lock)
            out.write_text(render(dict(sorted((resolved | pinned).items()))))
            sources = [HERE / f"requirements_{name}.in" for name in (*below, group)]
            entries = compile_lock(sources, out)
            resolved |= entries
            known = {requirement for name in below for requirement in locks[name]}
            locks[group] = {key: value for key, value in entries.items() if key not in known}
            lock.write_text(render(locks[group]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
