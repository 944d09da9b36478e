"""Triton kernels in an archive: what is honest passes as it came, what is not is refused."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.intake.archives import Parts
from wrapgen import user_kernels
from wrapgen.dtype import DType
from wrapgen.intake import split
from wrapgen.intake.errors import MalformedError, MissingMemberError
from wrapgen.user_kernels import Build, Config, Param, UserKernel, UserKernels

TTIR = """module {
  tt.func public @kernel(%arg0: !tt.ptr<f32>, %arg1: i32) attributes {noinline = false} {
    %cst = arith.constant 1.000000e+00 : f32
    %0 = tt.get_program_id x : i32
    %1 = arith.muli %0, %arg1 : i32
    %2 = tt.addptr %arg0, %1 : !tt.ptr<f32>, i32
    tt.store %2, %cst : !tt.ptr<f32>
    tt.return
  }
}
"""


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def kernel(text: str) -> UserKernel:
    return UserKernel(
        name="ones",
        file="net.py",
        source="@triton.jit\ndef ones(x, n): ...\n",
        params=(
            Param("x", "written", 0, DType.FLOAT32, True),
            Param("n", "ints", 0, DType.INT32, True),
        ),
        configs=(Config({"BLOCK": 64}, {"sm_90": Build(digest(text), 4, 3, 1)}),),
    )


def document(text: str = TTIR) -> dict[str, Any]:
    one = kernel(text)
    made = user_kernels.data(UserKernels({user_kernels.key_of(one): one}, {digest(text): text}))
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def archive(path: Path, content: Any, *, called: str | None = None) -> Path:
    """An archive whose graph calls a kernel, by default the one that the content has."""
    parts = Parts()
    key = called or next(iter(content["kernels"]))
    node = copy.deepcopy(parts.node)
    values: dict[str, Any] = {
        "kernel": {"as_string": key},
        "written": {"as_tensors": [{"name": "linear"}]},
        "read": {"as_tensors": []},
        "ints": {"as_ints": [4]},
        "floats": {"as_floats": []},
        "strides": {"as_ints": [4, 1]},
        "grid": {"as_ints": [2, 1, 1]},
    }
    node |= {"target": user_kernels.OPERATOR, "name": "call", "outputs": []}
    node["inputs"] = [{"name": name, "arg": arg, "kind": 1} for name, arg in values.items()]
    parts.graph["nodes"].append(node)
    if content is not None:
        parts.members[f"extra/{user_kernels.MEMBER}"] = json.dumps(content).encode()
    return parts.write(path)


def run(path: Path) -> dict[str, Any]:
    split(path, path.with_suffix(".json"), path.with_suffix(".safetensors"))
    graph: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return graph


def test_kernels_pass_as_they_came(tmp_path: Path) -> None:
    found = run(archive(tmp_path / "m.pt2", document()))["triton_kernels"]
    assert found == document()
    one = kernel(TTIR)
    parsed = user_kernels.parse(found, "graph")
    assert parsed.kernels == {user_kernels.key_of(one): one}


def test_a_program_without_kernels_has_none(tmp_path: Path) -> None:
    assert "triton_kernels" not in run(Parts().write(tmp_path / "m.pt2"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tt.store", "llvm.store", "an operation 'llvm.store' that is none of"),
        ('tt.return', '"gpu.printf"() : () -> ()\n    tt.return', "an operation 'gpu.printf'"),
        ("tt.return", 'tt.print "x"\n    tt.return', "printing from a kernel"),
        ("tt.return", 'tt.assert %0, "x" : i32\n    tt.return', "device assertions"),
        (
            "tt.return",
            'tt.extern_elementwise %cst {libname = "", libpath = "/etc/x.bc", pure = true, symbol ='
            ' "f"} : (f32) -> f32\n    tt.return',
            "a reference to a library file",
        ),
        ("}\n}", "}\n  tt.func private @other() {\n    tt.return\n  }\n}", "not inlined"),
        ("@kernel", "@other", "no function 'kernel'"),
        ("%arg1: i32)", "%arg1: i64)", "the parameters are (!tt.ptr<f32>, i32)"),
        ("%arg1: i32)", "%arg1: i32 {tt.divisibility = 16 : i32})", "other parameters than plain"),
        ("%arg1: i32)", "%arg1: i32, %arg2: i32)", "the TTIR function takes"),
        ("module", "// \u00e9\nmodule", "expected ASCII text"),
    ],
)  # fmt: skip
def test_what_ttir_may_not_say(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = TTIR.replace(old, new, 1)
    assert text != TTIR
    with pytest.raises(MalformedError) as error:
        run(archive(tmp_path / "m.pt2", document(text)))
    assert message in str(error.value)


Spoil = Callable[[dict[str, Any]], object]


def one(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(iter(content["kernels"].values()))
    return found


def build(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = one(content)["configs"][0]["builds"]["sm_90"]
    return found


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.update(format=1), "format is 1, this wrapgen reads 2"),
        (lambda c: c.update(more=1), "unknown field 'more'"),
        (lambda c: c.pop("ttir"), "ttir: is missing"),
        (lambda c: c.update(kernels=[]), "kernels: expected an object"),
        (lambda c: c["ttir"].update({"x": ""}), "'x' is no key of it"),
        (lambda c: c["ttir"].update({"0" * 64: TTIR}), "the text has another SHA-256"),
        (lambda c: c.update(ttir={}), "there is no TTIR"),
        (lambda c: one(c).update(name="x; y"), "'x; y' is not of that form"),
        (lambda c: one(c).update(name="other"), "its content has the key other."),
        (lambda c: one(c).update(file="a\nb"), "expected one printable line"),
        (lambda c: one(c).update(source="a\0b"), "expected a text of plain lines"),
        (lambda c: one(c).update(configs=[]), "is empty: expected one or more"),
        (lambda c: one(c)["params"][0].update(operand="x"), "expected one of written, read"),
        (lambda c: one(c)["params"][0].update(dtype="x"), "expected one of bool, uint8"),
        (lambda c: one(c)["params"][0].update(index=-1), "expected an integer in 0.."),
        (lambda c: one(c)["params"][1].update(operand="floats"), "is none of floats"),
        (lambda c: one(c)["params"][1].update(name="x"), "two have the same name"),
        (lambda c: one(c)["params"][0].update(block=[8]), "expected its 1 sizes and strides"),
        (lambda c: one(c)["params"][0].update(block=[0]), "expected positive sizes"),
        (lambda c: one(c)["params"][1].update(block=[8]), "but it is no tensor"),
        (lambda c: one(c)["params"][0].update(padding="one"), "'one' is not of that form"),
        (lambda c: build(c).update(num_warps=3), "expected a power of two"),
        (lambda c: build(c).update(num_ctas=True), "expected an integer"),
        (
            lambda c: one(c)["configs"][0].update(builds={"sm_1": build(c)}),
            "expected one of sm_80",
        ),
        (lambda c: one(c)["configs"][0]["constants"].update(B=[1]), "expected a number"),
    ],
)
def test_kernels_of_another_form(spoil: Spoil, message: str, tmp_path: Path) -> None:
    content = document()
    key = next(iter(content["kernels"]))
    spoil(content)
    with pytest.raises(MalformedError) as error:
        run(archive(tmp_path / "m.pt2", content, called=key))
    assert message in str(error.value)


def test_calls_and_kernels_are_the_same(tmp_path: Path) -> None:
    with pytest.raises(MalformedError, match="the program calls other"):
        run(archive(tmp_path / "m.pt2", document(), called="other"))
    with pytest.raises(MissingMemberError, match="the program calls Triton kernels"):
        run(archive(tmp_path / "n.pt2", None, called="other"))


def test_promises_are_written_where_they_are_read() -> None:
    text = user_kernels.promised(TTIR, "ones_1", (True, False))
    head = text.splitlines()[1]
    assert "@ones_1(%arg0: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg1: i32)" in head
    assert text.splitlines()[2:] == TTIR.splitlines()[2:]
