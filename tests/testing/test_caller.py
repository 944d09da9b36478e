"""What the caller of a library notices. Driver and library are a fake: tests/testing/fake.cc."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aoti.testing import caller

FAKE = Path(__file__).with_name("fake.cc")
X = (1.0, -2.0, 3.5, 0.25)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fake") / "libfake.so"
    subprocess.run(["c++", "-std=c++17", "-shared", "-fPIC", "-o", out, FAKE], check=True)
    return out


def spec(name: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": "tensor",
        "name": name,
        "shape": [4],
        "strides": [1],
        "nbytes": 16,
        "itemsize": 4,
        "dlpack_code": 2,
        "mutated": False,
        **more,
    }


def call(
    library: Path, directory: Path, does: str = "", *, guard: int = 64, runs: int = 3
) -> tuple[dict[str, Any], int]:
    """Gives the result and the exit status."""
    (directory / "x").write_bytes(struct.pack("4f", *X))
    request = {
        "driver": str(library),
        "library": str(library),
        "weights": "none",
        "guard": guard,
        "cases": [
            {
                "name": "only",
                "runs": runs,
                "inputs": [spec("x", file=str(directory / "x"))],
                "outputs": [spec("y", result=str(directory / "y"))],
            }
        ],
    }
    files = directory / "request.json", directory / "result.json"
    files[0].write_text(json.dumps(request))
    done = subprocess.run(
        [sys.executable, caller.__file__, *map(str, files)],
        env=os.environ | {"FAKE": does},
        check=False,
    )
    result: dict[str, Any] = json.loads(files[1].read_text())
    return result, done.returncode


@pytest.mark.parametrize("guard", [0, 64])
@pytest.mark.parametrize("runs", [1, 3])
def test_all_is_well(library: Path, tmp_path: Path, guard: int, runs: int) -> None:
    result, status = call(library, tmp_path, guard=guard, runs=runs)
    assert status == 0
    assert result == {
        "target": "sm_90",
        "cases": [{"name": "only", "problems": []}],
        "error": "",
        "reports": "",
    }
    assert struct.unpack("4f", (tmp_path / "y").read_bytes()) == tuple(2 * x for x in X)


@pytest.mark.parametrize(
    ("does", "count", "message"),
    [
        ("overrun", 3, "wrote outside of y: 4 bytes written, up to 4 bytes after it"),
        ("underrun", 3, "wrote outside of y: 4 bytes written, up to 4 bytes before it"),
        ("change input", 3, "changed input x, which the model does not write"),
        ("count", 2, "gives other bits than the first run in y, first at byte 6 of 16"),
        ("skip", 1, "the second run gives other bits than the first run in y, first at byte 8"),
        ("graph", 1, "the run without a CUDA graph gives other bits"),
    ],
)
def test_what_is_noticed(
    library: Path, tmp_path: Path, does: str, count: int, message: str
) -> None:
    result, _ = call(library, tmp_path, does)
    problems = result["cases"][0]["problems"]
    assert len(problems) == count, problems
    assert message in problems[0]


def test_errors_are_the_result(library: Path, tmp_path: Path) -> None:
    result, status = call(library, tmp_path, "refuse")
    assert (result["error"], status) == ("aoti_model_load: no code for this device", 0)
    result, status = call(library, tmp_path, "no memory")
    assert (result["error"], status) == ("cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY (2)", 0)
    assert result["target"] == "sm_90"


def test_a_crash_is_the_end_of_the_caller(library: Path, tmp_path: Path) -> None:
    result, status = call(library, tmp_path, "crash")
    assert status == -6
    assert result["target"] == ""


def test_it_needs_the_standard_library_alone() -> None:
    """PyTorch's own libraries are not in the process that runs the model."""
    code = f"import runpy, sys; runpy.run_path({caller.__file__!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "wrapgen"} & set(done.stdout.split())
