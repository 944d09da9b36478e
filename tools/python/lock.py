"""Writes the lock files next to this one from the ``.in`` files: ``python3.11 lock.py``.

Each group holds what the groups before it lack. Needs pip-tools. Hashes are of every file of a
release, so that a lock serves whatever index pip is configured with; of torch, only the CPU build's
is kept.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

GROUPS = ("base", "triton", "torch", "dev")
HERE = Path(__file__).resolve().parent

Lock = dict[str, list[str]]


def compile_lock(sources: list[Path], out: Path) -> Lock:
    """Resolves ``sources`` together; returns {requirement: hashes}, sorted by name."""
    command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes"]
    command += ["--allow-unsafe", "--no-header", "--no-annotate", "--strip-extras"]
    command += ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-options"]
    subprocess.run([*command, "--output-file", out, *sources], check=True)
    entries: Lock = {}
    for entry in re.split(r"\n(?=\S)", out.read_text()):
        match = re.match(r"([A-Za-z0-9_.-]+==\S+)", entry)
        if match:
            entries[match[1]] = sorted(re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry))
    return dict(sorted(entries.items()))


def main() -> int:
    """Rewrites all locks."""
    known: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "lock.txt")  # kept between groups, so that versions stay
        for i, group in enumerate(GROUPS):
            sources = [HERE / f"requirements_{name}.in" for name in GROUPS[: i + 1]]
            entries = compile_lock(sources, out)
            lines = ["# Written by lock.py. Each group holds what those before it lack.\n"]
            for requirement, hashes in entries.items():
                if requirement not in known:
                    lines.append(
                        " \\\n".join([requirement, *(f"    --hash={h}" for h in hashes)]) + "\n"
                    )
            known |= entries.keys()
            (HERE / f"requirements_{group}.txt").write_text("".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
