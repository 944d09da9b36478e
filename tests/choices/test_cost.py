"""The choice of tiles: within the device's limits, the same every time, and known."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.choices.resnet50 import products
from wrapgen.lowering.templates import cost, geometry
from wrapgen.lowering.templates.cost import Product, Tile
from wrapgen.target import DEVICES

GOLDEN = Path(__file__).with_name("golden") / "resnet50_tiles.json"


def chosen() -> dict[str, dict[str, list[int]]]:
    return {
        f"sm_{capability}": {
            name: list(dataclasses.astuple(cost.best(product, device)))
            for name, product in products().items()
        }
        for capability, device in sorted(DEVICES.items())
    }


def test_choices_are_those_on_record() -> None:
    """Where a change is meant: ``PYTHONPATH=. python tests/choices/test_cost.py`` rewrites them."""
    assert chosen() == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("seed", ["0", "7", "random"])
def test_choices_do_not_depend_on_the_process(seed: str) -> None:
    code = "import json; from tests.choices import test_cost; print(json.dumps(test_cost.chosen()))"
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == chosen()


SIZES = st.integers(1, 5000)


@settings(max_examples=60, deadline=None)
@given(
    m=SIZES,
    n=SIZES,
    channels=SIZES,
    taps=st.sampled_from([1, 2, 9, 25]),
    itemsize=st.sampled_from([2, 4]),
    capability=st.sampled_from(sorted(DEVICES)),
)
def test_every_product_has_a_tile_within_limits(
    m: int, n: int, channels: int, taps: int, itemsize: int, capability: int
) -> None:
    device = DEVICES[capability]
    product = Product(m=m, n=n, k=channels * taps, itemsize=itemsize, taps=taps)
    tile = cost.best(product, device)
    assert cost.shared_memory(product, tile) <= device.shared_memory_per_block_optin
    assert tile.num_warps * device.warp_size <= device.max_threads_per_block
    assert taps == 1 or tile.num_warps < 8
    assert geometry.splits(product, tile) == tile.split_k, "a program without steps"
    assert 0 < cost.seconds(product, tile, device) < 10


def test_tile_too_large_for_a_device_is_refused_there_only() -> None:
    product = Product(m=10000, n=10000, k=10000, itemsize=2)
    large = Tile(128, 256, 64, 4, 8)
    assert not cost.fits(product, large, DEVICES[80])
    assert cost.fits(product, large, DEVICES[90])


def test_few_tiles_are_split_along_k() -> None:
    """Batch 1 of ResNet-50's last 3x3 convolution has 49 x 512 results of 4608 products each."""
    product = products()["layer4.conv2, batch 1"]
    assert cost.best(product, DEVICES[90]).split_k > 1
    assert cost.best(products()["layer1.conv3, batch 32"], DEVICES[90]).split_k == 1


def test_more_work_takes_longer() -> None:
    device = DEVICES[90]
    tile = Tile(64, 64, 64, 4, 4)
    sizes = [1000, 10000, 100000]
    times = [cost.seconds(Product(m, 512, 512, 2), tile, device) for m in sizes]
    assert times == sorted(times)


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(chosen(), indent=1, sort_keys=True) + "\n")
