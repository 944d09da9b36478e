"""Program files: they come back as they were written, and a malformed one is refused with the place
of its fault."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codegen import samples
from wrapgen import program as p
from wrapgen import target
from wrapgen.dtype import INFO, DType
from wrapgen.program import Program, ProgramError

ROOT = Path(__file__).parents[2]

SAMPLES = {
    "elementwise": samples.elementwise(),
    "conv_chain": samples.conv_chain(),
    "copies": samples.copies(),
    "launches": samples.launches(),
    "many": samples.many_launches(20),
}


@pytest.mark.parametrize("program", list(SAMPLES.values()), ids=list(SAMPLES))
def test_round_trip(program: Program, tmp_path: Path) -> None:
    text = p.dumps(program)
    file = tmp_path / "program.json"
    file.write_text(text, encoding="utf-8")
    assert p.load(file) == program
    assert p.dumps(p.load(file)) == text


def test_files_are_canonical() -> None:
    text = p.dumps(samples.conv_chain())
    assert text.endswith("}\n")
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def test_the_example_in_the_documentation() -> None:
    """docs/program.md shows a whole file; it is one."""
    text = (ROOT / "docs/program.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```json\n(\{\n.*?^\})\n```$", text, re.MULTILINE | re.DOTALL)
    assert p.dumps(p.loads(example)) == example + "\n"


def test_the_documentation_names_every_field() -> None:
    text = (ROOT / "docs/program.md").read_text(encoding="utf-8")
    for cls in (
        *(p.Symbol, p.Constraint, p.ScalarSpec, p.FixedInput, p.CallSpec),
        *(p.Program, p.TensorSpec, p.Weight, p.Buffer, p.Ref, p.PointerArg, p.ScalarArg),
        p.TensorMapArg,
        *(p.SourceNode, p.Launch, p.Copy, p.Fill, p.If, p.While, p.Procedure),
        *(p.KernelParam, p.Kernel),
    ):
        (section,) = re.findall(rf"^#+ {cls.__name__}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
        fields = [f"`{field.name}`" for field in dataclasses.fields(cls)]
        assert re.findall(r"^\| (`\w+`) \|", section, re.M) == fields, cls.__name__


# Random programs.

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,7}", fullmatch=True)
LINES = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
DTYPES = st.sampled_from(list(DType))
SHAPES = st.lists(st.integers(0, 1 << 14), max_size=4).map(tuple)  # at most 2^56 elements


@st.composite
def buffers(draw: st.DrawFn, name: str) -> p.Buffer:
    shape = draw(st.lists(st.integers(0, 50), max_size=4).map(tuple))
    dtype = draw(DTYPES)
    needed = p.extent(shape, samples.strides(shape), INFO[dtype].itemsize)
    nbytes = draw(st.integers(needed, needed + 100))
    strides = samples.strides(shape)
    return p.Buffer(name=name, dtype=dtype, shape=shape, strides=strides, nbytes=nbytes)


@st.composite
def scalars(draw: st.DrawFn) -> p.ScalarArg:
    dtype = draw(DTYPES)
    if "float" in dtype:
        value: int | str = draw(st.floats()).hex()
    else:
        value = draw(st.integers(*p.integer_range(dtype)))
    return p.ScalarArg(dtype=dtype, value=value)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Valid programs of one step: a fill, a copy or a launch."""
    inputs = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    weights = draw(st.lists(LINES, max_size=4, unique=True))
    weights_made = [p.Weight(name=w, dtype=draw(DTYPES), shape=draw(SHAPES)) for w in weights]
    arena = [draw(buffers(name)) for name in draw(st.lists(LINES, min_size=1, unique=True))]
    params = [samples.pointer("out"), samples.pointer("in")]
    arguments: list[p.Arg] = [
        samples.writes("arena", arena[0].name),
        samples.reads("input", inputs[0]),
    ]
    for i, arg in enumerate(draw(st.lists(scalars(), max_size=4))):
        params.append(samples.scalar(f"s{i}", arg.dtype))
        arguments.append(arg)
    kernel = dataclasses.replace(
        samples.kernel(draw(NAMES), *params, num_warps=draw(st.sampled_from([1, 2, 4, 8]))),
        config=draw(
            st.dictionaries(NAMES, st.one_of(st.none(), st.booleans(), st.integers(-9, 9), LINES))
        ),
    )
    source = p.SourceNode(name=draw(LINES), op=draw(LINES), module=draw(LINES), code=draw(LINES))
    grid = draw(st.tuples(*[st.integers(0, 1 << 16)] * 3))
    steps: list[p.Step] = [
        p.Launch(kernel=kernel.name, grid=grid, args=tuple(arguments), sources=(source,)),
        p.Fill(
            dst=p.Ref(space="arena", name=arena[-1].name),
            byte=draw(st.integers(0, 255)),
            nbytes=draw(st.integers(0, int(arena[-1].nbytes))),
            sources=(),
        ),
    ]
    return samples.program(
        target=draw(st.sampled_from(["sm_80", "sm_90"])),
        num_shards=draw(st.integers(1, 9)),
        inputs=tuple(samples.tensor(name, "args", draw(DTYPES), 1) for name in inputs),
        weights=tuple(weights_made),
        kernels=(kernel,),
        main=p.Procedure(buffers=tuple(arena), steps=tuple(draw(st.permutations(steps)))),
    )


