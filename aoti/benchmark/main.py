"""``:NAME_benchmark``: times a model's shared library on the machine's GPU.

    bazel run //models:resnet_aoti_benchmark -- --json out.json

docs/benchmark.md says what is measured and how. The standard library alone: what Bazel has put
beside it runs on any machine with a GPU and Python 3.11 or newer.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aoti.benchmark import measure, settings, table
from aoti.benchmark.settings import Settings
from aoti.testing import device as devices
from aoti.testing.device import Device, DeviceError
from aoti.testing.sizes import InputsError
from wrapgen import expression

SCHEMA_VERSION: Final = 1
"""Of the JSON."""


class BenchmarkError(RuntimeError):
    """The benchmark cannot be run, or the library failed."""


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("settings", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON, too")
    parser.add_argument(
        "--device",
        choices=("gpu", "simulator"),
        help="on the simulator each thing is done once, to see that it can be; no figure counts",
    )
    parser.add_argument(
        "--size",
        action="append",
        default=[],
        metavar="SYMBOL=N,N...",
        help="instead of the sizes that the target declares; repeatable",
    )
    parser.add_argument(
        "--input-range",
        action="append",
        default=[],
        metavar="INPUT=LOW:HIGH",
        help="where an input's values are drawn from; repeatable",
    )
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="how long each figure is measured: %(default)s"
    )
    options = parser.parse_args()
    found = settings.read(options.settings)
    try:
        result = run(
            found,
            options.device or ("simulator" if found.device == "simulator" else "gpu"),
            sizes=found.sizes | dict(map(_size, options.size)),
            ranges=found.input_ranges | dict(each.split("=", 1) for each in options.input_range),
            seconds=options.seconds,
        )
    except (BenchmarkError, DeviceError, InputsError) as error:
        print(f"{found.name}: {error}", file=sys.stderr)
        return 1
    print(table.text(result), end="")
    if options.json:
        # The caller's directory, not the one with the runfiles.
        caller = Path(os.environ.get("BUILD_WORKING_DIRECTORY", "."))
        text = json.dumps(result, indent=2, sort_keys=True) + "\n"
        (caller / options.json).write_text(text, encoding="utf-8")
    return 0


def _size(text: str) -> tuple[str, tuple[int, ...]]:
    name, equals, values = text.partition("=")
    numbers = values.split(",")
    if not equals or not all(number.isdigit() for number in numbers):
        raise InputsError(f"--size: {text!r} is no SYMBOL=N,N..., such as batch=1,8")
    return name, tuple(map(int, numbers))


def run(
    found: Settings,
    kind: str,
    *,
    sizes: Mapping[str, Sequence[int]],
    ranges: Mapping[str, str],
    seconds: float,
) -> dict[str, Any]:
    """Measures a library; gives the result, as docs/benchmark.md describes its JSON.

    Raises:
      DeviceError: there is no such device, or it cannot run the library.
      InputsError: sizes or ranges do not fit the model.
      BenchmarkError: the library failed.
    """
    device = _device(found, kind)
    report = json.loads(found.report.read_text(encoding="utf-8"))
    combinations = settings.combinations(report, sizes)
    if device.simulated:
        combinations = combinations[:1]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        request = {
            "library": str(found.library),
            "weights": str(found.weights),
            "simulated": device.simulated,
            "seconds": seconds,
            "cases": settings.cases(report, combinations, ranges, scratch),
        }
        model = _measure(request | {"driver": device.driver, "kernels": False}, device, scratch, {})
        kernels = _measure(
            request | {"driver": str(found.timing_driver.resolve()), "kernels": True},
            device,
            scratch,
            {"AOTI_TIMED_DRIVER": _path_of(device.driver)},
        )
    return _result(found, device, report, model, kernels)


def _device(found: Settings, kind: str) -> Device:
    if kind == "simulator" and not found.simulator:
        raise BenchmarkError(
            "built without the simulator: build it with --@rules_aoti//aoti:test_device=simulator"
        )
    kernels: dict[int, list[Path]] = {}
    if kind == "simulator":
        target = max(found.kernels, key=lambda name: int(name.removeprefix("sm_")))
        # A shard without kernels is an empty directory, which a sandbox of Bazel's has not.
        kernels[int(target.removeprefix("sm_"))] = [
            path.resolve() for path in found.kernels[target] if path.is_dir()
        ]
    try:
        (device, *_), _ = devices.choose(kind, found.targets, Path(found.simulator), kernels)
    except DeviceError as error:
        why = str(error).removeprefix("this test must run on a GPU: ").partition(". Run it")[0]
        raise DeviceError(
            f"a benchmark needs a GPU: {why}. Run it on a machine with one (docs/benchmark.md says"
            " how to carry it there)"
        ) from None
    if device.simulated:
        # As it lies among these runfiles: where the link leads, it would look for others.
        device.environment["SIMULATOR_EXECUTOR"] = f"'{Path(found.executor).absolute()}'"
    return device


def _path_of(driver: str) -> str:
    """The path of a library that is looked up by its name, in a process of its own: one that has
    loaded the machine's driver can load no other by that name."""
    if "/" in driver:
        return driver
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        ctypes.CDLL(driver)
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
        stem = driver.partition(".so")[0] + ".so"
        paths = [line.split(None, 5)[5] for line in maps.splitlines() if f"/{stem}" in line]
        os.write(write, os.fsencode(paths[0] if paths else ""))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        path = os.fsdecode(pipe.read())
    os.waitpid(child, 0)
    if not path:
        raise BenchmarkError(f"cannot tell which file {driver} is")
    return path


