"""Times a cold build with Bazel and says where the time goes.

    python bench/build.py [TARGET...] [--jobs N] [--output-base DIR] [--keep]
    python bench/build.py --log FILE.json

The first builds targets, by default ``//bench:five_models``, with a server and an output base of
its own and no cache of action results. What is fetched and analysed beforehand is set-up, and not
in the figures. Then it builds again, with nothing to do, and compiles all kernels once more on one
core and on two. The second prints the table of an execution log that is there already.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
TARGETS: Final = ("//bench:five_models",)
COMPILE: Final = "AotiCompile"
CORES: Final = (1, 2)


@dataclasses.dataclass
class Row:
    """What a mnemonic's actions took: seconds, summed over actions that may have run at once."""

    count: int = 0
    total: float = 0.0
    setup: float = 0.0
    longest: float = 0.0


def spawns(log: Path) -> Iterator[Mapping[str, Any]]:
    """Yields what ran, as ``--execution_log_json_file`` has it."""
    decoder = json.JSONDecoder()
    text = log.read_text()
    at = 0
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        yield value
        while at < len(text) and text[at].isspace():
            at += 1


def seconds(spawn: Mapping[str, Any], name: str) -> float:
    """Reads a duration, such as ``1.5s``, among a spawn's metrics."""
    return float(spawn["metrics"].get(name, "0s").removesuffix("s"))


def rows(log: Path) -> dict[str, Row]:
    """Sums up an execution log: {mnemonic: row}, the most expensive first."""
    found: dict[str, Row] = {}
    for spawn in spawns(log):
        row = found.setdefault(spawn["mnemonic"], Row())
        total = seconds(spawn, "totalTime")
        row.count += 1
        row.total += total
        row.setup += seconds(spawn, "setupTime")
        row.longest = max(row.longest, total)
    return dict(sorted(found.items(), key=lambda item: -item[1].total))


def table(log: Path) -> str:
    """Formats ``rows`` as Markdown. An action waits for cores within its total."""
    lines = [
        "| actions | count | total s | mean s | longest s | of it set-up s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {row.count} | {row.total:.1f} | {row.total / row.count:.2f} | "
        f"{row.longest:.1f} | {row.setup:.1f} |"
        for name, row in rows(log).items()
    ]
    return "\n".join(lines)


def span(log: Path, mnemonic: str) -> float:
    """Returns the seconds from the first start of a mnemonic's actions to the last end."""
    starts, ends = [], []
    for spawn in spawns(log):
        if spawn["mnemonic"] == mnemonic:
            text = spawn["metrics"]["startTime"].replace("Z", "+00:00")
            start = datetime.datetime.fromisoformat(text).timestamp()
            starts.append(start)
            ends.append(start + seconds(spawn, "totalTime"))
    if not starts:
        raise SystemExit(f"{log}: no {mnemonic} was run")
    return max(ends) - min(starts)


class Bazel:
    """Bazel with an output base of its own."""

    def __init__(self, output_base: Path, targets: Sequence[str]) -> None:
        self._start = [str(ROOT / "bazelw"), f"--output_base={output_base}"]
        self._targets = targets
        self.directory = output_base.parent

    def build(self, name: str, *flags: str, cores: int | None = None) -> tuple[float, Path]:
        """Builds; returns wall seconds and the execution log."""
        log = self.directory / f"{name}.json"
        pinned = [] if cores is None else ["taskset", "--cpu-list", f"0-{cores - 1}"]
        command = [
            *pinned,
            *self._start,
            "build",
            "--noshow_progress",
            "--disk_cache=",
            "--remote_cache=",
            f"--execution_log_json_file={log}",
            f"--profile={self.directory / name}.profile.gz",
            *flags,
            *self._targets,
        ]
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        return time.monotonic() - started, log

    def info(self, key: str) -> Path:
        done = subprocess.run(
            [*self._start, "info", key], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return Path(done.stdout.strip())

    def shutdown(self) -> None:
        """Ends the server, and with it the workers."""
        subprocess.run([*self._start, "shutdown"], cwd=ROOT, capture_output=True, check=True)


def scaling(bazel: Bazel) -> list[tuple[int, float]]:
    """Compiles the kernels of what is built on each number of ``CORES``; returns seconds."""
    found = []
    outputs = bazel.info("bazel-bin")
    for cores in CORES:
        bazel.shutdown()  # the server's processors are those of its workers
        for directory in outputs.glob("**/*.kernels/*/*"):
            if directory.is_dir() and not directory.is_symlink():
                subprocess.run(["chmod", "-R", "u+w", str(directory)], check=True)
                shutil.rmtree(directory)
        _, log = bazel.build(f"compile_{cores}", f"--jobs={cores}", cores=cores)
        found.append((cores, span(log, COMPILE)))
    bazel.shutdown()
    return found


def measure(targets: Sequence[str], jobs: int, output_base: Path) -> None:
    bazel = Bazel(output_base, targets)
    bazel.build("setup", "--nobuild")
    cold, log = bazel.build("cold", f"--jobs={jobs}")
    warm, _ = bazel.build("warm", f"--jobs={jobs}")
    print(f"{' '.join(targets)}, {jobs} jobs, {os.cpu_count()} cores")
    print(f"load before and since: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    print(f"cold {cold:.1f} s, with nothing to do {warm:.1f} s\n")
    print(table(log))
    times = scaling(bazel)
    print("\n| cores | kernels compiled in s | times as fast |\n| --- | --- | --- |")
    for cores, took in times:
        print(f"| {cores} | {took:.1f} | {times[0][1] / took:.2f} |")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Times a cold build with Bazel.")
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--jobs", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--output-base", type=Path, help="an empty directory, not below /tmp")
    parser.add_argument("--keep", action="store_true", help="keep it, and the profiles beside it")
    parser.add_argument("--log", type=Path, help="print the table of this execution log instead")
    args = parser.parse_args(argv)
    if args.log is not None:
        print(table(args.log))
        return 0
    parent = Path.home() / ".cache"
    parent.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="aoti-bench-", dir=parent))
    output_base = args.output_base or scratch / "base"
    try:
        measure(args.targets, args.jobs, output_base)
    finally:
        if args.keep:
            print(f"kept: {output_base.parent}", file=sys.stderr)
        else:
            if output_base.exists():
                Bazel(output_base, ()).shutdown()
            subprocess.run(["chmod", "-R", "u+w", str(scratch)], check=True)
            shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
