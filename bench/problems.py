"""The distinct convolutions of ResNet-50 v1.5, and how often each occurs in it."""

from __future__ import annotations

from wrapgen.lowering.templates.geometry import Convolution

IMAGE = 224


def convolutions(batch: int) -> dict[str, tuple[Convolution, int]]:
    """Name -> (convolution, occurrences). ``stem`` has its padding and its (width, channel) runs
    materialised, as templates/convolution.py does for few channels."""
    found: dict[str, tuple[Convolution, int]] = {
        "stem": (Convolution(batch, 32, 64, (230, 223), (7, 1), (2, 2)), 1)
    }

    def add(name: str, conv: Convolution) -> None:
        for known, (other, count) in found.items():
            if other == conv:
                found[known] = (other, count + 1)
                return
        found[name] = (conv, 1)

    channels, size = 64, 56
    for layer, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            stride = 2 if layer > 1 and block == 0 else 1
            out = size // stride
            at = f"layer{layer}.{block}"
            add(f"{at}.conv1", Convolution(batch, channels, width, (size, size), (1, 1)))
            add(
                f"{at}.conv2",
                Convolution(batch, width, width, (size, size), (3, 3), (stride, stride), (1, 1)),
            )
            add(f"{at}.conv3", Convolution(batch, width, 4 * width, (out, out), (1, 1)))
            if block == 0:
                add(
                    f"{at}.downsample",
                    Convolution(
                        batch,
                        channels,
                        4 * width,
                        (size, size),
                        (1, 1),
                        (stride, stride),
                    ),
                )
            channels, size = 4 * width, out
    add("fc", Convolution(batch, 2048, 1000, (1, 1), (1, 1)))
    return found
