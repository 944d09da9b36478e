"""The report as Markdown: tables whose columns are aligned, to be read as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from wrapgen import expression

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")

_RIGHT: Final = "#"
"""What the heading of a column of numbers begins with; it is left out."""


def text(facts: Mapping[str, Any]) -> str:
    """Lays a report out; ``facts`` is what ``facts()`` gives."""
    sizes, where = _sizes(facts)
    parts = [f"# {facts['name']}", _overview(facts), _interface(facts)]
    for name, program in facts["programs"].items():
        targets = {
            target: described
            for target, described in facts["targets"].items()
            if described["program"] == name
        }
        parts.append(f"## {' and '.join(targets)}")
        parts.append(_memory(program, sizes))
        for target, described in targets.items():
            parts += [f"### Kernels, {target}", _kernels(described)]
        parts += ["### Launches of a run", where, _launches(program["main"], sizes)]
        if program["folding"]:
            parts += ["### Launches when weights are loaded", _folding(program, sizes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sizes(facts: Mapping[str, Any]) -> tuple[dict[str, int], str]:
    """The values of symbols that figures are for, and a sentence that says so."""
    symbols = facts["symbols"]
    if not symbols:
        return {}, ""
    words, values = "greatest", {symbol["name"]: symbol["maximum"] for symbol in symbols}
    if not all(_fits(program, values) for program in facts["programs"].values()):
        words, values = "least", {symbol["name"]: symbol["minimum"] for symbol in symbols}
    listed = ", ".join(f"{name} = {value}" for name, value in values.items())
    return values, f"Grids and bytes are at the {words} sizes: {listed}."


def _fits(program: Mapping[str, Any], sizes: Mapping[str, int]) -> bool:
    """Whether all of a program's figures are numbers of 64 bits at some sizes."""
    try:
        for step in program["main"]:
            for value in (step["reads"], step["writes"], *step["grid"]):
                expression.evaluate(value, sizes)
        for figure in ("reads", "writes", "compulsory"):
            expression.evaluate(program[figure], sizes)
    except expression.ExpressionError:
        return False
    return True


def _overview(facts: Mapping[str, Any]) -> str:
    weights = facts["weights"]
    rows = [
        [
            target,
            _version(described["driver"]),
            described["device"]["name"],
            str(len(described["kernels"])),
            amount(described["image_bytes"]),
        ]
        for target, described in facts["targets"].items()
    ]
    return (
        f"Weights: {weights['number']}, {amount(weights['nbytes'])}, digest"
        f" `{weights['digest'][:16]}...`\n\n"
        + table(["target", "driver", "lowered for", "#kernels", "#images"], rows)
    )


def _version(driver: int) -> str:
    if driver >= 10_000_000:
        return f"HIP {driver // 10_000_000}.{driver // 100_000 % 100} or newer"
    return f"CUDA {driver // 1000}.{driver % 1000 // 10} or newer"


def _interface(facts: Mapping[str, Any]) -> str:
    rows = []
    for kind in ("inputs", "outputs"):
        for spec in facts[kind]:
            if spec["kind"] == "scalar":
                rows.append([kind[:-1], spec["name"], "int64", f"scalar {spec['symbol']}", ""])
                continue
            shape = "[" + ", ".join(map(str, spec["shape"])) + "]"
            note = "written by the model" if spec["mutated"] else ""
            rows.append([kind[:-1], spec["name"], spec["dtype"], shape, note])
    lines = [table(["", "name", "dtype", "shape", ""], rows)]
    symbols = [
        f"{symbol['name']} is {symbol['minimum']} to {symbol['maximum']}"
        for symbol in facts["symbols"]
    ]
    conditions = [constraint["text"] for constraint in facts["constraints"]]
    if symbols or conditions:
        lines.append("; ".join(symbols + conditions) + ".")
    return "\n\n".join(lines)


