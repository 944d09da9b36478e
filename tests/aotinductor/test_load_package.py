"""PyTorch loads a package of a model, runs it and gives it other weights, as in a server.

PyTorch for the CPU has tensors on the host only, so the package is for those; the GPU that they are
copied to is the simulator.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import aoti_load_package
from torch._inductor.package import load_package

from tests.aotinductor import served

HERE = Path("tests/aotinductor")
PACKAGE = HERE / "served_on_cpu.aotinductor.pt2"


@pytest.fixture(scope="session", autouse=True)
def simulator() -> Iterator[None]:
    """Makes the simulator the process' driver; at the end, nothing of it was misused."""
    os.environ["SIMULATOR_KERNELS"] = f"{HERE}/served.programs:{HERE}/served.kernels"
    os.environ["SIMULATOR_EXECUTOR"] = f"'{sys.executable}' -m simulator.executor"
    os.environ["SIMULATOR_QUIET"] = "1"
    driver = ctypes.CDLL(str(Path("simulator/libcuda.so.1").resolve(strict=True)))
    driver.simulator_misuse.restype = ctypes.c_char_p
    yield
    assert driver.simulator_misuse() == b""


@pytest.fixture(scope="module")
def model() -> Any:
    return load_package(PACKAGE, num_runners=2)


def eager(module: served.Served, args: Any, keywords: Any) -> tuple[Any, torch.Tensor]:
    """What the module returns, and what it makes of ``total``."""
    total = keywords["total"].clone()
    with torch.no_grad():
        return module(*args, **(keywords | {"total": total})), total


def run(model: Any, args: Any, keywords: Any) -> tuple[Any, torch.Tensor]:
    """The same of a loaded model, for which PyTorch passes on tensors only."""
    x, start = args
    total = keywords["total"].clone()
    given = keywords | {"total": total}
    return model(x, torch.tensor(start), **given), total


def check(model: Any, module: served.Served, batch: int) -> None:
    args, keywords = served.inputs(batch)
    torch.testing.assert_close(run(model, args, keywords), eager(module, args, keywords))


@pytest.mark.parametrize("batch", [1, 8])
def test_results_are_those_of_eager(model: Any, batch: int) -> None:
    """Names and nesting of arguments and results, None among them, and the one written to."""
    check(model, served.model(), batch)


def test_metadata(model: Any) -> None:
    assert model.get_metadata() == {
        "AOTI_DEVICE_KEY": "cpu",
        "RULES_AOTI_MODEL": "served",
        "RULES_AOTI_TARGETS": "sm_90",
    }
    state = set(served.model().state_dict()) - {"norm.num_batches_tracked"}
    assert set(model.get_constant_fqns()) == state | {"table"}


def test_a_view_within_a_storage(model: Any) -> None:
    """A tensor that begins in the middle of its storage."""
    args, keywords = served.inputs(4)
    whole = torch.randn(7, 16)
    args = (whole[3:], args[1])
    torch.testing.assert_close(run(model, args, keywords), eager(served.model(), args, keywords))


def test_threads(model: Any) -> None:
    """More threads than the container has runners: they wait for one another."""
    module = served.model()
    faults: list[BaseException] = []

    def work(batch: int) -> None:
        try:
            for _ in range(4):
                check(model, module, batch)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(batch,)) for batch in (1, 2, 3, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_single_threaded() -> None:
    check(aoti_load_package(PACKAGE, run_single_threaded=True), served.model(), 2)


def changed(name: str, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    (x, start), keywords = served.inputs(4)
    given = {"x": x, "start": torch.tensor(start), **keywords} | {name: value}
    return (given.pop("x"), given.pop("start")), given


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("x", torch.zeros(4, 16).half(), r"input 0 \(x\): expected dtype float32, got float16"),
        ("x", torch.zeros(4, 15), r"input 0 \(x\): dimension 1: expected size 16, got 15"),
        ("x", torch.zeros(9, 16), r"input 0 \(x\): dimension 0: expected 1 <= s0 <= 8, got s0 = 9"),
        ("x", torch.zeros(16, 4).t(), r"input 0 \(x\): dimension 1: expected stride 1, got 4"),
        ("x", torch.zeros(4, 16).to_sparse(), r"input 0 \(x\): expected a dense tensor"),
        ("x", torch.zeros(4, 16, dtype=torch.complex128), r"input 0 \(x\): expected dtype float32"),
        ("scale", torch.zeros(3, 8), r"input 3 \(scale\): dimension 0: expected size 4"),
        ("start", 3, r"expected 4 inputs, got 3; args\[1\] is an integer.*torch.tensor\(start\)"),
        ("start", torch.tensor(101), r"input 1 \(start\): expected 0 <= "),
        ("start", torch.tensor(1.0), r"input 1 \(start\): expected dtype int64, got float32"),
    ],
)
def test_wrong_arguments(model: Any, name: str, value: Any, message: str) -> None:
    args, keywords = changed(name, value)
    with pytest.raises(RuntimeError, match=message):
        model(*args, **keywords)
    check(model, served.model(), 4)  # as before


def other(seed: int) -> served.Served:
    """The module with other weights."""
    torch.manual_seed(seed)
    return served.Served().eval()


def weights(module: served.Served) -> dict[str, torch.Tensor]:
    """As a server has them: a state dict. Tensors that the module only mentions are not in it."""
    state = module.state_dict()
    del state["norm.num_batches_tracked"]  # of no use to the model
    return dict(state)


