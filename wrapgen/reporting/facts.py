"""What a report says, as plain JSON values."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pydantic

from wrapgen.codegen import kernels, memory
from wrapgen.codegen.errors import CodegenError
from wrapgen.codegen.model import lowered_models
from wrapgen.codegen.model_source import Build, Lowered, launched
from wrapgen.dtype import INFO
from wrapgen.program import (
    Copy,
    Dim,
    Fill,
    If,
    Kernel,
    Launch,
    Procedure,
    Program,
    Ref,
    ScalarArg,
    Step,
    TensorSpec,
    While,
    inner,
    walk,
    weight_nbytes,
    weights_digest,
)
from wrapgen.reporting.occupancy import bound
from wrapgen.target import RUNTIME_DRIVERS, Target

SCHEMA_VERSION: Final = 1
"""Of the JSON. Raised by one whenever a reader of the previous version could misread a file."""

_Access = tuple[list[Dim], list[Dim]]
"""Bytes that a step reads, and that it writes: a number or an expression for each block."""


@dataclasses.dataclass(frozen=True)
class _Resources:
    """The fields of a kernel's metadata that its launch does not need."""

    registers: int
    local_memory: int
    spill_stores: int
    spill_loads: int

    __pydantic_config__ = pydantic.ConfigDict(strict=True, extra="ignore")


_RESOURCES: Final[pydantic.TypeAdapter[_Resources]] = pydantic.TypeAdapter(_Resources)


def facts(
    name: str,
    programs: Mapping[Target, Program],
    kernel_dirs: Sequence[Path],
    targets: Sequence[Target],
) -> dict[str, Any]:
    """Gathers what a report says: what the library takes, needs, holds and launches.

    Raises ``CodegenError`` where the parts do not make a model, as ``wrap`` does.
    """
    models = lowered_models(name, programs, kernel_dirs, targets, kernels.Embedding(name))
    first = models[0].program
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "symbols": [dataclasses.asdict(symbol) for symbol in first.symbols],
        "constraints": [dataclasses.asdict(constraint) for constraint in first.constraints],
        "inputs": [_spec(spec) for spec in first.inputs],
        "outputs": [_spec(spec) for spec in first.outputs],
        "weights": {
            "number": len(first.weights),
            "nbytes": sum(map(weight_nbytes, first.weights)),
            "digest": weights_digest(first.weights),
        },
        "programs": {model.program.target: _program(model) for model in models},
        "targets": {
            str(build.target): _target(model, build, kernel_dirs)
            for model in models
            for build in model.builds
        },
    }


def _spec(spec: Any) -> dict[str, Any]:
    """An input or output, with the bytes from its first to one past its last element."""
    fields = dataclasses.asdict(spec)
    if isinstance(spec, TensorSpec):
        fields["nbytes"] = _extent(spec)
    return fields


def _extent(spec: TensorSpec) -> Dim:
    """Bytes of a tensor, of which none is empty: what an empty one has is not of interest."""
    itemsize = INFO[spec.dtype].itemsize
    terms: list[Dim] = [itemsize]
    for size, stride in zip(spec.shape, spec.strides, strict=True):
        if isinstance(size, int) and isinstance(stride, int):
            terms.append((size - 1) * stride * itemsize)
        else:
            terms.append(f"(({size}) - 1) * ({stride}) * {itemsize}")
    if 0 in spec.shape:
        return 0
    return total(terms)


def total(terms: Iterable[Dim]) -> Dim:
    """The sum of numbers and expressions: a number where all are, else an expression."""
    known = 0
    unknown: Counter[str] = Counter()
    for term in terms:
        if isinstance(term, int):
            known += term
        else:
            unknown[term] += 1
    if not unknown:
        return known
    parts = [f"({term})" if n == 1 else f"{n} * ({term})" for term, n in unknown.items()]
    return " + ".join([*parts, str(known)] if known else parts)


# Programs.


def _program(model: Lowered) -> dict[str, Any]:
    program, plan = model.program, model.plan
    main = list(_steps(program.main.steps, _Blocks(program, program.main)))
    folding = list(_steps(program.folding.steps, _Blocks(program, program.folding)))
    return {
        "options": list(program.options),
        "memory": {
            "weights": plan.weights,
            "constants": plan.constants.size,
            "model": plan.weights + plan.constants.size,
            "load": plan.staging + plan.folding_arena.size,
            "session": plan.main_arena.size,
        },
        "constants": [
            {"name": block.name, "dtype": str(block.dtype), "nbytes": block.nbytes}
            for block in program.constants
        ],
        "temporaries": len(program.main.buffers),
        "folding": folding,
        "main": main,
        "reads": total(step["reads"] for step in main),
        "writes": total(step["writes"] for step in main),
        "compulsory": _compulsory(program),
    }


