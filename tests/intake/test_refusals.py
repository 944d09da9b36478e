"""Everything that intake refuses, each for its own reason and with its own message."""

from __future__ import annotations

import json
import re
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.intake.archives import (
    CONSTANTS,
    MODEL,
    WEIGHTS,
    Json,
    Parts,
    Spoil,
    payload,
    tensor_meta,
)
from wrapgen.intake import Limits, errors, split


def refused(model: Path, tmp_path: Path, limits: Limits | None = None) -> errors.IntakeError:
    """Splits an archive that must be refused, without output; returns the error."""
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(errors.IntakeError) as caught:
        split(model, out / "graph.json", out / "weights.safetensors", limits)
    assert not list(out.iterdir()), "a refused archive leaves nothing behind"
    assert str(model) in str(caught.value), "the message names the file"
    return caught.value


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18), b"PK\x03\x04" * 9])
def test_not_a_zip(tmp_path: Path, content: bytes) -> None:
    model = tmp_path / "m.pt2"
    model.write_bytes(content)
    assert type(refused(model, tmp_path)) is errors.NotAnArchiveError


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        split(tmp_path / "none.pt2", tmp_path / "g", tmp_path / "w")


# Names.


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/etc/passwd", "absolute"),
        ("C:/windows/x", "absolute"),
        ("model/../../x", "leaves the archive"),
        ("../x", "leaves the archive"),
        ("model/a\\b", "backslash"),
        ("..\\x", "backslash"),
        ("model//x", "empty"),
        ("model/./x", "empty or '.'"),
        ("model/a\nb", "unprintable"),
        ("model/data/weights/weight_0", "twice"),
    ],
)
def test_unsafe_names(tmp_path: Path, name: str, message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate
        model = Parts().write(tmp_path / "m.pt2", extra=[(name, b"x")])
    error = refused(model, tmp_path)
    assert type(error) is errors.UnsafeNameError
    assert message in str(error)


def test_name_with_a_zero_byte(tmp_path: Path) -> None:
    """zipfile cuts such a name, so that it looks harmless."""
    model = Parts().write(tmp_path / "m.pt2", extra=[("model/aZb", b"x")])
    model.write_bytes(model.read_bytes().replace(b"aZb", b"a\0b"))
    assert type(refused(model, tmp_path)) is errors.UnsafeNameError


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices(tmp_path: Path, kind: int) -> None:
    link = zipfile.ZipInfo("model/extra/link")
    link.external_attr = (kind | 0o777) << 16
    model = Parts().write(tmp_path / "m.pt2", extra=[(link, b"/etc/passwd")])
    error = refused(model, tmp_path)
    assert type(error) is errors.UnsafeNameError
    assert "link or a device" in str(error)


def test_two_folders(tmp_path: Path) -> None:
    model = Parts().write(tmp_path / "m.pt2", extra=[("other/x", b"")])
    error = refused(model, tmp_path)
    assert type(error) is errors.NotAnArchiveError
    assert "several folders (model, other)" in str(error)


def test_encrypted(tmp_path: Path) -> None:
    model = Parts().write(tmp_path / "m.pt2")
    data = bytearray(model.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    model.write_bytes(bytes(data))
    assert "encrypted" in str(refused(model, tmp_path))


# Sizes.


def test_compression_bomb(tmp_path: Path) -> None:
    bomb = zipfile.ZipInfo("model/extra/zeros")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    model = Parts().write(tmp_path / "m.pt2", extra=[(bomb, bytes(1 << 24))])
    error = refused(model, tmp_path)
    assert type(error) is errors.SizeError
    assert "expands from" in str(error)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(total=100), "the limit is 100"),
        (Limits(members=3), "the limit is 3"),
        (Limits(json=64), "the limit for JSON is 64"),
    ],
)
def test_limits(tmp_path: Path, limits: Limits, message: str) -> None:
    error = refused(Parts().write(tmp_path / "m.pt2"), tmp_path, limits)
    assert type(error) is errors.SizeError
    assert message in str(error)


