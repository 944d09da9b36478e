"""Weights and inputs drawn from a seed, the same on every machine, and the call that exports.

Uniform and not normal numbers: those are random bits scaled, the same on every CPU, whereas the
logarithms and cosines behind a normal number are rounded differently by each instruction set. A
tensor's seed is its name, so that another layer changes no weights of this one.

The weights are no trained weights, but every one of them has its say in the result, and activations
keep a scale that half precision holds: biases and the scales of normalisations differ between
channels, a matrix has variance 1 / fan-in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

SEED = 0


def uniform(
    name: str, shape: tuple[int, ...], low: float = -1.0, high: float = 1.0
) -> torch.Tensor:
    """Draws a float32 tensor from [low, high), seeded by ``SEED`` and its name."""
    bits = torch.rand(shape, generator=_generator(name), dtype=torch.float32, device="cpu")
    return bits * (high - low) + low


def integers(name: str, shape: tuple[int, ...], end: int) -> torch.Tensor:
    """Draws an int64 tensor from 0 to ``end - 1``."""
    return torch.randint(end, shape, generator=_generator(name), dtype=torch.int64, device="cpu")


def _generator(name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{SEED}:{name}".encode()).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def noise(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Draws float32 noise of mean 0 and variance 1."""
    bound = math.sqrt(3.0)
    return uniform(name, shape, -bound, bound)


def images(name: str, batch: int, size: int) -> torch.Tensor:
    """Draws images: float32 ``[batch, 3, size, size]``, of mean 0 and variance 1.

    Squares with noise on top: a network averages plain noise away, so that all noise images would
    get nearly the same result.
    """
    bound, square = math.sqrt(1.5), max(size // 7, 1)
    coarse = uniform(f"squares:{name}", (batch, 3, -(-size // square), -(-size // square)))
    fine = uniform(f"noise:{name}", (batch, 3, size, size), -bound, bound)
    squares = (coarse * bound).repeat_interleave(square, dim=2).repeat_interleave(square, dim=3)
    return fine + squares[:, :, :size, :size]


def fill(model: nn.Module) -> nn.Module:
    """Draws all parameters, and the statistics of batch normalisation; returns the model, in
    evaluation mode and without gradients."""
    for name, parameter in model.named_parameters():
        owner = model.get_submodule(name.rpartition(".")[0])
        low, high = _range(owner, name.rpartition(".")[2], tuple(parameter.shape))
        parameter.data = uniform(name, tuple(parameter.shape), low, high)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(uniform(name, tuple(buffer.shape), -0.25, 0.25))
        elif name.endswith("running_var"):
            buffer.copy_(uniform(name, tuple(buffer.shape), 0.5, 1.5))
    return model.eval().requires_grad_(False)


def _range(owner: nn.Module, kind: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if kind.startswith("bias"):
        return -0.1, 0.1
    if kind.startswith("weight") and len(shape) > 1:
        # A convolution without bias is followed by batch normalisation and a ReLU6, which lets less
        # than half of the variance through; with a gain for all of it, rounding errors would grow
        # from layer to layer.
        plain = isinstance(owner, nn.Conv2d) and owner.bias is None
        bound = math.sqrt((4.5 if plain else 3.0) / _fan_in(owner, shape))
        return -bound, bound
    if kind == "weight":  # of a normalisation
        return 0.75, 1.25
    if "layer_scale" in kind or kind.startswith("lambda"):
        return 0.2, 0.6
    return -0.5, 0.5  # class tokens, position embeddings


def _fan_in(owner: nn.Module, shape: tuple[int, ...]) -> float:
    if isinstance(owner, nn.ConvTranspose2d):
        return shape[0] * math.prod(shape[2:]) / math.prod(owner.stride)
    if type(owner).__name__ == "Conv1D":  # of transformers: a matrix, stored [inputs, outputs]
        return shape[0]
    return math.prod(shape[1:])


def cast(value: Any, dtype: str) -> Any:
    """Converts what is floating-point in a module's state or a tree of tensors to ``dtype``.

    Of a module, what its state dict holds: tables that it computes itself, such as the frequencies
    of rotary embeddings, stay in float32, as where a checkpoint is loaded in ``dtype``.
    """
    to = getattr(torch, dtype)
    if isinstance(value, nn.Module):
        for tensor in value.state_dict(keep_vars=True).values():
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(to)
        return value
    return torch.utils._pytree.tree_map(
        lambda leaf: (
            leaf.to(to) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf
        ),
        value,
    )


def export(
    model: nn.Module,
    inputs: Mapping[str, Any],
    dtype: str,
    dynamic_shapes: Mapping[str, Any] | None = None,
) -> torch.export.ExportedProgram:
    """Exports ``model`` in ``dtype``.

    Args:
      model: a filled module, in float32.
      inputs: the arguments of its ``forward``, in order.
      dtype: ``float16``, ``bfloat16`` or ``float32``, for weights and floating-point inputs.
      dynamic_shapes: as of ``torch.export.export``; arguments that are not named are static.
    """
    shapes = None
    if dynamic_shapes is not None:
        shapes = {name: dynamic_shapes.get(name) for name in inputs}
    arguments = tuple(cast(value, dtype) for value in inputs.values())
    return torch.export.export(cast(model, dtype), arguments, dynamic_shapes=shapes, strict=False)
