"""Measures tiles of the attention template on the GPU at hand, beside PyTorch's own attention.

    python bench/attention.py OUT.csv [--seconds 90] [--chosen]

The result (a CSV) is what wrapgen/lowering/templates/attention_tiles.py chooses by; README.md says
how. Needs torch with CUDA, triton, cuda-python, pydantic. ``--chosen`` measures nothing but the
tiles that are chosen.

Each kernel is compiled in a process pool, launched through the driver API, compared with attention
in float32 on random data (the output poisoned first), and timed as the mean launch of a CUDA graph
of launches that rotate among copies of q, k and v; L2 flushed before, median of replays. q, k and v
are views of one packed projection, [batch, length, heads, head], as models have them. Parts of
divided keys are added up by a kernel that is timed along.
"""

# ruff: noqa: B023 - closures are called before their loop goes on
from __future__ import annotations

import argparse
import concurrent.futures
import csv
import dataclasses
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.compiling import compile_source
from wrapgen.lowering.templates import attention_standalone, attention_tiles
from wrapgen.lowering.templates.attention_tiles import Attention, Mask, Tile
from wrapgen.target import DEVICES


@dataclasses.dataclass(frozen=True)
class Problem:
    shape: Attention
    dtype: str = "float16"
    mask: tuple[int, int, int, int] | None = None

    @property
    def mask_facts(self) -> Mask | None:
        if self.mask is None:
            return None
        one = tuple(extent == 1 for extent in self.mask)
        return Mask(self.shape.added, (one[0], one[1], one[2], one[3]))


def _key_mask(batch: int, keys: int) -> tuple[int, int, int, int]:
    return (batch, 1, 1, keys)


PROBLEMS: dict[str, Problem] = {
    "bert_b1_128": Problem(
        Attention(1, 12, 12, 128, 128, 64, 64, 2, mask=1), mask=_key_mask(1, 128)
    ),
    "bert_b32_128": Problem(
        Attention(32, 12, 12, 128, 128, 64, 64, 2, mask=1), mask=_key_mask(32, 128)
    ),
    "bert_b8_512": Problem(
        Attention(8, 12, 12, 512, 512, 64, 64, 2, mask=1), mask=_key_mask(8, 512)
    ),
    "vit_b1_197": Problem(Attention(1, 12, 12, 197, 197, 64, 64, 2)),
    "vit_b32_197": Problem(Attention(32, 12, 12, 197, 197, 64, 64, 2)),
    "short_b32_16": Problem(Attention(32, 12, 12, 16, 16, 64, 64, 2)),
    "short_b32_32": Problem(Attention(32, 12, 12, 32, 32, 64, 64, 2)),
    "short_b8_64": Problem(Attention(8, 12, 12, 64, 64, 64, 64, 2)),
    "chunk_b1_128x8192": Problem(Attention(1, 8, 8, 128, 8192, 64, 64, 2)),
    "gpt2_b1_1024": Problem(Attention(1, 12, 12, 1024, 1024, 64, 64, 2, causal=True)),
    "gpt2_b8_1024": Problem(Attention(8, 12, 12, 1024, 1024, 64, 64, 2, causal=True)),
    "llama_b1_2048": Problem(Attention(1, 32, 8, 2048, 2048, 128, 128, 2, causal=True), "bfloat16"),
    "llama_b4_4096": Problem(Attention(4, 32, 8, 4096, 4096, 128, 128, 2, causal=True), "bfloat16"),
    "llama_b1_512": Problem(Attention(1, 32, 8, 512, 512, 128, 128, 2, causal=True), "bfloat16"),
    "full_b1_8192_d64": Problem(Attention(1, 16, 16, 8192, 8192, 64, 64, 2)),
    "full_b1_8192_d128": Problem(Attention(1, 16, 16, 8192, 8192, 128, 128, 2), "bfloat16"),
    "full_b2_4096_d40": Problem(Attention(2, 8, 8, 4096, 4096, 40, 40, 2)),
    "full_b2_1024_d80": Problem(Attention(2, 8, 8, 1024, 1024, 80, 80, 2)),
    "causal_b1_1024_d96": Problem(Attention(1, 32, 32, 1024, 1024, 96, 96, 2, causal=True)),
    "causal_b1_2048_d256": Problem(
        Attention(1, 8, 4, 2048, 2048, 256, 256, 2, causal=True), "bfloat16"
    ),
    "whisper_b1_1500": Problem(Attention(1, 8, 8, 1500, 1500, 64, 64, 2)),
    "t5_b1_512": Problem(
        Attention(1, 8, 8, 512, 512, 64, 64, 2, mask=2, added=True), mask=(1, 8, 512, 512)
    ),
    "swin_b8_49": Problem(
        Attention(512, 3, 3, 49, 49, 32, 32, 2, mask=2, added=True), mask=(1, 3, 49, 49)
    ),
    "cross_b1_4096_256": Problem(Attention(1, 8, 8, 4096, 256, 32, 32, 2)),
    "decode_b1_12x1024": Problem(Attention(1, 12, 12, 1, 1024, 64, 64, 2)),
    "decode_b1_gqa_4096": Problem(Attention(1, 32, 8, 1, 4096, 128, 128, 2), "bfloat16"),
    "decode_b8_gqa_4096": Problem(Attention(8, 32, 8, 1, 4096, 128, 128, 2), "bfloat16"),
    "decode_b32_gqa_4096": Problem(Attention(32, 32, 8, 1, 4096, 128, 128, 2), "bfloat16"),
    "decode_b1_gqa_32768": Problem(Attention(1, 32, 8, 1, 32768, 128, 128, 2), "bfloat16"),
    "float_b1_512": Problem(Attention(1, 12, 12, 512, 512, 64, 64, 4), "float32"),
    "float_b8_128": Problem(Attention(8, 12, 12, 128, 128, 64, 64, 4), "float32"),
}

