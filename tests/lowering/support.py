"""What the tests of lowering share: from a module to a graph file, and a run on the host."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from wrapgen import intake

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
    """Saves an exported program and takes it apart as the split step does; returns the weights."""
    with tempfile.TemporaryDirectory() as scratch:
        model, weights = Path(scratch) / "model.pt2", Path(scratch) / "weights.safetensors"
        torch.export.save(program, model)
        intake.split(model, path, weights)
        return dict(safetensors.torch.load_file(weights))


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
