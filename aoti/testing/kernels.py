"""Checks each kernel against the operations it stands for, so that a wrong one is named.

The program is run on host memory by simulator/program.py, from the kernels' TTIR. Whenever a
launch completes a buffer that holds the value of a node of the lowered graph, that node is computed
by PyTorch as well: in the model's precision and in float64, from what lies in the buffers written
before. So an error is counted where it arises and not where it arrives, and each kernel is judged
by itself, right or wrong inputs alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch.fx import Node

from aoti.testing import compare
from aoti.testing.eager import EagerError, Interpreter, widened
from aoti.testing.report import Report
from aoti.testing.run import Case
from aoti.testing.settings import ProgramFiles, Settings
from simulator.interpreter import InterpreterError, KernelFault
from simulator.program import Access, Observer, run
from wrapgen import expression
from wrapgen.lowering.reference import Part, Reference, prepare
from wrapgen.program import (
    Copy,
    Fill,
    Launch,
    Procedure,
    Program,
    Ref,
    ScalarArg,
    SourceNode,
    Step,
    inner,
    walk,
)
from wrapgen.target import parse

Block = tuple[str, str]
"""A space and a name in it."""

PROCEDURES: Final = ("folding", "main")


_OTHER_SHAPE: Final = "the node's value has another shape"
"""Why a buffer is not compared that holds a view of the node's value, such as a permuted one."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """A buffer that was compared; or could not be, if ``row`` is ``None``: ``why`` says why."""

    procedure: str
    index: int
    step: Step
    block: Block
    node: str
    row: compare.Row | None
    why: str
    suspects: tuple[str, ...]

    def __str__(self) -> str:
        """Such as ``kernel conv_12ab (main, launch 17; conv2d_3, layer1.conv2, net.py: f(x))``."""
        text = f"{describe(self.procedure, self.index, self.step)}: {' '.join(self.block)}"
        if self.row is None:
            return f"{text} (node {self.node}) was not compared: {self.why}"
        if self.row.passed:
            return f"{text} (node {self.node}) is right"
        text += f" differs from node {self.node}: {self.row.fault}"
        return text + blame(self.suspects)


def blame(suspects: Sequence[str]) -> str:
    """Names the steps that may be wrong in place of the one that was found; empty for none."""
    if not suspects:
        return ""
    return "\n  or one before it, whose own result is no node's: " + "\n    ".join(suspects)


def describe(procedure: str, index: int, step: Step) -> str:
    """A step with its place in the program and in the model."""
    what = f"kernel {step.kernel}" if isinstance(step, Launch) else f"the {step.kind}"
    places = [f"{procedure}, launch {index}", *dict.fromkeys(map(_source, step.sources))]
    return f"{what} ({'; '.join(places)})"


def _source(source: SourceNode) -> str:
    line = ": ".join(part for part in (source.location, source.code) if part)
    return ", ".join(part for part in (source.name, source.module, line) if part)


def accesses(step: Step) -> Iterator[tuple[Ref, str]]:
    """Yields each address of a step with ``read``, ``write``, ``read_write`` or ``fill``. What any
    step inside a branch or a loop writes, that is written, and what is only read there, read."""
    if isinstance(step, Launch):
        for arg in step.args:
            if not isinstance(arg, ScalarArg):
                yield arg.ref, arg.access
    elif isinstance(step, Copy):
        yield step.src, "read"
        yield step.dst, "write"
    elif isinstance(step, Fill):
        yield step.dst, "fill"
    else:
        kinds: dict[Ref, str] = {step.predicate: "read"}
        for one in walk([step]):
            if not inner(one):
                for ref, access in accesses(one):
                    kinds[ref] = "read" if kinds.get(ref, "read") == access == "read" else "write"
        yield from kinds.items()


