"""Programs and TTIR of small models, as they were when somebody last looked.

A refactoring leaves them as they are. Where a change is meant, regenerate them, from the root of
the repository, and read the difference:

    python -m tests.lowering.test_golden
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.lowering import small_models, support
from wrapgen.lowering import lower
from wrapgen.target import parse

GOLDEN = Path(__file__).with_name("golden")
MODELS = ("attention", "conv_net_half", "mlp", "residual")
TARGET = "sm_90"


def produce(name: str, out: Path) -> None:
    """Lowers a model and keeps what a golden directory holds: the program and the TTIR."""
    module, args, kwargs = small_models.models()[name]
    with tempfile.TemporaryDirectory() as scratch:
        graph, lowered = Path(scratch) / "graph.json", Path(scratch) / "lowered"
        support.write_graph(support.export(module, args, kwargs), graph)
        # Which part of a path is kept depends on where the test runs; Bazel's runfiles are known.
        whole = f"tests/lowering/{Path(small_models.__file__).name}"
        graph.write_text(graph.read_text().replace(whole, Path(whole).name))
        lower(graph, parse(TARGET), lowered)
        out.mkdir(parents=True)
        shutil.copy(lowered / "program.json", out)
        for ttir in sorted(lowered.rglob("*.ttir")):
            shutil.copy(ttir, out)


@pytest.mark.parametrize("name", MODELS)
def test_golden(name: str, tmp_path: Path) -> None:
    produce(name, tmp_path / name)
    got = {path.name: path.read_text() for path in (tmp_path / name).iterdir()}
    want = {path.name: path.read_text() for path in (GOLDEN / name).iterdir()}
    hint = "; if that is meant: python -m tests.lowering.test_golden"
    assert sorted(got) == sorted(want), f"other kernels than before{hint}"
    for file in sorted(want):
        assert got[file] == want[file], f"{name}/{file} is not as before{hint}"


def main() -> None:
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name in MODELS:
        produce(name, GOLDEN / name)


if __name__ == "__main__":
    main()