LARGE = [
    (m, n, stages, warps)
    for m, n, warps in (
        (64, 32, 4), (64, 64, 4), (64, 128, 4), (128, 32, 4), (128, 64, 4), (128, 32, 8),
        (128, 64, 8), (128, 128, 8),
    )
    for stages in (2, 3)
]  # fmt: skip
SMALL = [
    (16, 32, 2, 2), (16, 64, 2, 4), (32, 32, 2, 2), (32, 64, 2, 4), (32, 32, 2, 4), (64, 32, 1, 4),
    (64, 64, 1, 4), (32, 128, 2, 4), (64, 128, 1, 4), (64, 256, 1, 4), (64, 256, 1, 8),
]  # fmt: skip
DECODE = [
    (16, n, stages, warps)
    for n, warps in ((32, 1), (32, 2), (32, 4), (64, 2), (64, 4), (128, 4), (128, 8))
    for stages in (2, 3, 4)
]
FLOAT = [
    (16, 32, 2, 4), (32, 32, 2, 4), (32, 64, 2, 4), (64, 32, 2, 4), (64, 64, 2, 4), (64, 32, 1, 4),
    (64, 64, 1, 4), (64, 64, 2, 8), (32, 32, 1, 4), (128, 32, 2, 8),
]  # fmt: skip


