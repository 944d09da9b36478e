"""A wrong kernel is named; right ones are not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from aoti.testing import kernels, run
from aoti.testing.report import Report
from aoti.testing.settings import ProgramFiles, Settings
from wrapgen import intake
from wrapgen import program as program_file
from wrapgen.lowering import lower, reference
from wrapgen.program import Copy, Fill, Launch, PointerArg, Procedure, Ref
from wrapgen.target import parse

TARGET = "sm_90"


class Net(nn.Module):
    """A constant, a reduction, a product, element-wise operations in place of one another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return torch.softmax(self.head(y), -1), y.argmax(-1)


@dataclasses.dataclass(frozen=True)
class Model:
    settings: Settings
    cases: list[run.Case]

    def check(self, edit: Callable[[Path], None] = lambda _: None) -> Report:
        """Edits the lowered program, and checks it."""
        directory = self.settings.programs[0].program.parent
        before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        try:
            edit(directory)
            program = program_file.load(directory / "program.json")
            report = Report("net")
            kernels.check(self.settings, self.settings.programs[0], program, self.cases[0], report)
            return report
        finally:
            for path, data in before.items():
                path.write_bytes(data)


def settings(directory: Path, **changes: Any) -> Settings:
    files = ProgramFiles(target=TARGET, program=directory / "lowered/program.json", kernels=())
    return dataclasses.replace(
        Settings(
            name="net",
            device="simulator",
            library=directory / "libnet.so",
            weights=directory / "weights.safetensors",
            model=directory / "model.pt2",
            graph=directory / "graph.json",
            targets=(TARGET,),
            programs=(files,),
            simulator=directory / "libcuda.so.1",
            capabilities=(90,),
            sizes={},
            input_ranges={},
            tolerance={},
            seeds=1,
            check_kernels="always",
        ),
        **changes,
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    directory = tmp_path_factory.mktemp("net")
    torch.manual_seed(0)
    net = Net().eval()
    net.norm.running_var.uniform_(0.5, 2)
    exported = torch.export.export(net, (torch.randn(2, 3, 8, 8),), strict=False)
    torch.export.save(exported, directory / "model.pt2")
    intake.split(
        directory / "model.pt2", directory / "graph.json", directory / "weights.safetensors"
    )
    program = lower(directory / "graph.json", parse(TARGET), directory / "lowered", num_shards=1)
    own = settings(directory)
    return Model(own, run.prepare(own, program, Report("net")))


def replace(directory: Path, kernel: str, old: str, new: str) -> None:
    """Changes a kernel's TTIR, as if it had been compiled so."""
    (path,) = directory.rglob(f"{kernel}.ttir")
    text = path.read_text()
    assert old in text, f"{kernel} has no {old}"
    path.write_text(text.replace(old, new, 1))
    document = json.loads((directory / "program.json").read_text())
    for entry in document["kernels"]:
        if entry["name"] == kernel:
            entry["ttir_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (directory / "program.json").write_text(json.dumps(document))


def kernel_with(model: Model, *operations: str) -> str:
    for path in sorted(model.settings.programs[0].program.parent.rglob("*.ttir")):
        if all(operation in path.read_text() for operation in operations):
            return path.stem
    raise AssertionError(f"no kernel has {operations}")


def test_right_kernels(model: Model) -> None:
    report = model.check()
    assert report.passed
    assert len(report.cases) == 1


def test_buffers_bear_nodes_that_are_there_again(model: Model) -> None:
    program = program_file.load(model.settings.programs[0].program)
    made = reference.prepare(model.settings.graph, parse(TARGET))
    found = 0
    for buffer in program.main.buffers:
        if buffer.node:
            node = made.main.node(buffer.node)
            assert node is not None
            assert tuple(node.meta["val"].shape) == buffer.shape
            found += 1
    assert found
    assert len(made.main.results) == len(program.outputs)
    assert len(made.constants) == len(program.constants)


@pytest.mark.parametrize(
    ("operations", "old", "new"),
    [
        # A product, the softmax, a mean, the folding of the batch norm.
        (("tt.dot",), "dense<0.000000e+00>", "dense<1.000000e+00>"),
        (("__nv_expf",), "arith.divf", "arith.mulf"),
        (("tt.reduce", "arith.divf"), "arith.addf", "arith.subf"),
        (("__nv_rsqrtf",), "arith.mulf", "arith.addf"),
    ],
)
def test_a_wrong_kernel_is_named(
    model: Model, operations: tuple[str, ...], old: str, new: str
) -> None:
    name = kernel_with(model, *operations)
    report = model.check(lambda directory: replace(directory, name, old, new))
    assert not report.passed
    first = report.cases[0].fault.splitlines()[0]
    named = [line for line in report.cases[0].fault.splitlines() if name in line]
    assert named, report.cases[0].fault
    assert "differs from node" in first
    assert "first wrong element" in first


def test_a_wrong_number_in_the_program(model: Model) -> None:
    """As a fault of code generation would show: fewer programs in a grid than it takes."""
    changed = []

    def edit(directory: Path) -> None:
        document = json.loads((directory / "program.json").read_text())
        for step in document["main"]["steps"]:
            if not changed and step["grid"][0] > 1:
                step["grid"][0] -= 1
                changed.append(step["kernel"])
        (directory / "program.json").write_text(json.dumps(document))

    report = model.check(edit)
    assert changed
    assert not report.passed
    assert changed[0] in report.cases[0].fault


def test_what_completes_a_block() -> None:
    def launch(*args: tuple[str, str]) -> Launch:
        return Launch(
            kernel="k",
            grid=(1, 1, 1),
            args=tuple(
                PointerArg(ref=Ref(space="arena", name=name), access=access)  # type: ignore[arg-type]
                for name, access in args
            ),
            sources=(),
        )

    def ref(name: str) -> Ref:
        return Ref(space="arena", name=name)

    steps = (
        launch(("parts", "write")),
        launch(("parts", "write"), ("place", "write")),
        Fill(dst=ref("sum"), byte=0, nbytes=4, sources=()),
        launch(("parts", "read"), ("sum", "read_write")),
        launch(("sum", "read_write")),
        launch(("place", "read_write")),
        Copy(dst=ref("copy"), src=ref("place"), nbytes=4, sources=()),
    )
    procedure = Procedure(buffers=(), steps=steps)
    named = {name: step for (_, name), step in kernels.completed(procedure).items()}
    assert named == {"parts": 1, "place": 1, "sum": 3, "copy": 6}
    last = {name: step for (_, name), step in kernels.final(procedure).items()}
    assert last == {"parts": 1, "place": 5, "sum": 4, "copy": 6}


def test_other_weights_than_the_archive_s(model: Model) -> None:
    eager = run.Eager(model.settings.model)
    weights = safetensors.torch.load_file(model.settings.weights)
    summary, fault = run.same_weights(weights, eager)
    assert (summary, fault) == (f"{len(weights)} tensors as in the archive", "")
    weights["head.bias"][3] += 1
    weights["more"] = torch.zeros(1)
    weights["head.weight"] = weights["head.weight"].half()
    _, fault = run.same_weights(weights, eager)
    assert fault.splitlines() == [
        "head.bias: other values than in the archive",
        "head.weight: of another shape or dtype than in the archive",
        "more: the archive has no such tensor",
    ]
