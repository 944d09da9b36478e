"""What the tests of lowering share: from a module to a graph file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from wrapgen import intake


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