@given(programs())
@settings(deadline=None, max_examples=50)
def test_any_program_round_trips(program: Program) -> None:
    assert p.loads(p.dumps(program)) == program


@given(st.text())
def test_any_text_is_refused_or_a_program(text: str) -> None:
    with pytest.raises(ProgramError, match=r"\Afile\.json: "):
        p.loads(text, where="file.json")


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_a_value_of_another_type_is_refused_or_read_back(data: st.DataObject) -> None:
    """Replaces one value anywhere in a file: there is no third way, such as another exception."""
    document = json.loads(p.dumps(samples.conv_chain()))
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, child in items:
            places.append((value, key))
            if isinstance(child, dict | list):
                walk(child)

    walk(document)
    parent, key = data.draw(st.sampled_from(places))
    values = [None, True, 0, -1, 1 << 70, 1.5, "", "s0 //", "\x00", "\ud800", [], {}]
    parent[key] = data.draw(st.sampled_from(values))
    try:
        program = p.loads(json.dumps(document))
    except ProgramError as error:
        assert all(line.startswith("program: ") for line in str(error).splitlines())
    else:
        assert p.loads(p.dumps(program)) == program


# Malformed files: what is changed in a good one, and what the message says.

Change = Callable[[dict[str, Any]], Any]


def at(path: str, value: Any) -> Change:
    """Sets a value: ``main.steps[0].byte``."""
    *parents, last = re.findall(r"\w+", path)

    def change(document: dict[str, Any]) -> None:
        target: Any = document
        for part in parents:
            target = target[int(part) if part.isdigit() else part]
        target[int(last) if last.isdigit() else last] = value

    return change


def without(path: str) -> Change:
    *parents, last = re.findall(r"\w+", path)

    def change(document: dict[str, Any]) -> None:
        target: Any = document
        for part in parents:
            target = target[int(part) if part.isdigit() else part]
        del target[int(last) if last.isdigit() else last]

    return change


def refused(program: Program, change: Change, *messages: str) -> None:
    document = json.loads(p.dumps(program))
    change(document)
    with pytest.raises(ProgramError) as caught:
        p.loads(json.dumps(document), where="file.json")
    assert str(caught.value).splitlines() == [f"file.json: {message}" for message in messages]


