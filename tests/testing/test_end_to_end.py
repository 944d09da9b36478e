"""The test that `aoti_library` declares can fail, and says why. What Bazel built for
//tests/bazel/small is tested, changed in one place at a time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

SMALL = Path("tests/bazel/small")
MAIN = Path("aoti/testing/main").absolute()

pytestmark = pytest.mark.skipif(not MAIN.exists(), reason="Bazel builds what this test runs")


def run(settings: dict[str, Any], directory: Path) -> tuple[int, str]:
    """Runs the test on the simulator; gives its status and what it printed."""
    file = directory / "settings.json"
    file.write_text(json.dumps(settings))
    done = subprocess.run(
        [MAIN, file],
        env={key: value for key, value in os.environ.items() if key != "XML_OUTPUT_FILE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def settings(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SMALL / "small_test.settings.json").read_text())
    return found | {"device": "simulator", "capabilities": [90], "seeds": 1} | changes


def test_wrong_weights_fail(tmp_path: Path) -> None:
    weights = safetensors.torch.load_file(SMALL / "small.safetensors")
    weights["second.bias"] += 1
    safetensors.torch.save_file(weights, tmp_path / "wrong.safetensors")
    status, said = run(settings(weights=str(tmp_path / "wrong.safetensors")), tmp_path)
    assert status == 1, said
    assert "second.bias: other values than in the archive" in said
    assert "FAILED  simulator, sm_90: seed 0" in said
    # The kernels are not to blame.
    assert "passed  kernels of sm_90" in said


def test_a_wrong_kernel_fails_and_is_named(tmp_path: Path) -> None:
    """The TTIR is changed as if it had been compiled so: each file that bears its digest, too."""
    tree = tmp_path / "small"
    for folder in ("programs", "kernels"):
        shutil.copytree(SMALL / f"small.{folder}/sm_90", tree / folder, copy_function=shutil.copy)
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    (ttir,) = [
        path
        for path in sorted(tree.rglob("*.ttir"))
        if "__nv_expf" in path.read_text() and path.stem.startswith("reduction")
    ]
    old = hashlib.sha256(ttir.read_bytes()).hexdigest()
    ttir.write_text(ttir.read_text().replace("arith.divf", "arith.mulf", 1))
    new = hashlib.sha256(ttir.read_bytes()).hexdigest()
    for path in tree.rglob("*.json"):
        path.write_text(path.read_text().replace(old, new))
    program = {
        "kernels": [str(path) for path in sorted((tree / "kernels").iterdir())],
        "program": str(tree / "programs/program.json"),
        "target": "sm_90",
    }
    status, said = run(settings(programs=[program]), tmp_path)
    assert status == 1, said
    assert "FAILED  simulator, sm_90: seed 0" in said
    blamed = said[said.index("FAILED  kernels of sm_90") :]
    assert f"kernel {ttir.stem} (main, launch" in blamed
    assert "softmax" in blamed
    assert "small.py, in forward:" in blamed