def test_overlapping_members(tmp_path: Path) -> None:
    """Many directory entries for one payload: a bomb that needs no compression."""
    model = Parts().write(
        tmp_path / "m.pt2", extra=[(f"model/extra/{i}", b"x" * 1000) for i in range(50)]
    )
    data = bytearray(model.read_bytes())
    # Every entry claims a megabyte.
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        struct.pack_into("<2L", data, at + 20, 1 << 20, 1 << 20)
        at = data.find(b"PK\x01\x02", at + 4)
    model.write_bytes(bytes(data))
    error = refused(model, tmp_path)
    assert type(error) is errors.SizeError
    assert "overlap" in str(error)


def _change_declared_size(model: Path, member: str, size: int, offset: int = 24) -> None:
    data = bytearray(model.read_bytes())
    at = data.find(b"PK\x01\x02")
    while not data[at + 46 :].startswith(member.encode()):
        at = data.find(b"PK\x01\x02", at + 4)
    struct.pack_into("<L", data, at + offset, size)
    model.write_bytes(bytes(data))


def test_member_that_expands_beyond_its_declared_size(tmp_path: Path) -> None:
    model = Parts().write(tmp_path / "m.pt2", method=zipfile.ZIP_DEFLATED)
    _change_declared_size(model, "model/data/weights/weight_0", 47)
    assert isinstance(
        refused(model, tmp_path), errors.SizeError | errors.NotAnArchiveError | errors.PayloadError
    )


def test_member_beyond_the_end(tmp_path: Path) -> None:
    parts = Parts()
    model = parts.write(tmp_path / "m.pt2")
    _change_declared_size(model, "model/.data/serialization_id", 400)
    # A member that nobody reads is not looked at, whatever it declares.
    split(model, tmp_path / "g", tmp_path / "w")
    _change_declared_size(model, "model/data/weights/weight_0", 4000)
    assert type(refused(model, tmp_path)) is errors.NotAnArchiveError


def test_header_that_contradicts_the_directory(tmp_path: Path) -> None:
    model = Parts().write(tmp_path / "m.pt2")
    data = model.read_bytes()
    first = data.index(b"model/data/weights/weight_0")  # the member's own header comes first
    model.write_bytes(data[:first] + b"model/data/weights/weight_1" + data[first + 27 :])
    error = refused(model, tmp_path)
    assert type(error) is errors.NotAnArchiveError
    assert "another name" in str(error)


def test_damaged_payload(tmp_path: Path) -> None:
    parts = Parts()
    model = parts.write(tmp_path / "m.pt2")
    values = parts.values.tobytes()
    model.write_bytes(model.read_bytes().replace(values, values[::-1]))
    error = refused(model, tmp_path)
    assert type(error) is errors.NotAnArchiveError
    assert "checksum" in str(error)


# What is missing, or of another version.


@pytest.mark.parametrize(
    "name", ["archive_version", MODEL, WEIGHTS, CONSTANTS, "data/weights/weight_0"]
)
def test_missing_members(tmp_path: Path, name: str) -> None:
    error = refused(Parts().write(tmp_path / "m.pt2", without=[name]), tmp_path)
    assert type(error) is errors.MissingMemberError


def test_other_archives_are_told_apart(tmp_path: Path) -> None:
    def write(*names: str) -> Path:
        with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
            for name in names:
                archive.writestr(f"m/{name}", b"x")
        return tmp_path / "m.pt2"

    cases = {
        ("data.pkl", "version"): (errors.NotAnArchiveError, "torch.export.save"),
        ("serialized_exported_program.json",): (errors.VersionError, "torch 2.7 or older"),
        ("readme.txt",): (errors.NotAnArchiveError, "archive_format is missing"),
    }
    for names, (kind, message) in cases.items():
        error = refused(write(*names), tmp_path)
        (tmp_path / "out").rmdir()
        assert type(error) is kind
        assert message in str(error)


def test_a_compiled_package(tmp_path: Path) -> None:
    parts = Parts()
    parts.members["data/aotinductor/model/a.so"] = b"x"
    error = refused(parts.write(tmp_path / "m.pt2", without=[MODEL]), tmp_path)
    assert "AOTInductor" in str(error)


def test_two_programs(tmp_path: Path) -> None:
    parts = Parts()
    parts.members["models/other.json"] = b"{}"
    assert "holds 2 programs (model, other)" in str(
        refused(parts.write(tmp_path / "m.pt2"), tmp_path)
    )


