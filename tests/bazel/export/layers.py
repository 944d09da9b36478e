"""What a model file imports."""

from __future__ import annotations

from torch import nn


def layer(width: int) -> nn.Module:
    return nn.Linear(width, width)
