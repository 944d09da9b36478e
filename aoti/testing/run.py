"""The whole-model check: a library's results beside eager PyTorch's."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from aoti.testing import caller, compare, inputs
from aoti.testing.device import Device, runs_on
from aoti.testing.eager import Eager, EagerError
from aoti.testing.report import Report
from aoti.testing.settings import ProgramFiles, Settings
from wrapgen import program as program_file
from wrapgen.dtype import DLPACK_CODES, INFO, DType
from wrapgen.program import Program, TensorSpec


class SetupError(RuntimeError):
    """The test cannot be run as it is set up."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of the model, with what PyTorch makes of it.

    ``expected`` and ``exact`` are by name, outputs first, then inputs that the model writes.
    """

    name: str
    symbols: dict[str, int]
    inputs: dict[str, Any]
    expected: dict[str, torch.Tensor]
    exact: dict[str, torch.Tensor]


def prepare(settings: Settings, program: Program, report: Report) -> list[Case]:
    """Draws the inputs of all cases and runs PyTorch on them."""
    eager = Eager(settings.model)
    report.check("weights", *same_weights(load_file(settings.weights), eager))
    limits = inputs.ranges(program, eager.program, settings.input_ranges)
    for name, limit in sorted(limits.items()):
        report.say(f"input {name}: uniform in {limit}")
    cases: list[Case] = []
    widest = torch.float64
    emulated: set[str] = set()
    for symbols, seed in inputs.combinations(program, settings.sizes, settings.seeds):
        name = ", ".join(part for part in (inputs.describe(symbols), f"seed {seed}") if part)
        again = next((case for case in cases if case.name == name), None)
        if again:
            cases.append(dataclasses.replace(again, name=f"{name}, once more"))
            continue
        given: dict[str, Any] = {}
        for spec in program.inputs:
            if isinstance(spec, TensorSpec):
                given[spec.name] = inputs.generate(spec, symbols, seed, limits.get(spec.name))
            else:
                given[spec.name] = symbols[spec.symbol]
        ours = eager.run(given)
        emulated.update(ours.emulated)
        try:
            exact = eager.run(given, widest)
        except EagerError as error:
            if widest is torch.float32:
                raise
            report.say(f"the reference is float32, as float64 fails: {error}")
            widest = torch.float32
            exact = eager.run(given, widest)
        names = [spec.name for spec in program.outputs]
        if len(names) != len(ours.outputs):
            raise SetupError(
                f"{settings.model} returns {len(ours.outputs)} tensors, the program has"
                f" {len(names)} outputs"
            )
        mutated = [s.name for s in program.inputs if isinstance(s, TensorSpec) and s.mutated]
        cases.append(
            Case(
                name,
                symbols,
                given,
                dict(zip(names, ours.outputs, strict=True))
                | {f"input {name}": ours.mutated[name] for name in mutated},
                dict(zip(names, exact.outputs, strict=True))
                | {f"input {name}": exact.mutated[name] for name in mutated},
            )
        )
    if emulated:
        report.say(
            f"computed in float32 and rounded, as PyTorch for the CPU has no other: "
            f"{', '.join(sorted(emulated))}"
        )
    return cases


def same_weights(deployed: Mapping[str, torch.Tensor], eager: Eager) -> tuple[str, str]:
    """Compares the deployed weights with the archive's, bit for bit: a summary; faults."""
    archive = {**eager.program.state_dict, **eager.program.constants}
    faults = []
    for name, value in sorted(deployed.items()):
        own = archive.get(name)
        if not isinstance(own, torch.Tensor):
            faults.append(f"{name}: the archive has no such tensor")
        elif (own.dtype, own.shape) != (value.dtype, value.shape):
            faults.append(f"{name}: of another shape or dtype than in the archive")
        elif inputs.to_bytes(own.detach().contiguous()) != inputs.to_bytes(value.contiguous()):
            faults.append(f"{name}: other values than in the archive")
    more = [f"and {len(faults) - 10} more"] if len(faults) > 10 else []
    return f"{len(deployed)} tensors as in the archive", "\n".join(faults[:10] + more)


def check(
    settings: Settings,
    device: Device,
    program: Program,
    cases: Sequence[Case],
    report: Report,
    scratch: Path,
) -> bool:
    """Runs all cases on a device and compares; returns whether all is well."""
    scratch.mkdir(parents=True)
    request = _request(settings, device, program, cases, scratch)
    result, ending = _call(request, device, scratch)
    where = device.text
    if result["error"] or ending:
        done = len(result["cases"])
        place = f"case {cases[done].name}" if result["target"] and done < len(cases) else "loading"
        fault = "\n".join(part for part in (result["error"], ending, result["reports"]) if part)
        return report.check(f"{where}: {place}", fault=fault)
    passed = report.check(f"{where}: load", f"took {result['target']}", _misfit(device, result))
    for case, described, said in zip(cases, request["cases"], result["cases"], strict=True):
        rows = [
            compare.compare(
                spec["label"],
                inputs.from_bytes(Path(spec["result"]).read_bytes(), spec["spec"], case.symbols),
                case.expected[spec["label"]],
                case.exact[spec["label"]],
                tolerance=settings.tolerance.get(spec["name"]),
            )
            for spec in _written(program, described)
        ]
        faults = said["problems"] + [f"{row.name}: {row.fault}" for row in rows if row.fault]
        summary = "; ".join(_short(row) for row in rows)
        passed &= report.check(f"{where}: {case.name}", summary, "\n".join(faults))
        report.say("\n".join("        " + line for line in compare.table(rows).splitlines()))
    if result["reports"]:
        passed &= report.check(f"{where}: what the simulator saw", fault=result["reports"])
    return passed


