"""Convolutions of all kinds give what eager PyTorch gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.lowering.lowered_model import LoweredModel
from tests.lowering.operator_cases import Case, check


def ordinary() -> dict[str, Case]:
    r = torch.randn
    return {
        "1d": (nn.Conv1d(6, 8, 3, padding=1), (r(2, 6, 13),)),
        "1d, stride, no bias": (nn.Conv1d(16, 8, 4, stride=2, bias=False), (r(2, 16, 12),)),
        "1d, 1": (nn.Conv1d(16, 8, 1), (r(2, 16, 5),)),
        "2d": (nn.Conv2d(16, 24, 3, padding=1), (r(2, 16, 5, 7),)),
        "2d, dilated": (nn.Conv2d(16, 8, 3, dilation=(1, 2), padding=(1, 2)), (r(1, 16, 7, 8),)),
        "2d, all asymmetric": (
            nn.Conv2d(16, 8, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1)),
            (r(1, 16, 7, 9),),
        ),
        "2d, same": (nn.Conv2d(8, 8, (4, 3), padding="same"), (r(1, 8, 5, 6),)),
        "2d, valid": (nn.Conv2d(8, 8, 3, padding="valid"), (r(1, 8, 5, 6),)),
        "2d, one image": (nn.Conv2d(8, 8, 3), (r(8, 5, 6),)),
        "2d, more taps than bits": (nn.Conv2d(16, 16, 9, padding=4), (r(1, 16, 6, 7),)),
        "3d": (nn.Conv3d(16, 8, 3, padding=1), (r(2, 16, 3, 4, 5),)),
        "3d, all different": (
            nn.Conv3d(8, 16, (3, 1, 2), stride=(1, 2, 1), padding=(1, 0, 1), dilation=(1, 1, 2)),
            (r(1, 8, 4, 5, 6),),
        ),
        "3d, 1": (nn.Conv3d(16, 8, 1), (r(1, 16, 2, 3, 4),)),
        "3d, more taps than bits": (nn.Conv3d(16, 16, 5, padding=2), (r(1, 16, 3, 4, 3),)),
    }


def padded() -> dict[str, Case]:
    r = torch.randn
    return {
        mode: (nn.Conv2d(8, 8, 3, padding=(1, 2), padding_mode=mode), (r(1, 8, 5, 6),))
        for mode in ("reflect", "replicate", "circular")
    } | {
        "1d circular": (nn.Conv1d(8, 8, 3, padding=2, padding_mode="circular"), (r(1, 8, 6),)),
        "3d circular": (
            nn.Conv3d(8, 8, 2, padding=1, padding_mode="circular"),
            (r(1, 8, 3, 4, 3),),
        ),
    }


def grouped() -> dict[str, Case]:
    r = torch.randn
    return {
        "merged": (nn.Conv2d(32, 32, 3, padding=1, groups=8), (r(1, 32, 5, 6),)),
        "merged to fewer": (nn.Conv2d(96, 48, 3, groups=6, stride=2), (r(1, 96, 6, 7),)),
        "wide": (nn.Conv2d(192, 144, 3, padding=1, groups=2), (r(1, 192, 4, 5),)),
        "dilated": (nn.Conv2d(160, 160, 3, dilation=2, padding=2, groups=2), (r(1, 160, 4, 5),)),
        "1x1": (nn.Conv2d(160, 144, 1, groups=2), (r(2, 160, 3, 3),)),
        "1d": (nn.Conv1d(160, 160, 3, padding=1, groups=2), (r(2, 160, 9),)),
        "3d": (nn.Conv3d(160, 160, (1, 2, 3), groups=2), (r(1, 160, 2, 3, 4),)),
    }


def depthwise() -> dict[str, Case]:
    r = torch.randn
    return {
        "3x3": (nn.Conv2d(24, 24, 3, padding=1, groups=24), (r(2, 24, 5, 6),)),
        "3x3, stride": (nn.Conv2d(24, 24, 3, 2, 1, groups=24, bias=False), (r(2, 24, 7, 6),)),
        "7x7": (nn.Conv2d(16, 16, 7, padding=3, groups=16), (r(1, 16, 8, 9),)),
        "dilated": (nn.Conv2d(8, 8, 3, padding=4, dilation=(2, 3), groups=8), (r(1, 8, 6, 7),)),
        "multiplied": (nn.Conv2d(8, 24, 3, padding=1, groups=8), (r(1, 8, 5, 4),)),
        "13x13": (nn.Conv2d(4, 4, 13, padding=6, groups=4), (r(1, 4, 6, 5),)),
        "1d": (nn.Conv1d(16, 16, 4, padding=3, groups=16), (r(2, 16, 9),)),
        "3d": (nn.Conv3d(8, 8, 3, padding=1, groups=8), (r(1, 8, 3, 4, 5),)),
        "same": (nn.Conv2d(8, 8, 4, padding="same", groups=8), (r(1, 8, 5, 4),)),
    }


def transposed() -> dict[str, Case]:
    r = torch.randn
    return {
        "1d": (nn.ConvTranspose1d(8, 16, 4, stride=2, padding=1), (r(2, 8, 6),)),
        "2d, kernel as stride": (nn.ConvTranspose2d(16, 8, 2, stride=2), (r(2, 16, 3, 4),)),
        "2d, 4 by 2": (nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1), (r(1, 16, 4, 3),)),
        "2d, output padding": (
            nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1, bias=False),
            (r(1, 8, 4, 3),),
        ),
        "2d, stride 1": (nn.ConvTranspose2d(8, 16, 3, padding=1), (r(1, 8, 4, 5),)),
        "2d, cut off": (nn.ConvTranspose2d(8, 8, 3, padding=3), (r(1, 8, 9, 8),)),
        "2d, all different": (
            nn.ConvTranspose2d(
                8, 8, (3, 2), stride=(3, 1), padding=(2, 0), output_padding=(1, 0), dilation=(1, 3)
            ),
            (r(1, 8, 4, 5),),
        ),
        "2d, dilated": (
            nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1, dilation=2),
            (r(1, 8, 4, 3),),
        ),
        "2d, dilated by 3": (
            nn.ConvTranspose2d(8, 8, 3, stride=2, padding=2, output_padding=1, dilation=3),
            (r(1, 8, 4, 3),),
        ),
        "2d, kernel below stride": (nn.ConvTranspose2d(8, 8, 1, stride=2), (r(1, 8, 3, 4),)),
        "2d, grouped": (
            nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, groups=2),
            (r(1, 16, 4, 3),),
        ),
        "2d, depthwise": (
            nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=8, bias=False),
            (r(1, 8, 4, 3),),
        ),
        "2d, one image": (nn.ConvTranspose2d(8, 8, 2, stride=2), (r(8, 3, 4),)),
        "3d": (
            nn.ConvTranspose3d(8, 8, (2, 3, 2), stride=(2, 2, 1), padding=(0, 1, 1)),
            (r(1, 8, 2, 3, 4),),
        ),
    }


CASES = {
    "ordinary": ordinary,
    "padded": padded,
    "grouped": grouped,
    "depthwise": depthwise,
    "transposed": transposed,
}


@pytest.mark.parametrize("family", sorted(CASES))
def test_matches_eager(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = check(CASES[family](), torch.float16, tmp_path)
    assert not {kernel.template for kernel in program.kernels} - {
        "",
        "channels_last_convolution",
        "matrix_product",
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_types(dtype: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    wanted = {
        "ordinary": ("1d", "2d, dilated", "3d"),
        "grouped": ("merged", "dilated"),
        "depthwise": ("3x3", "7x7"),
        "transposed": ("2d, kernel as stride", "2d, 4 by 2"),
    }
    cases = {
        f"{family} {name}": CASES[family]()[name]
        for family, names in wanted.items()
        for name in names
    }
    check(cases, getattr(torch, dtype), tmp_path)


def test_float64(tmp_path: Path) -> None:
    torch.manual_seed(0)
    r = torch.randn
    cases: dict[str, Case] = {
        "2d": (nn.Conv2d(4, 4, 3, padding=1), (r(1, 4, 4, 5),)),
        "many terms": (nn.Conv2d(16, 4, 3, groups=2), (r(1, 16, 4, 5),)),
    }
    program = check(cases, torch.float64, tmp_path)
    assert all(not kernel.template for kernel in program.kernels)


class Network(nn.Module):
    """Convolutions, pooling and resampling as vision models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 24, 1)
        self.up = nn.ConvTranspose2d(24, 8, 4, stride=2, padding=1)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = F.relu6(self.norm(self.stem(x)))
        y = self.point(F.relu6(self.depth(y)))
        wide = F.interpolate(y, scale_factor=2.0, mode="bilinear")
        pooled = F.max_pool2d(F.avg_pool2d(y, 3, 1, 1), 2)
        return self.head(y.mean((2, 3))), self.up(y), wide, pooled


