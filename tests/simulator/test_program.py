"""Programs are run step by step; what does not fit them is refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from simulator.interpreter import KernelFault, errors
from simulator.program import RunError, run
from wrapgen import program as program_file
from wrapgen.dtype import DType
from wrapgen.program import (
    Buffer,
    Constraint,
    Copy,
    Fill,
    Kernel,
    KernelParam,
    Launch,
    PointerArg,
    Procedure,
    Program,
    Ref,
    ScalarArg,
    ScalarSpec,
    Symbol,
    TensorSpec,
    Weight,
)

NAME = "scale_0123456789ab"
TTIR = f"""module {{
  tt.func public @{NAME}(%arg0: !tt.ptr<f32> {{tt.divisibility = 16 : i32}}, %arg1: !tt.ptr<f32>, \
%arg2: !tt.ptr<f32>, %arg3: i32) attributes {{noinline = false}} {{
    %c16_i32 = arith.constant 16 : i32
    %0 = tt.get_program_id x : i32
    %1 = arith.muli %0, %c16_i32 : i32
    %2 = tt.make_range {{end = 16 : i32, start = 0 : i32}} : tensor<16xi32>
    %3 = tt.splat %1 : i32 -> tensor<16xi32>
    %4 = arith.addi %3, %2 : tensor<16xi32>
    %5 = tt.splat %arg3 : i32 -> tensor<16xi32>
    %6 = arith.cmpi slt, %4, %5 : tensor<16xi32>
    %7 = tt.splat %arg0 : !tt.ptr<f32> -> tensor<16x!tt.ptr<f32>>
    %8 = tt.addptr %7, %4 : tensor<16x!tt.ptr<f32>>, tensor<16xi32>
    %9 = tt.load %8, %6 : tensor<16x!tt.ptr<f32>>
    %10 = tt.load %arg1 : !tt.ptr<f32>
    %11 = tt.splat %10 : f32 -> tensor<16xf32>
    %12 = arith.mulf %9, %11 : tensor<16xf32>
    %13 = tt.splat %arg2 : !tt.ptr<f32> -> tensor<16x!tt.ptr<f32>>
    %14 = tt.addptr %13, %4 : tensor<16x!tt.ptr<f32>>, tensor<16xi32>
    tt.store %14, %12, %6 : tensor<16x!tt.ptr<f32>>
    tt.return
  }}
}}
"""


def kernel(**changes: Any) -> Kernel:
    def param(name: str, kind: Any, dtype: DType, aligned: bool = False) -> KernelParam:
        return KernelParam(name=name, kind=kind, dtype=dtype, divisible_by_16=aligned)

    values: dict[str, Any] = dict(
        name=NAME,
        shard=0,
        ttir_sha256=hashlib.sha256(TTIR.encode()).hexdigest(),
        params=(
            param("x", "pointer", DType.FLOAT32, True),
            param("factor", "pointer", DType.FLOAT32),
            param("out", "pointer", DType.FLOAT32),
            param("n", "scalar", DType.INT32),
        ),
        num_warps=4,
        num_stages=3,
        num_ctas=1,
        template="",
        config={},
    )
    return Kernel(**values | changes)


def pointer(space: Any, name: str, access: Any) -> PointerArg:
    return PointerArg(ref=Ref(space=space, name=name), access=access)


def scale(x: PointerArg, factor: PointerArg, out: PointerArg, n: int | str) -> Launch:
    grid: Any = (f"({n} + 15) // 16", 1, 1)
    return Launch(
        kernel=NAME,
        grid=grid,
        args=(x, factor, out, ScalarArg(dtype=DType.INT32, value=n)),
        sources=(),
    )


def spec(name: str, shape: Any, strides: Any, mutated: bool = False) -> TensorSpec:
    return TensorSpec(
        name=name, path=name, dtype=DType.FLOAT32, shape=shape, strides=strides, mutated=mutated
    )


def buffer(name: str, size: int | str) -> Buffer:
    nbytes = size * 4 if isinstance(size, int) else f"4 * {size}"
    return Buffer(name=name, dtype=DType.FLOAT32, shape=(size,), strides=(1,), nbytes=nbytes)


def sample() -> Program:
    """out = x * w * w * w, state doubles nothing but is filled; sizes are known at run time."""
    return Program(
        schema_version=program_file.SCHEMA_VERSION,
        target="sm_90",
        num_shards=1,
        symbols=(Symbol(name="s0", minimum=1, maximum=100), Symbol(name="n", minimum=0, maximum=9)),
        inputs=(
            spec("x", ("s0", 3), (3, 1)),
            spec("y", ("3 * s0",), (1,)),
            ScalarSpec(name="count", path="args[2]", symbol="n"),
            spec("state", (4,), (1,), mutated=True),
        ),
        outputs=(spec("out", ("s0", 3), (3, 1)),),
        weights=(Weight(name="w", dtype=DType.FLOAT32, shape=()),),
        constants=(buffer("square", 1),),
        kernels=(kernel(),),
        folding=Procedure(
            buffers=(),
            steps=(
                scale(
                    pointer("weight", "w", "read"),
                    pointer("weight", "w", "read"),
                    pointer("constant", "square", "write"),
                    1,
                ),
            ),
        ),
        main=Procedure(
            buffers=(buffer("t", "3 * s0"),),
            steps=(
                scale(
                    pointer("input", "x", "read"),
                    pointer("weight", "w", "read"),
                    pointer("arena", "t", "write"),
                    "3 * s0",
                ),
                scale(
                    pointer("arena", "t", "read"),
                    pointer("constant", "square", "read"),
                    pointer("output", "out", "write"),
                    "3 * s0",
                ),
                Fill(dst=Ref(space="input", name="state", offset=4), byte=0, nbytes=8, sources=()),
            ),
        ),
        constraints=(Constraint(condition="s0 != 13", text="x.shape[0] != 13"),),
        fixed=(),
    )


def write(program: Program, directory: Path) -> Path:
    (directory / "shards" / "00").mkdir(parents=True)
    (directory / "shards" / "00" / f"{NAME}.ttir").write_text(TTIR)
    (directory / "program.json").write_text(program_file.dumps(program))
    return directory


def inputs(rows: int = 20) -> dict[str, Any]:
    x = torch.arange(3.0 * rows).reshape(rows, 3)
    return {"x": x, "y": torch.zeros(3 * rows), "count": 3, "state": torch.ones(4)}


WEIGHTS = {"w": torch.tensor(2.0)}


@pytest.mark.parametrize("rows", [1, 20, 100])
def test_sizes_come_from_the_inputs(rows: int, tmp_path: Path) -> None:
    seen = []

    def observe(step: Any, index: int, reads: Any, writes: Any) -> None:
        seen.append((index, [a.ref.name for a in reads], [a.ref.name for a in writes]))
        if index == 0:
            assert torch.equal(writes[0].tensor, values["x"].flatten() * 2)

    values = inputs(rows)
    result = run(write(sample(), tmp_path), WEIGHTS, values, observer=observe)
    assert torch.equal(result["outputs"]["out"], values["x"] * 8)
    assert result["outputs"]["out"].shape == (rows, 3)
    assert result["constants"]["square"].tolist() == [4]
    assert result["inputs"]["state"].tolist() == [1, 0, 0, 1]
    assert values["state"].tolist() == [1, 1, 1, 1]
    assert seen == [
        (0, ["x", "w"], ["t"]),
        (1, ["t", "square"], ["out"]),
        (2, [], ["state"]),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(101, 3), "y": torch.zeros(303)}, "s0 is 101, from 1 to 100"),
        ({"x": torch.zeros(13, 3), "y": torch.zeros(39)}, r"x\.shape\[0\] != 13"),
        ({"y": torch.zeros(61)}, r"input 'y' is float32 \[60\], got torch\.float32 \[61\]"),
        ({"x": torch.zeros(3, 20).T}, r"strides \[3, 1\], got \[1, 20\]"),
        ({"x": torch.zeros(20, 3).double()}, "got torch.float64"),
        ({"x": torch.zeros(60)}, "has 2 dimensions, got 1"),
        ({"count": 10}, "n is 10, from 0 to 9"),
        ({"z": torch.zeros(1)}, r"unknown: \['z'\]"),
    ],
)
def test_inputs_that_do_not_fit(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=message):
        run(write(sample(), tmp_path), WEIGHTS, inputs() | change)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    directory = write(sample(), tmp_path)
    with pytest.raises(RunError, match="weight 'w' is missing"):
        run(directory, {}, inputs())
    with pytest.raises(RunError, match="weight 'w' is float32"):
        run(directory, {"w": torch.zeros(1)}, inputs())


def test_another_kernel_than_the_programs(tmp_path: Path) -> None:
    directory = write(sample(), tmp_path)
    path = directory / "shards" / "00" / f"{NAME}.ttir"
    path.write_text(TTIR.replace("mulf", "addf"))
    with pytest.raises(RunError, match="SHA-256"):
        run(directory, WEIGHTS, inputs())
    path.unlink()
    with pytest.raises(RunError, match="there is no"):
        run(directory, WEIGHTS, inputs())


def test_parameters_that_do_not_fit(tmp_path: Path) -> None:
    program = sample()
    params = list(kernel().params)
    params[1] = dataclasses.replace(params[1], dtype=DType.FLOAT16)
    program = dataclasses.replace(program, kernels=(kernel(params=tuple(params)),))
    with pytest.raises(RunError, match=r"!tt\.ptr<f16>.*TTIR has"):
        run(write(program, tmp_path), WEIGHTS, inputs())


def test_a_buffer_too_small_is_found(tmp_path: Path) -> None:
    """Whatever lies behind it in memory."""
    program = sample()
    small = dataclasses.replace(program.main.buffers[0], shape=("2 * s0",), nbytes="8 * s0")
    program = dataclasses.replace(program, main=dataclasses.replace(program.main, buffers=(small,)))
    with pytest.raises(KernelFault) as caught:
        run(write(program, tmp_path), WEIGHTS, inputs())
    fault = caught.value
    assert (fault.kernel, fault.parameter, fault.what) == (NAME, "out", errors.OUT_OF_BOUNDS)
    assert fault.launch == "main.steps[0]"
    assert "main arena t of 160 bytes" in str(fault)
    assert fault.program == (2, 0, 0)


def test_a_step_that_reads_too_early_is_found(tmp_path: Path) -> None:
    """Half of the temporary is filled, all of it is read."""
    program = sample()
    fill = Fill(dst=Ref(space="arena", name="t"), byte=0, nbytes="6 * s0", sources=())
    steps = (fill, *program.main.steps[1:])
    program = dataclasses.replace(program, main=dataclasses.replace(program.main, steps=steps))
    with pytest.raises(KernelFault) as caught:
        run(write(program, tmp_path), WEIGHTS, inputs())
    assert (caught.value.what, caught.value.parameter) == (errors.UNINITIALISED, "x")
    assert caught.value.launch == "main.steps[1]"


def test_a_copy_of_what_nothing_wrote(tmp_path: Path) -> None:
    program = sample()
    fill = Fill(dst=Ref(space="arena", name="t"), byte=0, nbytes="8 * s0", sources=())
    copy = Copy(
        src=Ref(space="arena", name="t"),
        dst=Ref(space="output", name="out"),
        nbytes="12 * s0",
        sources=(),
    )
    program = dataclasses.replace(
        program, main=dataclasses.replace(program.main, steps=(fill, copy))
    )
    with pytest.raises(RunError, match=r"main\.steps\[1\]: reads bytes of .*'t'.* no step wrote"):
        run(write(program, tmp_path), WEIGHTS, inputs())


def test_what_is_declared_read_is_not_written(tmp_path: Path) -> None:
    program = sample()
    first = program.main.steps[0]
    assert isinstance(first, Launch)
    args = (first.args[2], first.args[1], dataclasses.replace(first.args[0]), first.args[3])
    steps = (
        Fill(dst=Ref(space="arena", name="t"), byte=0, nbytes="12 * s0", sources=()),
        dataclasses.replace(first, args=args),
        *program.main.steps[1:],
    )
    program = dataclasses.replace(program, main=dataclasses.replace(program.main, steps=steps))
    with pytest.raises(KernelFault) as caught:
        run(write(program, tmp_path), WEIGHTS, inputs())
    assert (caught.value.what, caught.value.parameter) == (errors.READ_ONLY, "out")