def _short(row: compare.Row) -> str:
    if not row.dtype.startswith(("float", "bfloat")):
        return f"{row.name} {'exact' if row.passed else 'WRONG'}"
    return f"{row.name} {row.error:.1e} (limit {row.limit:.1e})"


def _misfit(device: Device, result: Mapping[str, Any]) -> str:
    """The runtime's choice of code must be one that the device can run."""
    target = result["target"]
    if runs_on(target, device.capability):
        return ""
    return f"the library took code for {target} on a device of capability {device.capability}"


def _written(program: Program, case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a case gives: outputs, and inputs that the model writes, with their specs."""
    by_name = {spec.name: spec for spec in program.inputs}
    outputs = [
        described | {"label": spec.name, "spec": spec}
        for described, spec in zip(case["outputs"], program.outputs, strict=True)
    ]
    return outputs + [
        described | {"label": f"input {described['name']}", "spec": by_name[described["name"]]}
        for described in case["inputs"]
        if described["mutated"]
    ]


def _request(
    settings: Settings,
    device: Device,
    program: Program,
    cases: Sequence[Case],
    scratch: Path,
) -> dict[str, Any]:
    """What ``caller.py`` is to do; writes the inputs' bytes."""
    described = []
    for i, case in enumerate(cases):
        entries: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
        for spec in program.inputs:
            stem = f"{i}-{spec.name}"
            if isinstance(spec, TensorSpec):
                data = inputs.to_bytes(case.inputs[spec.name])
                entry = _tensor(spec, case.symbols) | {"mutated": spec.mutated}
            else:
                data = struct.pack("<q", case.inputs[spec.name])
                entry = {"kind": "scalar", "name": spec.name, "shape": [], "strides": []}
                entry |= {"nbytes": 8, "itemsize": 8, "mutated": False}
                entry |= {"dlpack_code": DLPACK_CODES[INFO[DType.INT64].dlpack_code]}
            file = scratch / f"{stem}.in"
            file.write_bytes(data)
            entry |= {"file": str(file), "result": str(scratch / f"{stem}.mutated")}
            entries["inputs"].append(entry)
        for j, spec in enumerate(program.outputs):
            result = str(scratch / f"{i}-{j}.out")
            entries["outputs"].append(_tensor(spec, case.symbols) | {"result": result})
        # Runs again cost a GPU nothing; the simulator takes its time.
        runs = len(caller.KINDS) if i == 0 or not device.simulated else 1
        described.append({"name": case.name, "runs": runs, **entries})
    return {
        "driver": device.driver,
        "library": str(settings.library),
        "weights": str(settings.weights),
        "guard": 0 if device.simulated else caller.GUARD,
        "cases": described,
    }


def _tensor(spec: TensorSpec, symbols: Mapping[str, int]) -> dict[str, Any]:
    info = INFO[spec.dtype]
    return {
        "kind": "tensor",
        "name": spec.name,
        "shape": list(inputs.evaluate(spec.shape, symbols)),
        "strides": list(inputs.evaluate(spec.strides, symbols)),
        "nbytes": inputs.nbytes(spec, symbols),
        "itemsize": info.itemsize,
        "dlpack_code": DLPACK_CODES[info.dlpack_code],
    }


def _call(request: Mapping[str, Any], device: Device, scratch: Path) -> tuple[dict[str, Any], str]:
    """Runs ``caller.py``; gives its result, and how it ended where it did not end well."""
    request_file, result_file = scratch / "request.json", scratch / "result.json"
    request_file.write_text(json.dumps(request))
    environment = os.environ | device.environment
    # What it starts as `python -m ...` finds the packages that this process found.
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(path).resolve()) for path in sys.path)
    done = subprocess.run(
        [sys.executable, str(Path(caller.__file__)), str(request_file), str(result_file)],
        env=environment,
        check=False,
    )
    result: dict[str, Any] = {"target": "", "cases": [], "error": "", "reports": ""}
    if result_file.exists():
        result = json.loads(result_file.read_text())
    if done.returncode == 0:
        return result, ""
    if done.returncode < 0:
        ending = f"the process that ran the library died of {signal.Signals(-done.returncode).name}"
    else:
        ending = f"the process that ran the library ended with status {done.returncode}"
    return result, ending


def load_program(settings: Settings, target: str) -> tuple[ProgramFiles, Program]:
    """The program that a target's code comes from."""
    capability = target.partition("_")[2]
    for files in settings.programs:
        if files.target == f"sm_{capability}":
            return files, program_file.load(files.program)
    known = ", ".join(files.target for files in settings.programs)
    raise SetupError(f"there is no program for {target}, only for {known}")
