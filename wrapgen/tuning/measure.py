"""Measures the candidates of one site on a device, and checks what they compute.

A candidate is timed as a CUDA graph of many launches, so that nothing of the host is in the time.
The launches go through copies of all tensors, twice as large together as the L2 cache, which is
overwritten before: a small kernel is not timed out of a cache that it would not find filled. The
candidates take turns, each round in another order, so that a clock that drifts slows all alike.

Before it is timed, a candidate is run on the inputs of the default configuration, and its results
are compared with that one's. One that is wrong is told and never chosen.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
import statistics
import struct
from collections.abc import Sequence
from typing import Final

from wrapgen.tuning.candidates import Candidate, Candidates, Kernel, Site
from wrapgen.tuning.driver import Driver, DriverError, Launch, packed
from wrapgen.tuning.lock import Config

EPSILON: Final = {
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
    "float32": 2.0**-18,
    "float64": 2.0**-20,
}
"""How far one rounding may be off, relative to the number. Of float32, products may be of three
tf32, and sums long; float64 is compared as float32."""

_RELATIVE: Final = 4
"""Times epsilon: the limit of the error's norm, relative to the result's."""

_LARGEST: Final = 64
"""Times epsilon: the limit of one element's error, relative to the largest element."""

_MOST_COPIES: Final = 16
_TARGET_NS: Final = 300_000
"""How long a graph of launches shall take, about: a hundred times what events resolve."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How thoroughly to measure.

    Attributes:
      rounds: how often each candidate is timed; the median counts.
      launches: in a graph; ``None`` for as many as take long enough to be timed.
      gain: by what fraction a candidate must be faster than the default, at least.
    """

    rounds: int = 15
    launches: int | None = None
    gain: float = 0.02


@dataclasses.dataclass(frozen=True)
class Result:
    """What was found for a site.

    Attributes:
      default_ns: time of the default configuration, a launch of the site.
      best_ns: that of ``best``; the default's where nothing was faster by more than the noise.
      best: the configuration to record, or ``None`` for the default.
      times: nanoseconds of each candidate that was timed, the default first.
      remarks: candidates that were not run, or are wrong; a text each.
      failure: why nothing was measured; empty if it was.
    """

    default_ns: int = 0
    best_ns: int = 0
    best: Config | None = None
    times: tuple[tuple[Config, int], ...] = ()
    remarks: tuple[str, ...] = ()
    failure: str = ""


def text(config: Config) -> str:
    """Such as ``block_m=64 num_warps=4``."""
    return " ".join(f"{name}={config[name]}" for name in sorted(config))


