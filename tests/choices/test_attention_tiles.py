"""Attention's tiles stay inside what the compiler is allowed, on every device."""

from __future__ import annotations

import importlib.util
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from wrapgen.kernels import cubin
from wrapgen.lowering.templates import attention_standalone, attention_tiles
from wrapgen.lowering.templates.attention_tiles import Attention, Mask, Tile
from wrapgen.target import DEVICES

COMPILED = [
    Attention(1, 12, 12, 128, 128, 64, 64, 2, mask=1),
    Attention(1, 12, 12, 197, 197, 64, 64, 2),
    Attention(1, 12, 12, 1024, 1024, 64, 64, 2, causal=True),
    Attention(4, 32, 8, 4096, 4096, 128, 128, 2, causal=True),
    Attention(1, 8, 8, 512, 512, 80, 80, 2, mask=2, added=True),
    Attention(1, 8, 4, 2048, 2048, 256, 256, 2),
    Attention(1, 32, 8, 1, 4096, 128, 128, 2),
    Attention(1, 8, 8, 512, 512, 64, 64, 4),
    Attention(1, 8, 8, 512, 512, 256, 256, 4, mask=4, added=True),
]


@pytest.mark.parametrize("capability", sorted(DEVICES))
@pytest.mark.parametrize("shape", COMPILED, ids=lambda shape: f"{shape.rows}x{shape.head}")
def test_what_the_compiler_reports(
    shape: Attention, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared memory is not underestimated, and hardly a register is spilled."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    device = DEVICES[capability]
    tile = attention_tiles.best(shape, device)
    built = _compile(shape, tile, capability, tmp_path)
    assert built.metadata.shared <= attention_tiles.shared_memory(shape, tile)
    assert built.metadata.shared <= device.shared_memory_per_block_optin
    assert "cp.async" in built.asm["ptx"] or shape.keys <= tile.block_n or tile.num_stages == 1
    large = tile.block_m >= 64 and shape.itemsize == 2
    assert ("wgmma.mma_async" in built.asm["ptx"]) == (capability == 90 and large)
    assert ("tcgen05.mma" in built.asm["ptx"]) == (capability == 100 and large)
    assert cubin.read(built.asm["cubin"]).frame <= 64


def test_every_shape_has_a_tile_that_fits() -> None:
    for device in DEVICES.values():
        for head, rows, keys, group, itemsize, mask in itertools.product(
            (8, 40, 64, 96, 128, 192, 256),
            (1, 5, 64, 197, 4096),
            (1, 77, 256, 4096),
            (1, 4),
            (2, 4),
            (0, 4),
        ):
            shape = Attention(2, 8, 8 // group, rows, keys, head, head, itemsize, False, mask, True)
            tile = attention_tiles.best(shape, device)
            assert attention_tiles.fits(shape, tile, device), shape
            if tile.split > 1:
                steps = -(-keys // tile.block_n)
                assert steps >= 2 * tile.split
                # Twice as many where rows are halved for want of shared memory.
                assert math.prod(attention_tiles.grid(shape, tile)) <= 4 * device.multiprocessors


@pytest.mark.parametrize(
    ("head", "parts"),
    [(1, (16, 0)), (16, (16, 0)), (40, (32, 16)), (64, (64, 0)), (72, (64, 16)), (80, (64, 16)),
     (96, (64, 32)), (112, (128, 0)), (160, (128, 32)), (192, (128, 64)), (256, (256, 0))],
)  # fmt: skip
def test_parts_of_head_dimensions(head: int, parts: tuple[int, int]) -> None:
    assert attention_tiles.parts(head) == parts


def _compile(shape: Attention, tile: Tile, capability: int, folder: Path) -> Any:
    mask = Mask(shape.added, (True, True, False, False)) if shape.mask else None
    constants = attention_tiles.constants(
        shape,
        tile,
        scale=0.125,
        mask=mask,
        zero_rows=True,
        even_rows=shape.rows % tile.block_m == 0,
        even_keys=shape.keys % tile.block_n == 0,
        one_step=shape.keys < tile.block_n,
    )

    def strides(length: int, heads: int, head: int) -> tuple[int, ...]:
        return (length * heads * head, head, heads * head, 1)

    out = strides(shape.rows, shape.heads, shape.head_v + 4 * (tile.split > 1))
    text = attention_standalone.render(
        "kernel",
        constants | {"INDEX_DTYPE": "tl.int32"},
        {"Q": (shape.batch, shape.heads, shape.rows), "K": (shape.batch, 0, shape.keys)},
        {
            "Q": strides(shape.rows, shape.heads, shape.head),
            "K": strides(shape.keys, shape.heads_kv, shape.head),
            "V": strides(shape.keys, shape.heads_kv, shape.head_v),
            "MASK": (0, 0, shape.keys, 1),
            "OUT": (shape.batch * out[0], *out) if tile.split > 1 else out,
        },
        "tl.float32" if tile.split > 1 or shape.itemsize == 4 else "tl.float16",
    )
    path = folder / "module.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("module", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind = {2: "*fp16", 4: "*fp32"}[shape.itemsize]
    signature = dict.fromkeys(module.kernel.arg_names, kind)
    if tile.split > 1:
        signature["OUT"] = "*fp32"
    if mask is not None and not mask.added:
        signature["MASK"] = "*i1"
    return triton.compile(
        ASTSource(
            module.kernel,
            signature,
            {},
            {(i,): [["tt.divisibility", 16]] for i in range(len(signature))},
        ),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": tile.num_warps, "num_stages": tile.num_stages},
    )
