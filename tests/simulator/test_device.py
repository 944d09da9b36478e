"""Compiled kernels on the simulated driver: what they compute, and what is said of their faults."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.simulator.device import Device, Driver
from wrapgen import target
from wrapgen.kernels.shard import compile_shard

# What Triton makes of `tl.store(out_ptr + i, tl.load(in_ptr + i, i < n) + 1, i < n)`.
ADD_ONE = """\
module {
  tt.func public @add_one(%arg0: !tt.ptr<f32>, %arg1: !tt.ptr<f32>, %arg2: i32) attributes {noinline = false} {
    %cst = arith.constant dense<1.000000e+00> : tensor<128xf32>
    %c128_i32 = arith.constant 128 : i32
    %0 = tt.get_program_id x : i32
    %1 = arith.muli %0, %c128_i32 : i32
    %2 = tt.make_range {end = 128 : i32, start = 0 : i32} : tensor<128xi32>
    %3 = tt.splat %1 : i32 -> tensor<128xi32>
    %4 = arith.addi %3, %2 : tensor<128xi32>
    %5 = tt.splat %arg2 : i32 -> tensor<128xi32>
    %6 = arith.cmpi slt, %4, %5 : tensor<128xi32>
    %7 = tt.splat %arg0 : !tt.ptr<f32> -> tensor<128x!tt.ptr<f32>>
    %8 = tt.addptr %7, %4 : tensor<128x!tt.ptr<f32>>, tensor<128xi32>
    %9 = tt.load %8, %6 : tensor<128x!tt.ptr<f32>>
    %10 = arith.addf %9, %cst : tensor<128xf32>
    %11 = tt.splat %arg1 : !tt.ptr<f32> -> tensor<128x!tt.ptr<f32>>
    %12 = tt.addptr %11, %4 : tensor<128x!tt.ptr<f32>>, tensor<128xi32>
    tt.store %12, %10, %6 : tensor<128x!tt.ptr<f32>>
    tt.return
  }
}
"""  # noqa: E501

# Every program stores its number in the same place.
RACE = """\
module {
  tt.func public @race(%arg0: !tt.ptr<i32>) attributes {noinline = false} {
    %0 = tt.get_program_id x : i32
    tt.store %arg0, %0 : !tt.ptr<i32>
    tt.return
  }
}
"""

KERNELS = {
    "add_one": (
        ADD_ONE,
        [
            ("in_ptr", "pointer", "float32"),
            ("out_ptr", "pointer", "float32"),
            ("n", "scalar", "int32"),
        ],
    ),
    "race": (RACE, [("out_ptr", "pointer", "int32")]),
}
TARGETS = ["sm_80", "sm_90", "compute_90"]


def write_shard(shard: Path, name: str, ttir: str) -> None:
    """A kernel as lowering writes it."""
    shard.mkdir(parents=True, exist_ok=True)
    launch = {
        "name": name,
        "ttir_sha256": hashlib.sha256(ttir.encode()).hexdigest(),
        "num_warps": 4,
        "num_stages": 1,
        "num_ctas": 1,
        "params": [
            {"name": each, "kind": kind, "dtype": dtype, "divisible_by_16": False}
            for each, kind, dtype in KERNELS[name][1]
        ],
    }
    (shard / f"{name}.ttir").write_text(ttir)
    (shard / f"{name}.json").write_text(json.dumps(launch))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards in ``programs``, compiled kernels in ``kernels/CAPABILITY/TARGET``."""
    root = tmp_path_factory.mktemp("kernels")
    for name, (ttir, _) in KERNELS.items():
        write_shard(root / "programs", name, ttir)
    for capability in ("80", "90"):
        targets = [target.parse(each) for each in TARGETS if each.endswith(capability)]
        compile_shard(root / "programs", targets, root / "kernels" / capability)
    return root


@pytest.fixture(scope="module")
def driver(built: Path) -> Driver:
    os.environ["SIMULATOR_KERNELS"] = f"{built}/programs{os.pathsep}{built}/kernels"
    os.environ["SIMULATOR_EXECUTOR"] = f"{sys.executable} -m simulator.executor"
    return Driver()


@pytest.fixture
def device(driver: Driver) -> Iterator[Device]:
    driver.reset()
    with Device(driver) as entered:
        yield entered


def image(built: Path, name: str, which: str = "sm_90") -> bytes:
    suffix = "ptx" if which.startswith("compute") else "cubin"
    return (built / "kernels" / which.rpartition("_")[2] / which / f"{name}.{suffix}").read_bytes()


def only_report(driver: Driver) -> str:
    """The one report, with numbers that depend on the tests before masked."""
    reports = driver.reports()
    assert len(reports) == 1, reports
    text = re.sub(r"0x[0-9a-f]+", "ADDRESS", reports[0])
    return re.sub(r"(launch|allocation) \d+", r"\1 N", text)


