"""Lowers the small models of models/ and runs them on host memory, next to eager PyTorch.

    python bench/simulated.py OUT.json [NAME ...]

For each model: parameters of both sizes; of the small one, kernels, launches, and the largest
relative L2 error of an output or an updated input against float64, of the kernels and of eager
PyTorch in the model's dtype.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import zoo
from models import seeded


def leaves(tree: Any) -> list[torch.Tensor]:
    return list(torch.utils._pytree.tree_leaves(tree))


def lower(model: zoo.Model, folder: Path) -> None:
    arguments = [f"--arg={name}={value}" for name, value in sorted(model.arguments.items())]
    graph, weights = folder / "graph.json", folder / "weights.safetensors"
    source = f"models/{model.family}.py"
    for step in (
        ["export", source, *arguments, "-o", folder / "model.pt2"],
        ["split", folder / "model.pt2", "--graph", graph, "--weights", weights],
        ["lower", graph, "--target", "sm_90", "-o", folder / "lowered"],
    ):
        command = [sys.executable, "-W", "ignore", "-m", "wrapgen", *map(str, step)]
        subprocess.run(command, cwd=zoo.ROOT, check=True)


def eager(model: zoo.Model, inputs: dict[str, Any], dtype: str) -> list[torch.Tensor]:
    """Outputs, then what the model wrote into its inputs, of weights rounded to its own dtype."""
    network = seeded.cast(seeded.cast(model.build(), model.dtype), dtype)
    given = seeded.cast(torch.utils._pytree.tree_map(torch.clone, inputs), dtype)
    with torch.no_grad():
        outputs = leaves(network(*given.values()))
    return [tensor.double() for tensor in outputs + leaves(given.get("cache", []))]


def simulate(inputs: dict[str, Any], folder: Path) -> list[torch.Tensor]:
    from safetensors.torch import load_file

    from simulator import program as simulator

    program = json.loads((folder / "lowered" / "program.json").read_text())
    names = [spec["name"] for spec in program["inputs"]]
    given = dict(zip(names, [tensor.clone() for tensor in leaves(inputs)], strict=True))
    result = simulator.run(folder / "lowered", load_file(folder / "weights.safetensors"), given)
    written = [spec["name"] for spec in program["inputs"] if spec.get("mutated")]
    outputs = [result["outputs"][spec["name"]] for spec in program["outputs"]]
    return [tensor.double() for tensor in outputs + [result["inputs"][name] for name in written]]


def parameters(model: zoo.Model) -> int:
    """The number of a model's parameters, of which none is drawn or even allocated."""
    blank = mock.patch.object(seeded, "uniform", lambda name, shape, *_: torch.empty(shape))
    bare = mock.patch.object(seeded, "fill", lambda network: network.requires_grad_(False))
    with torch.device("meta"), blank, bare:
        return sum(parameter.numel() for parameter in model.build().parameters())


def measure(model: zoo.Model, folder: Path) -> dict[str, Any]:
    """Lowers into ``folder`` and compares; returns a row of the data file."""
    if not (folder / "lowered").exists():
        lower(model, folder)
    inputs = seeded.cast(model.inputs(1), model.dtype)
    exact = eager(model, inputs, "float64")

    def error(tensors: list[torch.Tensor]) -> float:
        pairs = zip(tensors, exact, strict=True)
        return float(f"{max(((a - b).norm() / b.norm()).item() for a, b in pairs):.1e}")

    steps = json.loads((folder / "lowered" / "program.json").read_text())["main"]["steps"]
    launches = [step["kernel"] for step in steps if step["kind"] == "launch"]
    return {
        "dtype": model.dtype,
        "base_parameters": parameters(zoo.catalog("base")[model.name]),
        "parameters": parameters(model),
        "kernels": len(set(launches)),
        "launches": len(launches),
        "error": error(simulate(inputs, folder)),
        "eager_error": error(eager(model, inputs, model.dtype)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--work", type=Path, help="keeps lowered models, and takes those there")
    options = parser.parse_args()
    models = zoo.catalog("small")
    rows = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.names or models:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) if options.work is None else options.work / name
            folder.mkdir(parents=True, exist_ok=True)
            rows[name] = measure(models[name], folder)
        print(name, rows[name], flush=True)
        options.out.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
