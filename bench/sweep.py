"""Measures every candidate tile on every distinct convolution of ResNet-50, on the GPU at hand.

The result (a CSV) calibrates wrapgen/lowering/templates/cost.py; README.md says how. Needs torch
with CUDA, triton, cuda-python, pydantic. Usage: ``python bench/sweep.py OUT.csv [--seconds 400]``.

Each kernel is compiled in a process pool, launched through the driver API, compared with a float32
convolution on random data (the output poisoned first), and timed as the mean launch of a CUDA graph
of launches that rotate among copies of the weights; the L2 cache is flushed before each replay, and
the median of the replays is kept. So weights come from memory and activations mostly from L2, as in
the network.
"""

# ruff: noqa: B023 - closures are called before their loop goes on
from __future__ import annotations

import argparse
import concurrent.futures
import csv
import math
import multiprocessing
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.compiling import compile_source
from bench.gpu import Runner
from bench.problems import convolutions
from wrapgen import target
from wrapgen.lowering.templates import cost, geometry, product, standalone

# (block_m, block_n, block_k, num_stages, num_warps)
LARGE = [
    (128, 128, 64, 3, 8), (128, 128, 64, 4, 8), (128, 128, 64, 3, 4), (128, 128, 32, 4, 8),
    (128, 128, 32, 4, 4), (128, 256, 64, 3, 8), (256, 128, 64, 3, 8), (128, 64, 64, 3, 4),
    (128, 64, 64, 4, 4), (128, 64, 32, 4, 4), (128, 64, 64, 3, 8), (64, 128, 64, 4, 4),
    (64, 128, 64, 3, 4), (64, 256, 64, 3, 4), (64, 256, 64, 3, 8), (256, 64, 64, 3, 8),
    (256, 64, 64, 3, 4), (256, 64, 32, 4, 8), (256, 64, 32, 4, 4), (64, 64, 64, 4, 4),
    (64, 64, 64, 3, 4), (64, 64, 32, 4, 4), (128, 32, 64, 4, 4), (64, 64, 128, 3, 4),
    (128, 128, 128, 2, 8), (64, 32, 64, 4, 4),
]  # fmt: skip
SMALL = [
    (64, 64, 64, 4, 4), (64, 64, 128, 3, 4), (64, 64, 32, 4, 4), (64, 32, 64, 4, 4),
    (64, 32, 128, 3, 4), (64, 32, 128, 4, 4), (32, 64, 64, 4, 4), (32, 64, 128, 3, 4),
    (32, 32, 64, 4, 4), (32, 32, 64, 6, 4), (32, 32, 128, 3, 4), (32, 32, 128, 4, 4),
    (32, 32, 128, 4, 2), (16, 64, 128, 4, 4), (16, 32, 128, 4, 4), (16, 32, 64, 6, 2),
    (64, 128, 64, 3, 4), (64, 128, 64, 4, 4), (128, 64, 64, 3, 4), (128, 64, 64, 3, 8),
    (64, 16, 128, 4, 4), (64, 64, 256, 2, 4), (32, 32, 256, 3, 4), (128, 32, 64, 4, 4),
    (32, 32, 32, 5, 4), (128, 64, 32, 4, 4), (128, 32, 32, 4, 4), (64, 64, 64, 6, 4),
    (32, 128, 64, 4, 4), (16, 128, 64, 4, 4),
]  # fmt: skip
SPLITS = (1, 2, 3, 4, 6, 8, 16)


def candidates(conv: geometry.Convolution, batch: int) -> list[cost.Tile]:
    shape = conv.product(2)
    device = target.DEVICES[90]
    tiles = []
    for m, n, k, stages, warps in SMALL if batch == 1 else LARGE + SMALL[4:6] + SMALL[6:8]:
        if m > 2 * max(16, shape.m) or n > max(16, shape.n) or k > max(16, conv.in_channels):
            continue
        for split in SPLITS:
            tile = cost.Tile(m, n, k, stages, warps, split)
            alone = math.ceil(shape.m / m) * math.ceil(shape.n / n)
            steps = geometry.steps(shape, tile)
            if split > 1 and (
                alone * split > 3 * 132
                or steps < 2 * split
                or geometry.splits(shape, tile) != split
                or alone > 100
            ):
                continue
            if cost.fits(shape, tile, device):
                tiles.append(tile)
    return tiles


def operand_strides(name: str, conv: geometry.Convolution) -> dict[str, tuple[int, ...]]:
    k = conv.in_channels * conv.kernel[0] * conv.kernel[1]
    if name == "stem":
        return {"X": (230 * 232 * 4, 1, 232 * 4, 4), "W": (k, 1)}
    height, width = conv.in_size
    channels = conv.in_channels
    return {
        "X": (height * width * channels, 1, width * channels, channels),
        "W": (k, 1),
    }


