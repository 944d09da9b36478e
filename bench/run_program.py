"""Runs a lowered program on the GPU at hand, kernel by kernel, without the generated library.

For looking into where time goes before (or without) building the C++: it reads ``program.json`` and
the cubins, launches through the driver API, compares with eager PyTorch, and prints the time of the
whole under a CUDA graph and of each kernel. Needs torch with CUDA and cuda-python.

    python bench/run_program.py LOWERED COMPILED [--batch 32] [--configs OUT.csv]

``--configs`` also tries other block sizes for kernels that are no templates (compiled here from
LOWERED/sources), to calibrate choices.select_config.
"""

# ruff: noqa: B023 - closures are called before their loop goes on
from __future__ import annotations

import argparse
import csv
import ctypes
import importlib.util
import itertools
import json
import math
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.gpu import Runner
from models import resnet

_CTYPES = {"int32": ctypes.c_int32, "int64": ctypes.c_int64, "float32": ctypes.c_float}


class Machine:
    """A program's memory and kernels, loaded."""

    def __init__(self, lowered: Path, compiled: Path, weights: dict[str, torch.Tensor]) -> None:
        self.runner = Runner()
        self.program = json.loads((lowered / "program.json").read_text())
        self.memory: dict[tuple[str, str], torch.Tensor] = {}
        for weight in self.program["weights"]:
            self.memory["weight", weight["name"]] = weights[weight["name"]].cuda().contiguous()
        for space, group in (
            ("constant", self.program["constants"]),
            ("arena", self.program["folding"]["buffers"]),
            ("arena", self.program["main"]["buffers"]),
        ):
            for buffer in group:
                block = torch.empty(int(buffer["nbytes"]) + 256, dtype=torch.uint8, device="cuda")
                self.memory[space, buffer["name"]] = block
        for space, group in (
            ("input", self.program["inputs"]),
            ("output", self.program["outputs"]),
        ):
            for spec in group:
                self.memory[space, spec["name"]] = torch.empty_strided(
                    spec["shape"],
                    spec["strides"],
                    dtype=getattr(torch, spec["dtype"]),
                    device="cuda",
                )
        self.kernels = {}
        for path in sorted(compiled.rglob("*.cubin")):
            metadata = json.loads(path.with_suffix(".json").read_text())
            self.kernels[path.stem] = (
                *self.load(path.read_bytes(), metadata),
                metadata,
            )

    def load(self, cubin: bytes, metadata: dict[str, Any]) -> tuple[Any, Any]:
        cu, check = self.runner.driver, self.runner.check
        module = check(cu.cuModuleLoadData(cubin))
        function = check(cu.cuModuleGetFunction(module, metadata["name"].encode()))
        if metadata["shared_memory"] > 48 << 10:
            limit = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            check(cu.cuFuncSetAttribute(function, limit, metadata["shared_memory"]))
        return module, function

    def address(self, ref: dict[str, Any]) -> int:
        return self.memory[ref["space"], ref["name"]].data_ptr() + int(ref["offset"])

    def arguments(self, step: dict[str, Any]) -> list[tuple[Any, Any]]:
        return [
            (self.address(arg["ref"]), ctypes.c_void_p)
            if arg["kind"] == "pointer"
            else (int(arg["value"]), _CTYPES[arg["dtype"]])
            for arg in step["args"]
        ]

    def run(self, step: dict[str, Any]) -> None:
        cu, check = self.runner.driver, self.runner.check
        stream = torch.cuda.current_stream().cuda_stream
        if step["kind"] == "copy":
            check(
                cu.cuMemcpyDtoDAsync(
                    self.address(step["dst"]),
                    self.address(step["src"]),
                    step["nbytes"],
                    stream,
                )
            )
            return
        if step["kind"] == "fill":
            check(
                cu.cuMemsetD8Async(self.address(step["dst"]), step["byte"], step["nbytes"], stream)
            )
            return
        _, function, metadata = self.kernels[step["kernel"]]
        arguments = self.arguments(step)
        arguments += [(0, ctypes.c_void_p)] * (len(metadata["params"]) - len(arguments))
        values = tuple(zip(*arguments, strict=True))
        check(
            cu.cuLaunchKernel(
                function,
                *[int(extent) for extent in step["grid"]],
                metadata["threads"],
                1,
                1,
                metadata["shared_memory"],
                stream,
                values,
                0,
            )
        )

    def procedure(self, name: str) -> None:
        for step in self.program[name]["steps"]:
            self.run(step)


