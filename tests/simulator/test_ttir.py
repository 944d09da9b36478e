"""TTIR is read as Triton prints it, and what is no TTIR is refused with its line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from simulator.interpreter import InterpreterError, parse
from simulator.interpreter.ttir import Type

GOLDEN = Path(__file__).parents[1] / "lowering" / "golden"

TEXT = """\
#loc = loc("a.py":3:0)
module attributes {"ttg.num-ctas" = 1 : i32} {
  tt.func public @kernel(%arg0: !tt.ptr<f32> {tt.divisibility = 16 : i32} loc("x"), %arg1: i32,
                         %arg2: !tt.tensordesc<8x16xf16>) attributes {noinline = false} {
    %cst = arith.constant dense<[1, -2]> : tensor<2xi64> loc(#loc)
    %nan = arith.constant 0x7FC00000 : f32
    %inf = arith.constant dense<0xFC00> : tensor<4x2xf16>
    %c-1_i8 = arith.constant -1 : i8
    %true = arith.constant true
    %0:2 = "tt.reduce"(%cst, %cst) <{axis = 0 : i32}> ({
    ^bb0(%arg3: i64, %arg4: i64, %arg5: i64, %arg6: i64):
      tt.reduce.return %arg3, %arg6 : i64, i64 loc(#loc)
    }) : (tensor<2xi64>, tensor<2xi64>) -> (i64, i64) loc(#loc)
    %1:2 = scf.for %i = %arg1 to %arg1 step %arg1 iter_args(%a = %0#0, %b = %0#1) -> (i64, i64)  \
: i32 {
      %9 = arith.addi %a, %0#1 : i64
      scf.yield %9, %b : i64, i64
    } {tt.num_stages = 3 : i32, tt.flatten}
    %2 = scf.while (%w = %arg1) : (i32) -> i32 {
      scf.condition(%true) %w : i32
    } do {
    ^bb0(%w: i32):
      scf.yield %w : i32
    }
    scf.if %true {
      tt.print " x: " {hex = false, isSigned = array<i32: 1>} : %2 : i32
    } else {
      tt.assert %true, "a \\"quoted\\" {brace" : i1
    }
    cf.cond_br %true, ^bb1, ^bb2(%1#0, %1#1 : i64, i64)  // a comment
  ^bb1:  // pred: ^bb0
    tt.return
  ^bb2(%3: i64, %4: i64):  // pred: ^bb0
    %5 = tt.call @"helper.x"(%3) : (i64) -> i64
    tt.return
  }
  tt.func private @"helper.x"(%arg0: i64) -> i64 attributes {noinline = true} {
    tt.return %arg0 : i64
  }
}
#loc1 = loc(unknown)
"""


def test_structure() -> None:
    function = parse(TEXT)
    assert function.name == "kernel"
    assert [p.divisibility for p in function.parameters] == [16, 1, 1]
    assert str(function.parameters[0].type) == "!tt.ptr<f32>"
    assert function.parameters[2].type == Type("tensordesc", (), Type("f16", (8, 16)))
    entry, second, third = function.blocks
    assert [op.name for op in entry.ops] == [
        *["arith.constant"] * 5,
        "tt.reduce",
        "scf.for",
        "scf.while",
        "scf.if",
        "cf.cond_br",
    ]
    constants = [op.attributes["value"] for op in entry.ops[:5]]
    assert constants[0] == [1, -2] and math.isnan(constants[1])
    assert constants[2:] == [-math.inf, -1, True]
    reduce, loop, _, branch, last = entry.ops[5:]
    assert reduce.attributes["axis"] == 0 and len(reduce.results) == 2
    assert reduce.line == 10
    assert loop.attributes == {"tt.num_stages": 3, "tt.flatten": True}
    assert loop.operands[3:] == reduce.results
    assert loop.regions[0][0].types == [Type("i32"), Type("i64"), Type("i64")]
    # A name means another value in another scope.
    assert loop.regions[0][0].ops[0].operands[1] == reduce.results[1]
    assert branch.regions[1][0].ops[0].words == ['a "quoted" {brace']
    assert [label for label, _ in last.successors] == ["^bb1", "^bb2"]
    assert last.successors[1][1] == loop.results
    assert third.ops[0].words == ["helper.x"]
    assert sorted(function.functions) == ["helper.x", "kernel"]
    assert [op.name for op in second.ops] == ["tt.return"]


def test_values_die_after_their_last_use() -> None:
    text = """module {
  tt.func public @k(%arg0: i32) {
    %0 = arith.addi %arg0, %arg0 : i32
    %1 = arith.addi %0, %0 : i32
    scf.if %arg0 {
      %2 = arith.addi %0, %1 : i32
    }
    tt.return
  }
}"""
    function = parse(text)
    ops = function.blocks[0].ops
    assert ops[0].dying == () and ops[1].dying == ()
    assert set(ops[2].dying) == {*ops[0].results, *ops[1].results}


@pytest.mark.parametrize("path", sorted(GOLDEN.rglob("*.ttir")), ids=lambda path: path.stem)
def test_golden_kernels(path: Path) -> None:
    function = parse(path.read_text(encoding="utf-8"))
    assert function.name == path.stem


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("%0#1) -> (i64", "%7#1) -> (i64", r"line 14: expected a value defined before; %7#1"),
        ("!tt.ptr<f32>", "!tt.ptr<q32>", r"line 3: expected a type"),
        ("@kernel(", "kernel(", r"line 3: expected a function's name"),
        ("tensor<2xi64> loc", "tensor<2xi64 loc", r"line 5: expected '>'"),
        ("func public @kernel", "func private @kernel", r"one public function"),
    ],
)
def test_refusals(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(InterpreterError, match=message):
        parse(TEXT.replace(old, new, 1))


def test_cut_off_anywhere() -> None:
    """No beginning of a text is taken for a whole, or ends in another error."""
    end = TEXT.rindex("}") + 1
    for length in range(0, end - 1, 7):
        with pytest.raises(InterpreterError):
            parse(TEXT[:length])
