"""How good the cost model's choices are on measured kernels; and a search for better coefficients.

    python bench/fit.py                      # regret of each product, coefficients as they are
    python bench/fit.py --search 2000        # random search; prints what it found, changes nothing
    python bench/fit.py --search 2000 --half # ... on half of the products, judged on the other half

Reads bench/data/tiles_h200.csv (bench/sweep.py wrote it). Regret is how much longer the chosen tile
took than the best tile measured. A split product's time is that of its kernel, as measured, and of
the kernel that adds up the parts, by the model's own line, which the sweep's ``reduce`` rows gave.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.problems import convolutions
from wrapgen.lowering.templates import cost
from wrapgen.lowering.templates.cost import Product, Tile
from wrapgen.target import DEVICES

DATA = Path(__file__).with_name("data") / "tiles_h200.csv"
DEVICE = DEVICES[90]
COEFFICIENTS = (
    "_LAUNCH", "_ROUND", "_ACCUMULATOR", "_LOAD_LATENCY", "_WGMMA", "_MMA", "_MEMORY", "_L2",
    "_STORE", "_HALF_N", "_HALF_M", "_DEPENDENT",
)  # fmt: skip

Case = tuple[str, int, Product, dict[Tile, float]]


def sum_microseconds(product: Product, tile: Tile) -> float:
    if tile.split_k == 1:
        return 0.0
    moved = product.m * product.n * (4 * tile.split_k + 2 * product.itemsize)
    return cost._SUM_LAUNCH + moved / (cost._SUM * DEVICE.bandwidth / 1e6)


def cases() -> list[Case]:
    """Name, occurrences, product, and measured microseconds of every tile."""
    found: dict[tuple[str, str], Case] = {}
    with DATA.open() as file:
        for row in csv.DictReader(file):
            key = row["problem"], row["batch"]
            if key not in found:
                conv, count = convolutions(int(row["batch"]))[row["problem"]]
                found[key] = (f"{key[0]}, batch {key[1]}", count, conv.product(2), {})
            product, times = found[key][2:]
            names = ("bm", "bn", "bk", "stages", "warps", "split")
            tile = Tile(*(int(row[name]) for name in names))
            times[tile] = float(row["us"]) + sum_microseconds(product, tile)
    return list(found.values())


def choose(case: Case) -> tuple[Tile, float]:
    """The tile the model prefers of those measured that are on the menu, and its regret."""
    _, _, product, times = case
    menu = {(t.block_m, t.block_n, t.block_k, t.num_stages, t.num_warps) for t in cost.MENU}
    allowed = [
        t
        for t in times
        if (t.block_m, t.block_n, t.block_k, t.num_stages, t.num_warps) in menu
        and cost.proved(product, t)
    ]
    tile = min(allowed, key=lambda t: (cost.seconds(product, t, DEVICE), t))
    return tile, times[tile] / min(times.values()) - 1


def score(some: list[Case]) -> float:
    """Mean regret, and regret weighted by time in the network."""
    regrets = [choose(case)[1] for case in some]
    times = [case[1] * min(case[3].values()) for case in some]
    weighted = sum(r * t for r, t in zip(regrets, times, strict=True)) / sum(times)
    return statistics.fmean(regrets) + weighted


def search(some: list[Case], tries: int) -> None:
    generator = random.Random(0)
    best = score(some)
    for _ in range(tries):
        before = {name: getattr(cost, name) for name in COEFFICIENTS}
        for name in generator.sample(COEFFICIENTS, generator.randint(1, 3)):
            setattr(cost, name, before[name] * math.exp(generator.gauss(0, 0.15)))
        now = score(some)
        if now < best:
            best = now
        else:
            for name, value in before.items():
                setattr(cost, name, value)
    for name in COEFFICIENTS:
        print(f"{name}: Final = {getattr(cost, name):.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--search", type=int, default=0, metavar="TRIES")
    parser.add_argument("--half", action="store_true")
    options = parser.parse_args()
    every = cases()
    random.Random(5).shuffle(every)
    used = every[::2] if options.half else every
    if options.search:
        search(used, options.search)
    for label, some in (("", every), ("not used in the search", every[1::2])):
        if label and not options.half:
            continue
        for case in sorted(some, key=lambda case: case[0]):
            tile, regret = choose(case)
            print(f"{case[0]:30s} {regret:6.1%} {min(case[3].values()):7.1f} us  {tile}")
        regrets = [choose(case)[1] for case in some]
        print(f"{len(some)} products {label}: regret {statistics.fmean(regrets):.1%} on average,"
              f" {max(regrets):.1%} at worst")  # fmt: skip


if __name__ == "__main__":
    main()
