"""Programs for AMD's GPUs: what they compute, that they compile, and that no state is left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

from simulator import program as simulator
from tests.lowering import small_models, support
from tests.lowering.lowered_model import compare
from wrapgen.kernels import compile_shard
from wrapgen.lowering import lower
from wrapgen.target import parse

# Convolution, matrix product, folding; erf and float32 products; attention in float32; a scan with
# atomic updates.
MODELS = {"conv_net_half": 2e-3, "mlp": 2e-6, "attention": 2e-6, "scan": 2e-6}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_matches_eager_and_compiles(name: str, tmp_path: Path) -> None:
    """There is no simulated GPU of AMD's, but its kernels can be run one by one."""
    module, args, kwargs = small_models.models()[name]
    graph, lowered = tmp_path / "graph.json", tmp_path / "lowered"
    weights = support.write_graph(support.export(module, args, kwargs), graph)
    program = lower(graph, parse("gfx942"), lowered)
    assert program.target == "gfx942"
    names = [spec.name for spec in program.tensor_inputs]
    inputs = dict(zip(names, [*args, *kwargs.values()], strict=True))

    outputs = simulator.run(lowered, weights, inputs)["outputs"]

    with torch.no_grad():
        expected = pytree.tree_leaves(module(*args, **kwargs))
    for spec, want in zip(program.outputs, expected, strict=True):
        compare(outputs[spec.name], want, MODELS[name], spec.name)
    for shard in sorted((lowered / "shards").iterdir()):
        compile_shard(shard, [parse("gfx942")], tmp_path / "kernels" / shard.name, jobs=2)


def test_device_functions_are_amds(tmp_path: Path) -> None:
    module, args, kwargs = small_models.models()["mlp"]
    support.write_graph(support.export(module, args, kwargs), tmp_path / "graph.json")
    lower(tmp_path / "graph.json", parse("gfx90a"), tmp_path / "lowered")
    text = "".join(p.read_text() for p in (tmp_path / "lowered/shards").rglob("*.ttir"))
    assert "__ocml_erf_f32" in text and "__nv_" not in text
    # What no parameter of the program records is promised to no kernel.
    assert "tt.pointer_range" not in text


def test_one_vendors_lowering_leaves_nothing_to_the_others(tmp_path: Path) -> None:
    """Inductor and Triton remember devices; a process may lower for several targets."""
    module, args, kwargs = small_models.models()["mlp"]
    support.write_graph(support.export(module, args, kwargs), tmp_path / "graph.json")
    for number, target in enumerate(("sm_90", "gfx942", "sm_90", "gfx942")):
        lower(tmp_path / "graph.json", parse(target), tmp_path / str(number))
    trees = [
        {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (tmp_path / str(number) for number in range(4))
    ]
    assert trees[0] == trees[2] and trees[1] == trees[3] and trees[0] != trees[1]
    assert torch.version.hip is None
