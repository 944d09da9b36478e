"""Pooling, resampling, padding and rearranging give what eager PyTorch gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.lowering.operator_cases import Case, check, launches


def pooling() -> dict[str, Case]:
    r = torch.randn
    image, volume = r(2, 3, 9, 11), r(1, 2, 5, 7, 6)
    return {
        "max 1d": (lambda x: F.max_pool1d(x, 3, 2, 1, return_indices=True), (r(2, 4, 9),)),
        "max 2d": (lambda x: F.max_pool2d(x, (3, 2), 2, 1, return_indices=True), (image,)),
        "max 2d, dilated, ceil": (
            lambda x: F.max_pool2d(x, 3, 2, 1, dilation=2, ceil_mode=True, return_indices=True),
            (image,),
        ),
        "max 2d, large": (lambda x: F.max_pool2d(x, 7, 1, 3, return_indices=True), (image,)),
        "max 3d": (lambda x: F.max_pool3d(x, 3, 2, 1, return_indices=True), (volume,)),
        "average 1d": (lambda x: F.avg_pool1d(x, 3, 2, 1, True), (r(2, 4, 9),)),
        "average 2d": (lambda x: F.avg_pool2d(x, 3, 2, 1), (image,)),
        "average 2d, without padding, ceil": (
            lambda x: F.avg_pool2d(x, (3, 4), 2, 1, ceil_mode=True, count_include_pad=False),
            (image,),
        ),
        "average 2d, divisor": (
            lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5),
            (image,),
        ),
        "average 2d, large": (lambda x: F.avg_pool2d(x, 7, 2, 3), (image,)),
        "average 2d, large, without padding, ceil": (
            lambda x: F.avg_pool2d(x, 6, 4, 3, ceil_mode=True, count_include_pad=False),
            (image,),
        ),
        "average 2d, large, divisor": (
            lambda x: F.avg_pool2d(x, 6, 2, divisor_override=3),
            (image,),
        ),
        "average 3d": (lambda x: F.avg_pool3d(x, 3, 2, 1), (volume,)),
        "average 3d, small": (lambda x: F.avg_pool3d(x, 2), (volume,)),
        "power": (lambda x: F.lp_pool2d(x, 2, 3), (image.abs(),)),
        "unpooled": (
            lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
            (r(1, 2, 6, 8),),
        ),
    }


def adaptive() -> dict[str, Case]:
    r = torch.randn
    image, large, volume = r(2, 3, 9, 11), r(1, 2, 23, 20), r(1, 2, 5, 7, 6)
    return {
        "average 1d": (lambda x: F.adaptive_avg_pool1d(x, 5), (r(2, 4, 9),)),
        "average 2d": (lambda x: F.adaptive_avg_pool2d(x, (5, 3)), (image,)),
        "average 2d, even": (lambda x: F.adaptive_avg_pool2d(x, (3, 11)), (image,)),
        "average 2d, one": (lambda x: F.adaptive_avg_pool2d(x, 1), (image,)),
        "average 2d, more": (lambda x: F.adaptive_avg_pool2d(x, (13, 12)), (image,)),
        "average 2d, large": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (large,)),
        "average 3d": (lambda x: F.adaptive_avg_pool3d(x, (2, 3, 4)), (volume,)),
        "average 3d, even": (lambda x: F.adaptive_avg_pool3d(x, (5, 1, 2)), (volume,)),
        "max 1d": (lambda x: F.adaptive_max_pool1d(x, 5, return_indices=True), (r(2, 4, 9),)),
        "max 2d": (lambda x: F.adaptive_max_pool2d(x, (5, 3), return_indices=True), (image,)),
        "max 2d, large": (
            lambda x: F.adaptive_max_pool2d(x, (3, 2), return_indices=True),
            (large,),
        ),
        "max 3d": (
            lambda x: F.adaptive_max_pool3d(x, (2, 3, 4), return_indices=True),
            (volume,),
        ),
        "one image": (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), (r(2, 23, 20),)),
    }


def resampling() -> dict[str, Case]:
    r = torch.randn
    line, image, volume = r(2, 3, 5), r(1, 3, 5, 7), r(1, 2, 3, 4, 5)

    def resized(x: torch.Tensor, **options: object) -> Case:
        return (lambda value: F.interpolate(value, **options), (x,))  # type: ignore[arg-type]

    return {
        "nearest 1d": resized(line, size=7),
        "nearest 2d": resized(image, scale_factor=2),
        "nearest 2d, 1.7": resized(image, scale_factor=1.7),
        "nearest 3d": resized(volume, scale_factor=(2, 1, 1.5)),
        "exact 2d": resized(image, size=(7, 9), mode="nearest-exact"),
        "exact 3d": resized(volume, size=(4, 5, 6), mode="nearest-exact"),
        "linear": resized(line, size=9, mode="linear"),
        "bilinear": resized(image, size=(9, 4), mode="bilinear"),
        "bilinear, aligned": resized(image, scale_factor=1.7, mode="bilinear", align_corners=True),
        "bilinear, scale used": resized(
            image, scale_factor=1.7, mode="bilinear", recompute_scale_factor=False
        ),
        "trilinear": resized(volume, scale_factor=2, mode="trilinear"),
        "bicubic": resized(image, scale_factor=2, mode="bicubic"),
        "bicubic, aligned": resized(image, size=(4, 9), mode="bicubic", align_corners=True),
        "area": resized(image, size=(3, 4), mode="area"),
    }


def antialiased() -> dict[str, Case]:
    x = torch.randn(1, 2, 13, 9)

    def resized(**options: object) -> Case:
        return (lambda v: F.interpolate(v, antialias=True, **options), (x,))  # type: ignore[arg-type]

    return {
        "smaller": resized(size=(5, 4), mode="bilinear"),
        "larger": resized(scale_factor=1.6, mode="bilinear"),
        "aligned": resized(size=(5, 6), mode="bilinear", align_corners=True),
        "bicubic": resized(size=(5, 12), mode="bicubic"),
    }


def sampling() -> dict[str, Case]:
    r = torch.randn
    image, grid = r(2, 2, 5, 7), 0.7 * r(2, 3, 4, 2)
    volume, places = r(2, 2, 4, 5, 6), 0.7 * r(2, 2, 3, 2, 3)

    def sampled(x: torch.Tensor, at: torch.Tensor, *options: object) -> Case:
        mode, padding, align = options
        return (
            lambda x, at: F.grid_sample(x, at, str(mode), str(padding), bool(align)),
            (x, at),
        )

    return {
        "linear": sampled(image, grid, "bilinear", "zeros", False),
        "border": sampled(image, grid, "bilinear", "border", True),
        "reflection": sampled(image, grid, "bilinear", "reflection", False),
        "nearest": sampled(image, grid, "nearest", "border", True),
        "volume": sampled(volume, places, "bilinear", "zeros", False),
        "volume, border": sampled(volume, places, "bilinear", "border", True),
        "volume, reflection": sampled(volume, places, "bilinear", "reflection", False),
        "volume, nearest": sampled(volume, places, "nearest", "zeros", False),
        "affine": (lambda t: F.affine_grid(t, [2, 3, 4, 5], align_corners=False), (r(2, 2, 3),)),
    }


def rearranging() -> dict[str, Case]:
    r = torch.randn
    line, image, volume = r(2, 3, 5), r(2, 3, 5, 6), r(1, 2, 3, 4, 5)
    cases: dict[str, Case] = {
        f"pad {mode} {x.dim() - 2}d": (
            lambda x, mode=mode, pads=pads: F.pad(x, pads, mode),
            (x,),
        )
        for mode in ("reflect", "replicate", "circular")
        for x, pads in ((line, (2, 1)), (image, (2, 1, 0, 3)), (volume, (2, 1, 1, 2, 1, 0)))
    }
    return cases | {
        "pad constant": (lambda x: F.pad(x, (2, -1, 1, 3), value=1.5), (image,)),
        "pixel shuffle": (lambda x: F.pixel_shuffle(x, 2), (r(1, 8, 3, 4),)),
        "pixel unshuffle": (lambda x: F.pixel_unshuffle(x, 2), (r(1, 2, 6, 4),)),
        "channel shuffle": (lambda x: F.channel_shuffle(x, 2), (r(1, 4, 3, 4),)),
        "unfold": (lambda x: F.unfold(x, 3, padding=1, stride=2), (image,)),
        "fold": (lambda x: F.fold(x, (7, 6), 3, padding=1, stride=2), (r(2, 36, 12),)),
        "fold, dilated": (
            lambda x: F.fold(x, (8, 7), (2, 3), dilation=(3, 2), padding=(0, 1), stride=(2, 1)),
            (r(1, 12, 15),),
        ),
        "fold, one": (lambda x: F.fold(x, (4, 4), 2), (r(8, 9),)),
        "windows": (lambda x: x.unfold(2, 3, 2).contiguous(), (r(2, 4, 7),)),
    }


CASES = {
    "adaptive": adaptive,
    "pooling": pooling,
    "rearranging": rearranging,
    "resampling": resampling,
    "sampling": sampling,
}


@pytest.mark.parametrize("family", sorted(CASES))
def test_matches_eager(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    program = check(CASES[family](), torch.float32, tmp_path)
    assert set(launches(program)) <= {"pointwise", "reduction"}


def test_antialiasing(tmp_path: Path) -> None:
    torch.manual_seed(0)
    check(antialiased(), torch.float32, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    names = {
        "pooling": ("max 2d", "average 2d, large"),
        "adaptive": ("average 2d", "average 2d, large", "max 3d"),
        "resampling": ("nearest 2d", "bilinear", "bicubic"),
        "rearranging": ("fold", "pad circular 2d"),
    }
    cases = {
        f"{family} {name}": CASES[family]()[name]
        for family, wanted in names.items()
        for name in wanted
    }
    check(cases, dtype, tmp_path)
