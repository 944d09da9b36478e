"""What leaves intake: weights as they are, and a graph that knows nothing of where it was made."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
import safetensors
from hypothesis import strategies as st

from tests.intake.archives import Json, Parts, payload, program, tensor_meta
from wrapgen.dtype import INFO, DType
from wrapgen.intake import graph as graphs
from wrapgen.intake import split
from wrapgen.intake.schema import SCALAR_TYPES
from wrapgen.intake.weights import row_major


def outputs(parts: Parts, tmp_path: Path, **how: Any) -> tuple[Json, dict[str, Any]]:
    """Splits; returns graph.json and, by name, what the safetensors library reads."""
    graph, weights = tmp_path / "graph.json", tmp_path / "weights.safetensors"
    split(parts.write(tmp_path / "model.pt2", **how), graph, weights)
    tensors = dict(safetensors.deserialize(weights.read_bytes()))
    return json.loads(graph.read_text()), tensors


def array(tensor: Any, dtype: str) -> npt.NDArray[Any]:
    return np.frombuffer(bytes(tensor["data"]), dtype=dtype).reshape(tensor["shape"])


def test_weights_and_graph(tmp_path: Path) -> None:
    parts = Parts()
    graph, tensors = outputs(parts, tmp_path)
    assert list(tensors) == ["fc.weight"]
    np.testing.assert_array_equal(array(tensors["fc.weight"], "<f4"), parts.values)
    assert graph["schema_version"] == 3
    assert graph["tensors"] == {
        "fc.weight": {
            "dtype": "float32",
            "kind": "parameter",
            "shape": [3, 4],
            "strides": [4, 1],
        }
    }
    node = graph["exported_program"]["graph_module"]["graph"]["nodes"][0]
    assert node["metadata"] == {
        "stack_trace": 'File "net.py", in forward\n  y = self.fc(x)',
        "nn_module_stack": "L__self__,,net.Net;L__self___fc,fc,torch.nn.modules.linear.Linear",
    }


def test_graph_knows_nothing_of_its_origin(tmp_path: Path) -> None:
    graph, _ = outputs(Parts(), tmp_path)
    text = json.dumps(graph)
    for leak in ("/home", "site-packages", "140234", "+cpu", "torch_fn", str(tmp_path)):
        assert leak not in text


def test_same_graph_for_other_weights(tmp_path: Path) -> None:
    parts = Parts()
    outputs(parts, tmp_path)
    before = (tmp_path / "graph.json").read_bytes()
    weights = (tmp_path / "weights.safetensors").read_bytes()
    parts.members["data/weights/weight_0"] = (parts.values * 3).tobytes()
    outputs(parts, tmp_path)
    assert (tmp_path / "graph.json").read_bytes() == before
    assert (tmp_path / "weights.safetensors").read_bytes() != weights, "the negative control"


def test_same_graph_from_cuda(tmp_path: Path) -> None:
    """A model exported on the second GPU of some machine, with another build of PyTorch."""
    outputs(Parts(), tmp_path)
    expected = (tmp_path / "graph.json").read_bytes()
    parts = Parts()
    meta = tensor_meta([3, 4], device="cuda", index=1)
    parts.program = program({"fc.weight": meta}, device="cuda", index=1)
    parts.program["torch_version"] = "2.13.0+cu126"
    parts.weights = {"config": {"fc.weight": payload("weight_0", meta)}}
    outputs(parts, tmp_path)
    assert (tmp_path / "graph.json").read_bytes() == expected


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_same_bytes_however_packed(tmp_path: Path, method: int) -> None:
    outputs(Parts(), tmp_path)
    expected = [(tmp_path / name).read_bytes() for name in ("graph.json", "weights.safetensors")]
    outputs(Parts(), tmp_path, method=method, root="other")
    got = [(tmp_path / name).read_bytes() for name in ("graph.json", "weights.safetensors")]
    assert got == expected


CODES = sorted(code for code, dtype in SCALAR_TYPES.items() if isinstance(dtype, DType))


@pytest.mark.parametrize("code", CODES)
def test_every_dtype(tmp_path: Path, code: int) -> None:
    dtype = DType(SCALAR_TYPES[code])
    size = INFO[dtype].itemsize
    parts = Parts()
    meta = tensor_meta([3, 4], dtype=code)
    parts.program = program({"fc.weight": meta})
    parts.weights = {"config": {"fc.weight": payload("weight_0", meta)}}
    parts.members["data/weights/weight_0"] = bytes(range(12 * size))
    graph, tensors = outputs(parts, tmp_path)
    assert tensors["fc.weight"]["dtype"] == INFO[dtype].safetensors
    assert bytes(tensors["fc.weight"]["data"]) == bytes(range(12 * size))
    assert graph["tensors"]["fc.weight"]["dtype"] == dtype


def test_channels_last_weight_leaves_contiguous(tmp_path: Path) -> None:
    parts = Parts()
    values = np.arange(2 * 3 * 4 * 5, dtype="<f4").reshape(2, 3, 4, 5)
    meta = tensor_meta([2, 3, 4, 5], [60, 1, 15, 3])
    parts.program = program({"fc.weight": meta})
    parts.weights = {"config": {"fc.weight": payload("weight_0", meta)}}
    parts.members["data/weights/weight_0"] = values.transpose(0, 2, 3, 1).tobytes()
    graph, tensors = outputs(parts, tmp_path)
    np.testing.assert_array_equal(array(tensors["fc.weight"], "<f4"), values)
    assert graph["tensors"]["fc.weight"]["strides"] == [60, 20, 5, 1]
    described = graph["exported_program"]["graph_module"]["graph"]["tensor_values"]["p_fc_weight"]
    assert described["strides"] == [{"as_int": stride} for stride in (60, 20, 5, 1)]


def test_tensors_of_one_storage(tmp_path: Path) -> None:
    parts = Parts()
    storage = np.arange(24, dtype="<f4")
    metas = {
        "tied.a": tensor_meta([3, 4], offset=4),
        "tied.b": tensor_meta([3, 4], offset=4),
        "whole": tensor_meta([24]),
        "diagonal": tensor_meta([4], [5], offset=1),
        "scalar": tensor_meta([], offset=23),
        "none": tensor_meta([0, 4], offset=24),
    }
    parts.program = program(metas)
    parts.weights = {"config": {name: payload("weight_0", meta) for name, meta in metas.items()}}
    parts.members["data/weights/weight_0"] = storage.tobytes()
    _, tensors = outputs(parts, tmp_path)
    expected = {
        "tied.a": storage[4:16].reshape(3, 4),
        "tied.b": storage[4:16].reshape(3, 4),
        "whole": storage,
        "diagonal": storage[1:17:5],
        "scalar": storage[23],
        "none": np.empty((0, 4), "<f4"),
    }
    assert sorted(tensors) == sorted(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(array(tensors[name], "<f4"), values)


def test_kinds(tmp_path: Path) -> None:
    """Buffers that are not persistent, and tensors made in forward, are among the constants."""
    parts = Parts()
    metas = {name: tensor_meta([3, 4]) for name in ("weight", "buffer", "transient", "lifted")}
    parts.program = program(metas)
    specs = parts.program["graph_module"]["signature"]["input_specs"]
    for spec, (kind, field, more) in zip(
        specs[1:4],
        [
            ("buffer", "buffer_name", {"persistent": True}),
            ("buffer", "buffer_name", {"persistent": False}),
            ("tensor_constant", "tensor_constant_name", {}),
        ],
        strict=True,
    ):
        fields = spec.pop("parameter")
        spec[kind] = {"arg": fields["arg"], field: fields["parameter_name"]} | more
    parts.weights = {
        "config": {name: payload("weight_0", metas[name]) for name in ("weight", "buffer")}
    }
    parts.constants = {
        "config": {name: payload("tensor_0", metas[name]) for name in ("transient", "lifted")}
    }
    parts.members["data/constants/tensor_0"] = (parts.values + 1).tobytes()
    graph, tensors = outputs(parts, tmp_path)
    kinds = {name: tensor["kind"] for name, tensor in graph["tensors"].items()}
    assert kinds == {
        "weight": "parameter",
        "buffer": "buffer",
        "transient": "buffer",
        "lifted": "constant",
    }
    np.testing.assert_array_equal(array(tensors["lifted"], "<f4"), parts.values + 1)


def test_symbols_stay(tmp_path: Path) -> None:
    parts = Parts()
    size = {
        "as_expr": {
            "expr_str": "Mul(Integer(2), FloorDiv(Symbol('s77', positive=True, integer=True), "
            "Integer(2)))",
            "hint": {"as_int": 8},
        }
    }
    parts.graph["tensor_values"]["x"]["sizes"][0] = size
    parts.program["range_constraints"] = {"s77": {"min_val": 2, "max_val": None}}
    graph, _ = outputs(parts, tmp_path)
    kept = graph["exported_program"]
    assert kept["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][0] == size
    assert kept["range_constraints"] == {"s77": {"min_val": 2, "max_val": None}}


def test_neither_file_is_written_where_one_cannot_be(tmp_path: Path) -> None:
    model = Parts().write(tmp_path / "m.pt2")
    (tmp_path / "weights").mkdir()
    with pytest.raises(OSError, match="weights"):
        split(model, tmp_path / "graph.json", tmp_path / "weights")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.pt2", "weights"]


def test_files_are_as_readable_as_others(tmp_path: Path) -> None:
    outputs(Parts(), tmp_path)
    modes = {(tmp_path / name).stat().st_mode for name in ("graph.json", "weights.safetensors")}
    assert len(modes) == 1


def test_needs_no_torch(tmp_path: Path) -> None:
    model = Parts().write(tmp_path / "m.pt2")
    code = (
        "import sys; from pathlib import Path; from wrapgen.intake import split\n"
        f"split(Path({str(model)!r}), Path('g'), Path('w'))\n"
        "assert not {'torch', 'triton', 'pickle5'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    environment["PYTHONPATH"] += os.pathsep + str(Path.cwd())
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "g").is_file()


@st.composite
def strided(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Sizes, strides and offset of a view, with overlaps and gaps."""
    sizes = draw(st.lists(st.integers(0, 4), max_size=4))
    strides = draw(st.lists(st.integers(0, 9), min_size=len(sizes), max_size=len(sizes)))
    return sizes, strides, draw(st.integers(0, 7))