def member(name: str, content: bytes) -> Spoil:
    return lambda parts: parts.members.update({name: content})


def version(**fields: object) -> Spoil:
    return lambda parts: parts.program["schema_version"].update(fields)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (member("archive_format", b"pt3"), errors.NotAnArchiveError, "archive_format is 'pt3'"),
        (member("archive_version", b"1"), errors.VersionError, "archive_version is '1'"),
        (member("byteorder", b"big"), errors.ByteOrderError, "byteorder is 'big'"),
        (version(major=9), errors.VersionError, r"schema_version is 9\.20"),
        (version(major=7), errors.VersionError, r"schema_version is 7\.20"),
        (version(minor=21), errors.VersionError, r"known are 8\.0 to 8\.20"),
        (version(minor="x"), errors.VersionError, r"8\.x"),
        (member("archive_format", b"\xff"), errors.NotAnArchiveError, "not UTF-8"),
    ],
)
def test_formats_and_versions(
    tmp_path: Path, spoil: Spoil, kind: type[errors.IntakeError], message: str
) -> None:
    parts = Parts()
    spoil(parts)
    error = refused(parts.write(tmp_path / "m.pt2"), tmp_path)
    assert type(error) is kind
    assert re.search(message, str(error)), str(error)


# What the program and its tensors say.


def in_program(change: Callable[[Parts], object]) -> Spoil:
    return lambda parts: (change(parts), None)[1]


def device(kind: str) -> Spoil:
    return lambda parts: parts.graph["tensor_values"]["x"]["device"].update(type=kind)


def argument(arg: Json) -> Spoil:
    return lambda parts: parts.node["inputs"].append({"name": "extra", "arg": arg, "kind": 2})


def custom_input(parts: Parts) -> None:
    spec = {"arg": {"name": "obj", "class_fqn": "my.Class"}, "custom_obj_name": "obj"}
    parts.program["graph_module"]["signature"]["input_specs"].append({"custom_obj": spec})


def set_meta(**fields: object) -> Spoil:
    """Changes the weight in the archive's list and in the graph alike."""

    def spoil(parts: Parts) -> None:
        parts.meta.update(fields)
        parts.graph["tensor_values"]["p_fc_weight"].update(fields)

    return spoil


def expand_shape(parts: Parts) -> None:
    set_meta(
        sizes=[{"as_int": 1 << 20}, {"as_int": 1 << 10}],
        strides=[{"as_int": 0}, {"as_int": 0}],
    )(parts)