def completed(procedure: Procedure) -> dict[Block, int]:
    """For each block that the procedure writes, the step after which it holds its first value.

    That is the last one that writes it before any reads it; an update in place counts as a read,
    unless nothing but fills came before (a kernel that adds up in zeroed memory). What is written
    in parts, at several offsets, is complete when the last of them is there.
    """
    parts: dict[Block, set[Any]] = {}
    for step in procedure.steps:
        for ref, access in accesses(step):
            if access == "write":
                parts.setdefault((ref.space, ref.name), set()).add(ref.offset)
    last: dict[Block, int] = {}
    read: set[Block] = set()
    for i, step in enumerate(procedure.steps):
        kinds: dict[Block, set[str]] = {}
        for ref, access in accesses(step):
            kinds.setdefault((ref.space, ref.name), set()).add(access)
        for block, found in kinds.items():
            if block in read:
                continue
            if len(parts.get(block, ())) > 1:
                if "write" in found:
                    last[block] = i
            elif "read" in found or ("read_write" in found and block in last):
                read.add(block)
            elif found & {"write", "read_write"}:
                last[block] = i
    return last


def final(procedure: Procedure) -> dict[Block, int]:
    """For each block that the procedure writes, the last step that does."""
    return {
        (ref.space, ref.name): i
        for i, step in enumerate(procedure.steps)
        for ref, access in accesses(step)
        if access != "read"
    }


class Checker:
    """Follows one run of a program and compares.

    ``values`` holds the tensors found in memory by the name of their node, placeholders included;
    it is what later nodes are computed from.
    """

    def __init__(
        self,
        program: Program,
        reference: Reference,
        weights: Mapping[str, torch.Tensor],
        given: Mapping[str, Any],
        symbols: Mapping[str, int],
    ) -> None:
        self.program = program
        self.symbols = dict(symbols)
        self.findings: list[Finding] = []
        self._parts: dict[str, Part | None] = {
            "folding": reference.folding,
            "main": reference.main,
        }
        common = {
            node: weights[name] for node, name in reference.weights.items() if name in weights
        }
        self._values: dict[str, dict[str, Any]] = {
            "folding": dict(common),
            "main": common | dict(given),
        }
        self._constants = dict(
            zip((buffer.name for buffer in program.constants), reference.constants, strict=True)
        )
        self._due = {name: self._plan(name) for name in PROCEDURES}
        self._next = dict.fromkeys(PROCEDURES, 0)
        self._unknown: dict[Block, tuple[str, ...]] = {}

    def _plan(self, name: str) -> dict[int, list[tuple[Block, str]]]:
        """For each step of a procedure what it completes: block and node."""
        procedure: Procedure = getattr(self.program, name)
        part = self._parts[name]
        due: dict[int, list[tuple[Block, str]]] = {}
        first, last = completed(procedure), final(procedure)
        for buffer in procedure.buffers:
            block = ("arena", buffer.name)
            if buffer.node and block in first:
                due.setdefault(first[block], []).append((block, buffer.node))
        if part is not None:
            space = "constant" if name == "folding" else "output"
            wanted = self.program.constants if name == "folding" else self.program.outputs
            names = [spec.name for spec in wanted]
            for result, node in zip(names, part.results, strict=True):
                block = (space, result)
                if block in last:
                    due.setdefault(last[block], []).append((block, node.name))
        return due

    def after(self, name: str, index: int, written: Mapping[Block, torch.Tensor]) -> None:
        """Compares what a step of a procedure completed; ``written`` are the blocks it wrote."""
        procedure: Procedure = getattr(self.program, name)
        step = procedure.steps[index]
        known = set()
        suspects = self.suspects(step)
        self._next[name] = index + 1
        for block, node in self._due[name].get(index, ()):
            got = widened(written[block], None, copy=True)
            row, why = self._compare(name, block, node, got)
            self.findings.append(Finding(name, index, step, block, node, row, why, suspects))
            if why == _OTHER_SHAPE:
                # Its elements may be in another order: what reads it is computed from before it.
                continue
            self._values[name][node] = got
            if name == "folding" and block[0] == "constant":
                self._values["main"][self._constants[block[1]]] = got
            known.add(block)
        trail = (*suspects, describe(name, index, step))
        for ref, access in accesses(step):
            block = (ref.space, ref.name)
            if access != "read":
                self._unknown[block] = () if block in known else tuple(dict.fromkeys(trail))

    def stopped(self) -> tuple[str, tuple[str, ...]]:
        """The step that was not finished, described, and the suspects before it."""
        for name in PROCEDURES:
            steps = getattr(self.program, name).steps
            index = self._next[name]
            if index < len(steps):
                return describe(name, index, steps[index]), self.suspects(steps[index])
        return "", ()

    def suspects(self, step: Step) -> tuple[str, ...]:
        """The steps that wrote what this one reads, as far as they were not checked themselves."""
        found: dict[str, None] = {}
        for ref, _ in accesses(step):
            found |= dict.fromkeys(self._unknown.get((ref.space, ref.name), ()))
        return tuple(found)

    def _compare(
        self, name: str, block: Block, node: str, got: torch.Tensor
    ) -> tuple[compare.Row | None, str]:
        part = self._parts[name]
        target = part.node(node) if part is not None else None
        if target is None:
            return None, "the lowered graph has no such node"
        try:
            own = self._evaluate(name, target, None)
            try:
                exact = self._evaluate(name, target, torch.float64)
            except EagerError:
                exact = self._evaluate(name, target, torch.float32)
        except EagerError as error:
            return None, f"PyTorch cannot compute it: {error}"
        if not isinstance(own, torch.Tensor) or tuple(own.shape) != tuple(got.shape):
            return None, _OTHER_SHAPE
        return compare.compare(" ".join(block), got, own.to(got.dtype), exact), ""

    def _evaluate(self, name: str, target: Node, precision: torch.dtype | None) -> Any:
        """Computes a node from the nearest values that were found in memory."""
        part = self._parts[name]
        assert part is not None
        values = self._values[name]
        interpreter = Interpreter(part.module, precision)
        wanted = {target}
        pending = [target]
        while pending:
            for operand in pending.pop().all_input_nodes:
                if operand in wanted:
                    continue
                wanted.add(operand)
                if operand.name in values:
                    interpreter.env[operand] = widened(values[operand.name], precision)
                elif operand.op == "placeholder":
                    interpreter.env[operand] = self._placeholder(operand)
                else:
                    pending.append(operand)
        with torch.no_grad():
            for node in part.module.graph.nodes:
                if node in wanted and node not in interpreter.env:
                    if node.op == "placeholder":
                        interpreter.env[node] = widened(values[node.name], precision)
                    else:
                        interpreter.env[node] = interpreter.run_node(node)
        return interpreter.env[target]

    def _placeholder(self, node: Node) -> int:
        """A size that the graph takes as an input."""
        value = node.meta.get("val")
        try:
            return expression.evaluate(str(value.node.expr), self.symbols)
        except (AttributeError, expression.ExpressionError):
            raise EagerError(f"there is no value for {node.name}") from None