@hypothesis.given(view=strided())
@hypothesis.settings(max_examples=60, deadline=None)
def test_any_view_of_a_storage(
    view: tuple[list[int], list[int], int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    sizes, strides, offset = view
    storage = np.arange(256, dtype="<u2")
    meta = tensor_meta(sizes, strides, offset, dtype=3)
    parts = Parts()
    parts.program = program({"fc.weight": meta})
    parts.weights = {"config": {"fc.weight": payload("weight_0", copy.deepcopy(meta))}}
    parts.members["data/weights/weight_0"] = storage.tobytes()
    graph, tensors = outputs(parts, tmp_path_factory.mktemp("view"))
    expected = np.zeros(sizes, "<u2")
    for index in np.ndindex(*sizes):
        expected[index] = storage[offset + sum(i * s for i, s in zip(index, strides, strict=True))]
    np.testing.assert_array_equal(array(tensors["fc.weight"], "<u2"), expected)
    assert graph["tensors"]["fc.weight"]["strides"] == list(row_major(tuple(sizes)))


# Source locations.


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/someone/project/net.py", "net.py"),
        ("models/net.py", "models/net.py"),
        ("./models/net.py", "models/net.py"),
        ("../net.py", "net.py"),
        (
            "/usr/lib/python3/dist-packages/transformers/models/bert.py",
            "transformers/models/bert.py",
        ),
        ("/venv/lib/python3.11/site-packages/timm/resnet.py", "timm/resnet.py"),
        ("/cache/sandbox/4/execroot/_main/models/net.py", "models/net.py"),
        ("/c/execroot/_main/bazel-out/k8-opt/bin/models/net.py", "models/net.py"),
        ("bazel-out/k8-opt/bin/models/net.py", "models/net.py"),
        ("/c/bin/export.runfiles/_main/models/net.py", "models/net.py"),
        ("C:\\Users\\someone\\net.py", "net.py"),
        ("a\nb.py", "ab.py"),
    ],
)
def test_relative(path: str, expected: str) -> None:
    assert graphs.relative(path) == expected


