"""The tuner from end to end, on the simulator: candidates are made, compiled, run, compared and
timed, and the lock that is written is lowered with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.lowering import support
from tests.simulator import device
from wrapgen.kernels import compile_shard
from wrapgen.lowering import candidates, lower
from wrapgen.target import parse
from wrapgen.tuning import lock
from wrapgen.tuning.lock import Entry, Lock

SM_90 = parse("sm_90")
SHARDS = 2
TIMED = Path(__file__).with_name("timed.py")


@dataclasses.dataclass
class Tuned:
    """A model's candidates, compiled, in ``place``; and the tuner."""

    place: Path

    def settings(self, **changes: Any) -> Path:
        programs = [
            {
                "target": "sm_90",
                "candidates": str(self.place / "candidates" / "candidates.json"),
                "kernels": [str(self.place / "kernels" / f"{i:02d}") for i in range(SHARDS)],
            }
        ]
        value = {"name": "//x:x.tune", "output": "x.tuning.json", "tuning": True}
        path = self.place / "settings.json"
        path.write_text(json.dumps(value | {"programs": programs} | changes))
        return path

    @property
    def value(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            (self.place / "candidates" / "candidates.json").read_text()
        )
        return found

    def run(
        self, *args: str, program: Path = TIMED, capability: str = "9.0", driver: str = ""
    ) -> tuple[int, str]:
        """Runs the tuner; gives its status and what it printed."""
        done = subprocess.run(
            [
                *(sys.executable, "-P", str(program), str(self.place / "settings.json")),
                *("--driver", driver or str(device.library())),
                *("--rounds", "2", "--launches", "1", *args),
            ],
            env=os.environ
            | {
                "BUILD_WORKSPACE_DIRECTORY": str(self.place),
                "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path),
                "SIMULATOR_CAPABILITY": capability,
                "SIMULATOR_EXECUTOR": f"'{sys.executable}' -P -m simulator.executor",
                "SIMULATOR_KERNELS": f"{self.place}/candidates:{self.place}/kernels",
                "SIMULATOR_QUIET": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


class Model(nn.Module):
    """A matrix product, a reduction that is no template, and an elementwise kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.softmax(self.linear(x), dim=1), torch.relu(x.t()) + 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Candidates and kernels, not to be changed."""
    place = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    module = Model().eval().half()
    support.write_graph(support.export(module, (torch.zeros(48, 64).half(),)), place / "graph.json")
    candidates.make(place / "graph.json", SM_90, place / "candidates", count=3, num_shards=SHARDS)
    (place / "kernels").mkdir()
    for i in range(SHARDS):
        shard = place / "candidates" / "shards" / f"{i:02d}"
        compile_shard(shard, [SM_90], place / "kernels" / f"{i:02d}", keep_going=True)
    return place


@pytest.fixture
def tuned(made: Path, tmp_path: Path) -> Tuned:
    """A copy of them."""
    shutil.copytree(made, tmp_path / "copy")
    found = Tuned(tmp_path / "copy")
    found.settings()
    return found


def test_what_candidates_are_made_of(made: Path) -> None:
    value = Tuned(made).value
    assert [site["site"].partition(" ")[0] for site in value["sites"]] == [
        "mm",
        "persistent_reduction",
        "pointwise",
    ]
    assert value["not_measured"] == value["folding"] == []
    for site in value["sites"]:
        configs = [json.dumps(each["config"]) for each in site["candidates"]]
        assert 2 <= len(set(configs)) == len(configs) <= 3
        assert site["uses"] == 1
        # The first is what lowering without a lock takes.
        names = {step["kernel"] for step in site["candidates"][0]["steps"]}
        assert all(list(made.glob(f"candidates/shards/*/{name}.ttir")) for name in names)
    lower(made / "graph.json", SM_90, made / "lowered")
    sites = json.loads((made / "lowered" / "sites.json").read_text())["sites"]
    assert {site["site"]: site["config"] for site in sites} == {
        site["site"]: site["candidates"][0]["config"] for site in value["sites"]
    }


def test_candidates_are_the_same_again(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    candidates.make(made / "graph.json", SM_90, again, count=3, num_shards=SHARDS)
    first = made / "candidates"
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    for file in files:
        assert (first / file).read_bytes() == (again / file).read_bytes()


def test_sizes_known_at_run_time_are_measured_at_what_the_name_says(tmp_path: Path) -> None:
    program = torch.export.export(
        nn.Linear(32, 16).eval().half(),
        (torch.zeros(4, 32).half(),),
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
        strict=False,
    )
    support.write_graph(program, tmp_path / "graph.json")
    candidates.make(tmp_path / "graph.json", SM_90, tmp_path / "candidates", count=2)
    sites = Tuned(tmp_path).value["sites"]
    (product,) = [site for site in sites if site["site"].startswith("mm ")]
    assert product["site"] == "mm float16[?64,32]{32,1} float16[32,16]{1,32}"
    assert product["buffers"]["x0"]["nbytes"] == 64 * 32 * 2
    assert product["buffers"]["y"]["nbytes"] == 64 * 16 * 2


def test_nothing_is_faster_where_there_is_no_time(tuned: Tuned) -> None:
    program = Path(lock.__file__).with_name("main.py")
    status, said = tuned.run(program=program)
    assert status == 0, said
    assert "rules_aoti simulator, compute capability 9.0, CUDA 12.8\n" in said
    for site in tuned.value["sites"]:
        assert f"0.00      0.00   0.0%     1  {site['site']}\n" in said
    assert "0 of 3 faster than the default\n" in said
    assert f"{tuned.place}/x.tuning.json: written, 0 entries for sm_90\n" in said
    # The simulator has nothing to report: nothing out of bounds, nothing freed twice.
    assert "simulator:" not in said
    assert lock.load(tuned.place / "x.tuning.json") == Lock()


def test_the_lock_of_what_is_faster_is_lowered_with(tuned: Tuned) -> None:
    file = tuned.place / "x.tuning.json"
    gone = "mm float16[1,1]{1,1} float16[1,1]{1,1}"
    entries = {"sm_80": {gone: Entry({"x": 1})}, "sm_90": {gone: Entry({"x": 1})}}
    lock.write(Lock(entries), file)
    status, said = tuned.run()
    assert status == 0, said
    found = lock.load(file)
    assert found.entries("sm_80") == entries["sm_80"], "other targets' entries stay"
    assert found.entries("sm_90")[gone] == Entry({"x": 1}), "another model may have it"
    measured = {key: entry for key, entry in found.entries("sm_90").items() if key != gone}
    assert measured, said
    for key, entry in measured.items():
        (site,) = [each for each in tuned.value["sites"] if each["site"] == key]
        fewest = min(each["config"]["num_warps"] for each in site["candidates"])
        assert entry.config["num_warps"] == fewest
        assert entry.measured is not None and entry.measured.best_ns == 320 * fewest
        assert entry.measured.default_ns == (320 * site["candidates"][0]["config"]["num_warps"])
        assert entry.measured.device == "rules_aoti simulator"
        assert entry.measured.driver == 12080
    status, said = tuned.run("--prune", "--only", "pointwise")
    assert status == 0 and f"{file}: written" in said
    # What was not measured again stays, and what is the same again.
    assert lock.load(file).entries("sm_90") == measured
    assert gone not in lock.load(file).entries("sm_90")
    assert gone in lock.load(file).entries("sm_80")
    lower(tuned.place / "graph.json", SM_90, tuned.place / "tuned", tuning=file)
    sites = json.loads((tuned.place / "tuned" / "sites.json").read_text())
    assert sites["unused"] == []
    locked = {site["site"]: site["config"] for site in sites["sites"] if site["from"] == "lock"}
    assert locked == {key: entry.config for key, entry in measured.items()}


def test_an_entry_that_no_candidate_beats(tuned: Tuned) -> None:
    """It goes where it was measured, and stays where it could not be."""
    file = tuned.place / "x.tuning.json"
    sites = {each["site"].partition(" ")[0]: each for each in tuned.value["sites"]}
    pointwise, product = sites["pointwise"], sites["mm"]
    other = product["candidates"][0]["config"] | {"block_m": 7}
    entries = {
        pointwise["site"]: Entry(pointwise["candidates"][1]["config"]),
        product["site"]: Entry(other),
    }
    lock.write(Lock({"sm_90": entries}), file)
    status, said = tuned.run("--gain", "1000")
    assert status == 0, said
    assert lock.load(file).entries("sm_90") == {product["site"]: Entry(other)}
    assert f"kept, as it is none of the candidates: {product['site']}" in said


def test_one_site_alone(tuned: Tuned) -> None:
    status, said = tuned.run("--only", "pointwise", "--output", str(tuned.place / "other.json"))
    assert status == 0, said
    assert "0 of 1 faster" in said or "1 of 1 faster" in said
    assert not (tuned.place / "x.tuning.json").exists()
    assert set(lock.load(tuned.place / "other.json").entries("sm_90")) <= {
        site["site"] for site in tuned.value["sites"] if site["site"].startswith("pointwise")
    }
    assert (
        tuned.run("--only", "scatter")[1] == "tune: --only scatter: no site has this in its name\n"
    )


def test_a_wrong_candidate_is_told_and_never_chosen(tuned: Tuned) -> None:
    """The fastest adds 2 in place of 1: its TTIR is changed as if it had been compiled so."""
    (site,) = [each for each in tuned.value["sites"] if each["site"].startswith("pointwise")]
    wrong = min(site["candidates"][1:], key=lambda each: each["config"]["num_warps"])
    name = wrong["steps"][0]["kernel"]
    (ttir,) = tuned.place.glob(f"candidates/shards/*/{name}.ttir")
    old = hashlib.sha256(ttir.read_bytes()).hexdigest()
    assert "dense<1.000000e+00>" in ttir.read_text()
    ttir.write_text(ttir.read_text().replace("dense<1.000000e+00>", "dense<2.000000e+00>"))
    new = hashlib.sha256(ttir.read_bytes()).hexdigest()
    for path in tuned.place.rglob(f"{name}.json"):
        path.write_text(path.read_text().replace(old, new))
    status, said = tuned.run("--only", "pointwise")
    assert status == 1, said
    assert "WRONG, and never chosen: " in said and "the results differ by " in said
    entry = lock.load(tuned.place / "x.tuning.json").entries("sm_90").get(site["site"])
    assert entry is None or entry.config != wrong["config"]


def test_what_the_compiler_reports_screens_candidates(tuned: Tuned) -> None:
    (site,) = [each for each in tuned.value["sites"] if each["site"].startswith("mm")]
    spilling, refused = (each["steps"][0]["kernel"] for each in site["candidates"][1:3])
    (path,) = tuned.place.glob(f"kernels/*/sm_90/{spilling}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"spill_stores": 24}))
    (path,) = tuned.place.glob(f"kernels/*/sm_90/{refused}.json")
    path.unlink()
    (path.parent / "refused.json").write_text(json.dumps({refused: "too much shared memory"}))
    status, said = tuned.run("--only", "mm")
    assert status == 0, said
    assert "it spills 24 bytes a thread, the default 0" in said
    assert ": too much shared memory" in said
    path.parent.joinpath("refused.json").write_text("{}")
    status, said = tuned.run("--only", "mm")
    assert status == 1
    assert f"there is no compiled kernel {refused}" in said


def test_no_gpu(tuned: Tuned) -> None:
    status, said = tuned.run(driver="libcuda_of_nobody.so")
    assert status == 1
    assert "tune: there is no GPU to measure on: cannot load the driver libcuda_of_nobody" in said
    assert not (tuned.place / "x.tuning.json").exists()


def test_another_gpu(tuned: Tuned) -> None:
    """Neither are times of a GPU told to another one of its generation."""
    status, said = tuned.run(capability="8.6")
    assert status == 1
    assert (
        "compute capability 8.6, that is sm_86; the library is built for sm_90: tune on such a "
        "GPU, or add sm_86 to its targets" in said
    )


def test_where_the_lock_is_not_known(tuned: Tuned) -> None:
    tuned.settings(output="")
    status, said = tuned.run()
    assert status == 1 and "name the file to write with --output" in said