INTEGER = "Input should be a valid integer"
STRING = "Input should be a valid string"
DIM = f"{INTEGER} or: {STRING}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("inputs", None), "inputs: Input should be a valid array"),
        (without("inputs"), "inputs: Field required"),
        (at("extra", 1), "extra: Unexpected keyword argument"),
        (at("num_shards", "1"), f"num_shards: {INTEGER}"),
        (at("num_shards", True), f"num_shards: {INTEGER}"),
        (at("num_shards", 1.0), f"num_shards: {INTEGER}"),
        (at("inputs[0].shape[2]", None), f"inputs[0].shape[2]: {DIM}"),
        (at("inputs[0].shape[2]", 1.5), f"inputs[0].shape[2]: {DIM}"),
        (at("inputs[0].name", 3), f"inputs[0].name: {STRING}"),
        (without("weights[1].dtype"), "weights[1].dtype: Field required"),
        (at("main.steps[3].kind", "move"), None),
        (without("main.steps[3].kind"), None),
        (at("main.steps[3].nbytes", []), f"main.steps[3].nbytes: {DIM}"),
        (at("main.steps[0].args[0].ref.space", "heap"), None),
        (at("main.steps[0].args[0].ref.nam", "x"), None),
        (at("main.steps[0].grid", [1, 1]), None),
        (at("kernels[0].config.BLOCK", [1]), None),
    ],
)
def test_values_of_the_wrong_shape(change: Change, message: str | None) -> None:
    document = json.loads(p.dumps(samples.conv_chain()))
    change(document)
    with pytest.raises(ProgramError) as caught:
        p.loads(json.dumps(document), where="file.json")
    if message is not None:
        assert str(caught.value) == f"file.json: {message}"


def test_the_place_of_a_fault_is_named() -> None:
    for path, expected in [
        ("main.steps[3].kind", "main.steps[3]: "),
        ("main.steps[0].args[0].ref.space", "main.steps[0].args[0].ref.space: "),
        ("main.steps[0].args[0].ref.nam", "main.steps[0].args[0].ref.nam: "),
        ("main.steps[0].grid", "main.steps[0].grid"),
        ("kernels[0].config.BLOCK", "kernels[0].config.BLOCK: "),
        ("kernels[0].config.copy", "kernels[0].config.copy: "),
        ("inputs[0].dtype", "inputs[0].dtype: "),
    ]:
        document = json.loads(p.dumps(samples.conv_chain()))
        at(path, [1])(document)
        with pytest.raises(ProgramError) as caught:
            p.loads(json.dumps(document), where="file.json")
        assert str(caught.value).startswith(f"file.json: {expected}"), str(caught.value)


BINARY = "1f8b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON: Expecting value"),
        ("{", "not JSON: Expecting property name"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("{}", "schema_version is None, this wrapgen reads 4; lower the model again"),
        ('{"schema_version": 1}', "schema_version is 1, this wrapgen reads 4"),
        ('{"schema_version": true}', "schema_version is True, this wrapgen reads 4"),
        ('{"a": 1, "a": 2}', "not JSON: key 'a' occurs twice in one object"),
        ("[" * 100000, "not JSON: maximum recursion depth"),
    ],
)
def test_not_a_program(text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=re.escape(f"file.json: {message}")):
        p.loads(text, where="file.json")


def test_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "program.json"
    file.write_bytes(bytes.fromhex(BINARY))
    with pytest.raises(ProgramError, match=r"program\.json: not UTF-8 text"):
        p.load(file)


def test_an_invalid_program_is_not_written() -> None:
    with pytest.raises(ProgramError, match="num_shards: 0 is less than 1"):
        p.dumps(dataclasses.replace(samples.elementwise(), num_shards=0))
    with pytest.raises(ProgramError, match="schema_version: 1 is not 4"):
        p.dumps(dataclasses.replace(samples.elementwise(), schema_version=1))


