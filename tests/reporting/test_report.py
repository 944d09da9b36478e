"""The report is as the golden files say, and says of each launch what the program says."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.codegen import samples
from wrapgen import cli, expression, program, reporting
from wrapgen.codegen import CodegenError
from wrapgen.program import Program, Symbol
from wrapgen.reporting.facts import total
from wrapgen.reporting.occupancy import Occupancy, bound
from wrapgen.reporting.text import amount, table
from wrapgen.target import DEVICES, Target, parse

GOLDEN: Final = Path(__file__).with_name("golden")
UPDATE: Final = "UPDATE_GOLDEN"

SAMPLES: dict[str, tuple[Callable[[str], Program], tuple[str, ...]]] = {
    "control": (samples.control, ("sm_90",)),
    "conv_chain": (samples.conv_chain, ("sm_80", "sm_90", "compute_90")),
    "copies": (samples.copies, ("sm_90",)),
    "dynamic": (samples.dynamic, ("sm_90",)),
    "hip": (samples.elementwise, ("gfx942",)),
    "launches": (samples.launches, ("sm_90",)),
}


def facts(name: str, scratch: Path) -> dict[str, Any]:
    make, names = SAMPLES[name]
    targets = [parse(each) for each in names]
    programs = {lowering: make(str(lowering)) for lowering in {t.lowering for t in targets}}
    kernels = samples.write_kernels(scratch, next(iter(programs.values())), *targets)
    return reporting.facts(name, programs, [kernels], targets)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("suffix", ["json", "md"])
def test_golden(name: str, suffix: str, tmp_path: Path) -> None:
    found = facts(name, tmp_path)
    made = program.canonical_json(found) if suffix == "json" else reporting.text(found)
    golden = GOLDEN / f"{name}.{suffix}"
    if UPDATE in os.environ:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(made)
    assert made == golden.read_text(), f"{golden} differs; run again with {UPDATE}=1 and look"


def test_command_line(tmp_path: Path) -> None:
    sample = samples.conv_chain()
    kernels = samples.write_kernels(tmp_path / "kernels", sample, parse("sm_90"))
    (tmp_path / "program.json").write_text(program.dumps(sample))
    arguments = ["report", "--name", "net", "--target", "sm_90"]
    arguments += ["--program", f"sm_90={tmp_path / 'program.json'}", "--kernels", str(kernels)]
    arguments += ["--text", str(tmp_path / "a.md"), "--json", str(tmp_path / "a.json")]
    assert cli.main(arguments) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert [step["kernel"] for step in found["programs"]["sm_90"]["main"]] == [
        getattr(step, "kernel", "") for step in sample.main.steps
    ]
    assert (tmp_path / "a.md").read_text() == reporting.text(found)


def test_a_kernel_that_is_missing_is_named(tmp_path: Path, capsys: Any) -> None:
    sample = samples.elementwise()
    (tmp_path / "program.json").write_text(program.dumps(sample))
    arguments = ["report", "--name", "net", "--target", "sm_90", "--kernels", str(tmp_path)]
    arguments += ["--program", f"sm_90={tmp_path / 'program.json'}"]
    arguments += ["--text", str(tmp_path / "a.md"), "--json", str(tmp_path / "a.json")]
    assert cli.main(arguments) == 1
    assert f"kernel {sample.kernels[0].name} is not compiled for sm_90" in capsys.readouterr().err
    assert not (tmp_path / "a.md").exists()


def test_metadata_without_registers_is_refused(tmp_path: Path) -> None:
    sample, target = samples.elementwise(), parse("sm_90")
    kernels = samples.write_kernels(tmp_path, sample, target)
    path = kernels / "sm_90" / f"{sample.kernels[0].name}.json"
    metadata = json.loads(path.read_text())
    del metadata["registers"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(CodegenError, match=r"\.json: registers: Field required"):
        reporting.facts("net", {target: sample}, [kernels], [target])


def test_bytes_of_a_launch(tmp_path: Path) -> None:
    """The second convolution: a temporary, and two addresses in one constant, which counts once."""
    found = facts("conv_chain", tmp_path)
    step = found["programs"]["sm_90"]["main"][1]
    activations, folded = 2 * 16 * 28 * 28, 2 * 2320
    assert (step["reads"], step["writes"]) == (activations + folded, activations)
    image, logits, fc = activations, 20, 2 * 10 + 2 * 160
    assert found["programs"]["sm_90"]["compulsory"] == image + 2 * folded + fc + logits


def test_bytes_at_other_sizes(tmp_path: Path) -> None:
    found = facts("dynamic", tmp_path)["programs"]["sm_90"]
    sizes = {"s0": 3, "s1": 5, "s2": 4, "u0": 0, "u1": 0}
    first = found["main"][0]
    assert expression.evaluate(first["reads"], sizes) == 4 * 3 * 5
    assert expression.evaluate(first["writes"], sizes) == 4 * 3 * 5


def test_sizes_without_a_limit_are_reported_at_the_least(tmp_path: Path) -> None:
    sample, target = samples.dynamic(), parse("sm_90")
    symbols = tuple(
        dataclasses.replace(symbol, maximum=1 << 62) if symbol.name in ("s0", "s1") else symbol
        for symbol in sample.symbols
    )
    assert all(isinstance(symbol, Symbol) for symbol in symbols)
    kernels = samples.write_kernels(tmp_path, sample, target)
    changed = dataclasses.replace(sample, symbols=symbols)
    text = reporting.text(reporting.facts("net", {target: changed}, [kernels], [target]))
    assert "Grids and bytes are at the least sizes: " in text


@pytest.mark.parametrize(
    ("target", "threads", "registers", "shared_memory", "expected"),
    [
        ("sm_90", 128, 32, 0, Occupancy(16, 100, ("threads", "registers"))),
        ("sm_90", 256, 64, 0, Occupancy(4, 50, ("registers",))),
        ("sm_90", 128, 40, 6144, Occupancy(12, 75, ("registers",))),
        ("sm_90", 32, 16, 0, Occupancy(32, 50, ("blocks",))),
        ("sm_90", 128, 32, 100 * 1024, Occupancy(2, 12, ("shared memory",))),
        ("sm_80", 128, 255, 0, Occupancy(2, 12, ("registers",))),
        ("gfx942", 256, 128, 0, Occupancy(4, 50, ("registers",))),
        ("gfx942", 256, 32, 32 * 1024, Occupancy(2, 25, ("shared memory",))),
    ],
)
def test_occupancy(
    target: str, threads: int, registers: int, shared_memory: int, expected: Occupancy
) -> None:
    """As NVIDIA's occupancy calculator has it; AMD's from the sizes of a compute unit."""
    device = parse(target).device
    found = bound(device, threads=threads, registers=registers, shared_memory=shared_memory)
    assert found == expected


@pytest.mark.parametrize("capability", DEVICES)
def test_occupancy_knows_every_device(capability: int) -> None:
    device = Target(capability, "sm").device
    assert bound(device, threads=32, registers=16, shared_memory=0).blocks > 0


def test_sums() -> None:
    assert total([]) == 0
    assert total([3, 4]) == 7
    assert total(["s0", 3, "s0 * 2", "s0"]) == "2 * (s0) + (s0 * 2) + 3"


def test_text_of_numbers_and_tables() -> None:
    assert [amount(n) for n in (0, 1023, 1024, 1536 << 20)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 GiB",
    ]
    assert table(["a", "#b"], [["x|y", "1"]]).splitlines() == [
        "| a    |   b |",
        "| ---- | --: |",
        "| x\\|y |   1 |",
    ]