def job(key: tuple[str, int], conv: geometry.Convolution, tile: cost.Tile) -> Any:
    constants = conv.constants(tile) | {"INDEX_DTYPE": "tl.int32"}
    text = standalone.render(
        product.CONVOLUTION,
        "kernel",
        constants,
        operand_strides(key[0], conv),
        epilogue(conv),
    )
    dtypes = {"OUT": "*fp32" if tile.split_k > 1 else "*fp16"}
    return compile_source(text, "kernel", dtypes, tile.num_warps, tile.num_stages)


def epilogue(conv: geometry.Convolution) -> standalone.Epilogue:
    residual = conv.kernel == (1, 1) and conv.out_channels == 4 * conv.in_channels
    return standalone.Epilogue("tl.float16", bias=True, residual=residual, relu=True)


REDUCE = """
import triton
import triton.language as tl


@triton.jit
def kernel(P, BIAS, RESIDUAL, OUT):
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = x < NUMEL
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for s in tl.static_range(SPLIT):
        total += tl.load(P + s * NUMEL + x, mask)
    total += tl.load(BIAS + x % N).to(tl.float32)
    total += tl.load(RESIDUAL + x, mask).to(tl.float32)
    tl.store(OUT + x, tl.maximum(total, 0.0).to(tl.float16), mask)
"""


def reduce_job(numel: int, n: int, split: int, block: int, warps: int) -> Any:
    constants = {"NUMEL": numel, "N": n, "SPLIT": split, "BLOCK": block}
    text = REDUCE
    for key, value in constants.items():
        text = re.sub(rf"\b{key}\b", str(value), text)
    return compile_source(text, "kernel", {"P": "*fp32"}, warps, 1)