NO_VALUE = "has no value: it is no dimension of an input by itself, and no scalar input's symbol"
KNOWN = f"expected one of {', '.join(target.KNOWN)}"
CONV = samples.conv_chain().kernels[1].name
ADD = samples.conv_chain().kernels[0].name


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (at("target", "sm_99"), [f"target: unknown target 'sm_99': {KNOWN}"]),
        (
            at("target", "compute_90"),
            ["target: compute_90 is PTX; a program is lowered for SASS, here sm_90"],
        ),
        (at("num_shards", 0), None),
        (
            at("symbols", [{"name": "s0", "minimum": 4, "maximum": 3}]),
            [
                "symbols[0]: the range 4..3 is empty or does not fit 64 bits",
                f"symbols[0]: 's0' {NO_VALUE}",
            ],
        ),
        (
            at("symbols", [{"name": "s 0", "minimum": 1, "maximum": 3}]),
            [
                "symbols[0].name: 's 0' is not an identifier",
                f"symbols[0]: 's 0' {NO_VALUE}",
            ],
        ),
        (
            at("constraints", [{"condition": "s0 % 8 == 0", "text": ""}]),
            [
                "constraints[0].text: '' is empty or has unprintable characters",
                "constraints[0].condition: 's0 % 8 == 0' names 's0', which is no symbol of the "
                "program",
            ],
        ),
        (
            at("constraints", [{"condition": "1 == 1", "text": "x"}]),
            ["constraints[0].condition: '1 == 1' names no symbol"],
        ),
        (
            at("constraints", [{"condition": "s0 % 8", "text": "x"}]),
            [
                "constraints[0].condition: 's0 % 8' is not two expressions with one of == != < <= "
                "> >= between them"
            ],
        ),
        (
            at("fixed", [{"path": "args[1]", "value": "a\nb"}]),
            ["fixed[0].value: 'a\\nb' is empty or has unprintable characters"],
        ),
        (at("inputs[0].path", ""), ["inputs[0].path: '' is empty or has unprintable characters"]),
        (at("outputs[0].mutated", True), ["outputs[0].mutated: is for inputs"]),
        (
            at("main.steps[4].args[3].ref", {"space": "input", "name": "image"}),
            [
                "main.steps[4].args[3].ref: input 'image' is written, but is not marked as mutated",
                "main.steps: no step writes output 'logits'",
            ],
        ),
        (
            at("folding.steps[0].grid[0]", "s0"),
            [
                "folding.steps[0].grid[0]: 's0' names 's0', but constants are computed before any "
                "input"
            ],
        ),
        (
            at("constants[0].shape[0]", "s0"),
            ["constants[0].shape[0]: 's0' names 's0', but constants are computed before any input"],
        ),
        (at("inputs[0].name", "in-put"), None),
        (at("inputs[0].strides", [1]), ["inputs[0].strides: 1 strides for 4 dimensions"]),
        (at("inputs[0].shape[1]", -1), ["inputs[0].shape[1]: -1 is negative"]),
        (at("inputs[0].strides[1]", "-784"), ["inputs[0].strides[1]: -784 is negative"]),
        (
            at("inputs[0].shape[1]", "s0 * 2"),
            ["inputs[0].shape[1]: 's0 * 2' names 's0', which is no symbol of the program"],
        ),
        (at("outputs[0].shape[0]", "1 // 0"), ["outputs[0].shape[0]: '1 // 0' divides by zero"]),
        (
            at("outputs[0].shape[0]", "__import__('os')"),
            [
                "outputs[0].shape[0]: \"__import__('os')\": Call is not allowed; an expression "
                "consists of integers, symbols, + - * // % ** << >> & ^ | ~, abs, max, min, "
                "... if ... else ... and parentheses"
            ],
        ),
        (
            at("outputs[0].strides[0]", 1 << 63),
            ["outputs[0].strides[0]: 9223372036854775808 does not fit 64 bits"],
        ),
        (
            at("outputs[0].strides[1]", (1 << 63) - 1),
            ["outputs[0]: its 166020696663385964528 bytes do not fit 64 bits"],
        ),
        (at("weights[0].shape[0]", -4), ["weights[0].shape[0]: -4 is negative"]),
        (
            at("weights[8].shape", [1 << 40, 1 << 40]),
            ["weights[8]: its 9671406556917033397649408 bytes do not fit 64 bits"],
        ),
        (at("weights[8].name", ""), ["weights[8].name: '' is empty or has unprintable characters"]),
        (
            at("weights[8].name", "a\nb"),
            ["weights[8].name: 'a\\nb' is empty or has unprintable characters"],
        ),
        (at("weights[8].name", "fc.bias"), ["weights[8].name: 'fc.bias' occurs twice"]),
        (
            at("constants[0].nbytes", 4638),
            ["constants[0].nbytes: 4638, but the tensor stored there has 4640 bytes"],
        ),
        (at("kernels[0].shard", 1), ["kernels[0].shard: 1 is not in 0..0"]),
        (
            at("kernels[0].ttir_sha256", "ABC"),
            ["kernels[0].ttir_sha256: 'ABC' is not 64 lowercase hexadecimal digits"],
        ),
        (
            at("kernels[0].num_warps", 3),
            ["kernels[0].num_warps: 3 is not a power of two between 1 and 32"],
        ),
        (
            at("kernels[0].num_ctas", 32),
            ["kernels[0].num_ctas: 32 is not a power of two between 1 and 16"],
        ),
        (at("kernels[0].num_stages", 0), ["kernels[0].num_stages: 0 is less than 1"]),
        (
            at("kernels[0].params[1].name", "in_out_ptr0"),
            ["kernels[0].params[1].name: 'in_out_ptr0' occurs twice"],
        ),
        (
            at("kernels[0].params[1].name", "tmp 1"),
            ["kernels[0].params[1].name: 'tmp 1' is not an identifier"],
        ),
        (
            at("main.buffers[2].name", "buf1"),
            [
                "main.buffers[2].name: 'buf1' occurs twice",
                "main.steps[3].src: bytes 64..576 is outside arena 'buf1', which has 512 bytes",
                "main.steps[3].dst: there is no arena called 'buf2' in main",
                "main.steps[4].args[0].ref: there is no arena called 'buf2' in main",
            ],
        ),
        (
            at("main.buffers[0].nbytes", 100),
            ["main.buffers[0].nbytes: 100, but the tensor stored there has 25088 bytes"],
        ),
        (
            at("main.steps[0].kernel", "nothing"),
            ["main.steps[0].kernel: there is no kernel called 'nothing'"],
        ),
        (
            without("main.steps[0].args[3]"),
            [
                f"main.steps[0].args: 3 arguments for the 4 parameters of kernel {CONV}",
                "main.steps[1].args[0].ref: arena 'buf0' is read before any step wrote it",
            ],
        ),
        (
            at("main.steps[0].args[0].ref.name", "picture"),
            ["main.steps[0].args[0].ref: there is no input called 'picture' in main"],
        ),
        (
            at("main.steps[0].args[0].ref", {"space": "constant", "name": "layers.9.folded"}),
            ["main.steps[0].args[0].ref: there is no constant called 'layers.9.folded' in main"],
        ),
        (
            at("main.steps[0].args[1].access", "write"),
            ["main.steps[0].args[1].ref: main must not write constant 'layers.0.folded'"],
        ),
        (
            at("main.steps[4].args[1].access", "read_write"),
            ["main.steps[4].args[1].ref: main must not write weight 'fc.weight'"],
        ),
        (
            at("main.steps[0].args[3].access", "read"),
            [
                "main.steps[0].args[3].ref: arena 'buf0' is read before any step wrote it",
            ],
        ),
        (
            at("main.steps[4].args[3].ref", {"space": "arena", "name": "buf1"}),
            ["main.steps: no step writes output 'logits'"],
        ),
        (
            at("constants[0].name", "renamed"),
            None,
        ),
        (
            at("folding.steps[0].args[0].ref", {"space": "input", "name": "image"}),
            ["folding.steps[0].args[0].ref: there is no input called 'image' in folding"],
        ),
        (
            at("main.steps[0].args[2].ref.offset", 4600),
            [
                "main.steps[0].args[2].ref.offset: 4600 is no multiple of 16, as parameter 'bias' "
                f"of kernel {CONV} was promised"
            ],
        ),
        (
            at("main.steps[0].args[2].ref.offset", 1 << 20),
            [
                "main.steps[0].args[2].ref: offset 1048576 is outside constant 'layers.0.folded', "
                "which has 4640 bytes"
            ],
        ),
        (
            at("main.steps[0].args[2].ref.offset", -16),
            ["main.steps[0].args[2].ref.offset: -16 is negative"],
        ),
        (
            at("main.steps[2].args[2]", {"kind": "scalar", "dtype": "int64", "value": 16}),
            ["main.steps[2].args[2].dtype: int64, parameter 'xnumel' is int32"],
        ),
        (
            at("main.steps[2].args[1]", {"kind": "scalar", "dtype": "float16", "value": "0x0p+0"}),
            ["main.steps[2].args[1]: parameter 'in_ptr1' is a pointer, not a scalar"],
        ),
        (
            at("main.steps[2].args[2].value", 1 << 31),
            ["main.steps[2].args[2].value: 2147483648 is not a value of int32"],
        ),
        (
            at("main.steps[2].args[2].value", 12545),
            [
                "main.steps[2].args[2].value: 12545 is no multiple of 16, as parameter 'xnumel' "
                "was promised"
            ],
        ),
        (
            at("main.steps[4].args[4].value", "0.1"),
            ["main.steps[4].args[4].value: '0.1' is not what float.hex() writes"],
        ),
        (
            at("main.steps[4].args[4].value", 1),
            ["main.steps[4].args[4].value: 1 is not what float.hex() writes"],
        ),
        (at("main.steps[0].grid[1]", -1), ["main.steps[0].grid[1]: -1 is negative"]),
        (
            at("main.steps[0].sources[0].code", "a\nb"),
            ["main.steps[0].sources[0].code: 'a\\nb' is more than one line"],
        ),
        (
            at("main.steps[3].nbytes", 513),
            [
                "main.steps[3].dst: bytes 0..513 is outside arena 'buf2', which has 512 bytes",
            ],
        ),
        (
            at("main.steps[3].src.offset", 25000),
            [
                "main.steps[3].src: bytes 25000..25512 is outside arena 'buf1', which has 25088 "
                "bytes",
            ],
        ),
        (at("main.steps[3].nbytes", -1), ["main.steps[3].nbytes: -1 is negative"]),
        (
            at("main.steps[3].dst", {"space": "arena", "name": "buf1"}),
            [
                "main.steps[3]: copies 512 bytes from offset 64 to 0 of the same memory",
                "main.steps[4].args[0].ref: arena 'buf2' is read before any step wrote it",
            ],
        ),
    ],
)
def test_contradictions(change: Change, messages: list[str] | None) -> None:
    if messages is None:  # several faults follow from one change; that it is refused is enough
        document = json.loads(p.dumps(samples.conv_chain()))
        change(document)
        with pytest.raises(ProgramError):
            p.loads(json.dumps(document), where="file.json")
    else:
        refused(samples.conv_chain(), change, *messages)


