"""The tuner: ``python -m wrapgen.tuning.main SETTINGS.json``; ``bazel run :NAME.tune`` starts it.

Measures the candidates that a build made for the machine's GPU, prints a table, and writes the lock
into the source tree. It needs Python and a CUDA driver, and no package.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wrapgen.tuning import candidates as candidates_file
from wrapgen.tuning import lock as lock_file
from wrapgen.tuning.candidates import Candidates, CandidatesError, Site
from wrapgen.tuning.driver import Driver, DriverError
from wrapgen.tuning.lock import Entry, Lock, LockError, Measured
from wrapgen.tuning.measure import Effort, Result, Tuner, text

Say = Callable[[str], None]


class TunerError(RuntimeError):
    """The tuner cannot do what it was asked for; the message says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 1 where nothing could be measured, or a candidate is wrong."""
    args = _parser().parse_args(argv)
    try:
        settings = json.loads(args.settings.read_text(encoding="utf-8"))
        return run(settings, args, lambda line: print(line, flush=True))
    except (TunerError, CandidatesError, DriverError, LockError, OSError) as error:
        print(f"tune: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tune", description="Measures kernels on the machine's GPU; writes the tuning lock."
    )
    parser.add_argument("settings", type=Path, metavar="SETTINGS.json")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the lock, instead of that in the source tree"
    )
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="measure sites whose name has this in it"
    )
    parser.add_argument(
        "--prune", action="store_true", help="remove entries of sites that the model has not"
    )
    parser.add_argument(
        "--gain",
        type=float,
        default=2.0,
        metavar="PERCENT",
        help="how much faster than the default an entry must be, at least; default: %(default)s",
    )
    parser.add_argument(
        "--rounds", type=int, default=15, help="how often each is timed; default: %(default)s"
    )
    parser.add_argument(
        "--launches",
        type=int,
        help="how many launches are timed at once; by default as many as take 0.3 ms",
    )
    parser.add_argument(
        "--driver", default="libcuda.so.1", help="CUDA's driver; default: %(default)s"
    )
    return parser


def run(settings: Mapping[str, Any], args: argparse.Namespace, say: Say) -> int:
    """Measures and writes the lock; returns the exit status."""
    driver = _driver(args.driver)
    found = _candidates(settings, driver)
    output = _output(settings, args.output)
    known = lock_file.load(output) if output.exists() else Lock()
    sites = [site for site in found.sites if args.only in site.key]
    if not sites:
        raise TunerError(f"--only {args.only}: no site has this in its name")
    say(f"{driver.name}, compute capability {driver.capability / 10}, CUDA {_cuda(driver.version)}")
    tuner = Tuner(driver, found, Effort(args.rounds, args.launches, args.gain / 100))
    say(f"{'default us':>10} {'best us':>9} {'gain':>6} {'uses':>5}  site, and its configuration")
    results: list[tuple[Site, Result]] = []
    for site in sites:
        result = tuner.tune(site)
        results.append((site, result))
        for line in _lines(site, result):
            say(line)
    tuner.close()
    _summary(results, say)
    for key in found.not_measured:
        if args.only in key:
            say(f"not measured: {key}")
    entries = merged(known.entries(found.target), results, driver, say)
    if args.prune:
        own = {*(site.key for site in found.sites), *found.not_measured, *found.folding}
        entries = {key: entry for key, entry in entries.items() if key in own}
    lock = known.with_entries(found.target, entries)
    if output.exists() and lock_file.dumps(lock) == output.read_text(encoding="utf-8"):
        say(f"{output}: nothing changed")
    else:
        lock_file.write(lock, output)
        say(f"{output}: written, {len(entries)} entries for {found.target}")
        if not settings["tuning"]:
            say(f'to build with it: aoti_library(..., tuning = "{output.name}")')
    bad = [result for _, result in results if result.failure or _wrong(result)]
    return 1 if bad else 0


def _output(settings: Mapping[str, Any], asked: Path | None) -> Path:
    """Where the lock is, or will be."""
    workspace = os.environ.get("BUILD_WORKSPACE_DIRECTORY")
    if asked is not None:  # relative to where the user is, which is not where `bazel run` is
        return Path(os.environ.get("BUILD_WORKING_DIRECTORY", "")) / asked
    if not settings["output"]:
        raise TunerError(
            f"{settings['name']}: the lock is not a source file of this workspace: name the file "
            "to write with --output"
        )
    if workspace is None:
        raise TunerError(
            f"where the source tree is, is not known: run `bazel run {settings['name']}`, or name "
            "the file to write with --output"
        )
    return Path(workspace, str(settings["output"]))


def _driver(path: str) -> Driver:
    try:
        return Driver(path)
    except DriverError as error:
        raise TunerError(
            f"there is no GPU to measure on: {error}. Run it on a machine with one; what it needs "
            "is among its runfiles (docs/tuning.md, 'On another machine')"
        ) from None


def _candidates(settings: Mapping[str, Any], driver: Driver) -> Candidates:
    """The candidates for the device."""
    target = f"sm_{driver.capability}"
    for program in settings["programs"]:
        if program["target"] == target:
            directories = [Path(path) for path in program["kernels"]]
            return candidates_file.load(Path(program["candidates"]), directories)
    known = ", ".join(program["target"] for program in settings["programs"])
    raise TunerError(
        f"{driver.name} has compute capability {driver.capability / 10}, that is {target}; the "
        f"library is built for {known}: tune on such a GPU, or add {target} to its targets"
    )


def merged(
    entries: Mapping[str, Entry],
    results: Sequence[tuple[Site, Result]],
    driver: Driver,
    say: Say,
) -> dict[str, Entry]:
    """The entries for a target after measuring some of its sites.

    An entry that says the same stays as it is, so that tuning again changes no line for noise. One
    that is no candidate stays where no candidate is better than the default: it was not measured.
    """
    new = dict(entries)
    for site, result in results:
        before = entries.get(site.key)
        if result.failure or (before is not None and before.config == result.best):
            continue
        if result.best is not None:
            evidence = Measured(driver.name, driver.version, result.default_ns, result.best_ns)
            new[site.key] = Entry(result.best, evidence)
        elif before is not None:
            if before.config in [config for config, _ in result.times]:
                del new[site.key]
            else:
                say(f"kept, as it is none of the candidates: {site.key}: {text(before.config)}")
    return new


def _lines(site: Site, result: Result) -> list[str]:
    """What the table says of a site."""
    if result.failure:
        lines = [f"{'-':>10} {'-':>9} {'-':>6} {site.uses:>5}  {site.key}: {result.failure}"]
    else:
        gain = 1 - result.best_ns / result.default_ns if result.default_ns else 0.0
        lines = [
            f"{result.default_ns / 1000:10.2f} {result.best_ns / 1000:9.2f} {gain:6.1%}"
            f" {site.uses:>5}  {site.key}"
        ]
        if result.best is not None:
            lines.append(f"{'':33}  {text(result.best)}")
    return [*lines, *(f"{'':33}  {remark}" for remark in result.remarks)]


def _summary(results: Sequence[tuple[Site, Result]], say: Say) -> None:
    measured = [(site, result) for site, result in results if not result.failure]
    default, best = (
        sum(site.uses * getattr(result, name) for site, result in measured) / 1000
        for name in ("default_ns", "best_ns")
    )
    faster = sum(result.best is not None for _, result in measured)
    say(
        f"{default:10.2f} {best:9.2f} {1 - best / default if default else 0.0:6.1%}        all of "
        f"them, as often as they are used; {faster} of {len(results)} faster than the default"
    )


def _wrong(result: Result) -> bool:
    return any(remark.startswith("WRONG") for remark in result.remarks)


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


if __name__ == "__main__":
    sys.exit(main())
