"""What AOTInductor's interface tells PyTorch of a model is as the golden file says."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from tests.codegen import cpp, samples
from wrapgen import codegen
from wrapgen.codegen import CodegenError, aotinductor
from wrapgen.program import CallSpec, FixedInput, Program
from wrapgen.target import parse

GOLDEN = cpp.ROOT / "tests/codegen/golden/aotinductor/aotinductor.cc.txt"
SM_90 = parse("sm_90")

LEAF = '{"type": null, "context": null, "children_spec": []}'
IN_SPEC = (
    '[1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple",'
    f' "context": "null", "children_spec": [{LEAF}]}}, {{"type": "builtins.dict", "context": "[]",'
    ' "children_spec": []}]}]'
)
OUT_SPEC = (
    '[1, {"type": "builtins.dict", "context": "[\\"cache\\", \\"logits\\"]", "children_spec": '
    f"[{LEAF}, {LEAF}]}}]"
)


def sample(value: str = "None") -> Program:
    """``conv_chain`` with a second result, which export fixed, before its own; and a buffer."""
    program = samples.conv_chain()
    weights = [
        dataclasses.replace(weight, role={"steps": "buffer"}.get(weight.name, "parameter"))
        for weight in program.weights
    ]
    (output,) = program.outputs
    return dataclasses.replace(
        program,
        weights=tuple(weights),
        fixed=(FixedInput(path="outputs['cache']", value=value),),
        call_spec=CallSpec(
            in_spec=IN_SPEC, out_spec=OUT_SPEC, results=("outputs['cache']", output.path)
        ),
    )


def generate(program: Program, scratch: Path) -> dict[str, bytes]:
    kernels = samples.write_kernels(scratch / "kernels", program, SM_90)
    given = {SM_90: program}
    with_it = codegen.generate("served", given, [kernels], [SM_90], aotinductor=True)
    without = codegen.generate("served", given, [kernels], [SM_90])
    # One more file, and nothing of the others.
    assert with_it == without | {"aotinductor.cc": with_it["aotinductor.cc"]}
    return with_it


def test_golden(tmp_path: Path) -> None:
    text = generate(sample(), tmp_path)["aotinductor.cc"].decode()
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "run again with UPDATE_GOLDEN=1 and look"


def test_it_compiles(tmp_path: Path) -> None:
    text = generate(sample(), tmp_path)["aotinductor.cc"]
    (tmp_path / "aotinductor.cc").write_bytes(text)
    flags = [*cpp.FLAGS, *cpp.include_flags(tmp_path), "-fsyntax-only"]
    for compiler in cpp.compilers():
        cpp.run([compiler, *flags, tmp_path / "aotinductor.cc"])


def test_not_for_amd() -> None:
    targets = [parse("gfx942")]
    with pytest.raises(CodegenError, match="is there for NVIDIA's GPUs, not for gfx942"):
        aotinductor.source("served", sample(), targets)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            dataclasses.replace(sample(), call_spec=None),
            "program.call_spec is null, and PyTorch asks for it: lower served again",
        ),
        (
            sample(value="3"),
            r"the model returns 3 as outputs\['cache'\]: AOTInductor's interface returns tensors",
        ),
    ],
)
def test_refusals(program: Program, message: str, tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=message):
        generate(program, tmp_path)