def test_a_fill_is_one_byte() -> None:
    refused(
        samples.copies(), at("main.steps[0].byte", 256), "main.steps[0].byte: 256 is not in 0..255"
    )
    refused(
        samples.copies(), at("main.steps[0].byte", -1), "main.steps[0].byte: -1 is not in 0..255"
    )


def test_every_constant_is_computed() -> None:
    refused(
        samples.copies(), at("folding.steps", []), "folding.steps: no step writes constant 'copied'"
    )


def test_an_empty_output_needs_no_step() -> None:
    assert {spec.name for spec in samples.copies().outputs} == {"a_b", "aB", "none"}


def test_symbols_may_stand_in_every_size() -> None:
    one = samples.elementwise()
    symbol = p.Symbol(name="s0", minimum=1, maximum=64)
    spec = dataclasses.replace(one.inputs[0], shape=("s0", 1000))
    result = dataclasses.replace(one.outputs[0], shape=("s0", 1000))
    step = dataclasses.replace(one.main.steps[0], grid=("(s0 * 1000 + 1023) // 1024", 1, 1))
    dynamic = dataclasses.replace(
        one,
        symbols=(symbol,),
        inputs=(spec,),
        outputs=(result,),
        main=p.Procedure(buffers=(), steps=(step,)),
    )
    assert p.loads(p.dumps(dynamic)) == dynamic


