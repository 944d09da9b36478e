"""Swaps a library's weights while threads run it, and checks every output.

    python bench/swap_weights.py bazel-bin/models/libresnet_aoti.so resnet_aoti.safetensors

A second file is made of the first: each tensor's elements in reverse order. For either a freshly
loaded model gives the reference. Then, in one model:

- weights are swapped between runs, by all ways to load them: from the file, from tensors that are
  copied, from tensors that are read in place, and shared with another model;
- ``--threads`` threads run, each with a session and a stream of its own, while this one swaps the
  weights back and forth, first loaded ones, then each time loaded anew and freed.

Every output must have exactly the bits of one of the two references, and those of the new weights
if its run was issued after the swap. The table has the wall time of a run, until its stream is
idle: of one thread alone, of all threads, of all threads while weights are swapped, and while they
are loaded; and of the calls that load, swap and free weights. Exits with 1 if an output is wrong.

The standard library alone, so that nothing of PyTorch's is in the way. ``--driver`` names another
driver than the machine's, such as the simulator's.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aoti.testing.caller import (
    CUDA,
    VERSION,
    CallError,
    DLDataType,
    DLDevice,
    DLTensor,
    ModelOptions,
    SessionOptions,
    Status,
)

IN_PLACE: Final = 1
"""``AOTI_WEIGHT_IN_PLACE``."""

SCALAR: Final = 1
DYNAMIC: Final = 4
"""``AOTI_TENSOR_SCALAR`` and ``AOTI_TENSOR_DYNAMIC``."""

ALIGNMENT: Final = 256
"""Of tensors that share an allocation here."""


class DimInfo(ctypes.Structure):
    """``AotiDimInfo``."""

    _fields_ = [
        ("expression", ctypes.c_char_p),
        ("minimum", ctypes.c_int64),
        ("maximum", ctypes.c_int64),
    ]


class TensorInfo(ctypes.Structure):
    """``AotiTensorInfo``."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", DLDataType),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("nbytes", ctypes.c_uint64),
        ("path", ctypes.c_char_p),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("shape_info", ctypes.c_void_p),
        ("stride_info", ctypes.c_void_p),
        ("value", DimInfo),
    ]


class DescriptionInfo(ctypes.Structure):
    """``AotiDescriptionInfo``."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("weights_digest", ctypes.c_char_p),
        ("num_inputs", ctypes.c_uint64),
        ("num_outputs", ctypes.c_uint64),
        ("num_targets", ctypes.c_uint64),
        ("num_weights", ctypes.c_uint64),
    ]


class WeightInfo(ctypes.Structure):
    """``AotiWeightInfo``."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", DLDataType),
        ("ndim", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("nbytes", ctypes.c_uint64),
    ]


