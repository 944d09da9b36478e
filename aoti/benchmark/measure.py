"""Measures a deployed library through its C ABI: ``python measure.py REQUEST.json RESULT.json``.

A process of its own, and the standard library alone: it loads the driver it is told to. The request
names the driver, the library, its weights and cases; a case is inputs, each with a file that holds
its bytes, and outputs. With ``kernels`` the driver is the one that times launches
(timing_driver.cc), and these are what is measured; without, it is the whole model.

On the simulator each thing is done once, to see that it can be: its times are not a GPU's.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from aoti.testing.caller import (
    CPU,
    CUDA,
    NO_GRAPH,
    CallError,
    DLTensor,
    Driver,
    Library,
    buffers,
    dltensor,
)

WARM_UP: Final = 10
"""Runs that are not measured, of each session at each size."""

LEAST: Final = 20
MOST: Final = 10000
"""Runs that are measured, whatever the time asked for."""

KERNEL_RUNS: Final = 50
"""Runs of which each launch's time is the median."""

ATTRIBUTES: Final = {
    "multiprocessors": 16,
    "memory_clock_khz": 36,
    "memory_bus_bits": 37,
    "l2_cache": 38,
}
"""``CUdevice_attribute``."""


class Target(ctypes.Structure):
    """``AotiTargetInfo``."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("major", ctypes.c_int32),
        ("minor", ctypes.c_int32),
        ("num_kernels", ctypes.c_uint64),
        ("model_memory", ctypes.c_uint64),
        ("load_memory", ctypes.c_uint64),
        ("session_memory", ctypes.c_uint64),
        ("tail", ctypes.c_uint64 * 24),
    ]


class WeightsInfo(ctypes.Structure):
    """``AotiWeightsInfo``; its tail may grow."""

    _fields_ = [
        ("own_memory", ctypes.c_uint64),
        ("shared_memory", ctypes.c_uint64),
        ("callers_memory", ctypes.c_uint64),
        ("tail", ctypes.c_uint64 * 29),
    ]


class TimedDriver(Driver):
    """A driver with events, and what a benchmark asks of the device."""

    def version(self) -> int:
        """As cuDriverGetVersion has it: 12080 is CUDA 12.8."""
        version = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(version))
        return version.value

    def attribute(self, number: int) -> int:
        """An attribute of the device; 0 where the driver does not know it."""
        value = ctypes.c_int()
        code = self._function("cuDeviceGetAttribute")(ctypes.byref(value), number, 0)
        return 0 if code else value.value

    def event(self) -> ctypes.c_void_p:
        """Makes an event, which lives as long as the process."""
        event = ctypes.c_void_p()
        self._call("cuEventCreate", ctypes.byref(event), ctypes.c_uint(0))
        return event

    def record(self, event: ctypes.c_void_p) -> None:
        """Records an event in the default stream."""
        self._call("cuEventRecord", event, ctypes.c_void_p())

    def between(self, begin: ctypes.c_void_p, end: ctypes.c_void_p) -> float:
        """Waits for the second event; gives the microseconds between the two."""
        milliseconds = ctypes.c_float()
        self._call("cuEventSynchronize", end)
        self._call("cuEventElapsedTime", ctypes.byref(milliseconds), begin, end)
        return 1e3 * milliseconds.value

    def timing(self) -> ctypes.CDLL:
        """The functions of timing_driver.cc."""
        self._lib.timing_begin.restype = None
        self._lib.timing_end.restype = ctypes.c_uint64
        return self._lib


class MeasuredLibrary(Library):
    """A library, and what it says of its memory."""

    def memory(self) -> dict[str, int]:
        """Bytes of device memory that the library says it takes."""
        info = Target()
        self._call("aoti_model_target", self._model, ctypes.byref(info))
        weights, held = ctypes.c_void_p(), WeightsInfo()
        self._call("aoti_model_weights", self._model, ctypes.byref(weights))
        self._call("aoti_weights_info", weights, ctypes.byref(held))
        self._lib.aoti_weights_destroy(weights)
        return {
            "model": info.model_memory,
            "load": info.load_memory,
            "session": info.session_memory,
            "allocated": held.own_memory,
        }

    def prepared(
        self, session: ctypes.c_void_p, inputs: Sequence[DLTensor], outputs: Sequence[DLTensor]
    ) -> Callable[[], None]:
        """A run whose arguments are made once, so that a call costs as little as it can here."""
        function = self._lib.aoti_session_run
        arrays = [
            (ctypes.POINTER(DLTensor) * len(tensors))(*map(ctypes.pointer, tensors))
            for tensors in (inputs, outputs)
        ]
        counts = [ctypes.c_uint64(len(tensors)) for tensors in (inputs, outputs)]
        stream = ctypes.c_void_p()

        def run() -> None:
            if function(session, arrays[0], counts[0], arrays[1], counts[1], stream, None):
                # Once more, for the message.
                self.run(session, list(inputs), list(outputs))

        return run


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, least, 99th percentile (nearest rank) and mean."""
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "minimum": ordered[0],
        "p99": ordered[max(0, -(-99 * len(ordered) // 100) - 1)],
        "mean": statistics.fmean(ordered),
    }


def latency(
    driver: TimedDriver, run: Callable[[], None], seconds: float, simulated: bool
) -> dict[str, Any]:
    """Times single runs. ``wall_us``: from the call until the device is idle, by the host's clock.
    ``device_us``: between two events around a run that follows another one, so that the device has
    it before it can begin, and the host's time is not in it."""
    begin, end = driver.event(), driver.event()
    device, wall = [], []
    deadline = time.perf_counter() + seconds
    while len(wall) < (1 if simulated else LEAST) or (
        not simulated and time.perf_counter() < deadline and len(wall) < MOST
    ):
        started = time.perf_counter_ns()
        run()
        driver.synchronize()
        wall.append((time.perf_counter_ns() - started) / 1e3)
        if not simulated:
            run()
        driver.record(begin)
        run()
        driver.record(end)
        device.append(driver.between(begin, end))
    return {"runs": len(wall), "device_us": summary(device), "wall_us": summary(wall)}


def throughput(
    driver: TimedDriver, run: Callable[[], None], seconds: float, once: float, simulated: bool
) -> dict[str, Any]:
    """Runs that follow one another without being waited for; ``once`` is the wall time of one."""
    runs = 1 if simulated else min(max(int(seconds * 1e6 / once), LEAST), MOST)
    driver.synchronize()
    started = time.perf_counter_ns()
    for _ in range(runs):
        run()
    driver.synchronize()
    elapsed = (time.perf_counter_ns() - started) / 1e9
    return {"runs": runs, "runs_per_second": runs / elapsed}


def measure_model(driver: TimedDriver, request: dict[str, Any], result: dict[str, Any]) -> None:
    """Loads the library and measures its runs."""
    started = time.perf_counter_ns()
    library = MeasuredLibrary(request["library"], request["weights"])
    driver.synchronize()
    result["load_us"] = (time.perf_counter_ns() - started) / 1e3
    result["target"] = library.target
    result["memory"] = library.memory()
    simulated = request["simulated"]
    for case in request["cases"]:
        with _tensors(driver, case) as (inputs, outputs):
            measured: dict[str, Any] = {"symbols": case["symbols"]}
            for name, flags in (("graph", 0), ("stream", NO_GRAPH)):
                session = library.session(flags)
                run = library.prepared(session, inputs, outputs)
                started = time.perf_counter_ns()
                run()
                driver.synchronize()
                first = (time.perf_counter_ns() - started) / 1e3
                for _ in range(0 if simulated else WARM_UP):
                    run()
                driver.synchronize()
                times = latency(driver, run, request["seconds"], simulated)
                once = times["wall_us"]["median"]
                times |= throughput(driver, run, request["seconds"], once, simulated)
                measured[name] = {"first_run_us": first} | times
                driver.synchronize()
                library.close_session(session)
            result["cases"].append(measured)
    library.close()


def measure_kernels(driver: TimedDriver, request: dict[str, Any], result: dict[str, Any]) -> None:
    """Times each launch of a run without a CUDA graph, and what two events alone show."""
    library = MeasuredLibrary(request["library"], request["weights"])
    result["target"] = library.target
    timing = driver.timing()
    simulated = request["simulated"]
    begin, end = driver.event(), driver.event()
    empty = []
    for _ in range(1 if simulated else KERNEL_RUNS):
        driver.record(begin)
        driver.record(end)
        empty.append(driver.between(begin, end))
    result["empty_us"] = statistics.median(empty)
    for case in request["cases"]:
        session = library.session(NO_GRAPH)
        with _tensors(driver, case) as (inputs, outputs):
            run = library.prepared(session, inputs, outputs)
            for _ in range(1 if simulated else WARM_UP):
                run()
            driver.synchronize()
            names: list[str] = []
            times: list[list[float]] = []
            for _ in range(1 if simulated else KERNEL_RUNS):
                timing.timing_begin()
                run()
                driver.synchronize()
                entries = [_entry(timing, i) for i in range(timing.timing_end())]
                if names and [name for name, _ in entries] != names:
                    raise CallError("a run launches other kernels than the run before")
                names = [name for name, _ in entries]
                times.append([microseconds for _, microseconds in entries])
        library.close_session(session)
        result["cases"].append(
            {
                "symbols": case["symbols"],
                "launches": [
                    {"what": name, "us": summary(values)["median"]}
                    for name, values in zip(names, map(list, zip(*times, strict=True)), strict=True)
                ],
            }
        )
    library.close()


def _entry(timing: ctypes.CDLL, index: int) -> tuple[str, float]:
    what, milliseconds = ctypes.c_char_p(), ctypes.c_float()
    code = timing.timing_entry(
        ctypes.c_uint64(index), ctypes.byref(what), ctypes.byref(milliseconds)
    )
    if code:
        raise CallError(f"the time of launch {index} cannot be read ({code})")
    return (what.value or b"").decode(), 1e3 * milliseconds.value


@contextlib.contextmanager
def _tensors(
    driver: Driver, case: dict[str, Any]
) -> Iterator[tuple[list[DLTensor], list[DLTensor]]]:
    """The tensors of a case, in device memory; inputs hold their values."""
    with (
        buffers(driver, case["inputs"], 0) as inputs,
        buffers(driver, case["outputs"], 0) as outputs,
    ):
        hosts = []
        tensors = []
        for block in inputs:
            data = Path(block.spec["file"]).read_bytes()
            if block.spec["kind"] == "scalar":
                hosts.append(ctypes.create_string_buffer(data, len(data)))
                tensors.append(dltensor(block.spec, ctypes.addressof(hosts[-1]), CPU))
            else:
                driver.write(block.address, data)
                tensors.append(dltensor(block.spec, block.address, CUDA))
        yield tensors, [dltensor(block.spec, block.address, CUDA) for block in outputs]


def main(request_file: str, result_file: str) -> None:
    """Measures what a request asks for. An error ends that; it is in the result."""
    request = json.loads(Path(request_file).read_text())
    result: dict[str, Any] = {"target": "", "cases": [], "error": ""}
    try:
        driver = TimedDriver(request["driver"])
        if not request["simulated"]:
            result["driver"] = driver.version()
            result["attributes"] = {
                name: driver.attribute(number) for name, number in ATTRIBUTES.items()
            }
        (measure_kernels if request["kernels"] else measure_model)(driver, request, result)
    except (CallError, OSError) as error:
        result["error"] = str(error)
    Path(result_file).write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
