"""Checks and times deployed ResNet-50 libraries on the GPU at hand, next to PyTorch.

    python bench/resnet.py 1=libresnet_aoti.so 32=libresnet_b32_aoti.so [--json OUT] [--no-compile]

Each library is loaded through its C ABI (ctypes) with weights that models/resnet.py draws here from
its seed. Its outputs, poisoned first, are compared with eager PyTorch in float32 on fresh random
inputs, next to eager in float16; a second run and a run without a CUDA graph must give the same
bits. Then all of the following are timed in turns in one process:

- eager float16, channels last;
- the same under a CUDA graph;
- ``torch.compile`` with max-autotune and freezing, under a CUDA graph (minutes of tuning);
- the library.

Device time is between two events around one call; wall time from before a call until the stream is
idle again. Both are medians over ``--runs`` calls; each kind is timed ``--rounds`` times, in turns,
and the table has the median and the range of those. Exits with 1 if a limit is missed.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from models import resnet

MOST_ERROR = 5e-3
"""Limit of the relative L2 error against float32."""

MOST_RATIO = 1.5
"""Limit of that error relative to eager float16's own."""

MOST_TIME = 1.3
"""Limit of device time relative to eager under a CUDA graph."""

NO_GRAPH = 1


class DLDevice(ctypes.Structure):
    _fields_ = [("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32)]


class DLDataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class Status(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int32), ("message", ctypes.c_char * 2044)]


class ModelOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint64),
        ("weights_path", ctypes.c_char_p),
        ("weights_data", ctypes.c_void_p),
        ("weights_size", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("device", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    ]


class SessionOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_uint64), ("flags", ctypes.c_uint64)]


class TargetInfo(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("major", ctypes.c_int32),
        ("minor", ctypes.c_int32),
        ("num_kernels", ctypes.c_uint64),
        ("model_memory", ctypes.c_uint64),
        ("load_memory", ctypes.c_uint64),
        ("session_memory", ctypes.c_uint64),
    ]


def dltensor(tensor: torch.Tensor) -> DLTensor:
    dims = ctypes.c_int64 * tensor.dim()
    return DLTensor(
        data=tensor.data_ptr(),
        device=DLDevice(2, tensor.device.index or 0),  # kDLCUDA
        ndim=tensor.dim(),
        dtype=DLDataType(2, tensor.dtype.itemsize * 8, 1),  # kDLFloat
        shape=dims(*tensor.shape),
        strides=dims(*tensor.stride()),
        byte_offset=0,
    )


class Library:
    """A deployed model."""

    def __init__(self, path: Path, weights: bytes) -> None:
        self.lib = ctypes.CDLL(str(path.resolve()))
        self.lib.aoti_model_description.restype = ctypes.c_void_p
        options = ModelOptions(struct_size=ctypes.sizeof(ModelOptions), weights_size=len(weights))
        options.weights_data = ctypes.cast(weights, ctypes.c_void_p)
        self.model = ctypes.c_void_p()
        description = ctypes.c_void_p(self.lib.aoti_model_description())
        began = time.perf_counter()
        self.call("aoti_model_load", description, ctypes.byref(options), ctypes.byref(self.model))
        self.load_seconds = time.perf_counter() - began
        info = TargetInfo()
        self.call("aoti_model_target", self.model, ctypes.byref(info))
        self.target = info.name.decode()
        self.memory = info.model_memory + info.session_memory

    def call(self, name: str, *args: Any) -> None:
        status = Status()
        function = getattr(self.lib, name)
        function.restype = ctypes.c_int32
        if function(*args, ctypes.byref(status)) != 0:
            raise RuntimeError(f"{name}: {status.message.decode()}")

    def session(self, flags: int = 0) -> ctypes.c_void_p:
        session = ctypes.c_void_p()
        options = SessionOptions(ctypes.sizeof(SessionOptions), flags)
        self.call("aoti_session_create", self.model, ctypes.byref(options), ctypes.byref(session))
        return session

    def runner(
        self, session: ctypes.c_void_p, x: torch.Tensor, y: torch.Tensor
    ) -> Callable[[], None]:
        """Returns a call that enqueues a run of ``x`` to ``y`` on the current stream."""
        tensors = dltensor(x), dltensor(y)
        inputs, outputs = (
            (ctypes.POINTER(DLTensor) * 1)(ctypes.pointer(tensor)) for tensor in tensors
        )
        status = Status()
        function = self.lib.aoti_session_run
        function.restype = ctypes.c_int32
        one = ctypes.c_uint64(1)

        def run() -> None:
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            if function(session, inputs, one, outputs, one, stream, ctypes.byref(status)):
                raise RuntimeError(f"aoti_session_run: {status.message.decode()}")

        run.tensors = tensors  # type: ignore[attr-defined]  # kept alive with the call
        return run


def weights_file(model: torch.nn.Module) -> bytes:
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in model.state_dict().items()})