class Sequence(nn.Module):
    """Convolutions over one dimension, as speech models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(16, 24, 3, padding=1)
        self.second = nn.Conv1d(24, 16, 3, stride=2, padding=1)
        self.depth = nn.Conv1d(16, 16, 5, padding=2, groups=16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.gelu(self.second(F.gelu(self.first(x))))
        return y + self.depth(y)


def test_batch_known_at_run_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=9)
    model = LoweredModel(
        Network(), (torch.randn(3, 3, 12, 10),), tmp_path, dynamic_shapes={"x": {0: batch}}
    )
    for size in (1, 9, 2):
        model.check(torch.randn(size, 3, 12, 10))
    assert {kernel.template for kernel in model.program.kernels} >= {
        "channels_last_convolution",
        "matrix_product",
    }


def test_extents_known_at_run_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {i: torch.export.Dim(f"extent{i}", min=4, max=30) for i in (2, 3)}
    model = LoweredModel(
        Network(), (torch.randn(2, 3, 12, 10),), tmp_path, dynamic_shapes={"x": sizes}
    )
    for height, width in ((4, 30), (7, 5), (30, 4)):
        model.check(torch.randn(2, 3, height, width))


def test_length_known_at_run_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shapes = {
        "x": {
            0: torch.export.Dim("batch", min=1, max=4),
            2: torch.export.Dim("length", min=1, max=50),
        }
    }
    model = LoweredModel(Sequence(), (torch.randn(2, 16, 20),), tmp_path, dynamic_shapes=shapes)
    for batch, length in ((1, 1), (4, 50), (3, 17)):
        model.check(torch.randn(batch, 16, length))
