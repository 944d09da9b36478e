"""ResNet-50 v1.5 in plain ``torch.nn``, as an example of a model that rules_aoti builds.

The network is that of "Deep Residual Learning for Image Recognition" (He et al., 2015, table 1, 50
layers) with the stride of a down-sampling block in its 3x3 convolution instead of its first 1x1
("v1.5"). The keys of its state dict are those of ``torchvision.models.resnet50``, so a safetensors
file saved from there loads here.

Without a weights file the weights are drawn from a fixed seed. They are no trained weights, so the
classes mean nothing, but every layer has its say in the result: batch normalisation has statistics
and an affine transform of its own in each channel, so that a mistake in folding it shows, and the
activations keep a scale that half precision holds well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from models import seeded

CLASSES = 1000
IMAGE = {"base": 224, "small": 64}
"""Height and width of the input in pixels. The network is the same."""


class Bottleneck(nn.Module):
    """1x1 convolution, 3x3 convolution, 1x1 convolution, added to the input or its projection.

    Takes ``[batch, inputs, height, width]``; gives ``[batch, 4 * width, height / stride, ...]``.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + identity)


class ResNet50(nn.Module):
    """Takes images ``[batch, 3, image, image]``; gives logits ``[batch, 1000]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        x = torch.flatten(self.avgpool(x), 1)
        return self.fc(x)


def _stage(inputs: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    """A stage: the first block changes size, the others keep it."""
    layers = [Bottleneck(inputs, width, stride)]
    layers += [Bottleneck(width * Bottleneck.expansion, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(*layers)


def seeded_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Draws a float32 state dict for ``model``, the same on every machine.

    Convolutions follow "Delving Deep into Rectifiers" (He et al., 2015): variance 2 / fan-in. The
    last batch normalisation of a block has a small scale, so that 16 blocks added up stay in range.
    """
    weights: dict[str, torch.Tensor] = {}
    for name, old in model.state_dict().items():
        shape = tuple(old.shape)
        layer, _, kind = name.rpartition(".")
        if kind == "num_batches_tracked":
            weights[name] = torch.zeros(shape, dtype=torch.int64)
        elif len(shape) == 4:
            bound = math.sqrt(6.0 / math.prod(shape[1:]))
            weights[name] = seeded.uniform(name, shape, -bound, bound)
        elif layer == "fc":
            bound = math.sqrt(3.0 / 2048)
            weights[name] = seeded.uniform(name, shape, -bound, bound)
        elif kind == "running_mean":
            weights[name] = seeded.uniform(name, shape, -0.25, 0.25)
        elif kind == "running_var":
            weights[name] = seeded.uniform(name, shape, 0.5, 1.5)
        elif kind == "weight":
            low, high = (0.1, 0.4) if layer.endswith("bn3") else (0.6, 1.2)
            weights[name] = seeded.uniform(name, shape, low, high)
        elif kind == "bias":
            weights[name] = seeded.uniform(name, shape, -0.2, 0.2)
        else:
            raise AssertionError(f"no rule for the weight {name}")
    return weights


def _read_weights(path: str) -> Mapping[str, torch.Tensor]:
    # Here and not above: eager references are also built where safetensors is not installed.
    from safetensors.torch import load_file

    return load_file(path)


def build(size: str = "base", weights: str | None = None) -> ResNet50:
    """Builds the network in float32 on the CPU, in evaluation mode.

    Args:
      size: a key of ``IMAGE``; the network is the same for each.
      weights: path of a safetensors file with torchvision's keys, or ``None`` for seeded weights.

    Raises:
      RuntimeError: the file lacks a weight, has one too many or one of another shape.
    """
    assert size in IMAGE
    with torch.device("meta"):
        model = ResNet50()
    state = seeded_weights(model) if weights is None else _read_weights(weights)
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def example_input(batch: int = 1, seed: int = 0, image: int = 224) -> torch.Tensor:
    """Draws an input: float32 ``[batch, 3, image, image]``, of mean 0 and variance 1.

    Squares of 32 pixels with noise on top: the network averages plain noise away, so that all noise
    images would get nearly the same logits.
    """
    bound = math.sqrt(1.5)
    shape = (batch, 3, image // 32, image // 32)
    squares = seeded.uniform(f"squares:{seed}", shape, -bound, bound)
    noise = seeded.uniform(f"noise:{seed}", (batch, 3, image, image), -bound, bound)
    return noise + squares.repeat_interleave(32, dim=2).repeat_interleave(32, dim=3)


def example_inputs(size: str = "base", batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draws the arguments of ``forward``, in float32."""
    return {"x": example_input(batch, seed, IMAGE[size])}


def export(
    size: str = "base",
    batch: int = 1,
    dtype: str = "float16",
    dynamic: bool = False,
    weights: str | None = None,
) -> torch.export.ExportedProgram:
    """The entry point of ``aoti_export``.

    The program takes one tensor ``[batch, 3, image, image]``, contiguous (NCHW), and gives logits
    ``[batch, 1000]``, both of ``dtype``. With ``dynamic``, one program for every batch up to
    ``batch``.
    """
    shapes = None
    if dynamic:
        shapes = {"x": {0: torch.export.Dim("batch", min=1, max=batch)}}
        batch = 2  # an example is traced; a batch of 1 would be taken for a constant
    model = build(weights=weights)
    return seeded.export(model, example_inputs(size, batch), dtype, shapes)
