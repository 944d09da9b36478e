"""A generated model whose weights are swapped while it runs, on the simulator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.simulator import device

SMALL = Path("tests/bazel/small")


def test_every_output_is_that_of_a_fresh_load() -> None:
    """With folding done again for each load: first.weight is folded with the normalization, in
    another layout, and so is not what ``main`` reads."""
    root = Path() if SMALL.joinpath("libsmall.so").exists() else Path("bazel-bin")
    small = root.absolute() / SMALL
    done = subprocess.run(
        [
            *(sys.executable, "bench/swap_weights.py"),
            *(str(small / "libsmall.so"), str(small / "small.safetensors")),
            *("--driver", str(device.library())),
            *("--threads", "2", "--runs", "1", "--swaps", "2", "--seconds", "1"),
        ],
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SIMULATOR_CAPABILITY": "9.0",
            "SIMULATOR_EXECUTOR": f"'{sys.executable}' -m simulator.executor",
            "SIMULATOR_KERNELS": os.pathsep.join(
                str(small / directory) for directory in ("small.programs", "small.kernels")
            ),
            "SIMULATOR_QUIET": "1",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("small on rules_aoti simulator, 2 threads\n")
    # Read in place, but for what is folded and the constants made of it.
    assert "in place: 2560 bytes of its own, 0 shared, 1748 the caller's\n" in done.stdout
    assert "outputs have exactly the bits of a fresh load\n" in done.stdout