class _Blocks:
    """The bytes of each block of memory that a step of a procedure can name."""

    def __init__(self, program: Program, procedure: Procedure) -> None:
        self._sizes: dict[tuple[str, str], Dim] = {
            ("weight", weight.name): weight_nbytes(weight) for weight in program.weights
        }
        self._sizes |= {("constant", block.name): block.nbytes for block in program.constants}
        self._sizes |= {("arena", block.name): block.nbytes for block in procedure.buffers}
        self._sizes |= {("input", spec.name): _extent(spec) for spec in program.tensor_inputs}
        self._sizes |= {("output", spec.name): _extent(spec) for spec in program.outputs}

    def behind(self, ref: Ref) -> Dim:
        """The bytes of a block from an address on."""
        size = self._sizes[ref.space, ref.name]
        if isinstance(size, int) and isinstance(ref.offset, int):
            return max(size - ref.offset, 0)
        return size if ref.offset == 0 else f"max(({size}) - ({ref.offset}), 0)"

    def access(self, step: Step) -> _Access:
        """What a step reads and writes itself, each block once."""
        reads: dict[tuple[str, str], list[Ref]] = {}
        writes: dict[tuple[str, str], list[Ref]] = {}
        match step:
            case Copy(nbytes=nbytes):
                return [nbytes], [nbytes]
            case Fill(nbytes=nbytes):
                return [], [nbytes]
            case If() | While():
                return [INFO[step.dtype].itemsize], []
            case Launch(args=args):
                for arg in args:
                    if isinstance(arg, ScalarArg):
                        continue
                    place = arg.ref.space, arg.ref.name
                    if arg.access != "write":
                        reads.setdefault(place, []).append(arg.ref)
                    if arg.access != "read":
                        writes.setdefault(place, []).append(arg.ref)
        return [self._whole(refs) for refs in reads.values()], [
            self._whole(refs) for refs in writes.values()
        ]

    def _whole(self, refs: Sequence[Ref]) -> Dim:
        """The bytes behind the first of several addresses in one block."""
        known = [ref for ref in refs if isinstance(ref.offset, int)]
        return self.behind(min(known, key=lambda ref: int(ref.offset)) if known else refs[0])


def _steps(steps: Iterable[Step], blocks: _Blocks, within: str = "") -> Iterator[dict[str, Any]]:
    """Steps as one reads them, those inside a branch or a loop right behind it."""
    for step in steps:
        reads, writes = blocks.access(step)
        described: dict[str, Any] = {
            "kind": step.kind,
            "within": within,
            "kernel": getattr(step, "kernel", ""),
            "grid": list(step.grid) if isinstance(step, Launch) else [],
            "reads": total(reads),
            "writes": total(writes),
            "sources": [
                {
                    "op": source.op,
                    "module": source.module,
                    "file": source.file,
                    "function": source.function,
                    "code": source.code,
                }
                for source in step.sources
            ],
        }
        yield described
        for field, inside in inner(step):
            place = f"{within}.{field}" if within else f"{step.kind}.{field}"
            yield from _steps(inside, blocks, place)


def _compulsory(program: Program) -> Dim:
    """Bytes that a run cannot do without: inputs, weights and constants that ``main`` reads, once
    each, and outputs. What is between may stay in caches."""
    named = {
        (ref.space, ref.name) for step in walk(program.main.steps) for ref in memory.refs(step)
    }
    blocks = _Blocks(program, program.main)
    spaces = ("input", "output", "weight", "constant")
    return total(
        blocks.behind(Ref(space=space, name=name))
        for space, name in sorted(named)
        if space in spaces
    )


# Targets.


def _target(model: Lowered, build: Build, kernel_dirs: Sequence[Path]) -> dict[str, Any]:
    target, program = build.target, model.program
    images = {entry.image.kernel: entry.image for entry in build.images}
    launches = {
        "folding": _launches(program.folding),
        "main": _launches(program.main),
    }
    drivers = [image.metadata.driver for image in images.values()]
    described = [
        _kernel(
            kernel,
            target,
            images[kernel.name],
            _resources(kernel, target, kernel_dirs),
            {where: counts[kernel.name] for where, counts in launches.items()},
        )
        for kernel in launched(program)
    ]
    return {
        "program": program.target,
        "device": {
            "name": target.device.name,
            "multiprocessors": target.device.multiprocessors,
            "bandwidth": int(target.device.bandwidth),
        },
        "driver": max([RUNTIME_DRIVERS[target.platform], *drivers]),
        "image_bytes": sum(kernel["image_bytes"] for kernel in described),
        "kernels": described,
    }


def _launches(procedure: Procedure) -> Counter[str]:
    """How many steps launch each kernel; those inside a loop count once."""
    return Counter(
        step.kernel for step in walk(procedure.steps) if isinstance(step, Launch | If | While)
    )


def _resources(kernel: Kernel, target: Target, kernel_dirs: Sequence[Path]) -> _Resources:
    """Reads what generated code has no use for from the file that ``kernels.load`` has checked."""
    relative = Path(str(target), f"{kernel.name}.json")
    path = next(each / relative for each in kernel_dirs if (each / relative).is_file())
    try:
        return _RESOURCES.validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise CodegenError(f"{path}: {place}: {fault['msg']}") from error


def _kernel(
    kernel: Kernel,
    target: Target,
    image: kernels.Image,
    resources: _Resources,
    launches: Mapping[str, int],
) -> dict[str, Any]:
    metadata = image.metadata
    occupancy = bound(
        target.device,
        threads=metadata.threads,
        registers=resources.registers,
        shared_memory=metadata.shared_memory,
    )
    return {
        "name": kernel.name,
        "template": kernel.template,
        "config": dict(kernel.config),
        "num_warps": kernel.num_warps,
        "num_stages": kernel.num_stages,
        "num_ctas": kernel.num_ctas,
        "cooperative": kernel.cooperative,
        "launch_pdl": kernel.launch_pdl,
        "format": metadata.format,
        "image_bytes": len(image.data),
        "sha256": metadata.sha256,
        "driver": metadata.driver,
        "threads": metadata.threads,
        "registers": resources.registers,
        "shared_memory": metadata.shared_memory,
        "local_memory": resources.local_memory,
        "spill_stores": resources.spill_stores,
        "spill_loads": resources.spill_loads,
        "global_scratch": metadata.global_scratch,
        "occupancy": {
            "blocks": occupancy.blocks,
            "percent": occupancy.percent,
            "limits": list(occupancy.limits),
        },
        "launches": dict(launches),
    }