def _measure(
    request: Mapping[str, Any], device: Device, scratch: Path, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Runs ``measure.py``; gives its result."""
    request_file, result_file = scratch / "request.json", scratch / "result.json"
    request_file.write_text(json.dumps(request))
    result_file.unlink(missing_ok=True)
    everything = os.environ | device.environment | environment
    everything["PYTHONPATH"] = os.pathsep.join(str(Path(path).resolve()) for path in sys.path)
    done = subprocess.run(
        [sys.executable, measure.__file__, str(request_file), str(result_file)],
        env=everything,
        check=False,
    )
    if not result_file.exists():
        raise BenchmarkError(f"the process that ran the library ended with {done.returncode}")
    result: dict[str, Any] = json.loads(result_file.read_text())
    if result["error"]:
        raise BenchmarkError(result["error"])
    return result


def _bandwidth(
    device: Device, attributes: Mapping[str, int], declared: Mapping[str, Any]
) -> tuple[float, str]:
    """Bytes a second of the device's memory, and where that is from."""
    if device.simulated:
        return 0.0, ""
    # Both edges of the clock carry data.
    peak = 2e3 * attributes["memory_clock_khz"] * attributes["memory_bus_bits"] / 8
    if peak:
        return peak, "twice the memory's clock times its width, as the driver reports them"
    return float(declared["bandwidth"]), f"the driver does not tell; that of {declared['name']}"


def _result(
    found: Settings,
    device: Device,
    report: Mapping[str, Any],
    model: Mapping[str, Any],
    kernels: Mapping[str, Any],
) -> dict[str, Any]:
    target = report["targets"][model["target"]]
    program = report["programs"][target["program"]]
    attributes = model.get("attributes", {})
    bandwidth, where = _bandwidth(device, attributes, target["device"])
    cases = []
    for measured, timed in zip(model["cases"], kernels["cases"], strict=True):
        symbols = measured["symbols"]
        compulsory = expression.evaluate(program["compulsory"], symbols)
        cases.append(
            {
                **measured,
                "compulsory": compulsory,
                "floor_us": 1e6 * compulsory / bandwidth if bandwidth else None,
                "empty_us": kernels["empty_us"],
                "launches": _launches(timed["launches"], program["main"], symbols, bandwidth),
            }
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "name": found.name,
        "library": found.library.name,
        "target": model["target"],
        "timed": not device.simulated,
        "device": {
            "name": device.text,
            "capability": device.capability,
            "simulated": device.simulated,
            "driver": model.get("driver", 0),
            "multiprocessors": attributes.get("multiprocessors", 0),
            "l2_cache": attributes.get("l2_cache", 0),
            "bandwidth": bandwidth,
            "bandwidth_from": where,
        },
        "load_us": model["load_us"],
        "memory": model["memory"],
        "cases": cases,
    }


def _launches(
    timed: Sequence[Mapping[str, Any]],
    steps: Sequence[Mapping[str, Any]],
    symbols: Mapping[str, int],
    bandwidth: float,
) -> list[dict[str, Any]]:
    """Launches with what the report says of them: the next step that launches the same, from where
    the last was found. Steps of a loop come again, so the search begins anew where it ends."""
    found = []
    at = 0
    for launch in timed:
        order = [*range(at, len(steps)), *range(at)]
        match = next((i for i in order if _is(steps[i], launch["what"])), None)
        described: dict[str, Any] = {**launch, "step": match, "from": "", "floor_us": None}
        if match is not None:
            at = match + 1
            step = steps[match]
            nbytes = sum(expression.evaluate(step[way], symbols) for way in ("reads", "writes"))
            described["nbytes"] = nbytes
            described["floor_us"] = 1e6 * nbytes / bandwidth if bandwidth else None
            described["from"] = ", ".join(
                dict.fromkeys(
                    source["module"] or source["op"].removeprefix("aten.").partition(".")[0]
                    for source in step["sources"]
                )
            )
        found.append(described)
    return found


def _is(step: Mapping[str, Any], what: str) -> bool:
    return bool(step["kernel"] == what if step["kind"] == "launch" else step["kind"] == what)


if __name__ == "__main__":
    sys.exit(main())
