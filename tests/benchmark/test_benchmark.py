"""The benchmark that ``aoti_library`` declares: what it says without a GPU, and the whole of it on
the simulator, which shows that each thing can be measured and not how long it takes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aoti.benchmark import main, measure, settings, table
from aoti.testing.sizes import InputsError
from wrapgen.dtype import INFO, DType

SMALL = Path("tests/bazel/small")

built = pytest.mark.skipif(
    not (SMALL / "small_benchmark").exists(), reason="Bazel builds what this test runs"
)


def small(**changes: Any) -> settings.Settings:
    return dataclasses.replace(settings.read(SMALL / "small_benchmark.settings.json"), **changes)


@built
def test_all_of_it_on_the_simulator() -> None:
    directories = [
        path for folder in ("programs", "kernels") for path in (SMALL / f"small.{folder}").iterdir()
    ]
    found = small(
        simulator="simulator/libcuda.so.1",
        executor="simulator/executor",
        kernels={"sm_90": tuple(path for path in directories if path.name == "sm_90")},
    )
    result = main.run(found, "simulator", sizes={}, ranges={}, seconds=0)
    report = json.loads((SMALL / "small.report.json").read_text())
    assert (result["target"], result["timed"]) == ("sm_90", False)
    assert {key: result["memory"][key] for key in ("model", "load", "session")} == {
        key: report["programs"]["sm_90"]["memory"][key] for key in ("model", "load", "session")
    }
    assert result["memory"]["allocated"] == result["memory"]["model"]
    (case,) = result["cases"]
    # The launches that were timed are those of the report, in their order, and no others.
    steps = report["programs"]["sm_90"]["main"]
    assert [launch["what"] for launch in case["launches"]] == [step["kernel"] for step in steps]
    assert [launch["step"] for launch in case["launches"]] == list(range(len(steps)))
    assert case["graph"]["runs"] == case["stream"]["runs"] == 1
    text = table.text(result)
    assert "say nothing of a GPU" in text
    assert "floor" not in text.replace("floor us", "")
    assert json.loads(json.dumps(result)) == result


@built
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run(
        [SMALL / "small_benchmark"],
        env=os.environ | {"RUNFILES_DIR": str(Path.cwd().parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("//tests/bazel/small:small_benchmark: a benchmark needs a GPU: ")
    assert "Run it on a machine with one" in done.stderr


@built
def test_without_the_simulator_it_says_how_to_have_it() -> None:
    with pytest.raises(main.BenchmarkError, match=r"--@rules_aoti//aoti:test_device=simulator"):
        main.run(small(), "simulator", sizes={}, ranges={}, seconds=0)


def test_it_needs_nothing_but_the_standard_library() -> None:
    """So that it runs where the GPU is, whatever Python that machine has."""
    code = (
        "import sys, aoti.benchmark.main as m; print(*{n.partition('.')[0] for n in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(Path(main.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) <= set(sys.stdlib_module_names) | {
        "aoti",
        "wrapgen",
        "__main__",
    }


REPORT: dict[str, Any] = {
    "symbols": [{"name": "s0", "minimum": 1, "maximum": 100}],
    "constraints": [],
    "inputs": [
        {
            "kind": "tensor",
            "name": "ids",
            "dtype": "int32",
            "shape": ["s0", 3],
            "strides": [3, 1],
            "nbytes": "4 * 3 * s0",
        },
        {"kind": "scalar", "name": "start", "symbol": "s0"},
    ],
    "outputs": [],
}


def test_inputs(tmp_path: Path) -> None:
    (case,) = settings.cases(REPORT, [{"s0": 5}], {"ids": "7:9"}, tmp_path)
    ids, start = case["inputs"]
    assert (ids["shape"], ids["strides"], ids["nbytes"]) == ([5, 3], [3, 1], 60)
    data = Path(ids["file"]).read_bytes()
    assert set(data[::4]) == {7, 8}
    assert len(data) == 60
    assert Path(start["file"]).read_bytes() == (5).to_bytes(8, "little")


@pytest.mark.parametrize("dtype", DType)
def test_values_of_every_type(dtype: DType, tmp_path: Path) -> None:
    spec = {"kind": "tensor", "name": "x", "dtype": str(dtype), "shape": [3], "strides": [1]}
    nbytes = 3 * INFO[dtype].itemsize
    report = REPORT | {"inputs": [spec | {"nbytes": nbytes}]}
    (case,) = settings.cases(report, [{}], {}, tmp_path)
    assert Path(case["inputs"][0]["file"]).stat().st_size == nbytes


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"ids": "1"}, 'input_ranges: ids: "1" is no range such as "0:30522"'),
        ({"x": "0:2"}, "there is no input 'x'; the model's are: ids, start"),
    ],
)
def test_a_wrong_range(ranges: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputsError, match=message):
        settings.cases(REPORT, [{"s0": 1}], ranges, tmp_path)


def test_sizes() -> None:
    assert settings.combinations(REPORT, {"s0": [2, 9]}) == [{"s0": 2}, {"s0": 9}]
    with pytest.raises(InputsError, match="s0 = 101 is not in its range, 1 to 100"):
        settings.combinations(REPORT, {"s0": [101]})


def test_summary() -> None:
    assert measure.summary([3.0, 1.0, 2.0]) == {
        "median": 2.0,
        "minimum": 1.0,
        "p99": 3.0,
        "mean": 2.0,
    }
    assert measure.summary([float(i) for i in range(1, 201)])["p99"] == 198.0


def test_launches_of_a_loop_are_found_again() -> None:
    steps: list[dict[str, Any]] = [
        {"kind": "launch", "kernel": name, "reads": 1, "writes": 1, "sources": []}
        for name in ("a", "b")
    ]
    timed = [{"what": what, "us": 1.0} for what in ("a", "b", "a", "b", "copy")]
    found = main._launches(timed, steps, {}, 1e6)
    assert [launch["step"] for launch in found] == [0, 1, 0, 1, None]
    assert [launch["floor_us"] for launch in found] == [2.0, 2.0, 2.0, 2.0, None]
