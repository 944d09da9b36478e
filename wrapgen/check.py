"""Whether a model can be lowered, and what stands in the way."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wrapgen.program import walk
from wrapgen.target import Target


@dataclasses.dataclass(frozen=True)
class Checked:
    """The answer for one target.

    Attributes:
      target: the target.
      text: for a reader: how many kernels it would have, or each operator without one, with its
        places and what to do.
      report: the same as data: ``{"schema_version", "target", "operators"}``, see
        docs/operators.md. No operators: it can be lowered.
    """

    target: Target
    text: str
    report: Mapping[str, Any]

    @property
    def lowered(self) -> bool:
        """Whether the model can be built for the target."""
        return not self.report["operators"]


def check(model: Path, targets: Sequence[Target]) -> list[Checked]:
    """Lowers the model of a ``.pt2`` file for each target and keeps nothing of it.

    Raises what split and lower raise for other reasons than operators without a kernel.
    """
    from wrapgen import intake
    from wrapgen.lowering import REPORT_VERSION, LoweringError, lower

    results: list[Checked] = []
    with tempfile.TemporaryDirectory(prefix="wrapgen-") as scratch:
        graph = Path(scratch) / "graph.json"
        intake.split(model, graph, Path(scratch) / "weights.safetensors")
        for target in targets:
            try:
                program = lower(graph, target, Path(scratch) / str(target))
            except LoweringError as error:
                if error.report is None:
                    raise
                results.append(Checked(target, str(error), error.report))
                continue
            launches = sum(step.kind == "launch" for step in walk(program.main.steps))
            results.append(
                Checked(
                    target,
                    f"{target}: {len(program.kernels)} kernels, {launches} launches a call",
                    {"schema_version": REPORT_VERSION, "target": str(target), "operators": []},
                )
            )
    return results
