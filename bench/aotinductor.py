"""Checks and times a package with AOTInductor's interface in PyTorch, on the GPU at hand.

    ./bazelw build //tests/aotinductor:served.aotinductor
    python bench/aotinductor.py bazel-bin/tests/aotinductor/served.aotinductor.pt2 \\
        --src tests/aotinductor/served.py

Needs torch with CUDA, 2.11 or newer. ``--src`` is the model's file, whose ``--entry-point`` gives
the exported program: it is run eagerly beside the package, on its example inputs with other values,
and compiled by PyTorch's own AOTInductor (``--no-compile`` leaves that out) to be timed beside it.
Prints a line a check and exits with 1 if one fails.

Checked: results, on streams other than the default one, from several threads, of an input at an
address that kernels cannot read; other weights from the host, from the device, and read in place;
that a wrong input is an exception with a message. Times are medians of rounds of calls, per call:
wall, with one wait at the end of a round, and between two events on the stream.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.export.passes import move_to_device_pass
from torch.utils import _pytree as pytree

DEVICE = torch.device("cuda:0")
Call = tuple[tuple[Any, ...], dict[str, Any]]


def exported(source: Path, entry_point: str) -> torch.export.ExportedProgram:
    """The exported program of a model's file."""
    spec = importlib.util.spec_from_file_location(source.stem, source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[source.stem] = module
    spec.loader.exec_module(module)
    program = getattr(module, entry_point)()
    assert isinstance(program, torch.export.ExportedProgram)
    return program


def fresh(call: Call) -> Call:
    """The same arguments with other values; floating-point tensors are random."""

    def another(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if value.is_floating_point():
            return torch.randn_like(value, device=DEVICE)
        return value.to(DEVICE, copy=True)

    made: Call = pytree.tree_map(another, call)
    return made


def cloned(call: Call) -> Call:
    made: Call = pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, call)
    return made


def for_package(call: Call) -> Call:
    """PyTorch passes on tensors only: an integer is given as one."""

    def tensor(value: Any) -> Any:
        return torch.tensor(value) if type(value) is int else value

    made: Call = pytree.tree_map(tensor, call)
    return made


class Checks:
    """Prints what is checked, and knows whether all of it passed."""

    def __init__(self) -> None:
        self.failed = False

    def __call__(self, name: str, body: Callable[[], Any]) -> None:
        try:
            said = body()
        except Exception as fault:
            self.failed = True
            print(f"FAILED  {name}: {type(fault).__name__}: {fault}")
        else:
            print(f"passed  {name}{f': {said}' if said else ''}")


def compare(got: Any, wanted: Any, tolerance: float) -> float:
    """The worst relative L2 error of results, which nest alike; raises if one is above."""
    ours, spec = pytree.tree_flatten(got)
    theirs, other = pytree.tree_flatten(wanted)
    assert spec == other, f"results nest as {spec}, expected {other}"
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if b is None:
            assert a is None
            continue
        assert a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
        error = (a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-12)
        worst = max(worst, error.item())
    assert worst <= tolerance, f"relative error {worst:.2e} is above {tolerance:.0e}"
    return worst


def run_both(model: Any, eager: Any, call: Call, tolerance: float) -> float:
    """Compares results, and what the two have made of the arguments."""
    mine, theirs = for_package(cloned(call)), cloned(call)
    with torch.no_grad():
        wanted = eager(*theirs[0], **theirs[1])
    got = model(*mine[0], **mine[1])
    torch.cuda.synchronize()
    worst = compare(got, wanted, tolerance)
    return max(worst, compare(mine, for_package(theirs), tolerance))


def check(model: Any, eager: Any, example: Call, tolerance: float, checks: Checks) -> None:
    def streams() -> str:
        worst = 0.0
        for _ in range(3):
            with torch.cuda.stream(torch.cuda.Stream()):
                worst = max(worst, run_both(model, eager, fresh(example), tolerance))
        return f"worst relative error {worst:.1e}"

    def threads() -> None:
        faults: list[BaseException] = []

        def work() -> None:
            try:
                with torch.cuda.stream(torch.cuda.Stream()):
                    for _ in range(20):
                        run_both(model, eager, fresh(example), tolerance)
            except BaseException as fault:
                faults.append(fault)

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if faults:
            raise faults[0]

    def misaligned() -> None:
        call = fresh(example)
        leaves, spec = pytree.tree_flatten(call)
        i = next(i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor))
        whole = torch.empty(leaves[i].numel() + 1, dtype=leaves[i].dtype, device=DEVICE)
        leaves[i] = torch.as_strided(whole, leaves[i].shape, leaves[i].stride(), 1).copy_(leaves[i])
        args, keywords = pytree.tree_unflatten(leaves, spec)
        with torch.no_grad():
            wanted = eager(*cloned(call)[0], **cloned(call)[1])
        got = model(*for_package((args, keywords))[0], **for_package((args, keywords))[1])
        compare(got, wanted, tolerance)

    def wrong() -> str:
        args, keywords = for_package(fresh(example))
        try:
            model(args[0].double(), *args[1:], **keywords)
        except RuntimeError as error:
            assert "expected dtype" in str(error), error
            return str(error).splitlines()[0]
        raise AssertionError("no exception")

    checks("results on the default stream", lambda: run_both(model, eager, example, tolerance))
    checks("results on other streams", streams)
    checks("results from four threads", threads)
    checks("an input at an address that kernels cannot read", misaligned)
    checks("an input of the wrong dtype is an exception", wrong)