def frame(path: str, line: int, code: str) -> str:
    return f'  File "{path}", line {line}, in forward\n    {code}\n'


IN_FORWARD = 'File "net.py", in forward\n  '
TORCH = frame("/venv/lib/python3.11/site-packages/torch/nn/modules/conv.py", 565, "return conv(x)")


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("", ""),
        (TORCH, ""),
        (frame("/p/net.py", 3, "x = f(x)") + TORCH, IN_FORWARD + "x = f(x)"),
        (
            frame("/p/net.py", 3, "x = f(x)") + frame("/p/block.py", 4, "y = g(x)") + TORCH,
            'File "block.py", in forward\n  y = g(x)',
        ),
        (frame("/p/net.py", 3, "x") + frame("<eval_with_key>.1", 9, "z"), IN_FORWARD + "x"),
        (frame("/src/torch/nn/functional.py", 9, "z"), ""),
        (frame("/home/torch/net.py", 9, "z"), IN_FORWARD + "z"),
        (frame("/p/net.py", 3, "x = '*/ \u202e\x1b[2J'"), IN_FORWARD + "x = '*/ [2J'"),
        (frame("/p/net.py", 3, "x" * 900), IN_FORWARD + "x" * 200),
        ('File "/p/net.py", line 3\n    x = 1', 'File "net.py"\n  x = 1'),
        ('File "/p/net.py", line 3, in forward', 'File "net.py", in forward'),
        (IN_FORWARD + "x = f(x)", IN_FORWARD + "x = f(x)"),
        ("no trace at all", ""),
    ],
)
def test_user_frame(trace: str, expected: str) -> None:
    assert graphs.user_frame(trace) == expected


@pytest.mark.parametrize(
    ("code", "kept"),
    [
        ("y = f(x)  # why", "y = f(x)"),
        ("y = f(  # why", "y = f("),
        ("y = f(x)#", "y = f(x)"),
        ("""y = d["#"] + '#'  # a "quoted" why""", """y = d["#"] + '#'"""),
        (r"""y = d["\"#"] + '\\'  # why""", r"""y = d["\"#"] + '\\'"""),
        ("y = d['''it \"#\" is''']  # why", "y = d['''it \"#\" is''']"),
        # One of a string that goes on is told from code by reading more than the line.
        ('y = f("""a # b', 'y = f("""a # b'),
    ],
)
def test_a_comment_behind_the_code_is_left_out(code: str, kept: str) -> None:
    assert graphs.user_frame(frame("/p/net.py", 3, code)) == IN_FORWARD + kept


@hypothesis.given(st.text(max_size=300))
def test_user_frame_of_anything(trace: str) -> None:
    found = graphs.user_frame(trace)
    assert found.count("\n") <= 1
    assert graphs.user_frame(found) in (found, ""), "it stands when it is applied again"
