"""Intake against PyTorch itself: its schema, its files, its loader."""

from __future__ import annotations

import dataclasses
import json
import typing
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch._export.serde import schema as torch_schema
from torch._export.serde import serialize
from torch._export.serde.union import _Union

from wrapgen.intake import schema, split


class Net(torch.nn.Module):
    """Tied and strided weights, views of one storage, constants, bf16, a sub-graph, a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(8, 8)
        self.tied = self.fc.weight
        self.conv = torch.nn.Conv2d(1, 2, 3, padding=1).to(memory_format=torch.channels_last)
        storage = torch.arange(16.0)
        self.register_buffer("low", storage[:8])
        self.register_buffer("high", storage[8:])
        self.register_buffer("transient", torch.ones(4, 8).t(), persistent=False)
        self.half_precision = torch.nn.Parameter(torch.randn(8).bfloat16())

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.fc(x) + torch.tensor([1.0] * 8) + self.low * self.high
        with torch.no_grad():
            y = y * scale
        y = y + self.transient.sum(1) + self.half_precision.float()
        image = self.conv(y.reshape(-1, 1, 2, 4)).sum()
        return {"y": y @ self.tied, "image": image}


def exported(seed: int = 0, *, dynamic: bool = False) -> torch.export.ExportedProgram:
    torch.manual_seed(seed)
    shapes = {"x": {0: torch.export.Dim("batch", min=2, max=64)}, "scale": None}
    return torch.export.export(
        Net(),
        (torch.ones(4, 8),),
        {"scale": torch.ones(8)},
        dynamic_shapes=shapes if dynamic else None,
    )


@pytest.fixture(scope="module", params=[False, True], ids=["static", "dynamic"])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    torch.export.save(exported(dynamic=request.param), path)
    return path


def test_weights_are_those_of_the_model(archive: Path, tmp_path: Path) -> None:
    split(archive, tmp_path / "graph.json", tmp_path / "weights.safetensors")
    program = torch.export.load(archive)
    tensors = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    expected = {**program.state_dict, **program.constants}
    assert sorted(tensors) == sorted(expected)
    for name, value in expected.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value), name


def test_graph_computes_what_the_model_computes(archive: Path, tmp_path: Path) -> None:
    """PyTorch loads graph.json with the weights of the file, and the result is the same."""
    split(archive, tmp_path / "graph.json", tmp_path / "weights.safetensors")
    document = json.loads((tmp_path / "graph.json").read_text())
    tensors = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    original = torch.export.load(archive)
    for name, tensor in document["tensors"].items():
        assert list(tensors[name].stride()) == tensor["strides"]
        if tensor["kind"] == "parameter":
            tensors[name] = torch.nn.Parameter(tensors[name], requires_grad=False)
    state = {name: tensors[name] for name in original.state_dict}
    constants = {name: tensors[name] for name in original.constants}
    program = serialize._dict_to_dataclass(
        torch_schema.ExportedProgram, document["exported_program"]
    )
    loaded = serialize.ExportedProgramDeserializer().deserialize(program, state, constants)
    x, scale = torch.randn(4, 8), torch.randn(8)
    expected = original.module()(x, scale=scale)
    got = loaded.module()(x, scale=scale)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value)


def test_graph_does_not_depend_on_weights(tmp_path: Path) -> None:
    for seed in (0, 1):
        torch.export.save(exported(seed), tmp_path / f"{seed}.pt2")
        split(tmp_path / f"{seed}.pt2", tmp_path / f"{seed}.json", tmp_path / f"{seed}.st")
    assert (tmp_path / "0.json").read_bytes() == (tmp_path / "1.json").read_bytes()
    assert (tmp_path / "0.st").read_bytes() != (tmp_path / "1.st").read_bytes()


def test_fake_weights_are_refused(tmp_path: Path) -> None:
    with torch._subclasses.FakeTensorMode():
        program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(2, 2),))
    torch.export.save(program, tmp_path / "fake.pt2")
    with pytest.raises(ValueError, match="exported with fake tensors"):
        split(tmp_path / "fake.pt2", tmp_path / "g", tmp_path / "w")


def test_schema_version() -> None:
    assert (schema.MAJOR, schema.MINOR) == torch_schema.SCHEMA_VERSION


def test_scalar_types() -> None:
    assert set(schema.SCALAR_TYPES) | {0} == {each.value for each in torch_schema.ScalarType}
    for code, name in schema.SCALAR_TYPES.items():
        assert getattr(torch, name) == serialize._SERIALIZE_TO_TORCH_DTYPE[code]


def declared() -> dict[str, type]:
    return {
        name: value
        for name, value in vars(torch_schema).items()
        if dataclasses.is_dataclass(value) and isinstance(value, type)
    }


@pytest.mark.parametrize("name", sorted(schema._STRUCTS))
def test_struct_is_that_of_torch(name: str) -> None:
    """Our copy of the schema has each field, optional where PyTorch gives a default."""
    ours = schema._STRUCTS[name]
    fields = dataclasses.fields(declared()[name])
    theirs = {
        field.name
        + (
            ""
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            else "="
        )
        for field in fields
    }
    assert set(ours) == theirs
    hints = typing.get_type_hints(declared()[name])
    for field, text in ours.items():
        assert shape(hints[field.removesuffix("=")]) == plain(text), field


@pytest.mark.parametrize("name", sorted(schema._UNIONS))
def test_union_is_that_of_torch(name: str) -> None:
    union = declared()[name]
    assert issubclass(union, _Union)
    hints = typing.get_type_hints(union)
    ours = {tag: plain(text) for tag, text in schema._UNIONS[name].items()}
    assert ours == {field.name: shape(hints[field.name]) for field in dataclasses.fields(union)}


LEAVES = {
    "argument_name": "str",
    "device": "str",
    "dtype": "ScalarType",
    "expression": "str",
    "fqn": "str",
    "guard": "str",
    "layout": "Layout",
    "name": "str",
    "operator": "str",
    "pickled": "str",
    "scalar_type": "ScalarType",
    "treespec": "str",
    "version": "str",
}
ENUMS_AS_INTEGERS = {"MemoryFormat": "int", "ArgumentKind": "int"}


def plain(text: str) -> str:
    """Our type with the leaves that only check more replaced by PyTorch's."""
    if text.endswith("?"):
        return plain(text[:-1]) + "?"
    if text.startswith("["):
        return f"[{plain(text[1:-1])}]"
    if text.startswith("{"):
        return "{" + plain(text[1:-1].rpartition(":")[2]) + "}"
    return LEAVES.get(text, text)


def shape(hint: typing.Any) -> str:
    """PyTorch's type in our notation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return f"[{shape(arguments[0])}]"
    if origin is dict:
        return "{" + shape(arguments[1]) + "}"
    if arguments:
        return shape(next(each for each in arguments if each is not type(None))) + "?"
    return ENUMS_AS_INTEGERS.get(hint.__name__, hint.__name__)
