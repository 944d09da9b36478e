"""What a model takes and returns: names, places in the Python call, and what stands there.

Arguments nest as Python's containers do; the program has them flat. An input is called as the
exported graph calls it, which is its place with underscores: ``cache["k"][0]`` is ``cache_k_0``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ConstantArgument,
    OutputKind,
    SymIntArgument,
    TensorArgument,
)
from torch.utils import _pytree as pytree

from wrapgen.lowering import graph_file
from wrapgen.lowering.arguments import paths
from wrapgen.lowering.errors import LoweringError
from wrapgen.lowering.symbols import Input, Symbols
from wrapgen.program import (
    IDENTIFIER,
    CallSpec,
    FixedInput,
    InputSpec,
    ScalarSpec,
    TensorSpec,
)


@dataclasses.dataclass(frozen=True)
class Interface:
    """The inputs as the program file has them, and name and path of each output.

    ``fixed`` are arguments and results that export made constants.
    """

    inputs: tuple[InputSpec, ...]
    fixed: tuple[FixedInput, ...]
    outputs: tuple[tuple[str, str], ...]
    call_spec: CallSpec


def interface(program: ExportedProgram, inputs: Iterable[Input], symbols: Symbols) -> Interface:
    """Describes what the program takes and returns.

    Raises:
      LoweringError: an argument or result is nothing that the built model can have.
    """
    faults: list[str] = []
    specs: list[InputSpec] = []
    fixed: list[FixedInput] = []
    for one in inputs:
        if isinstance(one.value, torch.Tensor):
            specs.append(
                TensorSpec(
                    name=one.name,
                    path=one.path,
                    dtype=graph_file.dtype_of(one.value.dtype),
                    shape=tuple(symbols.dim(extent) for extent in one.value.shape),
                    strides=tuple(symbols.dim(stride) for stride in one.value.stride()),
                )
            )
        elif isinstance(one.value, torch.SymInt):
            symbol = str(symbols.dim(one.value))
            specs.append(ScalarSpec(name=one.name, path=one.path, symbol=symbol))
        elif one.value is None or isinstance(one.value, (bool, int, float, str)):
            fixed.append(FixedInput(path=one.path, value=repr(one.value)))
        else:
            faults.append(
                f"input {one.path} is a dynamic {type(one.value).__name__}, not a tensor or an"
                " integer: make it a constant of the model, or a tensor"
            )
    outputs = list(_outputs(program, fixed, faults))
    if faults:
        raise LoweringError("cannot lower the model:\n" + "\n".join(f"  {f}" for f in faults))
    return Interface(tuple(specs), tuple(fixed), _named(outputs), _call_spec(program))


def _call_spec(program: ExportedProgram) -> CallSpec:
    in_spec, out_spec = program.call_spec.in_spec, program.call_spec.out_spec
    assert in_spec is not None
    assert out_spec is not None
    return CallSpec(
        in_spec=pytree.treespec_dumps(in_spec),
        out_spec=pytree.treespec_dumps(out_spec),
        results=tuple(paths(out_spec, ())),
    )


def _outputs(program: ExportedProgram, fixed: list[FixedInput], faults: list[str]) -> Iterable[str]:
    """The paths of the results that are tensors."""
    out_spec = program.call_spec.out_spec
    assert out_spec is not None
    user = [
        spec for spec in program.graph_signature.output_specs if spec.kind is OutputKind.USER_OUTPUT
    ]
    for spec, path in zip(user, paths(out_spec, ()), strict=True):
        if isinstance(spec.arg, TensorArgument):
            yield path
        elif isinstance(spec.arg, ConstantArgument):
            fixed.append(FixedInput(path=path, value=repr(spec.arg.value)))
        elif isinstance(spec.arg, SymIntArgument):
            faults.append(
                f"{path} is an integer that depends on the inputs' sizes, not a tensor: leave it to"
                " the caller, who knows them, or return a tensor"
            )
        else:
            faults.append(f"{path} is no tensor: return tensors only")


def _named(outputs: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """A name for each path; of those that would be called alike, later ones get a number."""
    names: dict[str, str] = {}
    for path in outputs:
        wanted = _output_name(path)
        name, count = wanted, 1
        while name in names:
            count += 1
            name = f"{wanted}_{count}"
        names[name] = path
    return tuple(names.items())


def _output_name(path: str) -> str:
    """An identifier from a path: ``outputs`` is ``output``, ``outputs["a"][0]`` is ``a_0``."""
    rest = path.removeprefix("outputs")
    words = [word for word in re.split(r"\W+", rest, flags=re.ASCII) if word]
    if not words:
        return "output"
    name = "_".join(words)
    return name if IDENTIFIER.match(name) else f"output_{name}"
