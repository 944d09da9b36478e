"""The shapes behind a template: what it computes, and the constants it is rendered with."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from wrapgen.lowering.templates.cost import Product, Tile

GROUP_M: Final = 8
"""Rows of tiles that are taken together, for the sake of the L2 cache."""


@dataclasses.dataclass(frozen=True, order=True)
class Convolution:
    """A two-dimensional convolution of one group, channels last.

    Tuples are (height, width). ``padding`` is on both sides.
    """

    batch: int
    in_channels: int
    out_channels: int
    in_size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def out_size(self) -> tuple[int, int]:
        """Height and width of the result, as ``torch.nn.Conv2d`` documents."""
        height, width = (
            (self.in_size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1)
            // self.stride[i]
            + 1
            for i in range(2)
        )
        return height, width

    @property
    def pointwise(self) -> bool:
        """Whether each output position reads just the input position of the same place."""
        return (self.kernel, self.stride, self.padding) == ((1, 1), (1, 1), (0, 0))

    def collapsed(self) -> Convolution:
        """The same convolution with the kernel positions of a row taken for more channels.

        Without padding along the width those positions are neighbours in memory, channels last, in
        the image as in the weight: one long step instead of several short ones. ``in_size`` becomes
        what leaves ``out_size`` alone; strides in memory are not changed.
        """
        if self.padding[1] or self.dilation[1] != 1 or self.kernel[1] == 1:
            return self
        return dataclasses.replace(
            self,
            in_channels=self.kernel[1] * self.in_channels,
            in_size=(self.in_size[0], (self.out_size[1] - 1) * self.stride[1] + 1),
            kernel=(self.kernel[0], 1),
        )

    def product(self, itemsize: int) -> Product:
        """The matrix product that this convolution is."""
        return Product(
            m=self.batch * self.out_size[0] * self.out_size[1],
            n=self.out_channels,
            k=self.kernel[0] * self.kernel[1] * self.in_channels,
            itemsize=itemsize,
            taps=self.kernel[0] * self.kernel[1],
            image=self.batch * self.in_channels * self.in_size[0] * self.in_size[1],
        )

    def constants(self, tile: Tile, precision: str = "ieee") -> dict[str, Any]:
        """Constants for ``product.CONVOLUTION``; ``precision`` is ``tl.dot``'s, for float32."""
        product = self.product(itemsize=2)
        return {
            **_tile_constants(product, tile, precision),
            "OUT_H": self.out_size[0],
            "OUT_W": self.out_size[1],
            "IN_H": self.in_size[0],
            "IN_W": self.in_size[1],
            "TAPS_H": self.kernel[0],
            "TAPS_W": self.kernel[1],
            "TAP_C": self.in_channels,
            "STRIDE_H": self.stride[0],
            "STRIDE_W": self.stride[1],
            "PADDING_H": self.padding[0],
            "PADDING_W": self.padding[1],
            "DILATION_H": self.dilation[0],
            "DILATION_W": self.dilation[1],
            "PADDED": any(self.padding),
            "BITS": "tl.int64" if self.kernel[0] * self.kernel[1] > 31 else "tl.int32",
        }


def matmul_constants(product: Product, tile: Tile, precision: str = "ieee") -> dict[str, Any]:
    """Constants for ``product.MATMUL``."""
    return {**_tile_constants(product, tile, precision), "K": product.k}


def steps(product: Product, tile: Tile) -> int:
    """Steps of ``block_k`` along k. No step reaches from one kernel position into the next."""
    return product.taps * _ceil(product.k // product.taps, tile.block_k)


def splits(product: Product, tile: Tile) -> int:
    """How many of ``split_k`` programs a tile have steps to do."""
    return _ceil(steps(product, tile), _ceil(steps(product, tile), tile.split_k))


def grid(product: Product, tile: Tile) -> tuple[int, int, int]:
    """Programs in x, y and z."""
    tiles = _ceil(product.m, tile.block_m) * _ceil(product.n, tile.block_n)
    return tiles, tile.split_k, 1


def _tile_constants(product: Product, tile: Tile, precision: str) -> dict[str, Any]:
    return {
        "ACC_TYPE": "tl.float32",
        "BLOCK_M": tile.block_m,
        "BLOCK_N": tile.block_n,
        "BLOCK_K": tile.block_k,
        "SPLIT_K": tile.split_k,
        "GROUP_M": GROUP_M,
        "EVEN_M": product.m % tile.block_m == 0,
        "EVEN_N": product.n % tile.block_n == 0,
        "EVEN_K": product.k // product.taps % tile.block_k == 0,
        "EVEN_SPLIT": steps(product, tile) % tile.split_k == 0,
        "M": product.m,
        "N": product.n,
        "PRECISION": f'"{precision}"',
    }


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)
