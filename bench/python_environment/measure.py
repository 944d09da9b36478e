"""What the form of the Python environment costs an action, read from Bazel's profile.

    python bench/python_environment/measure.py --strategy=Probe=sandboxed
    python bench/python_environment/measure.py --config=remote --remote_executor=grpc://HOST:PORT

Arguments are options of ``./bazelw build``. Prints, for each form, milliseconds an action: the mean
of six, one at a time, in each of three runs after a first one that makes the environment.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ACTIONS = 6
COLUMNS = {
    "sandbox": ("sandbox.createFileSystem",),
    "Merkle tree": ("MerkleTree.build(ActionInput)",),
    "upload": ("upload",),
    "process": ("subprocess.run", "execute remotely"),
}


def build(form: str, run: str, profile: Path, flags: list[str]) -> None:
    command = [
        *("./bazelw", "build", "--jobs=1", "--noshow_progress", "--disk_cache="),
        *(f"--define=run={run}", f"--profile={profile}", *flags),
        f"//bench/python_environment:{form}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


def milliseconds(profile: Path) -> dict[str, float]:
    durations: dict[str, float] = defaultdict(float)
    with gzip.open(profile) as file:
        for event in json.load(file)["traceEvents"]:
            durations[event["name"]] += event.get("dur", 0) / 1000
    return {
        column: sum(durations[name] for name in names) / ACTIONS
        for column, names in COLUMNS.items()
    }


def main() -> None:
    flags = sys.argv[1:]
    print(f"{'form':12}" + "".join(f"{column:>14}" for column in COLUMNS))
    with tempfile.TemporaryDirectory() as directory:
        for form in ("directory", "tree", "image"):
            for i in range(4):
                profile = Path(directory) / f"{form}.{i}.gz"
                build(form, f"{time.time_ns()}", profile, flags)
                if i:
                    row = milliseconds(profile).values()
                    print(f"{form:12}" + "".join(f"{value:14.1f}" for value in row), flush=True)


if __name__ == "__main__":
    main()