def verdict(findings: Iterable[Finding]) -> tuple[str, str]:
    """A summary, and what is wrong (empty if nothing is)."""
    compared = [finding for finding in findings if finding.row is not None]
    wrong = [finding for finding in compared if finding.row is not None and not finding.row.passed]
    skipped = [finding for finding in findings if finding.row is None]
    summary = f"{len(compared)} results compared"
    if skipped:
        summary += f", {len(skipped)} not"
    lines = [str(finding) for finding in wrong[:10]]
    if len(wrong) > len(lines):
        lines.append(f"and {len(wrong) - len(lines)} more")
    return summary, "\n".join(lines)


def check(
    settings: Settings,
    files: ProgramFiles,
    program: Program,
    case: Case,
    report: Report,
) -> bool:
    """Runs a program's kernels on the inputs of a case and checks each; returns whether all are
    right.

    Where they are, and the library is wrong all the same, the report says where else to look.
    """
    reference = prepare(settings.graph, parse(program.target))
    weights = load_file(settings.weights)
    checker = Checker(program, reference, weights, case.inputs, case.symbols)

    def observe(name: str) -> Observer:
        def after(_: Step, index: int, __: Sequence[Access], writes: Sequence[Access]) -> None:
            tensors = {
                (access.ref.space, access.ref.name): access.tensor
                for access in writes
                if access.tensor is not None
            }
            checker.after(name, index, tensors)

        return after

    fault = ""
    try:
        run(
            files.program.parent,
            weights,
            case.inputs,
            observer=observe("main"),
            folding_observer=observe("folding"),
        )
    except (InterpreterError, KernelFault) as error:
        place, suspects = checker.stopped()
        fault = f"{error}\n  in {place}{blame(suspects)}"
    summary, wrong = verdict(checker.findings)
    for finding in checker.findings:
        if finding.row is None:
            report.say(f"        {finding}")
    fault = "\n".join(part for part in (wrong, fault) if part)
    return report.check(f"kernels of {program.target}, on the simulator", summary, fault)