def check_weights(
    model: Any, program: torch.export.ExportedProgram, tolerance: float, checks: Checks
) -> None:
    """Other weights, each time others; the last are those of the program again."""
    names = set(model.get_constant_fqns())
    example = fresh(program.example_inputs)

    def other() -> dict[str, torch.Tensor]:
        return {
            name: value.detach() * (0.5 + torch.rand((), device=value.device).to(value.dtype))
            for name, value in program.state_dict.items()
            if name in names
        }

    def expect(state: dict[str, torch.Tensor]) -> None:
        changed = move_to_device_pass(program, str(DEVICE)).module()
        changed.load_state_dict(state, strict=False)
        run_both(model, changed, example, tolerance)

    def from_host() -> None:
        state = other()
        host = {name: value.cpu() for name, value in state.items()}
        # From 2.13 on PyTorch asks whether that is meant.
        meant = {"allow_h2d_copy": True} if torch.__version__ >= "2.13" else {}
        model.load_constants(host, check_full_update=True, **meant)
        expect(state)

    def from_device() -> None:
        state = {name: value.to(DEVICE) for name, value in other().items()}
        model.load_constants(state, check_full_update=True)
        expect(state)

    def in_place() -> None:
        state = {name: value.to(DEVICE) for name, value in other().items()}
        model.load_constants(state, check_full_update=True, user_managed=True)
        expect(state)
        state = {n: v.to(DEVICE) for n, v in program.state_dict.items() if n in names}
        model.load_constants(state, check_full_update=True)
        expect(state)

    checks("other weights from the host", from_host)
    checks("other weights from the device", from_device)
    checks("other weights in place, and back", in_place)


def times(run: Callable[[], Any], calls: int = 200, rounds: int = 5) -> tuple[float, float]:
    """Microseconds a call: wall, and on the stream."""
    for _ in range(20):
        run()
    wall, device = [], []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        begin = time.perf_counter()
        start.record()
        for _ in range(calls):
            run()
        end.record()
        torch.cuda.synchronize()
        wall.append((time.perf_counter() - begin) / calls * 1e6)
        device.append(start.elapsed_time(end) / calls * 1e3)
    return statistics.median(wall), statistics.median(device)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("package", type=Path)
    parser.add_argument("--src", type=Path, required=True)
    parser.add_argument("--entry-point", default="export")
    parser.add_argument("--tolerance", type=float, default=5e-3)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()

    from torch._inductor.package import load_package

    print(f"torch {torch.__version__}, {torch.cuda.get_device_name(DEVICE)}")
    program = exported(args.src, args.entry_point)
    on_device = move_to_device_pass(program, str(DEVICE))
    example = fresh(program.example_inputs)
    eager = on_device.module()
    model = load_package(str(args.package), num_runners=2)
    print(f"package: {model.get_metadata()}")
    checks = Checks()
    check(model, eager, example, args.tolerance, checks)
    check_weights(model, program, args.tolerance, checks)

    rows: dict[str, Callable[[], Any]] = {}
    given = for_package(example)
    rows["rules_aoti"] = lambda: model(*given[0], **given[1])
    if not args.no_compile:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                made = torch._inductor.aoti_compile_and_package(
                    on_device, package_path=str(Path(scratch) / "theirs.pt2")
                )
                theirs = load_package(made, num_runners=2)
            except Exception as fault:
                print(f"AOTInductor does not compile it: {type(fault).__name__}: {fault}")
            else:
                rows["AOTInductor"] = lambda: theirs(*given[0], **given[1])
    stream = torch.cuda.Stream()
    print("| what | wall us | stream us |\n| --- | --- | --- |")
    with torch.cuda.stream(stream), torch.no_grad():
        rows["eager"] = lambda: eager(*example[0], **example[1])
        for name, run in rows.items():
            wall, device = times(run)
            print(f"| {name} | {wall:.0f} | {device:.0f} |")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
