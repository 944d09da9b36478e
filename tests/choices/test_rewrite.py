"""Padding of images with few channels leaves the result alone."""

from __future__ import annotations

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from wrapgen.lowering.templates import rewrite

aten = torch.ops.aten


def convolution(stride: tuple[int, int], padding: tuple[int, int]):  # type: ignore[no-untyped-def]
    def call(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return aten.convolution.default(
            x, w, None, list(stride), list(padding), [1, 1], False, [0, 0], 1
        )

    return call


@pytest.mark.parametrize(
    ("channels", "size", "kernel", "stride", "padding", "wide"),
    [
        (3, (30, 32), (7, 7), (2, 2), (3, 3), (4, 8)),  # ResNet's first
        (3, (31, 29), (7, 7), (2, 2), (3, 3), (4, 8)),
        (3, (16, 20), (3, 3), (1, 1), (1, 1), (8, 4)),
        (3, (16, 16), (4, 4), (4, 4), (0, 0), (4, 4)),  # a patch embedding
        (3, (32, 32), (16, 16), (16, 16), (0, 0), (3, 16)),
        (5, (9, 9), (3, 3), (2, 1), (0, 2), (8, 4)),
    ],
)
def test_result_is_the_same_without_padding(
    channels: int,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    wide: tuple[int, int],
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, channels, *size).half()
    w = torch.randn(8, channels, *kernel).half() / 8
    module = make_fx(convolution(stride, padding))(x, w)
    FakeTensorProp(module).propagate(x, w)
    for node in module.graph.nodes:
        node.meta.setdefault("val", node.meta.get("val"))
    wanted = module(x, w)
    assert rewrite.widen_narrow_convolutions(module.graph, "origin") == 1
    module.recompile()
    got = module(x, w)
    assert got.shape == wanted.shape
    torch.testing.assert_close(got, wanted, rtol=2e-3, atol=2e-3)
    (node,) = module.graph.find_nodes(op="call_function", target=aten.convolution.default)
    assert node.args[4] == [0, 0]
    _, right, *_ = node.args[0].args[1]
    FakeTensorProp(module).propagate(x, w)
    weight, image = node.args[1].meta["val"], node.args[0].meta["val"]
    assert (weight.shape[1], weight.shape[3]) == wide
    assert image.shape[3] * image.shape[1] % 8 == 0
    assert stride[1] * image.shape[1] % 8 == 0
    assert right >= 0


@pytest.mark.parametrize(
    ("channels", "kernel", "dtype"),
    [(64, 3, torch.half), (1, 3, torch.half), (3, 1, torch.half), (3, 7, torch.float32)],
)
def test_other_convolutions_are_left_alone(channels: int, kernel: int, dtype: torch.dtype) -> None:
    x, w = torch.randn(1, channels, 16, 16).to(dtype), torch.randn(8, channels, kernel, kernel)
    module = make_fx(convolution((1, 1), (0, 0)))(x, w.to(dtype))
    FakeTensorProp(module).propagate(x, w.to(dtype))
    assert rewrite.widen_narrow_convolutions(module.graph, "origin") == 0
