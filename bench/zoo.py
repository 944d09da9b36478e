"""The models of models/BUILD.bazel, built for the measurements of bench/peers.py.

    python bench/zoo.py OUT [NAME ...] [--size base]

For each model OUT receives ``NAME.so``, built for sm_90; ``NAME.safetensors``, those weights that
are no part of the module's state dict, such as tables of positions; and ``NAME.json``: arguments,
parameters, kernels, launches, and the seconds that each step took on one core. Weights that a seed
gives are drawn again where they are needed, so all of OUT is a few megabytes a model.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parents[1]
sys.path.insert(0, str(ROOT))

DTYPES = {"llama": "bfloat16", "t5": "bfloat16"}
"""Of the entry points whose default is not float16."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A call of the macro ``model``."""

    name: str
    family: str
    arguments: dict[str, Any]

    @property
    def dtype(self) -> str:
        return str(self.arguments.get("dtype", DTYPES.get(self.family, "float16")))

    def module(self) -> Any:
        return importlib.import_module(f"models.{self.family}")

    def build(self) -> Any:
        """The seeded network in float32."""
        keys = {"size", "decode"}
        return self.module().build(**{k: v for k, v in self.arguments.items() if k in keys})

    def inputs(self, seed: int) -> dict[str, Any]:
        """Arguments of ``forward``, floating-point in float32; of dynamic sizes the largest."""
        other = {"dtype", "dynamic"}
        options = {k: v for k, v in self.arguments.items() if k not in other}
        return dict(self.module().example_inputs(**options, seed=seed))


def catalog(size: str) -> dict[str, Model]:
    """The models by name, as models/BUILD.bazel declares them."""
    tree = ast.parse((ROOT / "models" / "BUILD.bazel").read_text())
    found = {}
    for node in tree.body:
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            continue
        call = node.value
        if not (isinstance(call.func, ast.Name) and call.func.id == "model"):
            continue
        fields = {k.arg: ast.literal_eval(k.value) for k in call.keywords if k.arg}
        texts = fields.get("args", {}) | fields.get(size, {})
        arguments = {"size": size} | {name: _literal(text) for name, text in texts.items()}
        name = fields["name"]
        found[name] = Model(name, fields["src"].removesuffix(".py"), arguments)
    return found


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def build(model: Model, out: Path) -> None:
    """Exports and builds one model."""
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        arguments = [f"--arg={name}={value}" for name, value in sorted(model.arguments.items())]
        seconds = {
            "export": _step(
                "export", f"models/{model.family}.py", *arguments, "-o", str(work / "model.pt2")
            ),
            "build": _step(
                "build", str(work / "model.pt2"), "--name", model.name, "--target", "sm_90",
                "-o", str(work / "out"),
            ),
        }  # fmt: skip
        libraries = list((work / "out").rglob("*.so"))
        if not libraries:
            raise FileNotFoundError(f"{model.name}: wrapgen build linked no library; it says why")
        [library] = libraries
        shutil.copy(library, out / f"{model.name}.so")
        [program] = (work / "out").rglob("program.json")
        [weights] = (work / "out").rglob("*.safetensors")
        _describe(model, json.loads(program.read_text()), weights, seconds, out)


def _step(step: str, *arguments: str) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-m", "wrapgen", step, *arguments]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return round(time.perf_counter() - began, 1)


def _describe(
    model: Model, program: dict[str, Any], weights: Path, seconds: dict[str, float], out: Path
) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    network = model.build()
    state = network.state_dict()
    with safe_open(weights, framework="pt") as file:
        names = sorted(set(file.keys()) - set(state))
        constants = {name: file.get_tensor(name) for name in names}
    save_file(constants, out / f"{model.name}.safetensors")
    steps = program["main"]["steps"]
    description = {
        "name": model.name,
        "arguments": model.arguments,
        "dtype": model.dtype,
        "parameters": sum(math.prod(p.shape) for p in network.parameters()),
        "kernels": len({step["kernel"] for step in steps if step["kind"] == "launch"}),
        "launches": sum(step["kind"] == "launch" for step in steps),
        "seconds": seconds,
        "library_bytes": (out / f"{model.name}.so").stat().st_size,
    }
    (out / f"{model.name}.json").write_text(json.dumps(description, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--size", default="base", choices=("base", "small"))
    options = parser.parse_args()
    models = catalog(options.size)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.names or models:
        try:
            build(models[name], options.out)
            print(f"{name}: built", flush=True)
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            failed.append(name)
            print(f"{name}: failed: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