def strided_weight_and_as_strided(parts: Parts) -> None:
    set_meta(strides=[{"as_int": 1}, {"as_int": 3}])(parts)
    parts.node["target"] = "torch.ops.aten.as_strided.default"


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (device("xpu"), errors.DeviceError, r"tensor_values\.x\.device\.type: .* device 'xpu'"),
        (device("meta"), errors.DeviceError, "'meta'; export it on cpu or cuda"),
        (
            argument({"as_device": {"type": "mps", "index": None}}),
            errors.DeviceError,
            r"nodes\[0\]\.inputs\[2\]\.arg\.as_device\.type",
        ),
        (set_meta(dtype=10), errors.DTypeError, "complex64 is not supported"),
        (set_meta(dtype=99), errors.DTypeError, "unknown element type 99"),
        (lambda parts: parts.meta.update(dtype=6), errors.DTypeError, "float32 in the graph"),
        (set_meta(layout=2), errors.LayoutError, "only strided"),
        (argument({"as_layout": 2}), errors.LayoutError, "only strided"),
        (strided_weight_and_as_strided, errors.LayoutError, "call .contiguous"),
        (
            lambda parts: parts.weights["config"]["fc.weight"].update(use_pickle=True),
            errors.PickleError,
            r"fc\.weight is stored as a pickle \(data/weights/weight_0\)",
        ),
        (
            lambda parts: parts.constants["config"].update(obj=payload("custom_obj_0", None)),
            errors.PickleError,
            "obj is stored as a pickle",
        ),
        (custom_input, errors.PickleError, "custom object"),
        (set_meta(storage_offset={"as_int": 1}), errors.PayloadError, "need 52"),
        (set_meta(strides=[{"as_int": 5}, {"as_int": 1}]), errors.PayloadError, "need 56"),
        (set_meta(strides=[{"as_int": -4}, {"as_int": 1}]), errors.MalformedError, "negative"),
        (set_meta(sizes=[{"as_int": 3}]), errors.MalformedError, "1 sizes and 2 strides"),
        (set_meta(storage_offset={"as_int": 1 << 62}), errors.PayloadError, "holds 48 bytes"),
        (expand_shape, errors.PayloadError, "add up to"),
        (
            lambda parts: (
                parts.meta["sizes"].reverse() or parts.meta["strides"][0].update(as_int=3)
            ),
            errors.PayloadError,
            r"sizes \[3, 4\] in the graph, \[4, 3\] in the archive",
        ),
        (
            set_meta(sizes=[{"as_expr": {"expr_str": "Symbol('s0')"}}, {"as_int": 4}]),
            errors.MalformedError,
            "only at run time",
        ),
        (
            lambda parts: parts.weights["config"].pop("fc.weight"),
            errors.MissingMemberError,
            "needs the parameter fc.weight",
        ),
        (
            lambda parts: parts.constants["config"].update(parts.weights["config"]),
            errors.MalformedError,
            "among the weights as well",
        ),
        (
            lambda parts: parts.weights["config"]["fc.weight"].update(path_name="../../x"),
            errors.MalformedError,
            "is no file name",
        ),
        (member("data/weights/weight_0", b""), errors.PayloadError, "fake tensors"),
        (member("data/weights/weight_0", b"x" * 49), errors.PayloadError, "no multiple"),
    ],
)
def test_programs_and_tensors(
    tmp_path: Path, spoil: Spoil, kind: type[errors.IntakeError], message: str
) -> None:
    parts = Parts()
    spoil(parts)
    error = refused(parts.write(tmp_path / "m.pt2"), tmp_path)
    assert type(error) is kind, error
    assert re.search(message, str(error)), str(error)


# Strings that PyTorch would evaluate, import or write into source code.


