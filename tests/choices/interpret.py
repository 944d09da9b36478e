"""Runs template kernels by Triton's interpreter; prints each case's relative error as JSON.

A process of its own: Triton decides when it is imported whether it interprets.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from wrapgen.lowering.templates import geometry, product, standalone
from wrapgen.lowering.templates.cost import Product, Tile
from wrapgen.lowering.templates.geometry import Convolution

# Name -> (convolution, tile, collapse the kernel's rows)
CONVOLUTIONS: dict[str, tuple[Convolution, Tile, bool]] = {
    "3x3": (Convolution(2, 16, 24, (7, 9), (3, 3), (1, 1), (1, 1)), Tile(32, 32, 16, 3, 4), False),
    "3x3, stride 2, 24 channels in steps of 16": (
        Convolution(2, 24, 20, (7, 9), (3, 3), (2, 2), (1, 1)), Tile(32, 32, 16, 3, 4), False,
    ),
    "1x1, stride 2": (
        Convolution(2, 16, 24, (7, 9), (1, 1), (2, 2)), Tile(32, 16, 16, 3, 4), False,
    ),
    "1x1, padded": (
        Convolution(1, 16, 24, (4, 4), (1, 1), (1, 1), (1, 1)), Tile(32, 16, 16, 3, 4), False,
    ),
    "split in 2 uneven parts": (
        Convolution(1, 16, 24, (8, 9), (3, 3), (1, 1), (1, 1)), Tile(32, 32, 16, 3, 4, 2), False,
    ),
    "split, dilated, strides and paddings of their own": (
        Convolution(1, 16, 24, (8, 9), (3, 3), (1, 2), (2, 1), (2, 1)), Tile(16, 16, 16, 3, 4, 9),
        False,
    ),
    "7x7: more taps than an int32 has bits": (
        Convolution(1, 16, 16, (9, 8), (7, 7), (2, 2), (3, 3)), Tile(32, 16, 16, 3, 4), False,
    ),
    "rows of the kernel as one run": (
        Convolution(2, 4, 16, (14, 22), (7, 8), (2, 2)), Tile(32, 16, 32, 3, 4), True,
    ),
    "one tile larger than everything": (
        Convolution(1, 5, 3, (3, 3), (3, 3), (1, 1), (1, 1)), Tile(64, 64, 16, 3, 4), False,
    ),
}  # fmt: skip

# Name -> (m, n, k, tile, B is stored transposed)
MATMULS: dict[str, tuple[int, int, int, Tile, bool]] = {
    "even": (64, 32, 64, Tile(32, 16, 32, 3, 4), True),
    "uneven all ways": (50, 37, 41, Tile(32, 16, 16, 3, 4), False),
    "one row": (1, 100, 64, Tile(16, 32, 32, 3, 4), True),
    "split": (20, 33, 200, Tile(16, 32, 16, 3, 4, 3), True),
    "grouped tiles, fewer than a group": (330, 40, 32, Tile(32, 16, 32, 3, 4), False),
}


def run(text: str, grid: tuple[int, ...], tensors: list[torch.Tensor]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "module.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("module", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.kernel[grid](*tensors)


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((got - wanted).norm() / wanted.norm()).item()


def finish(
    source: str, constants: dict[str, Any], strides: Any, shape: Product, tile: Tile,
    operands: list[torch.Tensor], wanted: torch.Tensor,
) -> float:  # fmt: skip
    whole = tile.split_k == 1
    bias, residual = torch.randn(shape.n).half(), torch.randn(shape.m, shape.n).half()
    epilogue = standalone.Epilogue("tl.float16", bias=whole, residual=whole, relu=whole)
    constants = constants | {"INDEX_DTYPE": "tl.int32"}
    text = standalone.render(source, "kernel", constants, strides, epilogue)
    dtype = torch.float16 if whole else torch.float32
    out = torch.full((tile.split_k, shape.m, shape.n), float("nan"), dtype=dtype)
    extra = [bias, residual] if whole else []
    run(text, geometry.grid(shape, tile), [*operands, *extra, out])
    if whole:
        wanted = (wanted + bias + residual).relu()
    return error(out.float().sum(0), wanted)


def convolution(conv: Convolution, tile: Tile, collapse: bool) -> float:
    height, width = conv.in_size
    x = torch.randn(conv.batch, height, width, conv.in_channels).half()
    w = torch.randn(conv.out_channels, *conv.kernel, conv.in_channels).half() / 8
    wanted = torch.nn.functional.conv2d(
        x.permute(0, 3, 1, 2).float(),
        w.permute(0, 3, 1, 2).float(),
        None,
        conv.stride,
        conv.padding,
        conv.dilation,
    )
    wanted = wanted.permute(0, 2, 3, 1).reshape(-1, conv.out_channels)
    strides = {"X": [x.stride()[i] for i in (0, 3, 1, 2)], "W": [w[0].numel(), 1]}
    if collapse:
        conv = conv.collapsed()
    shape = conv.product(2)
    return finish(product.CONVOLUTION, conv.constants(tile), strides, shape, tile, [x, w], wanted)


def matmul(m: int, n: int, k: int, tile: Tile, transposed: bool) -> float:
    a = torch.randn(m, k).half()
    b = torch.randn(n, k).half().t() if transposed else torch.randn(k, n).half()
    shape = Product(m, n, k, 2)
    constants = geometry.matmul_constants(shape, tile)
    strides = {"A": a.stride(), "B": b.stride()}
    wanted = a.float() @ b.float()
    return finish(product.MATMUL, constants, strides, shape, tile, [a, b], wanted)


def main() -> None:
    torch.manual_seed(0)
    result = {f"convolution {name}": convolution(*case) for name, case in CONVOLUTIONS.items()}
    result |= {f"matmul {name}": matmul(*case) for name, case in MATMULS.items()}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
