"""Whatever is in the file, intake either splits it or refuses it; nothing else ever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests.intake.archives import Parts
from wrapgen.intake import IntakeError, split

SETTINGS = hypothesis.settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def split_or_refuse(model: Path, tmp_path: Path) -> bool:
    graph, weights = tmp_path / "graph.json", tmp_path / "weights.safetensors"
    try:
        split(model, graph, weights)
    except IntakeError:
        assert not graph.exists()
        assert not weights.exists()
        return False
    graph.unlink()
    weights.unlink()
    return True


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        found.append((value, key))
        if isinstance(item, dict | list):
            places(item, found)
    return found


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["as_int", "x", "cuda", "Symbol('s0')", "torch.ops.aten.add.Tensor", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@hypothesis.given(data=st.data())
@SETTINGS
def test_any_value_anywhere(data: st.DataObject, tmp_path: Path) -> None:
    parts = Parts()
    document = data.draw(st.sampled_from([parts.program, parts.weights]))
    container, key = data.draw(st.sampled_from(places(document, [])))
    if data.draw(st.booleans()):
        container[key] = data.draw(JSON)
    else:
        del container[key]
    split_or_refuse(parts.write(tmp_path / "m.pt2"), tmp_path)


@hypothesis.given(changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8))
@SETTINGS
def test_any_bytes_anywhere(changes: list[tuple[int, int]], tmp_path: Path) -> None:
    data = bytearray(Parts().write(tmp_path / "m.pt2").read_bytes())
    for at, byte in changes:
        data[at % len(data)] = byte
    (tmp_path / "m.pt2").write_bytes(data)
    split_or_refuse(tmp_path / "m.pt2", tmp_path)


@hypothesis.given(fraction=st.floats(0, 1, exclude_max=True))
@hypothesis.settings(SETTINGS, max_examples=40)
def test_any_cut(fraction: float, tmp_path: Path) -> None:
    data = Parts().write(tmp_path / "m.pt2").read_bytes()
    (tmp_path / "m.pt2").write_bytes(data[: int(fraction * len(data))])
    assert not split_or_refuse(tmp_path / "m.pt2", tmp_path)


@pytest.mark.parametrize("byte", range(22))
def test_damaged_end_record(byte: int, tmp_path: Path) -> None:
    """The last 22 bytes are where zip readers begin."""
    data = bytearray(Parts().write(tmp_path / "m.pt2").read_bytes())
    data[-22 + byte] ^= 0xFF
    (tmp_path / "m.pt2").write_bytes(data)
    split_or_refuse(tmp_path / "m.pt2", tmp_path)