def candidates(problem: Problem) -> list[tuple[Tile, str]]:
    """Tiles to measure, each with ``tl.dot``'s precision."""
    shape = problem.shape
    if shape.itemsize == 4:
        return [(Tile(*t), p) for t in FLOAT for p in ("ieee", "tf32x3", "tf32")]
    if shape.rows * shape.group <= 16:
        tiles = []
        alone = shape.batch * shape.heads_kv
        for m, n, stages, warps in DECODE:
            for split in (1, 2, 4, 8, 16, 32, 64):
                steps = -(-shape.keys // n)
                if split > 1 and (alone * split > 16 * 132 or steps < 2 * split):
                    continue
                if split * alone < 64 and steps >= 4 * split:
                    continue
                tiles.append(Tile(m, n, stages, warps, split, shape.group > 1))
    else:
        small = shape.rows * shape.batch * shape.heads <= 12 * 1024 or shape.rows < 256
        tiles = [Tile(*t) for t in LARGE + (SMALL if small else [])]
        if shape.keys >= 16 * shape.rows:
            tiles += [
                dataclasses.replace(t, split=split)
                for t in tiles
                if t.block_m == 64 and t.num_stages == 3
                for split in (2, 4, 8, 16, 32)
            ]
        if shape.keys < 64:
            tiles = [t for t in tiles if t.block_n <= 64]
    device = DEVICES[90]
    return [
        (t, "ieee")
        for t in tiles
        if attention_tiles.shared_memory(shape, t) <= device.shared_memory_per_block_optin
    ]


def strides(problem: Problem, tile: Tile) -> dict[str, tuple[int, ...]]:
    s = problem.shape

    def packed(length: int, heads: int, head: int) -> tuple[int, ...]:
        return (length * heads * head, head, heads * head, 1)

    out = packed(s.rows, s.heads, s.head_v + (attention_tiles.PADDING if tile.split > 1 else 0))
    found = {
        "Q": packed(s.rows, s.heads, s.head),
        "K": packed(s.keys, s.heads_kv, s.head),
        "V": packed(s.keys, s.heads_kv, s.head_v),
        "OUT": ((out[0] * s.batch, *out) if tile.split > 1 else out),
    }
    if problem.mask is not None:
        _, h, m, n = problem.mask
        found["MASK"] = (h * m * n, m * n, n, 1)
    return found


def source(problem: Problem, tile: Tile, precision: str) -> str:
    s = problem.shape
    constants = attention_tiles.constants(
        s,
        tile,
        scale=1 / math.sqrt(s.head),
        mask=problem.mask_facts,
        zero_rows=True,
        even_rows=s.rows * (s.group if tile.pack else 1) % tile.block_m == 0,
        even_keys=s.keys % tile.block_n == 0,
        one_step=s.keys < tile.block_n,
        precision=precision,
    )
    return attention_standalone.render(
        "kernel",
        constants | {"INDEX_DTYPE": "tl.int32"},
        {"Q": (s.batch, s.heads, s.rows, s.head), "K": (s.batch, s.heads_kv, s.keys, s.head)},
        strides(problem, tile),
        "tl.float32" if tile.split > 1 else f"tl.{problem.dtype}",
    )


_TRITON = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32"}


def job(problem: Problem, tile: Tile, precision: str) -> Any:
    kind = _TRITON[problem.dtype]
    dtypes = dict.fromkeys(("Q", "K", "V"), kind)
    dtypes["OUT"] = "*fp32" if tile.split > 1 else kind
    dtypes["MASK"] = kind if problem.shape.added else "*i1"
    text = source(problem, tile, precision)
    return compile_source(text, "kernel", dtypes, tile.num_warps, tile.num_stages)


COMBINE = """
import triton
import triton.language as tl


@triton.jit
def kernel(P, OUT):
    x = tl.program_id(0) * 128 + tl.arange(0, 128)
    inside = x < ROWS * DV
    row = x // DV
    d = x % DV
    top = tl.full((128,), float("-inf"), tl.float32)
    for s in tl.static_range(SPLIT):
        top = tl.maximum(top, tl.load(P + (s * ROWS + row) * WIDTH + DV, inside))
    total = tl.zeros((128,), tl.float32)
    acc = tl.zeros((128,), tl.float32)
    for s in tl.static_range(SPLIT):
        at = P + (s * ROWS + row) * WIDTH
        weight = tl.exp2(tl.load(at + DV, inside) - top)
        total += weight * tl.load(at + DV + 1, inside)
        acc += weight * tl.load(at + d, inside)
    tl.store(OUT + x, (acc / total).to(KIND), inside)
"""


def combine_job(problem: Problem, split: int) -> Any:
    import re

    s = problem.shape
    text = COMBINE
    values = {
        "ROWS": s.batch * s.rows * s.heads,
        "DV": s.head_v,
        "WIDTH": s.head_v + attention_tiles.PADDING,
        "SPLIT": split,
        "KIND": f"tl.{problem.dtype}",
    }
    for key, value in values.items():
        text = re.sub(rf"\b{key}\b", str(value), text)
    return compile_source(text, "kernel", {"P": "*fp32", "OUT": _TRITON[problem.dtype]}, 4, 1)


def library(problem: Problem, q: Any, k: Any, v: Any, mask: Any) -> dict[str, Callable[[], Any]]:
    """PyTorch's own attention, as it chooses and by each of its ways."""
    from torch.nn import functional
    from torch.nn.attention import SDPBackend, sdpa_kernel

    s = problem.shape

    def call() -> Any:
        return functional.scaled_dot_product_attention(
            q, k, v, mask, is_causal=s.causal, enable_gqa=s.group > 1
        )

    def by(backend: Any) -> Any:
        with sdpa_kernel(backend):
            return call()

    ways = {
        "flash": SDPBackend.FLASH_ATTENTION,
        "efficient": SDPBackend.EFFICIENT_ATTENTION,
        "cudnn": SDPBackend.CUDNN_ATTENTION,
        "math": SDPBackend.MATH,
    }
    return {"sdpa": call} | {
        name: lambda backend=backend: by(backend) for name, backend in ways.items()
    }


def measure(rows: list[dict[str, Any]], builds: dict[Any, Any], names: list[str]) -> None:
    import torch

    from bench.gpu import Runner

    runner = Runner()
    torch.manual_seed(1)
    began = time.time()
    for name in names:
        problem = PROBLEMS[name]
        s = problem.shape
        dtype = getattr(torch, problem.dtype)
        size = (
            s.itemsize
            * s.batch
            * (s.rows * s.heads * s.head + s.keys * s.heads_kv * (s.head + s.head_v))
        )
        copies = max(2, min(12, (160 << 20) // size))
        made = {"dtype": dtype, "device": "cuda"}
        sets = [
            tuple(
                torch.randn(s.batch, length, heads, head, **made).transpose(1, 2)
                for length, heads, head in (
                    (s.rows, s.heads, s.head),
                    (s.keys, s.heads_kv, s.head),
                    (s.keys, s.heads_kv, s.head_v),
                )
            )
            for _ in range(copies)
        ]
        mask = None
        if problem.mask is not None:
            noise = torch.randn(problem.mask, device="cuda")
            mask = noise.to(dtype) if s.added else noise > -1
        q, k, v = (x[:1].float() for x in sets[0])
        exact = torch.nn.functional.scaled_dot_product_attention(
            q.double() if s.rows * s.keys < 1 << 21 else q,
            (k.double() if s.rows * s.keys < 1 << 21 else k).repeat_interleave(s.group, 1),
            (v.double() if s.rows * s.keys < 1 << 21 else v).repeat_interleave(s.group, 1),
            mask[:1].to(torch.float64 if s.rows * s.keys < 1 << 21 else torch.float32)
            if mask is not None and s.added
            else (mask[:1] if mask is not None else None),
            is_causal=s.causal,
        ).float()
        del q, k, v

        def compare(got: Any) -> str:
            return f"{((got[:1].float() - exact).norm() / exact.norm()).item():.1e}"

        flops = 2 * s.batch * s.heads * s.rows * s.keys * (s.head + s.head_v)
        repeats = 5
        ways = [library(problem, *one, mask) for one in sets]
        for way in ways[0]:
            if way == "math" and s.rows * s.keys * s.batch * s.heads > 1 << 28:
                continue
            row: dict[str, Any] = {"problem": name, "kind": way}
            try:
                row["error"] = compare(ways[0][way]())
                row["us"] = round(runner.time([w[way] for w in ways], repeats), 2)
            except Exception as error:
                torch.cuda.synchronize()
                row["note"] = str(error).strip().splitlines()[0][:80]
            rows.append(row)
        best = []
        out = torch.empty(s.batch, s.rows, s.heads, s.head_v, **made)
        for tile, precision in [
            key[1:] for key in builds if key[0] == name and key[1] != "combine"
        ]:
            row = {"problem": name, "kind": "tile", "precision": precision}
            row |= dataclasses.asdict(tile)
            rows.append(row)
            built = builds[name, tile, precision]
            if isinstance(built, str):
                row["note"] = built
                continue
            cubin, shared, count = built
            module, function, row["registers"], row["local"] = runner.load(cubin, shared)
            row["shared"] = shared
            out.fill_(float("nan"))
            grid = attention_tiles.grid(s, tile)
            extra = [mask] if mask is not None else []
            if tile.split > 1:
                width = s.head_v + attention_tiles.PADDING
                partial = torch.full(
                    (tile.split, s.batch, s.rows, s.heads, width), float("nan"), device="cuda"
                )
                adding, adder, _, _ = runner.load(builds[name, "combine", tile.split][0], 0)
                blocks = math.ceil(out.numel() / 128)

                def call(i: int) -> None:
                    args = [*sets[i], *extra, partial]
                    runner.launch(function, grid, tile.num_warps, shared, count, args)
                    adder_count = builds[name, "combine", tile.split][2]
                    runner.launch(adder, (blocks, 1, 1), 4, 0, adder_count, [partial, out])
            else:

                def call(i: int) -> None:
                    args = [*sets[i], *extra, out]
                    runner.launch(function, grid, tile.num_warps, shared, count, args)

            call(0)
            row["error"] = compare(out.transpose(1, 2))
            us = runner.time([lambda i=i: call(i) for i in range(copies)], repeats)
            row["us"] = round(us, 2)
            row["tflops"] = round(flops / us / 1e6 / (2 if s.causal else 1), 1)
            best.append((us, precision, dataclasses.astuple(tile), row["error"], row["local"]))
            runner.check(runner.driver.cuModuleUnload(module))
            if tile.split > 1:
                runner.check(runner.driver.cuModuleUnload(adding))
        best.sort()
        peers = {
            r["kind"]: r.get("us") for r in rows if r["problem"] == name and r["kind"] != "tile"
        }
        print(name, peers, round(time.time() - began), "s", flush=True)
        for line in best[:3]:
            print("   ", round(line[0], 2), *line[1:], flush=True)
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=120, help="time allowed for compiling")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--chosen", action="store_true", help="only the tiles that are chosen")
    parser.add_argument("--only", default="", help="problems that begin so, separated by commas")
    options = parser.parse_args()
    began = time.time()
    names = [name for name in PROBLEMS if name.startswith(tuple(options.only.split(",")))]
    builds: dict[Any, Any] = {}
    jobs: dict[Any, Any] = {}
    for name in names:
        problem = PROBLEMS[name]
        tiles = (
            [
                (
                    attention_tiles.best(problem.shape, DEVICES[90]),
                    attention_tiles.dot_precision(problem.shape.itemsize),
                )
            ]
            if options.chosen
            else candidates(problem)
        )
        for tile, precision in tiles:
            jobs[name, tile, precision] = (job, problem, tile, precision)
            if tile.split > 1:
                jobs[name, "combine", tile.split] = (combine_job, problem, tile.split)
    print(len(jobs), "kernels", flush=True)
    pool = concurrent.futures.ProcessPoolExecutor(
        options.jobs, mp_context=multiprocessing.get_context("spawn")
    )
    futures = {pool.submit(*call): key for key, call in jobs.items()}
    try:
        for future in concurrent.futures.as_completed(futures, timeout=options.seconds):
            builds[futures[future]] = future.result()
    except concurrent.futures.TimeoutError:
        print("time for compiling is up", flush=True)
    pool.shutdown(wait=False, cancel_futures=True)
    failed = sorted({v for v in builds.values() if isinstance(v, str)})
    print(f"compiled {len(builds)} in {time.time() - began:.0f} s", failed[:5], flush=True)
    # In the order of the list, whichever was compiled first.
    builds = {key: builds[key] for key in jobs if key in builds}
    rows: list[dict[str, Any]] = []
    try:
        measure(rows, builds, names)
    finally:
        fields = ["problem", "kind", "precision", *(f.name for f in dataclasses.fields(Tile)),
                  "us", "tflops", "error", "shared", "registers", "local", "note"]  # fmt: skip
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, fields)
            writer.writeheader()
            writer.writerows(rows)
    print(f"{time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
