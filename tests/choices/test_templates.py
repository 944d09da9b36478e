"""The templates compute the right thing, and stay inside what the cost model allows them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from wrapgen.lowering.templates import cost, geometry, product, standalone
from wrapgen.target import DEVICES

INTERPRET = Path(__file__).with_name("interpret.py")


def test_interpreted_kernels_match_pytorch() -> None:
    done = subprocess.run(
        [sys.executable, str(INTERPRET)],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) >= 14
    # Half precision of the result; a NaN, as the output was poisoned with, is not below anything.
    wrong = {name: error for name, error in errors.items() if not error < 5e-4}
    assert not wrong


@pytest.mark.parametrize("capability", sorted(DEVICES))
def test_estimates_bound_what_the_compiler_reports(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared memory is never underestimated, and no tile of the menu spills much."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    device = DEVICES[capability]
    conv = geometry.Convolution(8, 256, 256, (28, 28), (3, 3), (1, 1), (1, 1))
    shape = conv.product(2)
    faults = []
    for tile in cost.MENU:
        if not (cost.proved(shape, tile) and cost.fits(shape, tile, device)):
            continue
        shared = _compile(conv, tile, capability, tmp_path)
        if shared > cost.shared_memory(shape, tile):
            faults.append((dataclasses.astuple(tile), shared, cost.shared_memory(shape, tile)))
    assert not faults


def _compile(conv: geometry.Convolution, tile: cost.Tile, capability: int, folder: Path) -> int:
    channels, (height, width) = conv.in_channels, conv.in_size
    strides = {
        "X": (height * width * channels, 1, width * channels, channels),
        "W": (9 * channels, 1),
    }
    constants: dict[str, Any] = conv.constants(tile) | {"INDEX_DTYPE": "tl.int32"}
    epilogue = standalone.Epilogue("tl.float16", bias=True, relu=True)
    name = "kernel_" + "_".join(str(value) for value in dataclasses.astuple(tile))
    path = folder / f"{name}.py"
    path.write_text(standalone.render(product.CONVOLUTION, name, constants, strides, epilogue))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kernel = getattr(module, name)
    built = triton.compile(
        ASTSource(
            kernel,
            dict.fromkeys(kernel.arg_names, "*fp16"),
            {},
            {(i,): [["tt.divisibility", 16]] for i in range(len(kernel.arg_names))},
        ),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": tile.num_warps, "num_stages": tile.num_stages},
    )
    assert ("wgmma.mma_async" in built.asm["ptx"]) == (capability == 90 and tile.block_m >= 64)
    assert ("tcgen05.mma" in built.asm["ptx"]) == (capability == 100 and tile.block_m >= 64)
    assert "cp.async" in built.asm["ptx"]
    shared: int = built.metadata.shared
    return shared
