"""The packed file of weights is where the header of a model in one file says."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.codegen import samples
from wrapgen import program as program_file
from wrapgen.codegen import CodegenError, packed_weights
from wrapgen.dtype import DType
from wrapgen.program import Weight, weights_digest

WEIGHTS = (
    Weight(name="b", dtype=DType.FLOAT32, shape=(3,)),
    Weight(name="a", dtype=DType.FLOAT16, shape=(64, 4)),
    Weight(name="empty", dtype=DType.FLOAT32, shape=(0,)),
    Weight(name="é", dtype=DType.INT64, shape=()),
)
DATA = {"a": bytes(range(256)) * 2, "b": b"x" * 12, "empty": b"", "é": b"12345678"}
TYPES = {"a": ("F16", [64, 4]), "b": ("F32", [3]), "empty": ("F32", [0]), "é": ("I64", [])}


def safetensors(path: Path, **changes: Any) -> Path:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name in ("b", "empty", "é", "a"):
        dtype, shape = TYPES[name]
        end = len(data) + len(DATA[name])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), end]}
        data += DATA[name]
    header["unused"] = {"dtype": "U8", "shape": [1], "data_offsets": [len(data), len(data) + 1]}
    header |= changes
    text = json.dumps({name: entry for name, entry in header.items() if entry}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data + b"u")
    return path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.json"
    path.write_text(program_file.dumps(samples.program(weights=WEIGHTS)))
    return path


def test_places_weights_by_name(program: Path, tmp_path: Path) -> None:
    out = tmp_path / "packed"
    packed_weights.pack(safetensors(tmp_path / "w"), program, out)
    packed = out.read_bytes()
    assert packed[:256] == (b"rules_aoti weights 1\n" + weights_digest(WEIGHTS).encode()).ljust(
        256, b"\0"
    )
    assert packed[256:] == DATA["a"] + DATA["b"].ljust(256, b"\0") + DATA["é"].ljust(256, b"\0")
    assert len(packed) == packed_weights.size(WEIGHTS)
    assert [(offset, weight.name) for offset, weight in packed_weights.layout(WEIGHTS)] == [
        (256, "a"),
        (768, "b"),
        (1024, "empty"),
        (1024, "é"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": None}, "has no weight a; was it split from another model"),
        (
            {"b": {"dtype": "F16", "shape": [3], "data_offsets": [0, 12]}},
            "dtype is F16, expected F",
        ),
        ({"b": {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}}, r"shape is \[4\], expec"),
        (
            {"b": {"dtype": "F32", "shape": [3], "data_offsets": [0, 11]}},
            "has 11 bytes, expected 12",
        ),
        ({"b": {"dtype": "F32", "shape": [3], "data_offsets": [990, 1002]}}, "is cut short"),
    ],
)
def test_refuses_other_weights(
    changes: dict[str, Any], message: str, program: Path, tmp_path: Path
) -> None:
    out = tmp_path / "packed"
    with pytest.raises(CodegenError, match=message):
        packed_weights.pack(safetensors(tmp_path / "w", **changes), program, out)
    assert {path.name for path in tmp_path.iterdir()} == {"program.json", "w"}


@pytest.mark.parametrize("data", [b"", b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{,"])
def test_refuses_what_is_no_safetensors_file(data: bytes, program: Path, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(CodegenError, match="not a safetensors file"):
        packed_weights.pack(tmp_path / "w", program, tmp_path / "packed")
