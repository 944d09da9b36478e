"""Lays a benchmark's result out as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

KERNELS: Final = 25
"""How many rows the table of kernels has at most: those that take longest."""


def text(result: Mapping[str, Any]) -> str:
    """The result for a reader."""
    device = result["device"]
    memory = result["memory"]
    lines = [
        f"{result['name']}: {result['library']}, code for {result['target']}, on {device['name']}"
    ]
    if device["simulated"]:
        lines.append(
            "The simulator has no time: the figures are of the host that evaluates kernels one by"
            " one, and say nothing of a GPU."
        )
    else:
        lines.append(
            f"driver {device['driver'] // 1000}.{device['driver'] % 1000 // 10},"
            f" {device['multiprocessors']} multiprocessors, memory"
            f" {_rate(device['bandwidth'])} ({device['bandwidth_from']})"
        )
    lines += [
        "",
        f"load                {_milliseconds(result['load_us'])}, the weights from a file",
        f"weights, constants  {_amount(memory['model'])},"
        f" and {_amount(memory['load'])} while they load",
        f"a session's arena   {_amount(memory['session'])} at the most",
    ]
    for case in result["cases"]:
        lines += ["", *_case(case, simulated=device["simulated"])]
    return "\n".join(lines) + "\n"


def _case(case: Mapping[str, Any], *, simulated: bool) -> list[str]:
    sizes = ", ".join(f"{name} = {value}" for name, value in case["symbols"].items())
    rows = []
    for name, what in (("graph", "CUDA graph"), ("stream", "kernel by kernel")):
        measured = case[name]
        device, wall = measured["device_us"], measured["wall_us"]
        rows.append(
            [
                what,
                _milliseconds(measured["first_run_us"]),
                *(_us(device[figure]) for figure in ("median", "p99")),
                *(_us(wall[figure]) for figure in ("median", "p99")),
                f"{measured['runs_per_second']:.1f}",
                str(measured["runs"]),
            ]
        )
    headings = ["", "first run", "device us", "99%", "wall us", "99%", "runs/s", "runs"]
    lines = [f"sizes: {sizes}"] if sizes else []
    lines += table(headings, rows)
    if not simulated:
        floor, median = case["floor_us"], case["graph"]["device_us"]["median"]
        lines.append(
            f"floor {_us(floor)} us: {_amount(case['compulsory'])} of inputs, outputs, weights and"
            f" constants, once each, at the memory's rate; a run takes {median / floor:.1f} of it"
            if floor
            else "floor: the memory's rate is not known"
        )
    lines += ["", *_kernels(case, simulated=simulated)]
    return lines


def _kernels(case: Mapping[str, Any], *, simulated: bool) -> list[str]:
    """Launches of one kernel together, those that take longest first."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for launch in case["launches"]:
        groups[launch["what"]].append(launch)
    total = sum(launch["us"] for launch in case["launches"])
    ordered = sorted(
        groups.items(), key=lambda item: (-sum(each["us"] for each in item[1]), item[0])
    )
    rows = []
    for name, launches in ordered[:KERNELS]:
        took = sum(launch["us"] for launch in launches)
        floors = [launch["floor_us"] for launch in launches]
        places = dict.fromkeys(launch["from"] for launch in launches if launch["from"])
        place, *others = places or [""]
        rows.append(
            [
                name,
                str(len(launches)),
                _us(took),
                f"{100 * took / total:.1f}%" if total else "",
                _us(sum(floors)) if None not in floors else "",
                place + (f" and {len(others)} more" if others else ""),
            ]
        )
    headings = ["launched", "launches", "us", "of all", "floor us", "from"]
    lines = table(headings, rows, text_columns=(0, 5))
    if len(ordered) > KERNELS:
        lines.append(f"and {len(ordered) - KERNELS} more kernels, in the JSON")
    if not simulated:
        lines.append(
            f"all {len(case['launches'])} launches {_us(total)} us, each between two events, which"
            f" show {_us(case['empty_us'])} us where nothing is between them. Floor: the bytes of"
            " the blocks a launch names, once each, at the memory's rate."
        )
    return lines


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[int] = (0,)
) -> list[str]:
    """Aligned columns, numbers to the right."""
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    return [
        "  ".join(
            cell.ljust(width) if i in text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [headings, *rows]
    ]


def _us(value: float) -> str:
    return f"{value:.1f}"


def _milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1e3:.1f} ms"


def _amount(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):.2f} MiB"


def _rate(bandwidth: float) -> str:
    return f"{bandwidth / 1e12:.2f} TB/s" if bandwidth else "at an unknown rate"