def check(library: Library, batch: int, count: int, exact: Any, half: Any) -> dict[str, Any]:
    """Compares with eager float32 on ``count`` fresh inputs."""
    session, plain = library.session(), library.session(NO_GRAPH)
    ours, eagers = [], []
    same = True
    for seed in range(count):
        x = resnet.example_input(batch, seed=1000 + seed).half().cuda()
        y, again, launched = (
            torch.full((batch, resnet.CLASSES), float("nan"), dtype=torch.half, device="cuda")
            for _ in range(3)
        )
        library.runner(session, x, y)()
        library.runner(session, x, again)()
        library.runner(plain, x, launched)()
        torch.cuda.synchronize()
        same &= torch.equal(y, again) and torch.equal(y, launched)
        with torch.inference_mode():
            reference = exact(x.float()).double()
            eager = half(x.to(memory_format=torch.channels_last)).double()
        norm = reference.norm()
        ours.append(((y.double() - reference).norm() / norm).item())
        eagers.append(((eager - reference).norm() / norm).item())
    for each in (session, plain):
        library.lib.aoti_session_destroy(each)
    # A NaN is larger than any limit.
    worst = max(ours, key=lambda error: float("inf") if error != error else error)
    ratio = statistics.fmean(ours) / statistics.fmean(eagers)
    return {
        "inputs": count,
        "worst_error": worst,
        "mean_error": statistics.fmean(ours),
        "eager_worst_error": max(eagers),
        "eager_mean_error": statistics.fmean(eagers),
        "ratio": ratio,
        "same_bits": same,
        "right": worst < MOST_ERROR and ratio <= MOST_RATIO and same,
    }


def graphed(call: Callable[[], Any]) -> Callable[[], None]:
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def measure(call: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Median microseconds of one call: on the device, and on the wall."""
    for _ in range(10):
        call()
    device, wall = [], []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        device.append(start.elapsed_time(end) * 1e3)
    for _ in range(runs):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.current_stream().synchronize()
        wall.append((time.perf_counter() - began) * 1e6)
    return statistics.median(device), statistics.median(wall)


def compiled(half: Any, x: torch.Tensor) -> Callable[[], Any]:
    import torch._inductor.config

    torch._inductor.config.freezing = True
    torch._dynamo.reset()
    function = torch.compile(half, mode="max-autotune-no-cudagraphs")
    with torch.inference_mode():
        function(x)
    return lambda: function(x)


def run_batch(batch: int, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    exact = resnet.build()
    half = resnet.build().half()
    weights = weights_file(half)
    digest = hashlib.sha256(weights).hexdigest()
    library = Library(path, weights)
    exact, half = exact.cuda(), half.cuda().to(memory_format=torch.channels_last)
    print(f"batch {batch}: loaded for {library.target} in {library.load_seconds:.2f} s, weights"
          f" {digest[:16]}", flush=True)  # fmt: skip
    result = {"batch": batch, "target": library.target, "weights": digest}
    result["load_seconds"] = round(library.load_seconds, 3)
    result["numerics"] = check(library, batch, options.inputs, exact, half)
    print(json.dumps(result["numerics"]), flush=True)
    x = resnet.example_input(batch, seed=7).half().cuda()
    y = torch.empty((batch, resnet.CLASSES), dtype=torch.half, device="cuda")
    moved = x.to(memory_format=torch.channels_last)
    kinds: dict[str, Callable[[], Any]] = {}
    with torch.inference_mode():
        kinds["eager"] = lambda: half(moved)
        kinds["eager, CUDA graph"] = graphed(lambda: half(moved))
        if options.compile:
            try:
                kinds["max-autotune + freezing, CUDA graph"] = graphed(compiled(half, moved))
            except Exception as error:
                print(f"torch.compile failed: {str(error)[:300]}", flush=True)
        kinds["rules_aoti"] = library.runner(library.session(), x, y)
        kinds["rules_aoti, no CUDA graph"] = library.runner(library.session(NO_GRAPH), x, y)
        times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
        # Not the legacy default stream, with which every other stream would wait.
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(options.rounds):
                for kind, call in kinds.items():
                    times[kind].append(measure(call, options.runs))
    result["times"] = {
        kind: {
            "device_us": statistics.median(d for d, _ in pairs),
            "device_us_range": [min(d for d, _ in pairs), max(d for d, _ in pairs)],
            "wall_us": statistics.median(w for _, w in pairs),
        }
        for kind, pairs in times.items()
    }
    ours, graph = (result["times"][k]["device_us"] for k in ("rules_aoti", "eager, CUDA graph"))
    result["fast"] = ours <= MOST_TIME * graph
    return result


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        "| batch | what | device us (range) | wall us | device, relative to eager graph |",
        "| --- | --- | --- | --- | --- |",
    ]
    for result in results:
        base = result["times"]["eager, CUDA graph"]["device_us"]
        for kind, times in result["times"].items():
            low, high = times["device_us_range"]
            lines.append(
                f"| {result['batch']} | {kind} | {times['device_us']:.0f} ({low:.0f} to {high:.0f})"
                f" | {times['wall_us']:.0f} | {times['device_us'] / base:.2f} |"
            )
    lines += [
        "",
        "| batch | inputs | worst error | mean error | eager fp16 mean error | ratio | same bits |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        n = result["numerics"]
        lines.append(
            f"| {result['batch']} | {n['inputs']} | {n['worst_error']:.2e} | {n['mean_error']:.2e}"
            f" | {n['eager_mean_error']:.2e} | {n['ratio']:.2f} | {n['same_bits']} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("libraries", nargs="+", metavar="BATCH=LIBRARY")
    parser.add_argument("--inputs", type=int, default=20)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    results = []
    for item in options.libraries:
        batch, _, path = item.partition("=")
        results.append(run_batch(int(batch), Path(path), options))
        if options.json:
            options.json.write_text(json.dumps(results, indent=2) + "\n")
    properties = torch.cuda.get_device_properties(0)
    print(f"\n{properties.name}, torch {torch.__version__}; medians of {options.rounds} rounds of"
          f" {options.runs} calls\n\n{table(results)}")  # fmt: skip
    missed = [
        f"batch {r['batch']}: {what}"
        for r in results
        for what, reached in (("numerics", r["numerics"]["right"]), ("device time", r["fast"]))
        if not reached
    ]
    print("\n" + ("missed: " + ", ".join(missed) if missed else "all limits are kept"))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