@pytest.mark.parametrize("which", TARGETS)
def test_computes(device: Device, built: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATOR_CAPABILITY", "8.0" if which == "sm_80" else "9.0")
    device.driver.reset()
    add_one = device.load(image(built, "add_one", which), "add_one")
    x = torch.arange(300, dtype=torch.float32)
    given, taken = device.upload(x), device.allocate(x.nbytes)
    assert device.launch(add_one, 3, given, taken, 300) == 0
    assert torch.equal(device.download(taken, x), x + 1)
    assert device.driver.reports() == []
    monkeypatch.undo()
    device.driver.reset()


def test_machine_code_is_for_its_capability(device: Device, built: Path) -> None:
    assert device.load(image(built, "add_one", "sm_80"), "add_one")[0] == 209


FAULTS = {
    "out of bounds": (
        700,
        "kernel add_one, parameter out_ptr, launch N, program (0, 0, 0): out of bounds at address "
        "ADDRESS: 4 bytes, 0 bytes behind the end of allocation N of 400 bytes; the parameter "
        "points into allocation N of 400 bytes (line 18 of its TTIR)",
    ),
    "use after free": (
        700,
        "kernel add_one, parameter in_ptr, launch N, program (0, 0, 0): use after free at address "
        "ADDRESS: 4 bytes, 0 bytes into allocation N, which was freed (line 14 of its TTIR)",
    ),
    "uninitialised": (
        719,
        "kernel add_one, parameter in_ptr, launch N, program (0, 0, 0): uninitialised read at "
        "address ADDRESS: 0 bytes into allocation N of 1200 bytes; nothing wrote all of these 4 "
        "bytes since they were allocated (line 14 of its TTIR)",
    ),
    "misaligned": (
        716,
        "kernel add_one, parameter in_ptr, launch N, program (0, 0, 0): misaligned at address "
        "ADDRESS: elements of 4 bytes lie at multiples of 4 (line 14 of its TTIR)",
    ),
    "race": (
        719,
        "kernel race, parameter out_ptr, launch N, program (0, 0, 0): two programs write different "
        "values at address ADDRESS: 0 bytes into allocation N of 1200 bytes: program (1, 0, 0) "
        "wrote another value there (line 4 of its TTIR)",
    ),
}
"""The CUresult, and the whole report."""


@pytest.mark.parametrize("what", FAULTS)
def test_reports_a_fault(device: Device, built: Path, what: str) -> None:
    result, report = FAULTS[what]
    name = "race" if what == "race" else "add_one"
    kernel = device.load(image(built, name), name)
    x = torch.zeros(300)
    given = device.upload(x)
    taken = device.allocate(x.nbytes if what != "out of bounds" else 100 * 4)
    if what == "race":
        assert device.launch(kernel, 2, given) == 0
    elif what == "uninitialised":
        assert device.launch(kernel, 3, device.allocate(x.nbytes), taken, 300) == 0
    elif what == "misaligned":
        assert device.launch(kernel, 1, given + 2, taken, 10) == 0
    else:
        assert device.launch(kernel, 3, given, taken, 300) == 0
    if what == "use after free":
        device.free(given)  # the launch is still to come
    assert device.synchronize() == result
    assert only_report(device.driver) == report
    # And nothing works in this context any more.
    assert device.launch(kernel, 1, given, taken, 1) == result


def test_a_fault_is_told_once_and_a_new_context_works(driver: Driver, built: Path) -> None:
    driver.reset()
    for _ in range(2):
        with Device(driver) as device:
            race = device.load(image(built, "race"), "race")
            assert device.launch(race, 2, device.upload(torch.zeros(4))) == 0
            assert device.synchronize() == 719
    assert len(driver.reports()) == 2, "each launch has a number of its own"
    driver.reset()
    with Device(driver) as device:
        race = device.load(image(built, "race"), "race")
        taken = device.upload(torch.ones(1, dtype=torch.int32))
        assert device.launch(race, 1, taken) == 0
        assert device.download(taken, torch.zeros(1, dtype=torch.int32)).item() == 0
    assert driver.reports() == []


def test_reads_what_a_driver_reads_of_machine_code(device: Device, built: Path) -> None:
    add_one = device.load(image(built, "add_one"), "add_one")
    assert device.launch(add_one, 1, 0, 0, 1, threads=256) == 1
    assert only_report(device.driver) == (
        "kernel add_one, launch N: threads of a block: 256: the kernel needs exactly 128"
    )


def test_an_argument_too_few(device: Device, built: Path) -> None:
    add_one = device.load(image(built, "add_one"), "add_one")
    given = device.upload(torch.zeros(4))
    assert device.launch(add_one, 1, given, 4) == 1
    assert only_report(device.driver) == (
        "kernel add_one, launch N: argument 4 (profile_scratch) is not there to be read; the "
        "kernel takes 5 parameters of 40 bytes: in_ptr (8), out_ptr (8), n (4), global_scratch "
        "(8), profile_scratch (8)"
    )


def test_arguments_in_a_wrong_order(device: Device, built: Path) -> None:
    add_one = device.load(image(built, "add_one"), "add_one")
    given = device.upload(torch.zeros(4))
    assert device.launch(add_one, 1, given, 4, given) == 1
    assert "argument 1 (out_ptr) is a pointer, and its value is no address" in only_report(
        device.driver
    )


def test_refuses_what_is_no_kernel(device: Device, built: Path) -> None:
    cubin = bytearray(image(built, "add_one"))
    cubin[18] = 62  # e_machine: x86-64
    assert device.load(bytes(cubin), "add_one") == (
        200,
        "not a cubin: the ELF file is for machine EM_X86_64",
    )
    assert device.load(b".version 8.0\n.target sm_90\n", "x") == (
        200,
        "the PTX has kernels none: expected exactly one",
    )


def test_asks_for_the_ttir_of_this_build(device: Device, built: Path) -> None:
    """An image that was changed after it was compiled is nobody's."""
    ptx = image(built, "add_one", "compute_90")
    result, log = device.load(ptx + b"\n// changed\n", "add_one")
    assert result == 301
    assert "which no metadata has; is SIMULATOR_KERNELS that of another build?" in log
    result, log = device.load(ptx.replace(b"add_one", b"add_two"), "add_two")
    assert result == 301
    assert log.startswith("kernel add_two: there is no add_two.ttir below SIMULATOR_KERNELS=")