def _with_symbols(*symbols: p.Symbol, **fields: Any) -> Program:
    return dataclasses.replace(samples.elementwise(), symbols=symbols, **fields)


def test_a_scalar_gives_a_symbol_its_value() -> None:
    scalar = p.ScalarSpec(name="start", path="args[1]", symbol="u0")
    symbol = p.Symbol(name="u0", minimum=-5, maximum=1 << 40)
    inputs = (*samples.elementwise().inputs, scalar)
    one = _with_symbols(symbol, inputs=inputs)
    assert p.loads(p.dumps(one)) == one
    assert one.tensor_inputs == inputs[:1]
    assert one.scalar_inputs == (scalar,)
    refused(
        one,
        at("inputs[1].symbol", "u1"),
        f"symbols[0]: 'u0' {NO_VALUE}",
        "inputs[1].symbol: 'u1' is no symbol of the program",
    )
    refused(
        one,
        at("inputs[1].shape", []),
        "inputs[1].shape: Unexpected keyword argument",
    )
    refused(
        one,
        at("inputs[1].name", "x"),
        "inputs[1].name: 'x' occurs twice",
    )
    refused(
        one,
        at("inputs[0].shape[1]", "u0"),
        "symbols[0].minimum: -5, but 'u0' is a size",
    )


