"""A model file that uses everything ``aoti_export`` has to offer."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from tests.bazel.export.layers import layer


def make(width: int, kind: str, weights: str) -> torch.export.ExportedProgram:
    """Fails, and with it the build, where an argument is not what the BUILD file says."""
    assert width == 4, width
    assert kind == "a string", kind
    assert load_file(weights)["head.bias"].shape == (10,)
    model = layer(width)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.zeros_(model.bias)
    return torch.export.export(model, (torch.zeros(1, width),), strict=False)