def _memory(program: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    memory = program["memory"]
    most = ", at the most" if sizes else ""
    rows = [
        ["weights", amount(memory["weights"]), "kept on the device"],
        [
            "constants",
            amount(memory["constants"]),
            f"{len(program['constants'])}, computed from weights when these are loaded",
        ],
        ["while weights load", amount(memory["load"]), "in addition, then freed"],
        [
            "a session",
            amount(memory["session"]),
            f"{program['temporaries']} temporaries{most}",
        ],
    ]
    reads, writes, compulsory = (
        expression.evaluate(program[figure], sizes) for figure in ("reads", "writes", "compulsory")
    )
    traffic = (
        f"A run reads at the most {amount(reads)} and writes {amount(writes)}, if each launch moves"
        f" each block that it names once. Inputs, outputs, weights and constants, once each, are"
        f" {amount(compulsory)}."
    )
    options = program["options"]
    built = f"Options of lowering: {', '.join(options)}.\n\n" if options else ""
    return f"{built}{table(['memory', '#', ''], rows)}\n\n{traffic}"


def _kernels(target: Mapping[str, Any]) -> str:
    rows = []
    for kernel in target["kernels"]:
        spilled = kernel["spill_stores"] + kernel["spill_loads"]
        occupancy = kernel["occupancy"]
        config = {"warps": kernel["num_warps"], "stages": kernel["num_stages"]}
        if kernel["num_ctas"] > 1:
            config["blocks of a cluster"] = kernel["num_ctas"]
        notes = [name for name in ("cooperative", "launch_pdl") if kernel[name]]
        rows.append(
            [
                kernel["name"],
                ", ".join(
                    [f"{key} {value}" for key, value in (config | kernel["config"]).items()] + notes
                ),
                str(kernel["registers"]),
                amount(kernel["shared_memory"]),
                amount(spilled) if spilled else "",
                f"{occupancy['percent']}%",
                ", ".join(occupancy["limits"]),
                amount(kernel["image_bytes"]),
                str(kernel["launches"]["main"]),
                str(kernel["launches"]["folding"]),
            ]
        )
    if not rows:
        return "None: the model is copies and fills."
    headings = ["kernel", "configuration", "#registers", "#shared", "#spilled", "#occupancy"]
    return table([*headings, "bound by", "#image", "#of a run", "#of loading"], rows)


def _launches(steps: Sequence[Mapping[str, Any]], sizes: Mapping[str, int]) -> str:
    rows = []
    for i, step in enumerate(steps):
        grid = [expression.evaluate(extent, sizes) for extent in step["grid"]]
        rows.append(
            [
                str(i),
                step["kernel"] if step["kind"] == "launch" else step["kind"],
                " x ".join(map(str, grid)),
                amount(expression.evaluate(step["reads"], sizes)),
                amount(expression.evaluate(step["writes"], sizes)),
                _place(step),
            ]
        )
    return table(["#step", "kernel", "grid", "#reads", "#writes", "from"], rows)


def _folding(program: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
    rows = [
        [constant["name"], constant["dtype"], amount(expression.evaluate(constant["nbytes"]))]
        for constant in program["constants"]
    ]
    constants = table(["constant", "dtype", "#bytes"], rows)
    return f"{_launches(program['folding'], sizes)}\n\n{constants}"


def _place(step: Mapping[str, Any]) -> str:
    """What a step computes and where that is in the model's source."""
    ops = dict.fromkeys(source["op"].removeprefix("aten.") for source in step["sources"])
    modules = dict.fromkeys(source["module"] for source in step["sources"] if source["module"])
    lines = dict.fromkeys(_line(source) for source in step["sources"] if source["file"])
    parts = [*(", ".join(part) for part in (ops, modules) if part), *lines]
    within = f"in {step['within']}: " if step["within"] else ""
    return within + "; ".join(parts)


def _line(source: Mapping[str, str]) -> str:
    """A line of the model's source, as in ``net.py, in forward: y = self.act(x)``."""
    place = ", in ".join(part for part in (source["file"], source["function"]) if part)
    return ": ".join(part for part in (place, source["code"]) if part)


def amount(nbytes: int) -> str:
    """Bytes for a reader: ``1.5 MiB``."""
    value, unit = float(nbytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{nbytes} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; columns whose heading begins with ``#`` are numbers, to the right."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    right = [heading.startswith(_RIGHT) for heading in headings]
    titles = [heading.removeprefix(_RIGHT) for heading in headings]
    widths = [
        max(3, *(len(row[column]) for row in [titles, *cells])) for column in range(len(titles))
    ]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    ruler = [
        "-" * (width - 1) + ":" if to_right else "-" * width
        for width, to_right in zip(widths, right, strict=True)
    ]
    return "\n".join([line(titles), f"| {' | '.join(ruler)} |", *map(line, cells)])