def test_other_weights() -> None:
    """All of them, some of them, and those which only constants are made of."""
    model = aoti_load_package(PACKAGE)
    check(model, served.model(), 3)
    module = other(1)
    model.load_constants(weights(module), check_full_update=True)
    check(model, module, 3)
    with torch.no_grad():
        module.norm.weight.mul_(2)
        module.table.add_(1)
    some = {"norm.weight": module.norm.weight.detach(), "table": module.table}
    model.load_constants(some, check_full_update=False)
    check(model, module, 3)


def test_some_other_weights_first() -> None:
    """Constants are made of new and old weights; the old ones are read from the package again."""
    model = aoti_load_package(PACKAGE)
    module = served.model()
    with torch.no_grad():
        module.norm.bias.add_(1)
    model.load_constants({"norm.bias": module.norm.bias.detach()}, check_full_update=False)
    check(model, module, 3)


def test_weights_in_other_layouts() -> None:
    model = aoti_load_package(PACKAGE)
    module = other(2)
    state = weights(module)
    state["first.weight"] = state["first.weight"].t().contiguous().t()
    state["head.weight"] = torch.stack([state["head.weight"]] * 2, 2)[:, :, 1]
    model.load_constants(state, check_full_update=True)
    check(model, module, 3)


@pytest.mark.parametrize(
    ("change", "full", "message"),
    [
        ({"head.bias": None}, True, "parameter head.bias is missing, and check_full_update asks"),
        ({"head.bias": torch.zeros(5)}, False, r"head\.bias.*\[4\].*\[5\]"),
        ({"head.bias": torch.zeros(4).half()}, False, r"head\.bias.*float16"),
        ({"head.bias": torch.zeros(4).to_sparse()}, False, "constant head.bias: expected a dense"),
        ({"nothing": torch.zeros(4)}, False, "Constant not found: nothing"),
    ],
)
def test_wrong_weights(model: Any, change: dict[str, Any], full: bool, message: str) -> None:
    state = weights(other(3)) | change
    given = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(RuntimeError, match=message):
        model.load_constants(given, check_full_update=full)
    check(model, served.model(), 2)  # as before


def test_weights_in_place_are_on_the_device(model: Any) -> None:
    with pytest.raises(RuntimeError, match="user_managed tensors are read where they lie, on cuda"):
        model.load_constants(weights(other(3)), check_full_update=True, user_managed=True)


@pytest.fixture
def runner(tmp_path: Path) -> Any:
    """PyTorch's C++ class below a package, which can do more."""
    with zipfile.ZipFile(PACKAGE) as archive:
        archive.extractall(tmp_path)
    (library,) = tmp_path.rglob("*.so")
    return torch._C._aoti.AOTIModelContainerRunnerCpu(str(library), 2)


def run_flat(runner: Any, args: Any, keywords: Any) -> torch.Tensor:
    total = keywords["total"].clone()
    scores = runner.run([args[0], torch.tensor(args[1]), total, keywords["scale"]])[0]
    assert isinstance(scores, torch.Tensor)
    return scores


def test_two_sets_of_weights(runner: Any) -> None:
    args, keywords = served.inputs(2)
    modules = [served.model(), other(4)]
    wanted = [eager(module, args, keywords)[0]["scores"] for module in modules]

    def expect(index: int) -> None:
        torch.testing.assert_close(run_flat(runner, args, keywords), wanted[index])

    with pytest.raises(RuntimeError, match="model served has no inactive weights"):
        runner.swap_constant_buffer()
    state = weights(modules[1])
    first = {name: state.pop(name) for name in ("norm.weight", "head.bias")}
    runner.update_constant_buffer(first, True, False)  # in parts
    runner.update_constant_buffer(state, True, False)
    expect(0)
    runner.swap_constant_buffer()
    expect(1)
    runner.swap_constant_buffer()
    expect(0)
    with torch.no_grad():
        modules[1].norm.bias.add_(1)
    wanted[1] = eager(modules[1], args, keywords)[0]["scores"]
    runner.update_constant_buffer({"norm.bias": modules[1].norm.bias.detach()}, True, False)
    runner.swap_constant_buffer()
    expect(1)
    runner.free_inactive_constant_buffer()
    with pytest.raises(RuntimeError, match="no inactive weights"):
        runner.swap_constant_buffer()
    expect(1)


def test_weights_change_while_the_model_runs(runner: Any) -> None:
    """Each result is that of one set or of the other."""
    args, keywords = served.inputs(2)
    modules = [served.model(), other(5)]
    wanted = [eager(module, args, keywords)[0]["scores"] for module in modules]
    faults: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(6):
                got = run_flat(runner, args, keywords)
                assert any(torch.allclose(got, scores, atol=1e-5) for scores in wanted)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for index in (1, 0, 1):
        runner.update_constant_buffer(weights(modules[index]), True, False)
        runner.swap_constant_buffer()
    for thread in threads:
        thread.join()
    assert not faults


def test_what_is_not_offered(runner: Any) -> None:
    with pytest.raises(RuntimeError, match="does not hand out its weights"):
        runner.extract_constants_map(False)


def test_a_package_without_weights(tmp_path: Path) -> None:
    package = tmp_path / "served.pt2"
    with zipfile.ZipFile(PACKAGE) as source, zipfile.ZipFile(package, "w") as target:
        for name in source.namelist():
            if not name.endswith(".safetensors"):
                target.writestr(name, source.read(name))
    with pytest.raises(RuntimeError, match=r"/served\.safetensors: cannot be opened: No such file"):
        aoti_load_package(package)
