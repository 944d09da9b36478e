"""Checks and times the models of models/ on the GPU at hand, next to PyTorch.

    python bench/peers.py DIR [NAME ...] --json OUT [--seconds 500] [--autotune bert,resnet_bf16]

DIR is what bench/zoo.py wrote. For each model, eager PyTorch with weights drawn here from their
seed is the reference in float32; the library, loaded through its C ABI with the same weights, runs
on fresh inputs with poisoned outputs, with a CUDA graph and without. Then, in turns, with the same
inputs:

- eager in the model's dtype, convolutional networks in channels last;
- the same under a CUDA graph;
- ``torch.compile`` in its default mode, under a CUDA graph; for ``--autotune`` max-autotune too;
- the library.

Device time is between two events around one call; wall time from before a call until the stream is
idle again; both are medians. OUT is rewritten after each model, and after ``--seconds`` no further
model is begun. Exits with 1 if a model's error is beyond its limit.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import resnet, zoo
from models import seeded

MOST_RATIO = 2.0
"""Limit of the relative L2 error against float32, relative to eager's own error in the dtype."""

LEAST_ERROR = 1e-5
"""Errors of the library below this are right whatever eager's is."""

CONVOLUTIONAL = {"convnext", "mobilenet", "resnet", "segformer", "unet"}
"""Families whose PyTorch peers run in channels last."""

CODES = {torch.bfloat16: 4, torch.bool: 6}
"""``DLDataTypeCode`` of what is neither an IEEE float (2) nor a signed integer (0)."""


class SessionOptions(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("max_graphs", ctypes.c_uint64),
    ]


def dltensor(tensor: torch.Tensor) -> resnet.DLTensor:
    code = CODES.get(tensor.dtype, 2 if tensor.is_floating_point() else 0)
    result = resnet.dltensor(tensor)
    result.dtype = resnet.DLDataType(code, tensor.dtype.itemsize * 8, 1)
    return result


class Library(resnet.Library):
    """A deployed model of any number of inputs and outputs."""

    def session(self, flags: int = 0) -> ctypes.c_void_p:
        session = ctypes.c_void_p()
        options = SessionOptions(ctypes.sizeof(SessionOptions), flags, 0)
        self.call("aoti_session_create", self.model, ctypes.byref(options), ctypes.byref(session))
        return session

    def caller(
        self, session: ctypes.c_void_p, inputs: list[torch.Tensor], outputs: list[torch.Tensor]
    ) -> Callable[[], None]:
        """Returns a call that enqueues a run on the current stream."""
        groups = [[dltensor(tensor) for tensor in group] for group in (inputs, outputs)]
        arrays = [
            (ctypes.POINTER(resnet.DLTensor) * len(group))(*map(ctypes.pointer, group))
            for group in groups
        ]
        counts = [ctypes.c_uint64(len(group)) for group in groups]
        status = resnet.Status()
        function = self.lib.aoti_session_run
        function.restype = ctypes.c_int32

        def run() -> None:
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            code = function(
                session, arrays[0], counts[0], arrays[1], counts[1], stream, ctypes.byref(status)
            )
            if code:
                raise RuntimeError(f"aoti_session_run: {status.message.decode()}")

        run.tensors = groups, inputs, outputs  # type: ignore[attr-defined]  # kept alive
        return run


def leaves(tree: Any) -> list[torch.Tensor]:
    return list(torch.utils._pytree.tree_leaves(tree))


def on_gpu(tree: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda tensor: tensor.cuda(), tree)


def copied(tree: Any) -> Any:
    return torch.utils._pytree.tree_map(torch.clone, tree)


def weights_file(model: zoo.Model, folder: Path) -> bytes:
    """The seeded weights in the model's dtype, and the constants that the build left."""
    from safetensors.torch import load_file, save

    state = seeded.cast(model.build(), model.dtype).state_dict()
    # Tied weights are one tensor under several names: each gets bytes of its own.
    tensors = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    return save(tensors | load_file(folder / f"{model.name}.safetensors"))