def test_two_scalars_cannot_be_one_symbol() -> None:
    one = p.ScalarSpec(name="start", path="args[1]", symbol="u0")
    other = p.ScalarSpec(name="stop", path="args[2]", symbol="u0")
    symbol = p.Symbol(name="u0", minimum=0, maximum=9)
    with pytest.raises(ProgramError, match="inputs: symbol 'u0' is that of two scalars"):
        p.dumps(_with_symbols(symbol, inputs=(*samples.elementwise().inputs, one, other)))


def test_empty_memory_need_not_be_written() -> None:
    step = p.Copy(
        dst=p.Ref(space="output", name="output0"),
        src=p.Ref(space="arena", name="nothing"),
        nbytes=0,
        sources=(),
    )
    one = samples.elementwise()
    main = p.Procedure(
        buffers=(samples.buffer("nothing", DType.FLOAT32, 0),), steps=(*one.main.steps, step)
    )
    one = dataclasses.replace(one, main=main)
    assert p.loads(p.dumps(one)) == one


def test_weights_digest() -> None:
    """The text that is hashed, byte by byte: readers in other languages must make the same."""
    weights = [
        p.Weight(name="b", dtype=DType.BFLOAT16, shape=(2, 3)),
        p.Weight(name="B", dtype=DType.INT64, shape=()),
        p.Weight(name="\u00e9", dtype=DType.FLOAT8_E4M3FN, shape=(0,)),
    ]
    text = b"B I64 \nb BF16 2,3\n\xc3\xa9 F8_E4M3 0\n"
    assert p.weights_digest(weights) == hashlib.sha256(text).hexdigest()
    assert p.weights_digest(reversed(weights)) == hashlib.sha256(text).hexdigest()
    assert p.weights_digest([]) == hashlib.sha256(b"").hexdigest()


@pytest.mark.parametrize(
    ("shape", "strides", "nbytes"),
    [((), (), 4), ((2, 3), (3, 1), 24), ((2, 3), (1, 2), 24), ((2, 0), (1, 1), 0), ((3,), (0,), 4)],
)
def test_extent(shape: tuple[int, ...], strides: tuple[int, ...], nbytes: int) -> None:
    assert p.extent(shape, strides, 4) == nbytes