def measure(runner: Runner, rows: list[dict[str, Any]], builds: dict[Any, Any], log: Any) -> None:
    torch = runner.torch
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(1)
    problems = {(n, b): c for b in (1, 32) for n, (c, _) in convolutions(b).items()}
    for key, conv in problems.items():
        name, batch = key
        shape = conv.product(2)
        copies = min(16, max(2, (160 << 20) // (2 * shape.n * shape.k)))
        wide = 1 if batch == 1 else 2
        half = {"dtype": torch.float16, "device": "cuda"}
        w = torch.randn(copies, shape.n, shape.k, **half) / math.sqrt(shape.k)
        bias = torch.randn(shape.n, **half)
        residual = torch.randn(shape.m, shape.n, **half)
        if name == "stem":
            x = torch.randn(wide, batch, 230, 232, 4, **half)
            taps = x[0].float().unfold(1, 7, 2).unfold(2, 8, 2)  # b, 112, w, c, kh, run
            a = taps[:, :, :112].permute(0, 1, 2, 4, 5, 3).reshape(shape.m, shape.k)
            exact = a @ w[0].float().t()
            del a, taps
        else:
            x = torch.randn(wide, batch, *conv.in_size, conv.in_channels, **half)
            image = x[0].permute(0, 3, 1, 2)
            kernel = w[0].view(shape.n, *conv.kernel, conv.in_channels).permute(0, 3, 1, 2)
            exact = torch.nn.functional.conv2d(
                image.float(), kernel.float(), None, conv.stride, conv.padding
            )
            exact = exact.permute(0, 2, 3, 1).reshape(shape.m, shape.n)

            def eager(i: int) -> None:
                torch.nn.functional.conv2d(
                    x[i % wide].permute(0, 3, 1, 2),
                    w[i % copies].view(shape.n, *conv.kernel, conv.in_channels).permute(0, 3, 1, 2),
                    None,
                    conv.stride,
                    conv.padding,
                )

            us = runner.time([lambda i=i: eager(i) for i in range(16 if batch == 1 else 8)])
            rows.append({"problem": name, "batch": batch, "kind": "eager", "us": round(us, 2)})
        stages = epilogue(conv)
        wanted = exact + bias.float()
        if stages.residual:
            wanted = wanted + residual.float()
        wanted = wanted.relu()
        best = []
        for tile in candidates(conv, batch):
            built = builds.get((key, tile))
            row: dict[str, Any] = {
                "problem": name,
                "batch": batch,
                "kind": "tile",
                "bm": tile.block_m,
                "bn": tile.block_n,
                "bk": tile.block_k,
                "stages": tile.num_stages,
                "warps": tile.num_warps,
                "split": tile.split_k,
            }
            if built is None or isinstance(built, str):
                row["note"] = built or "not compiled"
                rows.append(row)
                continue
            cubin, shared, count = built
            module, function, row["registers"], row["local"] = runner.load(cubin, shared)
            row["shared"] = shared
            grid = geometry.grid(shape, tile)
            out = torch.full(
                (tile.split_k, shape.m, shape.n),
                float("nan"),
                device="cuda",
                dtype=torch.float32 if tile.split_k > 1 else torch.float16,
            )

            def call(i: int) -> None:
                operands = [x[i % wide], w[i % copies], bias]
                operands += [residual] if stages.residual else []
                runner.launch(
                    function,
                    grid,
                    tile.num_warps,
                    shared,
                    count,
                    [*operands, out],
                )

            call(0)
            got = out.float().sum(0)
            reference = exact if tile.split_k > 1 else wanted
            row["error"] = f"{((got - reference).norm() / reference.norm()).item():.1e}"
            us = runner.time([lambda i=i: call(i) for i in range(16 if batch == 1 else 6)])
            row["us"] = round(us, 2)
            best.append((us, tile))
            rows.append(row)
            del got
            runner.check(runner.driver.cuModuleUnload(module))
        best.sort()
        print(
            key,
            shape.m,
            shape.n,
            shape.k,
            [
                (
                    round(u, 1),
                    t.__reduce__()[2]
                    if False
                    else (
                        t.block_m,
                        t.block_n,
                        t.block_k,
                        t.num_stages,
                        t.num_warps,
                        t.split_k,
                    ),
                )
                for u, t in best[:3]
            ],
            file=log,
            flush=True,
        )
        torch.cuda.empty_cache()


def measure_reduce(runner: Runner, rows: list[dict[str, Any]], builds: dict[Any, Any]) -> None:
    torch = runner.torch
    for key, built in builds.items():
        numel, n, split, block, warps = key
        if isinstance(built, str):
            continue
        cubin, shared, count = built
        module, function, _, _ = runner.load(cubin, shared)
        partial = torch.randn(split, numel, device="cuda")
        bias, residual, out = (
            torch.randn(s, device="cuda", dtype=torch.float16) for s in (n, numel, numel)
        )
        grid = (math.ceil(numel / block), 1, 1)
        us = runner.time(
            [
                lambda: runner.launch(
                    function,
                    grid,
                    warps,
                    shared,
                    count,
                    [partial, bias, residual, out],
                )
            ]
            * 16
        )
        rows.append(
            {
                "problem": f"reduce{numel}",
                "batch": n,
                "kind": "reduce",
                "split": split,
                "bm": block,
                "warps": warps,
                "us": round(us, 2),
            }
        )
        runner.check(runner.driver.cuModuleUnload(module))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=300, help="time allowed for compiling")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--limit", type=int, default=0, help="compile only so many, and stop")
    options = parser.parse_args()
    began = time.time()
    jobs = {
        ((name, batch), tile): conv
        for batch in (1, 32)
        for name, (conv, _) in convolutions(batch).items()
        for tile in candidates(conv, batch)
    }
    reduces = [
        (numel, n, split, block, warps)
        for numel, n in (
            (100352, 2048),
            (25088, 512),
            (200704, 1024),
            (802816, 256),
            (802816, 512),
        )
        for split in (2, 4, 8)
        for block, warps in ((128, 4), (256, 4), (512, 4), (1024, 4), (1024, 8))
    ]
    print(len(jobs), "kernels", len(reduces), "reductions", flush=True)
    rows: list[dict[str, Any]] = []
    builds: dict[Any, Any] = {}
    reduced: dict[Any, Any] = {}
    pool = concurrent.futures.ProcessPoolExecutor(
        options.jobs, mp_context=multiprocessing.get_context("spawn")
    )
    # In an order that leaves an even sample, should time run out.
    order = sorted(jobs, key=lambda j: hash((j[1].block_m * 7919 + j[1].split_k * 31) % 97))
    if options.limit:
        order = order[:: max(1, len(order) // options.limit)]
    futures: dict[Any, Any] = {
        pool.submit(reduce_job, *key): (reduced, key)
        for key in (reduces if not options.limit else reduces[:2])
    }
    futures |= {pool.submit(job, key[0], jobs[key], key[1]): (builds, key) for key in order}
    try:
        for future in concurrent.futures.as_completed(futures, timeout=options.seconds):
            into, key = futures[future]
            into[key] = future.result()
    except concurrent.futures.TimeoutError:
        print("time for compiling is up", flush=True)
    pool.shutdown(wait=False, cancel_futures=True)
    failed = [v for v in builds.values() if isinstance(v, str)]
    print(
        f"compiled {len(builds)} in {time.time() - began:.0f} s, {len(failed)} failed",
        sorted(set(failed))[:3],
        flush=True,
    )
    if options.limit:
        return
    try:
        runner = Runner()
        measure_reduce(runner, rows, reduced)
        measure(runner, rows, builds, sys.stdout)
    finally:
        fields = ["problem", "batch", "kind", "bm", "bn", "bk", "stages", "warps", "split",
                  "us", "error", "shared", "registers", "local", "note"]  # fmt: skip
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(rows)
    print(f"{time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
