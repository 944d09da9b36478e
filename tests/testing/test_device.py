"""Which device is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from aoti.testing.device import DeviceError, Gpu, best_target, choose, find_gpu, runs_on

SIMULATOR = Path("simulator/libcuda.so.1")
KERNELS = {90: [Path("kernels")]}
H200 = Gpu("NVIDIA H200", 90)


@pytest.mark.parametrize(
    ("target", "capability", "expected"),
    [
        ("sm_80", 80, True),
        ("sm_80", 86, True),
        ("sm_80", 90, False),
        ("sm_86", 80, False),
        ("sm_100", 100, True),
        ("sm_100", 103, False),
        ("sm_120", 121, False),
        ("compute_100", 103, True),
        ("compute_80", 90, True),
        ("compute_90", 80, False),
        ("compute_90", 120, True),
    ],
)
def test_runs_on(target: str, capability: int, expected: bool) -> None:
    assert runs_on(target, capability) is expected


def test_best_target() -> None:
    targets = ["compute_90", "sm_80", "sm_90"]
    assert best_target(targets, 90) == "sm_90"
    assert best_target(targets, 86) == "sm_80"
    assert best_target(targets, 100) == "compute_90"
    with pytest.raises(DeviceError, match=r"none for compute capability 7\.5"):
        best_target(targets, 75)


def test_a_gpu_is_taken() -> None:
    for kind in ("auto", "gpu"):
        (device,), note = choose(kind, ["sm_90"], SIMULATOR, KERNELS, gpu=H200)
        assert (device.text, device.simulated, note) == ("NVIDIA H200", False, "")


def test_the_simulator_is_taken() -> None:
    for kind, gpu in [("auto", "there is no libcuda.so.1"), ("simulator", H200)]:
        (device,), _ = choose(kind, ["sm_90"], SIMULATOR, KERNELS, gpu=gpu)
        assert (device.text, device.simulated) == ("simulator, sm_90", True)
        assert device.environment["SIMULATOR_CAPABILITY"] == "9.0"
        assert device.environment["SIMULATOR_KERNELS"] == "kernels"


def test_a_gpu_that_cannot_run_the_library() -> None:
    other = Gpu("NVIDIA T4", 75)
    (device,), note = choose("auto", ["sm_90"], SIMULATOR, KERNELS, gpu=other)
    assert device.simulated
    assert "NVIDIA T4 has compute capability 7.5, the library code for sm_90" in note
    with pytest.raises(DeviceError, match=r"NVIDIA T4 has compute capability 7\.5"):
        choose("gpu", ["sm_90"], SIMULATOR, KERNELS, gpu=other)


def test_no_gpu_where_one_is_asked_for() -> None:
    with pytest.raises(DeviceError, match="must run on a GPU: there is no libcuda"):
        choose("gpu", ["sm_90"], SIMULATOR, KERNELS, gpu="there is no libcuda.so.1")


def test_unknown_kind() -> None:
    with pytest.raises(DeviceError, match='device "tpu" is none of auto, gpu, simulator'):
        choose("tpu", ["sm_90"], SIMULATOR, KERNELS)


def test_looking_leaves_this_process_as_it_is() -> None:
    before = Path("/proc/self/maps").read_text().count("libcuda.so")
    assert isinstance(find_gpu(), (Gpu, str))
    assert Path("/proc/self/maps").read_text().count("libcuda.so") == before
