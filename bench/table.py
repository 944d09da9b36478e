"""The tables of docs/models.md, from bench/data: ``python -m bench.table`` rewrites the page.

``models_small.json`` is what bench/simulated.py wrote, ``models_h200.json`` what bench/peers.py
did.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parents[1]
PAGE = ROOT / "docs" / "models.md"
DATA = ROOT / "bench" / "data"
PEERS = ("eager", "eager graph", "compile", "max-autotune", "rules_aoti")


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def simulated(rows: dict[str, dict[str, Any]]) -> str:
    """Every model's small size on the simulator."""
    head = ["model", "dtype", "parameters, base", "parameters, small", "kernels", "launches"]
    head += ["error", "eager's error"]
    return table(
        head,
        [
            [
                f"`{name}`",
                row["dtype"],
                f"{row['base_parameters'] / 1e6:.2f} M",
                f"{row['parameters'] / 1e6:.2f} M",
                str(row["kernels"]),
                str(row["launches"]),
                f"{row['error']:.1e}",
                f"{row['eager_error']:.1e}",
            ]
            for name, row in sorted(rows.items())
        ],
    )


def measured(data: dict[str, Any] | None) -> str:
    """The base sizes on a GPU; nothing where nothing has been measured."""
    if data is None:
        return "Not measured yet: there is no `bench/data/models_h200.json`."
    head = ["model", "kernels", "launches", "build, s", "error", "eager's error"]
    head += [f"{kind}, us" for kind in PEERS]
    rows = []
    for row in data["models"]:
        times = [row["times"].get(kind, {}).get("device_us") for kind in PEERS]
        rows.append(
            [
                f"`{row['name']}`",
                str(row["kernels"]),
                str(row["launches"]),
                f"{sum(row['seconds'].values()):.0f}",
                f"{row['numerics']['error']:.1e}",
                f"{row['numerics']['eager_error']:.1e}",
                *("" if each is None else f"{each:.0f}" for each in times),
            ]
        )
    machine = f"{data['machine']['gpu']}, PyTorch {data['machine']['torch']}."
    return f"{machine}\n\n{table(head, rows)}"


def render(page: str) -> str:
    """The page with its tables as the data files have them."""
    gpu = DATA / "models_h200.json"
    tables = {
        "simulated": simulated(json.loads((DATA / "models_small.json").read_text())),
        "measured": measured(json.loads(gpu.read_text()) if gpu.exists() else None),
    }
    for name, text in tables.items():
        block = f"<!-- {name} -->\n{text}\n<!-- end -->"
        page, count = re.subn(
            rf"<!-- {name} -->\n.*?<!-- end -->", lambda _, block=block: block, page, flags=re.S
        )
        assert count == 1, f"{PAGE.name} has no place for the table {name!r}"
    return page


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
