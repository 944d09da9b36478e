"""The same graph gives the same bytes wherever and in whatever order it is lowered."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.lowering import small_models, support
from wrapgen.lowering import lower
from wrapgen.target import parse

LOWER = (
    "import os, sys; from pathlib import Path; os.umask(int(sys.argv[3], 8));"
    "from wrapgen.lowering import lower; from wrapgen.target import parse;"
    "lower(Path(sys.argv[1]), parse('sm_90'), Path(sys.argv[2]))"
)


def digests(directory: Path) -> dict[str, str]:
    """Digest and mode of every file below a directory."""
    return {
        str(path.relative_to(directory)): (
            f"{path.stat().st_mode & 0o777:o} "
            + (hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory")
        )
        for path in sorted(directory.rglob("*"))
    }


def lower_elsewhere(graph: Path, place: Path, seed: str, umask: str) -> dict[str, str]:
    """Lowers in another process, directory and home, with another hash seed and umask."""
    place.mkdir(parents=True)
    environment = {
        **os.environ,
        "PYTHONHASHSEED": seed,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": str(place),
        "USER": place.name,
        "TMPDIR": str(place),
        "TZ": f"UTC+{len(seed)}",
    }
    subprocess.run(
        [sys.executable, "-c", LOWER, str(graph), str(place / "out"), umask],
        cwd=place,
        env=environment,
        check=True,
    )
    assert sorted(path.name for path in place.iterdir()) == ["out"]  # no cache is left behind
    return digests(place / "out")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "graph.json"
    module, args, _ = small_models.models()["residual"]
    support.write_graph(support.export(module, args), path)
    return path


def test_place_user_and_hash_seed_do_not_matter(graph: Path, tmp_path: Path) -> None:
    first = lower_elsewhere(graph, tmp_path / "a", "0", "022")
    second = lower_elsewhere(graph, tmp_path / "deeper" / "another_place", "12345", "077")
    assert first == second
    assert any(name.endswith(".ttir") for name in first)


def test_what_was_lowered_before_does_not_matter(graph: Path, tmp_path: Path) -> None:
    lower(graph, parse("sm_90"), tmp_path / "first")
    lower(graph, parse("sm_80"), tmp_path / "other")
    other, args, _ = small_models.models()["attention"]
    support.write_graph(support.export(other, args), tmp_path / "other.json")
    lower(tmp_path / "other.json", parse("sm_90"), tmp_path / "other")
    lower(graph, parse("compute_90"), tmp_path / "second")
    assert digests(tmp_path / "first") == digests(tmp_path / "second")
    assert digests(tmp_path / "first") == lower_elsewhere(graph, tmp_path / "c", "7", "022")


def test_weights_do_not_matter(tmp_path: Path) -> None:
    for name, factor in (("a", 1.0), ("b", -3.0)):
        module, args, _ = small_models.models()["conv_net"]
        with torch.no_grad():
            for parameter in module.parameters():
                parameter *= factor
        support.write_graph(support.export(module, args), tmp_path / f"{name}.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_changed_layer_changes_its_kernels_only(graph: Path, tmp_path: Path) -> None:
    """The negative control: what must differ does, and nothing else."""
    module, args, _ = small_models.models()["residual"]
    module.relu = nn.LeakyReLU(0.25)
    support.write_graph(support.export(module, args), tmp_path / "graph.json")
    lower(graph, parse("sm_90"), tmp_path / "before")
    lower(tmp_path / "graph.json", parse("sm_90"), tmp_path / "after")
    before, after = digests(tmp_path / "before"), digests(tmp_path / "after")
    assert before["program.json"] != after["program.json"]
    kernels = {name for name in before if name.endswith(".ttir")}
    kept = {name for name in kernels if before[name] == after.get(name)}
    assert kept and kept != kernels
    assert any("pointwise" in name for name in kept)  # folding knows no activation