class NamedTensor(ctypes.Structure):
    """``AotiNamedTensor``."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("tensor", ctypes.POINTER(DLTensor)),
        ("flags", ctypes.c_uint64),
    ]


class WeightsOptions(ctypes.Structure):
    """``AotiWeightsOptions``."""

    _fields_ = [
        ("struct_size", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("tensors", ctypes.POINTER(NamedTensor)),
        ("num_tensors", ctypes.c_uint64),
        ("from_", ctypes.POINTER(ctypes.c_void_p)),
        ("num_from", ctypes.c_uint64),
        ("path", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_uint64),
        ("stream", ctypes.c_void_p),
    ]


class WeightsInfo(ctypes.Structure):
    """``AotiWeightsInfo``."""

    _fields_ = [
        ("own_memory", ctypes.c_uint64),
        ("shared_memory", ctypes.c_uint64),
        ("callers_memory", ctypes.c_uint64),
    ]


class Driver:
    """``libcuda.so.1``, for threads of which each has a stream of its own."""

    def __init__(self, path: str) -> None:
        # Global, so that the library's dlopen("libcuda.so.1") finds this one by its name.
        self.lib = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        self._functions: dict[str, Any] = {}
        self.call("cuInit", ctypes.c_uint(0))
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        name = ctypes.create_string_buffer(256)
        self.call("cuDeviceGetName", name, ctypes.c_int(255), device)
        self.name = name.value.decode()
        self._context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.enter()

    def call(self, name: str, *args: Any) -> None:
        if name not in self._functions:
            address, status = ctypes.c_void_p(), ctypes.c_int()
            self.lib.cuGetProcAddress_v2(
                name.encode(),
                ctypes.byref(address),
                ctypes.c_int(VERSION),
                ctypes.c_uint64(0),
                ctypes.byref(status),
            )
            if not address.value:
                raise CallError(f"the driver has no {name}")
            self._functions[name] = ctypes.CFUNCTYPE(ctypes.c_int)(address.value)
        code = self._functions[name](*args)
        if code:
            raise CallError(f"{name} failed with {code}")

    def enter(self) -> None:
        """Makes the primary context current in this thread."""
        self.call("cuCtxPushCurrent", self._context)

    def stream(self) -> ctypes.c_void_p:
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(1))
        return stream

    def allocate(self, nbytes: int) -> int:
        address = ctypes.c_uint64()
        self.call("cuMemAlloc", ctypes.byref(address), ctypes.c_size_t(max(nbytes, 1)))
        return address.value

    def free(self, address: int) -> None:
        self.call("cuMemFree", ctypes.c_uint64(address))

    def write(self, address: int, data: bytes, stream: ctypes.c_void_p) -> None:
        place, size = ctypes.c_uint64(address), ctypes.c_size_t(len(data))
        if data:
            self.call("cuMemcpyHtoDAsync", place, ctypes.c_char_p(data), size, stream)
            self.synchronize(stream)

    def read(self, address: int, nbytes: int, stream: ctypes.c_void_p) -> bytes:
        host = ctypes.create_string_buffer(nbytes)
        place, size = ctypes.c_uint64(address), ctypes.c_size_t(nbytes)
        if nbytes:
            self.call("cuMemcpyDtoHAsync", host, place, size, stream)
            self.synchronize(stream)
        return host.raw

    def synchronize(self, stream: ctypes.c_void_p) -> None:
        self.call("cuStreamSynchronize", stream)


class Weights:
    """A hold of weights, which ``free`` gives up."""

    def __init__(self, library: Library, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle

    def info(self) -> WeightsInfo:
        info = WeightsInfo()
        self.library.call("aoti_weights_info", self.handle, ctypes.byref(info))
        return info

    def free(self) -> None:
        """Waits for the last run with them, unless the model runs with them."""
        self.library.lib.aoti_weights_destroy(self.handle)


class Library:
    """A deployed library: what it takes and gives."""

    def __init__(self, path: Path) -> None:
        self.lib = ctypes.CDLL(str(path.resolve()), mode=os.RTLD_LOCAL | os.RTLD_NOW)
        self.lib.aoti_model_description.restype = ctypes.c_void_p
        self.lib.aoti_weights_destroy.restype = None
        self.description = ctypes.c_void_p(self.lib.aoti_model_description())
        info = DescriptionInfo()
        self.call("aoti_description_info", self.description, ctypes.byref(info))
        self.name = info.name.decode()
        self.inputs = self._tensors("aoti_description_input", info.num_inputs)
        self.outputs = self._tensors("aoti_description_output", info.num_outputs)
        self.weights: list[WeightInfo] = []
        for i in range(info.num_weights):
            weight = WeightInfo()
            at = ctypes.c_uint64(i)
            self.call("aoti_description_weight", self.description, at, ctypes.byref(weight))
            self.weights.append(weight)

    def _tensors(self, function: str, count: int) -> list[TensorInfo]:
        found = []
        for i in range(count):
            info = TensorInfo()
            self.call(function, self.description, ctypes.c_uint64(i), ctypes.byref(info))
            if info.flags & (SCALAR | DYNAMIC):
                raise CallError(f"{info.name.decode()} is a scalar or dynamic: not for this script")
            found.append(info)
        return found

    def call(self, name: str, *args: Any) -> None:
        status = Status()
        if getattr(self.lib, name)(*args, ctypes.byref(status)) != 0:
            raise CallError(f"{name}: {status.message.decode(errors='replace')}")


class Model:
    """A model on device 0."""

    def __init__(self, library: Library, options: WeightsOptions) -> None:
        self.library = library
        self.handle = ctypes.c_void_p()
        load = ModelOptions(struct_size=ctypes.sizeof(ModelOptions))
        load.weights = ctypes.addressof(options)
        library.call(
            "aoti_model_load", library.description, ctypes.byref(load), ctypes.byref(self.handle)
        )

    def load(self, options: WeightsOptions) -> Weights:
        weights = ctypes.c_void_p()
        self.library.call(
            "aoti_weights_load", self.handle, ctypes.byref(options), ctypes.byref(weights)
        )
        return Weights(self.library, weights)

    def swap(self, weights: Weights) -> Weights:
        """Gives those that the model had."""
        previous = ctypes.c_void_p()
        self.library.call(
            "aoti_model_swap_weights", self.handle, weights.handle, ctypes.byref(previous)
        )
        return Weights(self.library, previous)

    def close(self) -> None:
        self.library.lib.aoti_model_destroy(self.handle)


class Runner:
    """A session with a stream and buffers of its own, for one thread."""

    def __init__(self, driver: Driver, model: Model) -> None:
        self.driver, self.model = driver, model
        self.stream = driver.stream()
        self._session = ctypes.c_void_p()
        options = SessionOptions(ctypes.sizeof(SessionOptions), 0)
        library = model.library
        library.call(
            "aoti_session_create", model.handle, ctypes.byref(options), ctypes.byref(self._session)
        )
        self._inputs = [driver.allocate(info.nbytes) for info in library.inputs]
        self._outputs = [driver.allocate(info.nbytes) for info in library.outputs]
        rng = random.Random(0)
        for info, address in zip(library.inputs, self._inputs, strict=True):
            driver.write(address, values(info.dtype, info.nbytes, rng), self.stream)
        self._arrays = [
            self._array(library.inputs, self._inputs),
            self._array(library.outputs, self._outputs),
        ]

    @staticmethod
    def _array(infos: list[TensorInfo], addresses: list[int]) -> Any:
        tensors = [
            DLTensor(address, DLDevice(CUDA, 0), info.ndim, info.dtype, info.shape, info.strides, 0)
            for info, address in zip(infos, addresses, strict=True)
        ]
        return (ctypes.POINTER(DLTensor) * len(tensors))(*map(ctypes.pointer, tensors))

    def run(self) -> None:
        """Issues a run and waits for it."""
        self.issue()
        self.driver.synchronize(self.stream)

    def issue(self) -> None:
        """Issues a run."""
        inputs, outputs = self._arrays
        self.model.library.call(
            "aoti_session_run",
            self._session,
            inputs,
            ctypes.c_uint64(len(self._inputs)),
            outputs,
            ctypes.c_uint64(len(self._outputs)),
            self.stream,
        )

    def result(self) -> bytes:
        """The bits of all outputs, which are poisoned then."""
        bits = b""
        for info, address in zip(self.model.library.outputs, self._outputs, strict=True):
            bits += self.driver.read(address, info.nbytes, self.stream)
            self.driver.write(address, b"\xff" * info.nbytes, self.stream)
        return bits

    def close(self) -> None:
        self.model.library.lib.aoti_session_destroy(self._session)
        for address in (*self._inputs, *self._outputs):
            self.driver.free(address)
        self.driver.call("cuStreamDestroy", self.stream)


def values(dtype: DLDataType, nbytes: int, rng: random.Random) -> bytes:
    """Random elements: normal if they are floating-point numbers, else small and not negative."""
    size = dtype.bits // 8
    count = nbytes // size
    if dtype.code == 2:  # kDLFloat
        letter = {2: "e", 4: "f", 8: "d"}[size]
        return struct.pack(f"<{count}{letter}", *(rng.gauss(0, 1) for _ in range(count)))
    if dtype.code == 4:  # kDLBfloat: the upper half of a float32
        floats = struct.pack(f"<{count}f", *(rng.gauss(0, 1) for _ in range(count)))
        return b"".join(floats[i + 2 : i + 4] for i in range(0, len(floats), 4))
    return b"".join(rng.randrange(2).to_bytes(size, "little") for _ in range(count))


def is_finite(library: Library, result: bytes) -> bool:
    """Whether there is no infinity and no NaN among the outputs that are floating-point numbers."""
    begin = 0
    for info in library.outputs:
        size = info.dtype.bits // 8
        bits = {(2, 16): 0x7C00, (4, 16): 0x7F80, (2, 32): 0x7F800000, (2, 64): 0x7FF << 52}
        exponent = bits.get((info.dtype.code, info.dtype.bits))
        for at in range(begin, begin + info.nbytes, size):
            element = int.from_bytes(result[at : at + size], "little")
            if exponent is not None and element & exponent == exponent:
                return False
        begin += info.nbytes
    return True


def tensors_of(file: bytes) -> dict[str, tuple[int, int, int]]:
    """Begin, end and bytes an element of each tensor of a safetensors file."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            count = 1
            for dim in entry["shape"]:
                count *= dim
            found[name] = (begin, end, (end - begin) // max(count, 1) or 1)
    return found


def other_weights(file: bytes) -> bytes:
    """The same tensors with their elements in reverse order."""
    made = bytearray(file)
    for begin, end, size in tensors_of(file).values():
        for i in range(size):
            made[begin + i : end : size] = file[begin + i : end : size][::-1]
    return bytes(made)


def from_file(file: bytes) -> WeightsOptions:
    options = WeightsOptions(struct_size=ctypes.sizeof(WeightsOptions))
    options.data = ctypes.cast(ctypes.c_char_p(file), ctypes.c_void_p)  # as long as `file` lives
    options.size = len(file)
    return options


def from_others(*weights: Weights) -> WeightsOptions:
    options = WeightsOptions(struct_size=ctypes.sizeof(WeightsOptions))
    options.from_ = (ctypes.c_void_p * len(weights))(*(held.handle for held in weights))
    options.num_from = len(weights)
    return options


class Tensors:
    """All weights of a file as tensors on the device."""

    def __init__(self, driver: Driver, library: Library, file: bytes) -> None:
        self._driver, self._library = driver, library
        stream = driver.stream()
        self._addresses = []
        places = tensors_of(file)
        for weight in library.weights:
            begin, end, _ = places[weight.name.decode()]
            self._addresses.append(driver.allocate(end - begin))
            driver.write(self._addresses[-1], file[begin:end], stream)
        driver.call("cuStreamDestroy", stream)

    def options(self, flags: int) -> WeightsOptions:
        named = []
        for weight, address in zip(self._library.weights, self._addresses, strict=True):
            tensor = DLTensor(
                address, DLDevice(CUDA, 0), weight.ndim, weight.dtype, weight.shape, None, 0
            )
            named.append(NamedTensor(weight.name, ctypes.pointer(tensor), flags))
        options = WeightsOptions(struct_size=ctypes.sizeof(WeightsOptions))
        options.tensors = (NamedTensor * len(named))(*named)
        options.num_tensors = len(named)
        return options

    def free(self) -> None:
        for address in self._addresses:
            self._driver.free(address)


class Times:
    """Seconds of what is done, by its name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def measure(self, name: str, function: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = function()
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)
        return result

    def report(self) -> None:
        print(
            "| what | times | median us | 99 of 100 below | most |\n| --- | --- | --- | --- | --- |"
        )
        for name, seconds in self.seconds.items():
            ordered = [1e6 * s for s in sorted(seconds)]
            high = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
            median = statistics.median(ordered)
            print(f"| {name} | {len(ordered)} | {median:.0f} | {high:.0f} | {ordered[-1]:.0f} |")


class Check:
    """Counts outputs that are what they must be, and lists those that are not."""

    def __init__(self) -> None:
        self.good = 0
        self.problems: list[str] = []

    def same(self, what: str, got: bytes, *expected: bytes) -> None:
        if got in expected:
            self.good += 1
        else:
            self.problems.append(f"{what}: the output is not that of the weights")


def ways_to_load(
    driver: Driver, library: Library, files: list[bytes], references: list[bytes], check: Check
) -> None:
    """Swaps weights of every origin between runs."""
    model = Model(library, from_file(files[0]))
    runner = Runner(driver, model)
    runner.run()
    check.same("the first weights", runner.result(), references[0])
    tensors = Tensors(driver, library, files[1])
    kept: list[Weights] = []
    for what, options, expected in (
        ("from the other file", from_file(files[1]), 1),
        ("from the first file again", from_file(files[0]), 0),
        ("from tensors, copied", tensors.options(0), 1),
        ("back to the first file", from_file(files[0]), 0),
        ("from tensors, in place", tensors.options(IN_PLACE), 1),
    ):
        weights = model.load(options)
        info = weights.info()
        print(
            f"{what}: {info.own_memory} bytes of its own, {info.shared_memory} shared, "
            f"{info.callers_memory} the caller's"
        )
        previous = model.swap(weights)
        runner.issue()
        previous.free()
        check.same(what, runner.result(), references[expected])
        kept.append(weights)
    # Two models with one copy of the weights.
    second = Model(library, from_others(kept[-1]))
    shared = Runner(driver, second)
    shared.run()
    check.same("shared with another model", shared.result(), references[1])
    for held in kept:
        held.free()
    shared.close()
    second.close()
    runner.close()
    model.close()
    tensors.free()


def swap_under_load(
    driver: Driver,
    library: Library,
    files: list[bytes],
    references: list[bytes],
    args: argparse.Namespace,
    check: Check,
    times: Times,
) -> None:
    """Runs threads while weights are swapped."""
    model = Model(library, from_file(files[0]))
    loaded = [model.load(from_file(file)) for file in files]
    model.swap(loaded[0]).free()
    mine = Runner(driver, model)
    mine.run()
    for _ in range(args.runs):
        times.measure("a run, one thread", mine.run)

    phase = ["all threads"]
    stop = threading.Event()
    lock = threading.Lock()

    def work(number: int) -> None:
        try:
            driver.enter()
            runner = Runner(driver, model)
            runner.run()
            runner.result()
            while not stop.is_set():
                began, during = time.perf_counter(), phase[0]
                runner.run()
                took = time.perf_counter() - began
                result = runner.result()
                with lock:
                    check.same(f"thread {number}, {during}", result, *references)
                    times.seconds.setdefault(f"a run, {during}", []).append(took)
            runner.close()
        except CallError as error:
            with lock:
                check.problems.append(f"thread {number}: {error}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(args.threads)]
    for thread in threads:
        thread.start()
    time.sleep(args.seconds)
    phase[0] = "all threads, while weights are swapped"
    for i in range(args.swaps):
        new = (i + 1) % 2
        previous = times.measure("swapping", lambda new=new: model.swap(loaded[new]))
        # The caller's other hold keeps them; this one goes without waiting for the device twice.
        previous.free()
        mine.run()
        check.same("after a swap", mine.result(), references[new])
        time.sleep(args.seconds / args.swaps)
    for held in loaded:
        held.free()
    phase[0] = "all threads, while weights are loaded and swapped"
    for i in range(args.swaps):
        new = i % 2
        held = times.measure("loading", lambda new=new: model.load(from_file(files[new])))
        previous = model.swap(held)
        times.measure("freeing", previous.free)
        mine.run()
        check.same("after loading and swapping", mine.result(), references[new])
        held.free()
    stop.set()
    for thread in threads:
        thread.join()
    mine.close()
    model.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--driver", default="libcuda.so.1")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()

    driver = Driver(args.driver)
    library = Library(args.library)
    first = args.weights.read_bytes()
    files = [first, other_weights(first)]
    references = []
    for file in files:
        fresh = Model(library, from_file(file))
        runner = Runner(driver, fresh)
        runner.run()
        references.append(runner.result())
        runner.close()
        fresh.close()
    check, times = Check(), Times()
    if references[0] == references[1]:
        check.problems.append("both weights give the same output: nothing is shown")
    if not all(is_finite(library, reference) for reference in references):
        check.problems.append("an output is not finite: little is shown")
    print(f"{library.name} on {driver.name}, {args.threads} threads")
    ways_to_load(driver, library, files, references, check)
    swap_under_load(driver, library, files, references, args, check, times)
    times.report()
    print(f"{check.good} outputs have exactly the bits of a fresh load")
    report = getattr(driver.lib, "simulator_misuse", None)
    if report is not None:
        report.restype = ctypes.c_char_p
        check.problems += (report() or b"").decode().splitlines()
    for problem in sorted(set(check.problems)):
        print(f"WRONG: {problem} ({check.problems.count(problem)} times)")
    return 1 if check.problems else 0


if __name__ == "__main__":
    sys.exit(main())
