"""A kernel is edited, compiled alone and run with the library as it was."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from aoti.testing import caller
from tests.loading import built, net
from wrapgen.kernels import compile_kernel
from wrapgen.lowering.errors import LoweringError
from wrapgen.lowering.trace import trace
from wrapgen.target import parse


def softmax() -> tuple[str, Path]:
    """The kernel of the softmax and its shard."""
    (name,) = built.kernels("__nv_expf")
    return name, built.shard(name)


@pytest.fixture(scope="module", params=["ttir", "py"])
def edited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the softmax kernel, which multiplies by the sum instead of dividing by it,
    in blocks of one warp; edited as TTIR or as Triton."""
    name, shard = softmax()
    directory = tmp_path_factory.mktemp("edited")
    ttir = directory / f"{name}.ttir"
    if request.param == "ttir":
        text = (shard / ttir.name).read_text()
        assert text.count("arith.divf") == 1
        ttir.write_text(text.replace("arith.divf", "arith.mulf"))
    else:
        program = shard.parent.parent
        text = (program / f"sources/{name}.py").read_text()
        changed, count = re.subn(r"= \((tmp\d+) / (tmp\d+)\)", r"= (\1 * \2)", text)
        assert count == 1
        source = directory / f"{name}.py"
        source.write_text(changed)
        trace(source, program / "program.json", ttir)
    compile_kernel(shard, name, [parse("sm_90")], directory / "kernels", ttir=ttir, num_warps=1)
    return directory / "kernels"


def test_sources_are_traced_to_what_lowering_wrote(tmp_path: Path) -> None:
    program = softmax()[1].parent.parent
    sources = sorted((program / "sources").iterdir())
    assert len(sources) > 4
    for source in sources:
        out = tmp_path / source.stem
        trace(source, program / "program.json", out)
        assert out.read_bytes() == (built.shard(source.stem) / f"{source.stem}.ttir").read_bytes()


def test_a_source_of_another_kernel_is_refused(tmp_path: Path) -> None:
    name, shard = softmax()
    program = shard.parent.parent / "program.json"
    source = tmp_path / f"{name}.py"
    other = tmp_path / "other.py"
    other.write_text("")
    with pytest.raises(LoweringError, match=f"has no kernel other; it has .*{name}"):
        trace(other, program, tmp_path / "out")
    source.write_text("")
    with pytest.raises(LoweringError, match=f"has no function {name}"):
        trace(source, program, tmp_path / "out")
    text = (shard.parent.parent / f"sources/{name}.py").read_text()
    source.write_text(text.replace("xnumel,", "xnumel, ynumel,", 1))
    with pytest.raises(LoweringError, match=f"{name} takes .*ynumel.*, expected the parameters"):
        trace(source, program, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run(device: caller.Driver, x: torch.Tensor, kernels_dir: str = "") -> list[torch.Tensor]:
    with built.library(device, kernels_dir) as library:
        return built.tensors(library(built.Run(device, x)))


def test_an_edited_kernel_runs_and_all_others_as_they_were(edited: Path) -> None:
    device = built.driver(edited.parent.parent)
    x = torch.randn(7, 16, generator=torch.Generator().manual_seed(1))
    probabilities, sums = run(device, x)
    changed, same_sums = run(device, x, str(edited))
    again, _ = run(device, x)

    with torch.no_grad():
        model = net.export().module()
        expected, _ = model(x)
    torch.testing.assert_close(probabilities, expected, rtol=1e-4, atol=1e-5)
    # Where exp(logit - max) is 1, the quotient is 1 / sum.
    total = 1 / probabilities.max(-1, keepdim=True).values
    torch.testing.assert_close(changed, probabilities * total * total, rtol=1e-4, atol=1e-5)
    assert torch.equal(same_sums, sums)
    assert torch.equal(again, probabilities)
    assert not device.simulator_reports()


def test_a_kernel_of_another_build_is_refused(edited: Path, tmp_path: Path) -> None:
    (tmp_path / "sm_90").mkdir()
    (kernel,) = (edited / "sm_90").glob("*.json")
    (tmp_path / "sm_90" / "other.json").write_text(kernel.read_text())
    with pytest.raises(
        caller.CallError, match=re.escape("model net has no kernel other for sm_90")
    ):
        run(built.driver(edited.parent.parent), torch.zeros(1, 16), str(tmp_path))