def replay_microseconds(call: Callable[[], Any], replays: int = 100) -> float:
    """Median time of a CUDA graph of one call."""
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    for _ in range(10):
        graph.replay()
    times = []
    for _ in range(replays):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return sorted(times)[len(times) // 2]


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def filled(machine: Machine, ref: dict[str, Any]) -> int:
    """Bytes of a block that its kernel writes; buffers have more behind them."""
    for buffer in machine.program["main"]["buffers"]:
        if ref == {"space": "arena", "name": buffer["name"], "offset": 0}:
            return int(buffer["nbytes"])
    return machine.memory[ref["space"], ref["name"]].nbytes


def try_configs(machine: Machine, lowered: Path, rows: list[dict[str, Any]], batch: int) -> None:
    """Times other block sizes of each kernel that is no template, on the buffers it has now."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernels = {kernel["name"]: kernel for kernel in machine.program["kernels"]}
    seen = set()
    for step in machine.program["main"]["steps"]:
        kernel = kernels.get(step.get("kernel"))
        if kernel is None or kernel["template"] or kernel["name"] in seen:
            continue
        seen.add(kernel["name"])
        text = (lowered / "sources" / f"{kernel['name']}.py").read_text()
        sizes = {
            k: int(v) for k, v in re.findall(r"^    ([xyr]\w*numel) = (\d+)", text, re.MULTILINE)
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "module.py"
            path.write_text(text)
            spec = importlib.util.spec_from_file_location("module", path)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            function = getattr(module, kernel["name"])
            blocks = [name for name in function.arg_names if name.endswith("BLOCK")]
            out = [a["ref"] for a in step["args"] if a["kind"] == "pointer"][-1]
            machine.run(step)
            wanted = machine.memory[out["space"], out["name"]].clone()
            if "YBLOCK" in blocks:
                choices: Any = itertools.product((16, 32, 64, 128, 256, 512), (4, 8, 16, 32))
                options = [{"XBLOCK": x, "YBLOCK": y} for x, y in choices]
            elif any(name.startswith("R") for name in blocks):
                options = [
                    {n: kernel["config"][n] if n != "XBLOCK" else x for n in blocks}
                    for x in (1, 2, 4, 8, 16, 32)
                ]
            else:
                options = [{"XBLOCK": x} for x in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)]
                if not kernel["name"].startswith("reduction"):
                    options = options[6:]
            for option, warps in itertools.product(options, (1, 2, 4, 8)):
                block = math.prod(option.values())
                if block < 32 * warps and not kernel["name"].startswith("reduction"):
                    continue
                names = [n for n in function.arg_names if n not in option]
                dtypes = {p["name"]: p for p in kernel["params"]}
                signature, attributes = {}, {}
                short = {
                    "float16": "fp16",
                    "float32": "fp32",
                    "int32": "i32",
                    "int64": "i64",
                }
                for i, n in enumerate(function.arg_names):
                    if n in option:
                        signature[n] = "constexpr"
                        continue
                    pointer = dtypes[n]["kind"] == "pointer"
                    signature[n] = ("*" if pointer else "") + short[dtypes[n]["dtype"]]
                    if dtypes[n]["divisible_by_16"]:
                        attributes[i,] = [["tt.divisibility", 16]]
                try:
                    built = triton.compile(
                        ASTSource(
                            function,
                            signature,
                            {(function.arg_names.index(n),): v for n, v in option.items()},
                            attributes,
                        ),
                        target=GPUTarget("cuda", 90, 32),
                        options={"num_warps": warps, "num_stages": 1},
                    )
                except Exception as error:
                    print(kernel["name"], option, str(error)[:100])
                    continue
                entry = built.asm["ptx"].split(".entry", 1)[1].split(")", 1)[0]
                count = len(re.findall(r"\.param", entry))
                meta = {"name": kernel["name"], "shared_memory": built.metadata.shared}
                _, loaded = machine.load(built.asm["cubin"], meta)
                arguments = machine.arguments(step)
                arguments += [(0, ctypes.c_void_p)] * (count - len(arguments))
                grid = [1, 1, 1]
                for axis, name in enumerate("xyz"):
                    if f"{name}numel" in sizes:
                        grid[axis] = math.ceil(
                            sizes[f"{name}numel"] / option.get(f"{name.upper()}BLOCK", 1)
                        )

                def launch() -> None:
                    machine.runner.check(
                        machine.runner.driver.cuLaunchKernel(
                            loaded,
                            *grid,
                            32 * warps,
                            1,
                            1,
                            built.metadata.shared,
                            torch.cuda.current_stream().cuda_stream,
                            tuple(zip(*arguments, strict=True)),
                            0,
                        )
                    )

                del names
                memory = machine.memory[out["space"], out["name"]]
                memory.view(torch.uint8).fill_(0x7F)
                launch()
                torch.cuda.synchronize()
                extent = filled(machine, out)
                same = torch.equal(
                    memory.view(torch.uint8).flatten()[:extent],
                    wanted.view(torch.uint8).flatten()[:extent],
                )
                us = machine.runner.time([launch] * 10, repeats=5)
                rows.append(
                    {
                        "kernel": re.sub(r"_[0-9a-f]{12}$", "", kernel["name"]),
                        "batch": batch,
                        "sizes": json.dumps(sizes).replace(",", ";"),
                        "blocks": " ".join(f"{k}={v}" for k, v in option.items()),
                        "warps": warps,
                        "us": round(us, 2),
                        "equal": same,
                    }
                )
            memory.copy_(wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lowered", type=Path)
    parser.add_argument("compiled", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--configs", type=Path)
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    exact = resnet.build()
    half = resnet.build().half()
    machine = Machine(options.lowered, options.compiled, dict(half.state_dict()))
    machine.procedure("folding")
    torch.cuda.synchronize()
    exact, half = exact.cuda(), half.cuda().to(memory_format=torch.channels_last)
    (name,) = [spec["name"] for spec in machine.program["inputs"]]
    (result,) = [spec["name"] for spec in machine.program["outputs"]]
    x, y = machine.memory["input", name], machine.memory["output", result]
    for seed in range(3):
        x.copy_(resnet.example_input(options.batch, seed + 100).half())
        y.fill_(float("nan"))
        machine.procedure("main")
        torch.cuda.synchronize()
        with torch.inference_mode():
            reference = exact(x.float())
            eager = half(x.to(memory_format=torch.channels_last))
        print(
            f"seed {seed}: relative error {relative(y, reference):.2e},"
            f" eager fp16 {relative(eager, reference):.2e}"
        )
    times = []
    for i, step in enumerate(machine.program["main"]["steps"]):
        repeats = [lambda step=step: machine.run(step)] * 10
        times.append((machine.runner.time(repeats, repeats=5), i, step))
    kernels = {kernel["name"]: kernel for kernel in machine.program["kernels"]}
    for us, i, step in times:
        kernel = kernels.get(step.get("kernel"), {"config": {}, "template": ""})
        source = step["sources"][0]["module"] if step["sources"] else ""
        print(
            f"{i:3d} {us:7.2f} us {step.get('kernel', step['kind']):44s} {step.get('grid')} "
            f"{kernel['config']} {source}"
        )
    with torch.inference_mode():
        moved = x.to(memory_format=torch.channels_last)
        eager_us = replay_microseconds(lambda: half(moved), 30)
    ours = [replay_microseconds(lambda: machine.procedure("main")) for _ in range(2)]
    print(
        f"batch {options.batch}: program {ours[0]:.1f} us, again {ours[1]:.1f} us, sum of kernels"
        f" {sum(t for t, _, _ in times):.1f} us, eager under a CUDA graph {eager_us:.1f} us"
    )
    if options.configs:
        rows: list[dict[str, Any]] = []
        try:
            try_configs(machine, options.lowered, rows, options.batch)
        finally:
            if rows:
                with options.configs.open("w", newline="") as file:
                    writer = csv.DictWriter(file, list(rows[0]))
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