def relative(got: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest relative L2 error of any tensor; a NaN is larger than all."""
    errors = []
    for ours, theirs in zip(got, expected, strict=True):
        norm = theirs.double().norm().clamp_min(1e-30)
        errors.append(((ours.double() - theirs.double()).norm() / norm).item())
    return max(errors, key=lambda error: float("inf") if error != error else error)


def results_of(network: Any, inputs: dict[str, Any]) -> list[torch.Tensor]:
    """Outputs, then what the network wrote into its inputs."""
    given = copied(inputs)
    with torch.inference_mode():
        outputs = leaves(network(**given))
    return outputs + leaves(given.get("cache", []))


def check(library: Library, model: zoo.Model, exact: Any, eager: Any, count: int) -> dict[str, Any]:
    """Compares with eager float32 on ``count`` fresh inputs."""
    graph, plain = library.session(), library.session(resnet.NO_GRAPH)
    ours, eagers, same = [], [], True
    for seed in range(count):
        inputs = on_gpu(seeded.cast(model.inputs(1000 + seed), model.dtype))
        expected = results_of(exact, seeded.cast(inputs, "float32"))
        rounded = results_of(eager, inputs)
        written = len(leaves(inputs.get("cache", [])))
        runs = []
        for session in (graph, graph, plain):
            given = copied(inputs)
            outputs = [
                torch.full_like(tensor, float("nan") if tensor.is_floating_point() else -1)
                for tensor in rounded[: len(rounded) - written]
            ]
            library.caller(session, leaves(given), outputs)()
            torch.cuda.synchronize()
            runs.append(outputs + leaves(given.get("cache", [])))
        same &= all(
            torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True)
        )
        ours.append(relative(runs[0], expected))
        eagers.append(relative(rounded, expected))
    for session in (graph, plain):
        library.lib.aoti_session_destroy(session)
    right = same and all(
        error < LEAST_ERROR or error <= MOST_RATIO * own
        for error, own in zip(ours, eagers, strict=True)
    )
    worst = max(ours, key=lambda error: float("inf") if error != error else error)
    return {"error": worst, "eager_error": max(eagers), "same_bits": same, "right": right}


def peers(model: zoo.Model, eager: Any, inputs: dict[str, Any], autotune: bool) -> dict[str, Any]:
    """Calls by name. A peer that fails is an error message in place of a call."""
    if model.family in CONVOLUTIONAL:
        eager = eager.to(memory_format=torch.channels_last)
        inputs = {name: x.to(memory_format=torch.channels_last) for name, x in inputs.items()}
    kinds: dict[str, Any] = {"eager": lambda: eager(**inputs)}
    modes = {"compile": None} | ({"max-autotune": "max-autotune-no-cudagraphs"} if autotune else {})

    def compiled(mode: str | None) -> Callable[[], Any]:
        torch._dynamo.reset()
        function = torch.compile(eager, mode=mode, dynamic=False)
        function(**inputs)
        return lambda: function(**inputs)

    makers = {"eager graph": kinds["eager"]}
    for name, make in [("eager graph", None), *modes.items()]:
        try:
            call = makers[name] if name in makers else compiled(make)
            kinds[name] = resnet.graphed(call)
        except Exception as error:
            torch.cuda.synchronize()
            kinds[name] = str(error).strip().split("\n")[0][:200]
    return kinds


def run_model(model: zoo.Model, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    described = json.loads((folder / f"{model.name}.json").read_text())
    weights = weights_file(model, folder)
    library = Library(folder / f"{model.name}.so", weights)
    exact = seeded.cast(seeded.cast(model.build(), model.dtype), "float32").cuda()
    eager = seeded.cast(model.build(), model.dtype).cuda()
    row = described | {"target": library.target, "memory": library.memory}
    row["numerics"] = check(library, model, exact, eager, options.inputs)
    print(model.name, json.dumps(row["numerics"]), flush=True)
    inputs = on_gpu(seeded.cast(model.inputs(7), model.dtype))
    with torch.inference_mode():
        outputs = [torch.empty_like(tensor) for tensor in leaves(eager(**copied(inputs)))]
        kinds = peers(model, eager, inputs, model.name in options.autotune.split(","))
        given = leaves(copied(inputs))
        kinds["rules_aoti"] = library.caller(library.session(), given, outputs)
        row["times"] = {}
        # Not the legacy default stream, with which every other stream would wait.
        with torch.cuda.stream(torch.cuda.Stream()):
            for kind, call in kinds.items():
                if isinstance(call, str):
                    row["times"][kind] = {"error": call}
                    continue
                device, wall = resnet.measure(call, options.runs)
                row["times"][kind] = {"device_us": round(device, 1), "wall_us": round(wall, 1)}
    print(model.name, json.dumps(row["times"]), flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--inputs", type=int, default=3)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--autotune", default="")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    models, began, rows, failed = zoo.catalog("base"), time.monotonic(), [], []
    names = options.names or [name for name in models if (options.folder / f"{name}.so").exists()]
    for name in names:
        if time.monotonic() - began > options.seconds:
            failed.append(f"{name}: not begun, the time was up")
            continue
        try:
            row = run_model(models[name], options.folder, options)
        except Exception:
            failed.append(f"{name}: {traceback.format_exc()}")
            continue
        rows.append(row)
        if not row["numerics"]["right"]:
            failed.append(f"{name}: numerics")
        properties = torch.cuda.get_device_properties(0)
        machine = {"gpu": properties.name, "torch": torch.__version__}
        options.json.write_text(json.dumps({"machine": machine, "models": rows}, indent=1) + "\n")
        torch.cuda.empty_cache()
    print("\n".join(failed) or "all models are right")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
