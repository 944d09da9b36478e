"""Some products of ResNet-50, as cases."""

from __future__ import annotations

from wrapgen.lowering.templates.cost import Product
from wrapgen.lowering.templates.geometry import Convolution


def products() -> dict[str, Product]:
    cases = {}
    for batch in (1, 32):
        for name, inputs, outputs, size, kernel, stride in (
            ("stem", 32, 64, 223, 7, 2),
            ("layer1.conv1", 64, 64, 56, 1, 1),
            ("layer1.conv2", 64, 64, 56, 3, 1),
            ("layer1.conv3", 64, 256, 56, 1, 1),
            ("layer2.downsample", 256, 512, 56, 1, 2),
            ("layer2.conv2", 128, 128, 28, 3, 1),
            ("layer3.conv1", 1024, 256, 14, 1, 1),
            ("layer3.conv2", 256, 256, 14, 3, 1),
            ("layer4.conv2", 512, 512, 7, 3, 1),
            ("layer4.conv3", 512, 2048, 7, 1, 1),
            ("fc", 2048, 1000, 1, 1, 1),
        ):
            if name == "stem":
                conv = Convolution(batch, inputs, outputs, (230, size), (kernel, 1), (2, 2))
            else:
                around = kernel // 2
                conv = Convolution(
                    batch,
                    inputs,
                    outputs,
                    (size, size),
                    (kernel, kernel),
                    (stride, stride),
                    (around, around),
                )
            cases[f"{name}, batch {batch}"] = conv.product(2)
    return cases