class Tuner:
    """Measures sites on one device; kernels and scratch memory are shared by all of them."""

    def __init__(self, driver: Driver, candidates: Candidates, effort: Effort) -> None:
        self._driver = driver
        self._candidates = candidates
        self._effort = effort
        self._functions: dict[str, int] = {}
        self._flush = driver.allocate(2 * candidates.l2_bytes)

    def close(self) -> None:
        """Frees the memory."""
        self._driver.free(self._flush)

    def tune(self, site: Site) -> Result:
        """Measures a site's candidates."""
        remarks = [f"not run: {text(config)}: {reason}" for config, reason in site.refused]
        if not site.candidates:
            return Result(remarks=tuple(remarks), failure="the default configuration cannot be run")
        memory = _Memory(self._driver, site, self._candidates.l2_bytes)
        try:
            right, wrong = self._check(site, memory)
            return self._measure(right, memory, [*remarks, *wrong])
        except DriverError as error:
            if "OUT_OF_MEMORY" not in str(error):
                raise
            return Result(remarks=tuple(remarks), failure="its tensors exceed the device's memory")
        finally:
            memory.free()

    # Right or wrong.

    def _check(self, site: Site, memory: _Memory) -> tuple[list[Candidate], list[str]]:
        """The candidates that compute what the default does, and what is wrong with others."""
        memory.allocate()
        for seed, name in enumerate(sorted(site.buffers)):
            self._fill(memory, name, seed + 1)
        memory.copy_inputs()
        right, wrong = [site.candidates[0]], []
        self._run(site.candidates[0], memory)
        memory.keep_results()
        for candidate in site.candidates[1:]:
            self._run(candidate, memory)
            faults = [self._difference(memory, name) for name in memory.outputs]
            fault = next((each for each in faults if each), "")
            if fault:
                wrong.append(f"WRONG, and never chosen: {text(candidate.config)}: {fault}")
            else:
                right.append(candidate)
        return right, wrong

    def _run(self, candidate: Candidate, memory: _Memory) -> None:
        memory.reset()
        for launch in self._launches(candidate, memory, 0):
            self._driver.launch(launch)
        self._driver.synchronize()

    def _fill(self, memory: _Memory, name: str, seed: int) -> None:
        buffer = memory.site.buffers[name]
        kernel = self._candidates.fill.get(buffer.dtype)
        address = memory.pristine[name]
        self._driver.clear(address, buffer.nbytes)
        if kernel is None or buffer.role == "out" or not buffer.nbytes:
            return
        elements = buffer.nbytes // _itemsize(buffer.dtype)
        args = [_pointer(address), packed("int64", elements), packed("int32", seed)]
        self._tool(kernel, elements, args)

    def _difference(self, memory: _Memory, name: str) -> str:
        """How a result differs from the default's, a clause; empty if it does not."""
        buffer = memory.site.buffers[name]
        elements = buffer.nbytes // _itemsize(buffer.dtype)
        if not elements:
            return ""
        programs = -(-elements // self._candidates.block)
        sums = self._driver.allocate(4 * 5 * programs)
        try:
            found, wanted = memory.address(name, 0), memory.wanted[name]
            args = [_pointer(found), _pointer(wanted), _pointer(sums), packed("int64", elements)]
            self._tool(self._candidates.compare[buffer.dtype], elements, args)
            numbers = self._driver.floats(sums, 5 * programs)
        finally:
            self._driver.free(sums)
        rows = [numbers[i * programs : (i + 1) * programs] for i in range(5)]
        error, norm = math.sqrt(math.fsum(rows[0])), math.sqrt(math.fsum(rows[1]))
        return fault(buffer.dtype, error, norm, max(rows[2]), max(rows[3]), math.fsum(rows[4]))

    def _tool(self, kernel: str, elements: int, args: Sequence[bytes]) -> None:
        programs = -(-elements // self._candidates.block)
        self._driver.launch(self._launch(self._candidates.kernels[kernel], (programs, 1, 1), args))
        self._driver.synchronize()

    # How long.

    def _measure(
        self, candidates: Sequence[Candidate], memory: _Memory, remarks: Sequence[str]
    ) -> Result:
        graphs = [self._graph(candidate, memory) for candidate in candidates]
        try:
            times = self._rounds(graphs)
            medians = [statistics.median(each) for each in times]
            best = min(range(len(graphs)), key=lambda i: (medians[i], i))
            default_ns = best_ns = round(medians[0])
            config = None
            if best and self._is_faster(times[best], times[0]):
                # The best of many was lucky, perhaps: once more, the two of them.
                default, again = self._rounds([graphs[0], graphs[best]])
                if self._is_faster(again, default):
                    config = candidates[best].config
                    default_ns, best_ns = (
                        round(statistics.median(each)) for each in (default, again)
                    )
        finally:
            for graph, _ in graphs:
                self._driver.destroy(graph)
        return Result(
            default_ns=default_ns,
            best_ns=best_ns,
            best=config,
            times=tuple(
                (candidate.config, round(median))
                for candidate, median in zip(candidates, medians, strict=True)
            ),
            remarks=tuple(remarks),
        )

    def _is_faster(self, found: Sequence[float], default: Sequence[float]) -> bool:
        """Whether a candidate beats the default by the least gain, and by more than the noise."""
        gain = statistics.median(default) - statistics.median(found)
        noise = _spread(found) + _spread(default)
        return gain > max(noise, self._effort.gain * statistics.median(default))

    def _rounds(self, graphs: Sequence[tuple[ctypes.c_void_p, int]]) -> list[list[float]]:
        """Times each graph once a round; gives nanoseconds a launch. The first round warms up."""
        times: list[list[float]] = [[] for _ in graphs]
        for number in range(self._effort.rounds + 1):
            for i in range(len(graphs)):
                at = (i + number) % len(graphs)
                graph, launches = graphs[at]
                self._driver.clear(self._flush, 2 * self._candidates.l2_bytes)
                elapsed = self._driver.nanoseconds(graph)
                if number:
                    times[at].append(elapsed / launches)
        return times

    def _graph(self, candidate: Candidate, memory: _Memory) -> tuple[ctypes.c_void_p, int]:
        """A graph of a candidate's launches, and how many there are."""
        launches = self._effort.launches
        if launches is None:
            probe = self._captured(candidate, memory, 2)
            once = max(1, min(self._driver.nanoseconds(probe) for _ in range(2)) // 2)
            self._driver.destroy(probe)
            launches = max(4, min(100, _TARGET_NS // once))
        return self._captured(candidate, memory, launches), launches

    def _captured(self, candidate: Candidate, memory: _Memory, launches: int) -> ctypes.c_void_p:
        """A graph of so many launches, which go through the copies of the tensors."""
        return self._driver.graph(
            [
                launch
                for i in range(launches)
                for launch in self._launches(candidate, memory, i % memory.copies)
            ]
        )

    # Launches.

    def _launches(self, candidate: Candidate, memory: _Memory, copy: int) -> list[Launch]:
        made = []
        for step in candidate.steps:
            args = [
                _pointer(memory.address(arg["buffer"], copy) + arg["offset"])
                if arg["kind"] == "pointer"
                else packed(arg["dtype"], arg["value"])
                for arg in step.args
            ]
            made.append(self._launch(self._candidates.kernels[step.kernel], step.grid, args))
        return made

    def _launch(self, kernel: Kernel, grid: Sequence[int], args: Sequence[bytes]) -> Launch:
        if kernel.name not in self._functions:
            image = kernel.image.read_bytes()
            self._functions[kernel.name] = self._driver.function(
                image, kernel.name, kernel.shared_memory
            )
        # Triton's kernels take two pointers to scratch memory at the end; these need none.
        args = [*args, _pointer(0), _pointer(0)]
        if tuple(len(arg) for arg in args) != kernel.params:
            raise DriverError(
                f"kernel {kernel.name} takes parameters of {kernel.params} bytes, and was given "
                f"{tuple(len(arg) for arg in args)}: build tuner and candidates from one version"
            )
        function = self._functions[kernel.name]
        return Launch(function, grid, kernel.threads, kernel.shared_memory, args)


class _Memory:
    """The tensors of a site, in several copies.

    ``pristine`` is what inputs hold before a run, ``wanted`` what the default computed.
    """

    def __init__(self, driver: Driver, site: Site, l2_bytes: int) -> None:
        self.site = site
        self.outputs = [name for name, each in sorted(site.buffers.items()) if each.role != "in"]
        self._inputs = [name for name, each in sorted(site.buffers.items()) if each.role != "out"]
        self._driver = driver
        self._sizes = {name: each.nbytes for name, each in site.buffers.items()}
        for candidate in site.candidates:
            for name, nbytes in candidate.temporaries.items():
                self._sizes[name] = max(nbytes, self._sizes.get(name, 0))
        total = max(1, sum(self._sizes.values()))
        self.copies = max(2, min(_MOST_COPIES, -(-2 * l2_bytes // total)))
        self._blocks: list[dict[str, int]] = []
        self.pristine: dict[str, int] = {}
        self.wanted: dict[str, int] = {}

    def allocate(self) -> None:
        for _ in range(self.copies):
            self._blocks.append({})
            for name, nbytes in self._sizes.items():
                self._blocks[-1][name] = self._driver.allocate(nbytes)
        for name, each in self.site.buffers.items():
            self.pristine[name] = self._driver.allocate(each.nbytes)
        for name in self.outputs:
            self.wanted[name] = self._driver.allocate(self._sizes[name])

    def free(self) -> None:
        for blocks in (*self._blocks, self.pristine, self.wanted):
            for address in blocks.values():
                self._driver.free(address)

    def address(self, name: str, copy: int) -> int:
        return self._blocks[copy][name]

    def reset(self) -> None:
        """Brings the first copy into the state before a run."""
        for name, nbytes in self._sizes.items():
            address = self._blocks[0][name]
            if name in self.pristine:
                self._driver.copy(address, self.pristine[name], nbytes)
            else:
                self._driver.clear(address, nbytes)

    def copy_inputs(self) -> None:
        for blocks in self._blocks:
            for name in self._inputs:
                self._driver.copy(blocks[name], self.pristine[name], self._sizes[name])

    def keep_results(self) -> None:
        for name in self.outputs:
            self._driver.copy(self.wanted[name], self._blocks[0][name], self._sizes[name])
        self._driver.synchronize()


def fault(
    dtype: str, error: float, norm: float, largest: float, largest_wanted: float, wrong: float
) -> str:
    """What is wrong with a result, a clause; empty if it is right within the type's rounding.

    Args:
      dtype: of its elements.
      error: the norm of what differs.
      norm: that of what was wanted.
      largest: the largest difference.
      largest_wanted: the largest number wanted.
      wrong: how many elements are finite in one result alone; of integers, how many differ.
    """
    if wrong and dtype not in EPSILON:
        return f"{wrong:g} elements differ"
    if wrong:
        return f"{wrong:g} elements are no number, or infinite, in one of the results alone"
    epsilon = EPSILON.get(dtype, 0.0)
    if not math.isfinite(error) or error > _RELATIVE * epsilon * norm:
        relative = error / norm if norm else math.inf
        return f"the results differ by {relative:.2g}, more than {_RELATIVE * epsilon:.2g}"
    if largest > _LARGEST * epsilon * largest_wanted:
        return f"an element differs by {largest:.2g}, where the largest is {largest_wanted:.2g}"
    return ""


def _spread(times: Sequence[float]) -> float:
    """Half of the range that the middle half of times lies in."""
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return (high - low) / 2


def _pointer(address: int) -> bytes:
    return struct.pack("<Q", address)


def _itemsize(dtype: str) -> int:
    digits = "".join(each for each in dtype.partition("_")[0] if each.isdigit())
    return int(digits) // 8 if digits else 1
