"""User-defined Triton kernels: exported as data, called as the model calls them."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from simulator import program as simulator
from tests.features import user_triton
from wrapgen import intake
from wrapgen.export import ExportError, export
from wrapgen.lowering import LoweringError, lower
from wrapgen.program import Launch, PointerArg, Program, ScalarArg, TensorMapArg
from wrapgen.target import parse

FEATURE = Path(user_triton.__file__)


def build(src: Path, directory: Path) -> tuple[Program, dict[str, torch.Tensor]]:
    """Exports a file, splits and lowers it; returns the program and the weights."""
    model, graph, weights = (directory / name for name in ("m.pt2", "graph.json", "w.safetensors"))
    export(src, "export", {}, None, model)
    intake.split(model, graph, weights)
    program = lower(graph, parse("sm_90"), directory / "lowered")
    return program, dict(safetensors.torch.load_file(weights))


@pytest.fixture(scope="module")
def feature(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("feature")
    return directory, *build(FEATURE, directory)


def launches(program: Program, kernel: str) -> list[Launch]:
    """The launches of a kernel by the user's name of it."""
    return [
        step
        for step in program.main.steps
        if isinstance(step, Launch) and step.kernel.rpartition("_")[0] == kernel
    ]


@pytest.mark.parametrize("rows", [2, 33])
def test_kernels_compute_what_the_operators_beside_them_do(feature: Any, rows: int) -> None:
    directory, program, weights = feature
    torch.manual_seed(rows)
    x, y, state = torch.randn(rows, 24), torch.randn(24 * rows + 1), torch.randn(rows, 24)

    result = simulator.run(directory / "lowered", weights, {"x": x, "y": y, "state": state})

    outputs = [result["outputs"][spec.name] for spec in program.outputs]
    for ours, theirs in zip(outputs[:12:2], outputs[1:12:2], strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(outputs[5], torch.cos(x) + weights["bias"])
    torch.testing.assert_close(result["inputs"]["state"], state + weights["bias"])
    fp16 = float(torch.tensor(0.1, dtype=torch.float16))
    bf16 = float(torch.tensor(0.1, dtype=torch.bfloat16))
    fp32 = float(torch.tensor(0.1, dtype=torch.float32))
    expected = [rows, 2 * rows, rows + (1 << 40), fp32, 0.1, fp16, bf16, 1.0, 0.0]
    assert outputs[12].tolist() == [float(number) for number in expected]


def test_what_is_promised_of_arguments(feature: Any) -> None:
    """Divisibility by 16 is that of each call: an offset of 4 bytes has none. Numbers that are 1
    are constants, and so is None."""
    _, program, _ = feature
    with_y, without = launches(program, "scaled_sum")
    divisible = {p.name: p.divisible_by_16 for p in program.kernel(with_y.kernel).params}
    assert divisible == {"x": True, "y": False, "out": True, "n": False, "alpha": False}
    assert program.kernel(without.kernel).config["y"] is None
    rows = {program.kernel(step.kernel).name: step for step in launches(program, "add_rows")}
    constants = sorted(tuple(sorted(set(program.kernel(name).config) - {"BLOCK"})) for name in rows)
    assert constants == [("stride_column",), ("stride_row",)]


def test_in_place_takes_a_copy_only_where_it_must(feature: Any) -> None:
    """A temporary is changed where it is, an argument too; what is read afterwards is not."""
    _, program, _ = feature
    assert all(isinstance(step, Launch) for step in program.main.steps)
    written = [
        arg.ref
        for step in launches(program, "add_rows")
        for arg in step.args
        if isinstance(arg, PointerArg) and arg.access == "read_write"
    ]
    spaces = sorted((ref.space, str(ref.offset)) for ref in written)
    assert spaces == [
        ("arena", "0"),  # f, of which only the sum leaves
        ("input", "0"),
        ("output", "0"),
        ("output", "32 * s0"),  # the view of columns 8 to 16
    ]


def test_launches_name_the_kernel_and_the_line_of_the_model(feature: Any) -> None:
    directory, program, _ = feature
    (first, _) = launches(program, "scaled_sum")
    (source,) = first.sources
    assert source.op == "triton.scaled_sum"
    assert source.code == "a = scaled_sum_op(x.flatten(), shifted, 0.5)"
    assert source.location == "user_triton.py, in forward"
    text = (directory / "lowered" / "sources" / f"{first.kernel}.py").read_text()
    assert "def scaled_sum(" in text and "def clamped(" in text


def test_types_of_numbers_are_those_of_the_signature(feature: Any) -> None:
    _, program, _ = feature
    (call,) = launches(program, "numbers")
    types = [str(arg.dtype) for arg in call.args if isinstance(arg, ScalarArg)]
    assert types == [
        "int32", "int32", "int64", "float32", "float64", "float16", "bfloat16", "bool", "bool",
    ]  # fmt: skip


HEAD = """
import torch
import triton
from torch.library import triton_op, wrap_triton
from triton import language as tl
"""


def model(
    directory: Path,
    kernel: str,
    forward: str,
    inputs: str = "(torch.randn(64, 64),)",
    name: str = "",
) -> Path:
    """A file with a kernel and a model that calls it."""
    # PyTorch finds modules by their names.
    src = directory / f"{name or directory.name}.py"
    body = textwrap.indent(textwrap.dedent(forward), "        ")
    src.write_text(
        f"{HEAD}\n{textwrap.dedent(kernel)}\n"
        f"class Model(torch.nn.Module):\n    def forward(self, x):\n{body}\n"
        f"def export():\n    return torch.export.export(Model(), {inputs})\n"
    )
    return src


def test_the_grid_is_that_of_the_configuration_taken(tmp_path: Path) -> None:
    """The first asks for more shared memory than the device has; the second has another grid."""
    src = model(
        tmp_path,
        """
        @triton.autotune(configs=[
            triton.Config({"BLOCK": 64, "K": 64}, num_stages=24),
            triton.Config({"BLOCK": 32, "K": 32}, num_stages=2),
        ], key=[])
        @triton.jit
        def square(x, out, n, BLOCK: tl.constexpr, K: tl.constexpr):
            rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
            columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
            total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
            for k in range(0, n, K):
                inner = k + tl.arange(0, K)
                a = tl.load(x + rows[:, None] * n + inner[None, :])
                b = tl.load(x + inner[:, None] * n + columns[None, :])
                total = tl.dot(a, b, total, input_precision="ieee")
            tl.store(out + rows[:, None] * n + columns[None, :], total)
        """,
        """
        out = torch.empty_like(x)
        n = x.shape[0]
        wrap_triton(square)[lambda meta: (n // meta["BLOCK"], n // meta["BLOCK"])](x, out, n)
        return out
        """,
    )
    program, weights = build(src, tmp_path)
    (launch,) = launches(program, "square")
    assert launch.grid == (2, 2, 1)
    assert program.kernel(launch.kernel).config["BLOCK"] == 32
    x = torch.randn(64, 64)
    (out,) = simulator.run(tmp_path / "lowered", weights, {"x": x})["outputs"].values()
    torch.testing.assert_close(out, x @ x)


def test_a_configuration_that_only_some_targets_have(tmp_path: Path) -> None:
    """Clusters of blocks are for sm_90; sm_80 gets the next configuration and its grid."""
    src = model(
        tmp_path,
        """
        @triton.autotune(configs=[
            triton.Config({"BLOCK": 256}, num_ctas=2), triton.Config({"BLOCK": 512})], key=[])
        """
        + COPY.lstrip("\n").replace("\n", "\n        "),
        """
        out = torch.empty_like(x)
        wrap_triton(copy)[lambda meta: (4096 // meta["BLOCK"],)](x, out, 4096)
        return out
        """,
    )
    build(src, tmp_path)
    found = {}
    for target in ("sm_80", "sm_90"):
        program = lower(tmp_path / "graph.json", parse(target), tmp_path / target)
        (launch,) = launches(program, "copy")
        found[target] = launch.grid, program.kernel(launch.kernel).num_ctas
    assert found == {"sm_80": ((8, 1, 1), 1), "sm_90": ((16, 1, 1), 2)}


COPY = """
@triton.jit
def copy(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n), mask=at < n)
"""


def test_tensors_have_the_strides_of_the_export(tmp_path: Path) -> None:
    """The kernel reads the transposed memory of a product, which lowering would lay out anew."""
    src = model(
        tmp_path,
        COPY,
        """
        y = torch.nn.functional.conv2d(x.view(1, 4, 32, 32), torch.ones(4, 4, 3, 3), padding=1)
        out = torch.empty(4 * 32 * 32)
        wrap_triton(copy)[(16,)](y, out, 4 * 32 * 32, BLOCK=256)
        return out, y.flatten()
        """,
    )
    program, weights = build(src, tmp_path)
    x = torch.randn(64, 64)
    result = simulator.run(tmp_path / "lowered", weights, {"x": x})["outputs"]
    ours, theirs = (result[spec.name] for spec in program.outputs)
    torch.testing.assert_close(ours, theirs)


def test_a_block_without_gradients(tmp_path: Path) -> None:
    """PyTorch makes a graph of its own of what is in a ``with`` block."""
    src = model(
        tmp_path,
        COPY,
        """
        with torch.no_grad():
            out = torch.empty_like(x)
            wrap_triton(copy)[(x.numel() // 256,)](x, out, x.numel(), BLOCK=256)
        return out + 1
        """,
    )
    _, weights = build(src, tmp_path)
    x = torch.randn(64, 64)
    (out,) = simulator.run(tmp_path / "lowered", weights, {"x": x})["outputs"].values()
    torch.testing.assert_close(out, x + 1)


def test_kernels_on_weights_and_between_convolutions(tmp_path: Path) -> None:
    """What depends on weights alone runs when they are loaded. In place, a kernel finds a
    convolution's result laid out as in the export, and the next convolution finds what it wrote."""
    src = model(
        tmp_path,
        """
        @triton.jit
        def increase(x, n, BLOCK: tl.constexpr):
            at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
            tl.store(x + at, tl.load(x + at, mask=at < n) + at, mask=at < n)

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 144).reshape(4, 4, 3, 3))

            def forward(self, x):
                weight = self.weight * 1
                wrap_triton(increase)[(1,)](weight, 144, BLOCK=256)
                y = torch.nn.functional.conv2d(x, self.weight, padding=1)
                wrap_triton(increase)[(4,)](y, y.numel(), BLOCK=256)
                return torch.nn.functional.conv2d(y, weight, padding=1)
        """,
        "return Net()(x)",
        "(torch.randn(1, 4, 16, 16),)",
    )
    src.write_text(src.read_text().replace("export(Model()", "export(Net()"))
    program, weights = build(src, tmp_path)
    kernels = {step.kernel for step in program.folding.steps if isinstance(step, Launch)}
    assert any(kernel.startswith("increase_") for kernel in kernels)
    x = torch.randn(1, 4, 16, 16)
    (out,) = simulator.run(tmp_path / "lowered", weights, {"x": x})["outputs"].values()
    y = torch.nn.functional.conv2d(x, weights["weight"], padding=1)
    y += torch.arange(1024).view_as(y)
    weight = weights["weight"] + torch.arange(144).view(4, 4, 3, 3)
    torch.testing.assert_close(out, torch.nn.functional.conv2d(y, weight, padding=1))


def test_a_float_that_depends_on_sizes(tmp_path: Path) -> None:
    """It is computed on the device."""
    src = model(
        tmp_path,
        """
        @triton.jit
        def scale(x, out, n, alpha, BLOCK: tl.constexpr):
            at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
            tl.store(out + at, tl.load(x + at, mask=at < n) * alpha, mask=at < n)
        """,
        """
        out = torch.empty_like(x)
        n = x.shape[0]
        wrap_triton(scale)[(triton.cdiv(n, 64),)](x, out, n, 1.0 / n, BLOCK=64)
        return out
        """,
        '(torch.randn(40),), dynamic_shapes=({0: torch.export.Dim("n", min=2, max=99)},)',
    )
    _, weights = build(src, tmp_path)
    x = torch.randn(70)
    (out,) = simulator.run(tmp_path / "lowered", weights, {"x": x})["outputs"].values()
    torch.testing.assert_close(out, x / 70)


def test_tensors_passed_as_descriptors(tmp_path: Path) -> None:
    """They become tensor maps: of an argument, and of what the kernel writes."""
    src = model(
        tmp_path,
        """
        from triton.tools.tensor_descriptor import TensorDescriptor

        @triton.jit
        def double(x, out, BLOCK: tl.constexpr):
            row, column = tl.program_id(0) * BLOCK, tl.program_id(1) * BLOCK
            out.store([row, column], 2 * x.load([row, column]))
        """,
        """
        out = torch.empty_like(x)
        wrap_triton(double)[(triton.cdiv(x.shape[0], 32), 3)](
            TensorDescriptor.from_tensor(x, [32, 32]),
            TensorDescriptor.from_tensor(out, [32, 32]),
            BLOCK=32,
        )
        return out + 1
        """,
        '(torch.randn(40, 96),), dynamic_shapes=({0: torch.export.Dim("n", min=2, max=99)},)',
    )
    program, weights = build(src, tmp_path)
    (launch,) = launches(program, "double")
    maps = [arg for arg in launch.args if isinstance(arg, TensorMapArg)]
    assert [arg.access for arg in maps] == ["read", "write"]
    assert [arg.shape for arg in maps] == [("s0", 96)] * 2
    x = torch.randn(70, 96)
    (out,) = simulator.run(tmp_path / "lowered", weights, {"x": x})["outputs"].values()
    torch.testing.assert_close(out, 2 * x + 1)
    with pytest.raises(LoweringError, match=r"Triton makes it for sm_\d+, sm_\d+, sm_\d+ alone"):
        lower(tmp_path / "graph.json", parse("sm_80"), tmp_path / "other")


def test_the_archive_is_the_same_wherever_it_is_made(tmp_path: Path) -> None:
    contents = set()
    for directory in (tmp_path / "a", tmp_path / "b" / "c"):
        directory.mkdir(parents=True)
        out = "out = torch.empty_like(x)\nwrap_triton(copy)[(1,)](x, out, 9, BLOCK=64)\nreturn out"
        src = model(directory, COPY, out, name="copies")
        export(src, "export", {}, None, directory / "m.pt2")
        contents.add((directory / "m.pt2").read_bytes())
    assert len(contents) == 1


def test_cooperative_and_dependent_launches(tmp_path: Path) -> None:
    src = model(
        tmp_path,
        COPY,
        """
        out = torch.empty_like(x)
        wrap_triton(copy)[(16,)](x, out, 4096, BLOCK=256, launch_cooperative_grid=True)
        return out
        """,
    )
    program, _ = build(src, tmp_path)
    (launch,) = launches(program, "copy")
    assert program.kernel(launch.kernel).cooperative
    assert not program.kernel(launch.kernel).launch_pdl


def test_an_operator_without_its_kernels_is_refused(tmp_path: Path) -> None:
    """What ``torch.export.save`` alone writes."""
    program = torch.export.export(Opaque(), (torch.randn(4),))
    torch.export.save(program, tmp_path / "m.pt2")
    intake.split(tmp_path / "m.pt2", tmp_path / "graph.json", tmp_path / "w.safetensors")
    text = (tmp_path / "graph.json").read_text()
    # As it is where nobody has defined the operator.
    (tmp_path / "graph.json").write_text(text.replace("features.scaled_sum", "nobody.has"))
    with pytest.raises(LoweringError) as error:
        lower(tmp_path / "graph.json", parse("sm_90"), tmp_path / "lowered")
    assert "nobody.has.default: a custom operator" in str(error.value)
    assert "export with aoti_export" in str(error.value)


class Opaque(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = user_triton.scaled_sum_op(x, None, 0.5)
        return result


FAULTS: dict[str, tuple[str, str, str]] = {
    "print": (
        """
        @triton.jit
        def shout(x, out, BLOCK: tl.constexpr):
            tl.device_print("x", tl.program_id(0))
            tl.store(out, tl.load(x))
        """,
        "wrap_triton(shout)[(1,)](x, out, BLOCK=1)",
        "the Triton kernel shout cannot be exported: printing from a kernel",
    ),
    "option": (
        COPY,
        "wrap_triton(copy)[(1,)](x, out, 64, BLOCK=64, enable_fp_fusion=False)",
        "the Triton kernel copy is launched with enable_fp_fusion=False, an option not supported",
    ),
    "argument": (
        COPY,
        "wrap_triton(copy)[(1,)](x, out, BLOCK=64)",
        "the Triton kernel copy is called without its argument n",
    ),
    "type": (
        """
        @triton.jit
        def first(x, out, n: tl.float8e5, BLOCK: tl.constexpr):
            tl.store(out, tl.load(x))
        """,
        "wrap_triton(first)[(1,)](x, out, 1.0, BLOCK=64)",
        "the Triton kernel first takes n as fp8e5: expected one of",
    ),
    "recursion": (
        """
        @triton.jit
        def again(n):
            if n > 0:
                return again(n - 1)
            return n

        @triton.jit
        def outer(x, out, n, BLOCK: tl.constexpr):
            tl.store(out, tl.load(x) + again(n))
        """,
        "wrap_triton(outer)[(1,)](x, out, 5, BLOCK=64)",
        "Triton refuses the kernel outer for sm_80",
    ),
    "branch": (
        COPY,
        """
        def copied(x):
            y = torch.empty_like(x)
            wrap_triton(copy)[(1,)](x, y, 64, BLOCK=64)
            return y
        out = torch.cond(x.sum() > 0, copied, lambda x: x + 1, (x,))
        """,
        "a Triton kernel is called where PyTorch cannot trace it",
    ),
    "operator in a branch": (
        COPY
        + """
@triton_op("faults::copied", mutates_args={})
def copied(x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    wrap_triton(copy)[(1,)](x, y, 64, BLOCK=64)
    return y
""",
        "out = torch.cond(x.sum() > 0, lambda x: copied(x), lambda x: x + 1, (x,))",
        "a Triton kernel in a branch or in the body of a loop",
    ),
    "pre_hook": (
        """
        @triton.autotune(configs=[
            triton.Config({"BLOCK": 64}, pre_hook=lambda args: args["out"].zero_())], key=[])
        """
        + COPY.lstrip("\n").replace("\n", "\n        "),
        "wrap_triton(copy)[(1,)](x, out, 64)",
        "pre_hook and post_hook are not supported",
    ),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_what_is_refused_at_export(name: str, tmp_path: Path) -> None:
    kernel, call, message = FAULTS[name]
    call = textwrap.dedent(call)
    src = model(tmp_path, kernel, f"out = torch.empty_like(x)\n{call}\nreturn out\n")
    with pytest.raises(ExportError) as error:
        export(src, "export", {}, None, tmp_path / "m.pt2")
    assert message in str(error.value)
    assert src.name in str(error.value)