AT = "s0 = 1, s1 ="
REST = "s2 = 0, u0 = 0, u1 = -9223372036854775808"


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (
            at("main.buffers[0].nbytes", "s0 * s1 * 4 - s1 + 1"),
            [
                f"main.buffers[0].nbytes: 7, but the tensor stored there has 8 bytes, where {AT} 2"
                f", {REST}",
                "main.steps[6].src: bytes 0..8 is outside arena 'doubled', which has 7 bytes, "
                f"where {AT} 2, {REST}",
            ],
        ),
        (
            at("main.steps[6].src.offset", "s0 * s1 * 4"),
            [
                "main.steps[6].src: bytes 4..8 is outside arena 'doubled', which has 4 bytes, "
                f"where {AT} 1, {REST}"
            ],
        ),
        # A step that does nothing at these sizes may say anything.
        (at("main.steps[4].args[1].ref.offset", "min(s2, 1) - 1 - max(0, 1 - s2)"), []),
    ],
)
def test_memory_is_large_enough_at_the_limits_of_sizes(change: Change, messages: list[str]) -> None:
    document = json.loads(p.dumps(samples.dynamic()))
    change(document)
    if messages:
        with pytest.raises(ProgramError) as caught:
            p.loads(json.dumps(document), where="file.json")
        assert str(caught.value).splitlines() == [f"file.json: {message}" for message in messages]
    else:
        p.loads(json.dumps(document), where="file.json")


def test_sizes_that_constraints_exclude_are_not_looked_at() -> None:
    """At 64 columns there would be too little memory."""
    document = json.loads(p.dumps(samples.dynamic()))
    at("main.buffers[0].nbytes", "min(s0 * s1 * 4, 64 * 99 * 4)")(document)
    with pytest.raises(ProgramError, match="25344, but the tensor stored there has 25600 bytes"):
        p.loads(json.dumps(document))
    document["constraints"].append({"condition": "s1 < 100", "text": "x.shape[1] < 100"})
    p.loads(json.dumps(document))


TILES = "main.steps[4].args[0]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (at("kernels[2].params[0].block", []), "kernels[2].params[0].block: 0 dimensions"),
        (at("kernels[2].params[0].block", [64, 0]), "[64, 0] is no shape of a block"),
        (at("kernels[2].params[2].block", [64]), "[64], but the parameter is a scalar"),
        (at("kernels[3].launch_pdl", True), "kernels[3].launch_pdl: true, but the kernel is"),
        (at(f"{TILES}.shape", [128]), f"{TILES}.shape: 1 dimensions, parameter 'x' has 2"),
        (at(f"{TILES}.strides", [64]), f"{TILES}.strides: 1 strides for 2 dimensions"),
        (at(f"{TILES}.strides", [64, 2]), f"{TILES}.strides[1]: 2, the last stride of a tensor"),
        (at(f"{TILES}.strides", [62, 1]), f"{TILES}.strides[0]: 62 elements are no multiple of 16"),
        (at(f"{TILES}.shape", [128, -1]), f"{TILES}.shape[1]: -1 is negative"),
        (at(f"{TILES}.shape", [128, "s0"]), f"{TILES}.shape[1]: 's0' names 's0', which is no"),
        (at(f"{TILES}.ref.offset", 8), f"{TILES}.ref.offset: 8 is no multiple of 16"),
        (at(f"{TILES}.ref.name", "z"), f"{TILES}.ref: there is no arena called 'z' in main"),
        (at(f"{TILES}.ref.name", "semaphor"), f"{TILES}.ref: there is no arena called"),
        (at(f"{TILES}.round_to_tf32", True), "round_to_tf32: true, parameter 'x' is float16"),
        (at("main.steps[4].args[1].ref.name", "x"), "there is no output called 'x' in main"),
        (at("main.steps[4].args[2]", {"kind": "tensor_map"}), "args[2].ref: Field required"),
    ],
)
def test_tensor_maps_and_launches_that_cannot_be(change: Change, message: str) -> None:
    document = json.loads(p.dumps(samples.launches()))
    change(document)
    with pytest.raises(ProgramError, match=re.escape(message)):
        p.loads(json.dumps(document), where="file.json")