def symbolic(expression: str) -> Spoil:
    return lambda parts: parts.graph["tensor_values"]["x"]["sizes"].__setitem__(
        0, {"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}
    )


def tree(spec: Json) -> Spoil:
    call = "in_spec"
    return lambda parts: parts.program["graph_module"]["module_call_graph"][0]["signature"].update(
        {call: json.dumps([1, spec])}
    )


ENUM_KEY = json.dumps([{"__enum__": True, "fqn": "os:system", "name": "x"}])
DEFAULTDICT = {
    "type": "collections.defaultdict",
    "context": json.dumps({"default_factory_module": "os", "default_factory_name": "system"}),
    "children_spec": [],
}


@pytest.mark.parametrize(
    "spoil",
    [
        symbolic("__import__('os').system('touch owned')"),
        symbolic("Symbol('s0').__class__"),
        symbolic("Symbol('s0); import os #')"),
        symbolic("Integer('__import__(\"os\")')"),
        symbolic("(lambda: 0)()"),
        symbolic("[x for x in ()]"),
        symbolic("Pow(Integer(10), Integer(1000000000))"),
        symbolic("Pow(Integer(10), Pow(Integer(10), Integer(10)))"),
        symbolic("Mul(" * 200 + "Integer(2)" + ")" * 200 + "," * 20000),
        symbolic("9" * 30),
        symbolic("eval('1')"),
        symbolic("Symbol(name='s0', positive=print())"),
        symbolic("f'{1}'"),
        tree({"type": "builtins.dict", "context": ENUM_KEY, "children_spec": []}),
        tree(DEFAULTDICT),
        tree({"type": "my.module.Output", "context": "null", "children_spec": []}),
        lambda parts: parts.node.update(target="torch.os.system"),
        lambda parts: parts.node.update(target="torch.ops.aten.add.Tensor; import os"),
        lambda parts: parts.node.update(target="#extension:x"),
        lambda parts: parts.node.update(target="_operator.attrgetter"),
        lambda parts: parts.node.update(name="x = 1; import os"),
        lambda parts: parts.node["inputs"][0].update(name="x=print(1), y"),
        argument({"as_operator": "torch.os.system"}),
        argument({"as_tensor": {"name": "x\nimport os"}}),
        lambda parts: parts.graph["tensor_values"].update({"a b": tensor_meta([1])}),
        lambda parts: parts.program["range_constraints"].update(
            {"__import__('os')": {"min_val": 0, "max_val": 1}}
        ),
    ],
)
def test_code_is_refused(tmp_path: Path, spoil: Spoil, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = Parts()
    spoil(parts)
    error = refused(parts.write(tmp_path / "m.pt2"), tmp_path)
    assert isinstance(error, errors.UnsafeCodeError), error
    assert not Path("owned").exists()


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    """The sample inputs are one; an archive whose sample inputs would run code splits well."""
    parts = Parts()
    parts.members["data/sample_inputs/model.pt"] = b"cos\nsystem\n(S'touch owned'\ntR."
    split(parts.write(tmp_path / "m.pt2"), tmp_path / "g", tmp_path / "w")
    assert not (tmp_path / "owned").exists()


# JSON.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"models/model\.json: line 1, column 1"),
        (b'{"a": 1,}', "line 1, column"),
        (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "digits"),
        (b"[]", "schema_version is missing"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_malformed_json(tmp_path: Path, text: bytes, message: str) -> None:
    parts = Parts()
    parts.members[MODEL] = text
    error = refused(parts.write(tmp_path / "m.pt2"), tmp_path)
    assert isinstance(error, errors.MalformedError | errors.NotAnArchiveError)
    assert re.search(message, str(error)), str(error)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda parts: parts.node.pop("target"), r"nodes\[0\]: Node lacks the field 'target'"),
        (lambda parts: parts.node.update(colour=1), r"nodes\[0\]: Node has a field 'colour'"),
        (lambda parts: parts.node.update(inputs={}), r"inputs: expected a list, found an object"),
        (lambda parts: parts.graph.update(nodes=None), "expected a list, found null"),
        (argument({"as_int": True}), r"as_int: expected an integer, found true or false"),
        (argument({"as_int": 1 << 70}), "does not fit 64 bits"),
        (argument({}), "needs exactly one field, not 0"),
        (argument({"as_banana": 1}), "no alternative 'as_banana'"),
        (
            lambda parts: parts.program["graph_module"]["signature"]["input_specs"].append(
                {"token": {"arg": {"name": "t"}}}
            ),
            r"input_specs\[2\]: programs with side effects",
        ),
    ],
)
def test_malformed_programs(tmp_path: Path, spoil: Spoil, message: str) -> None:
    parts = Parts()
    spoil(parts)
    error = refused(parts.write(tmp_path / "m.pt2"), tmp_path)
    assert type(error) is errors.MalformedError
    assert f"{MODEL}: graph_module" in str(error), "the message gives the place"
    assert re.search(message, str(error)), str(error)


@pytest.mark.parametrize(
    "guard",
    [
        "__import__('os').system('true') == 0",
        "L['x'].size()[0] == open('/etc/passwd')",
        "(lambda: 1)() == 1",
        "L['x'].data.size()[0] == 2",
        "L['x'].size()[L['n']] == 2",
        "[n for n in (1, 2)][0] == 1",
        "L['x'].size()[0] ** 999999999 == 2",
        "L['x'].size()[0]",
        "L['x'].size()[0] ==",
    ],
)
def test_guards_that_say_more_than_sizes(guard: str, tmp_path: Path) -> None:
    parts = Parts()
    parts.program["guards_code"] = [guard]
    with pytest.raises(errors.UnsafeCodeError, match="is no condition on sizes"):
        split(parts.write(tmp_path / "model.pt2"), tmp_path / "graph", tmp_path / "weights")


@pytest.mark.parametrize(
    "guard",
    [
        "L['x'].size()[1] <= L['y'][0]['k'].size()[0] and not L['n'] == -1",
        "(L['x'].size()[0]*L['x'].size()[1]) % 8 == 0 or max(1, 8 + ((-1)*L['n'])) != 8",
        "0 <= L['x'].stride()[0] // 2 < 2**31",
    ],
)
def test_guards_about_sizes_pass(guard: str, tmp_path: Path) -> None:
    parts = Parts()
    parts.program["guards_code"] = [guard]
    graph = tmp_path / "graph"
    split(parts.write(tmp_path / "model.pt2"), graph, tmp_path / "weights")
    assert json.loads(graph.read_text())["exported_program"]["guards_code"] == [guard]
