"""What the tests of lowering share: from a module to a graph file, and a run on the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._export.serde import serialize

from wrapgen.program import canonical_json

HOST_RUN = Path(__file__).with_name("host_run.py")


def export(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
) -> torch.export.ExportedProgram:
    return torch.export.export(
        module, args, kwargs or {}, strict=False, dynamic_shapes=dynamic_shapes
    )


def write_graph(program: torch.export.ExportedProgram, path: Path) -> dict[str, torch.Tensor]:
    """Writes what the split step writes for an exported program; returns the weights."""
    artifact = serialize.ExportedProgramSerializer().serialize(program)
    document = serialize._dataclass_to_dict(artifact.exported_program)
    kinds = {}
    for spec in document["graph_module"]["signature"]["input_specs"]:
        ((kind, value),) = spec.items()
        if kind == "parameter":
            kinds[value["parameter_name"]] = "parameter"
        elif kind == "buffer":
            kinds[value["buffer_name"]] = "buffer"
        elif kind == "tensor_constant":
            kinds[value["tensor_constant_name"]] = "constant"
    tensors = {
        name: value
        for name, value in {**program.state_dict, **program.constants}.items()
        if name in kinds
    }
    for node in document["graph_module"]["graph"]["nodes"]:
        trace = node["metadata"].get("stack_trace")
        if trace:
            node["metadata"]["stack_trace"] = _user_frame(trace)
    path.write_text(
        canonical_json(
            {
                "schema_version": 1,
                "exported_program": document,
                "tensors": {
                    name: {
                        "dtype": str(value.dtype).removeprefix("torch."),
                        "shape": list(value.shape),
                        "strides": list(value.stride()),
                        "kind": kinds[name],
                    }
                    for name, value in tensors.items()
                },
            }
        ),
        encoding="utf-8",
    )
    return {name: value.detach() for name, value in tensors.items()}


def _user_frame(trace: str) -> str:
    """Keeps the innermost frame outside PyTorch, its file without directories."""
    lines = trace.splitlines()
    kept = ""
    for i, line in enumerate(lines):
        if line.lstrip().startswith("File ") and f"{os.sep}torch{os.sep}" not in line:
            file = Path(line.split('"')[1]).name
            number = line.split(", line ")[1].split(",")[0]
            code = lines[i + 1].strip() if i + 1 < len(lines) else ""
            kept = f'File "{file}", line {number}\n    {code}'
    return kept


def run_on_host(
    lowered: Path,
    weights: dict[str, torch.Tensor],
    inputs: dict[str, torch.Tensor],
    scratch: Path,
) -> dict[str, dict[str, torch.Tensor]]:
    """Runs a lowered program with Triton's interpreter; returns its outputs and constants."""
    source, result = scratch / "in.pt", scratch / "out.pt"
    torch.save({"weights": weights, "inputs": inputs}, source)
    done = subprocess.run(
        [sys.executable, str(HOST_RUN), str(lowered), str(source), str(result)],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, dict[str, torch.Tensor]] = torch.load(result, weights_only=True)
    return loaded
