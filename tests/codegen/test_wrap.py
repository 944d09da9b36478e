"""What ``wrap`` writes, that it is the same each time, and what it refuses."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.codegen import cpp, samples
from wrapgen import codegen, program
from wrapgen.codegen import CodegenError, args, launch
from wrapgen.codegen.names import Namer, pascal
from wrapgen.codegen.values import Values
from wrapgen.dtype import DType
from wrapgen.program import (
    Fill,
    Launch,
    Procedure,
    Program,
    Ref,
    ScalarArg,
    ScalarSpec,
    Symbol,
    TensorMapArg,
)
from wrapgen.target import Target, parse

SM_80, SM_90, COMPUTE_80, COMPUTE_90 = map(parse, ("sm_80", "sm_90", "compute_80", "compute_90"))
GFX942 = parse("gfx942")


def wrap(out: Path, one: Program, *targets: Target, name: str = "model_a") -> Path:
    kernels = samples.write_kernels(out / "kernels", one, *targets)
    codegen.wrap(name, {targets[0].lowering: one}, [kernels], targets, out / "model")
    return out / "model"


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_outputs(tmp_path: Path) -> None:
    one = samples.elementwise()
    kernel = one.kernels[0]
    written = files(wrap(tmp_path, one, SM_90, COMPUTE_90))
    assert list(written) == [
        "entry.cc",
        f"images/compute_90/{kernel.name}.ptx",
        f"images/sm_90/{kernel.name}.cubin",
        "kernels.S",
        "model.cc",
        "model.h",
    ]
    assert written[f"images/sm_90/{kernel.name}.cubin"] == samples.image_of(kernel, SM_90)


def test_a_model_without_kernels_has_an_images_folder(tmp_path: Path) -> None:
    model = wrap(tmp_path, samples.copies(), SM_90)
    assert list((model / "images").iterdir()) == []


def test_files_of_an_earlier_run_go(tmp_path: Path) -> None:
    wrap(tmp_path, samples.conv_chain(), SM_90)
    again = files(wrap(tmp_path, samples.elementwise(), SM_90))
    assert again == files(wrap(tmp_path / "fresh", samples.elementwise(), SM_90))


def test_equal_images_are_embedded_once(tmp_path: Path) -> None:
    """Two kernels, or one for two targets, that compile to the same bytes share one symbol."""
    programs = {target: samples.elementwise(str(target)) for target in (SM_80, SM_90)}
    kernel = programs[SM_80].kernels[0]
    kernels = samples.write_kernels(tmp_path / "kernels", programs[SM_80], SM_80, SM_90)
    for target in (SM_80, SM_90):
        image = b"the same"
        data = samples.metadata(kernel, target, image)
        (kernels / str(target) / f"{kernel.name}.json").write_text(json.dumps(data))
        (kernels / str(target) / f"{kernel.name}.cubin").write_bytes(image)
    made = codegen.generate("model_a", programs, [kernels], [SM_80, SM_90])
    assert [path for path in made if path.startswith("images/")] == [
        f"images/sm_80/{kernel.name}.cubin"
    ]
    assert made["kernels.S"].count(b".incbin") == 1
    assert made["model.cc"].count(f"aoti_model_a_sm_80_{kernel.name}_end,".encode()) == 2


def test_kernels_that_nothing_launches_are_left_out(tmp_path: Path) -> None:
    one = samples.elementwise()
    idle = samples.kernel("idle", samples.pointer("x"))
    more = dataclasses.replace(one, kernels=(*one.kernels, idle))
    assert files(wrap(tmp_path / "a", more, SM_90)) == files(wrap(tmp_path / "b", one, SM_90))


def test_an_empty_grid_launches_nothing(tmp_path: Path) -> None:
    one = samples.elementwise()
    (step,) = one.main.steps
    empty = dataclasses.replace(step, grid=(0, 1, 1))
    main = dataclasses.replace(one.main, steps=(empty,))
    model = wrap(tmp_path, dataclasses.replace(one, main=main), SM_90)
    text = (model / "model.cc").read_text()
    assert "Nothing to launch: the grid is [0, 1, 1]." in text
    assert "Launch(" not in text
    cpp.run(["g++", *cpp.FLAGS, *cpp.include_flags(tmp_path), "-fsyntax-only", model / "model.cc"])


SCRIPT = """
import sys
from pathlib import Path
from tests.codegen import samples
from wrapgen import codegen
from wrapgen.target import parse
targets = [parse(name) for name in sys.argv[2:]]
programs = {t: samples.conv_chain(str(t)) for t in {target.lowering for target in targets}}
out = Path(sys.argv[1])
kernels = samples.write_kernels(out / "kernels", programs[targets[0].lowering], *targets)
codegen.wrap("chain", programs, [kernels], targets, out / "model")
"""


def test_the_same_bytes_whatever_the_surroundings(tmp_path: Path) -> None:
    """Neither the hash seed, the directory, the locale nor the order of targets shows."""
    seen = []
    for i, (seed, locale, targets) in enumerate(
        [
            ("0", "C", ["sm_80", "sm_90", "compute_90"]),
            ("1", "C.UTF-8", ["compute_90", "sm_90", "sm_80"]),
            ("4242", "POSIX", ["sm_90", "sm_80", "compute_90"]),
        ]
    ):
        out = tmp_path / f"{'deeper/' * i}run{i}"
        out.mkdir(parents=True)
        environ = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": locale, "TZ": f"UTC{i}"}
        environ["PYTHONPATH"] = os.pathsep.join([str(cpp.ROOT), *filter(None, sys.path)])
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(out), *targets], env=environ, check=True, cwd=out
        )
        seen.append(files(out / "model"))
    assert seen[0] == seen[1] == seen[2]


REFUSE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "triton", "numpy"):
            raise ImportError(f"{name} must not be imported")
sys.meta_path.insert(0, Refuse())
"""


def test_neither_torch_nor_triton_is_imported(tmp_path: Path) -> None:
    """By nothing that a whole run executes, nor by anything that would make do without."""
    code = REFUSE + SCRIPT + "assert not {'torch', 'triton', 'numpy'} & set(sys.modules)"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(cpp.ROOT), *filter(None, sys.path)])}
    subprocess.run([sys.executable, "-c", code, tmp_path, "sm_90"], env=environ, check=True)
    assert (tmp_path / "model" / "model.cc").is_file()


def test_path_level_function(tmp_path: Path) -> None:
    one = samples.elementwise()
    file = tmp_path / "program.json"
    file.write_text(program.dumps(one))
    kernels = samples.write_kernels(tmp_path / "kernels", one, SM_90)
    codegen.wrap_files("model_a", {SM_90: file}, [kernels], [SM_90], tmp_path / "files")
    assert files(tmp_path / "files") == files(wrap(tmp_path, one, SM_90))


def test_shards_in_several_directories(tmp_path: Path) -> None:
    one = samples.conv_chain()
    everything = samples.write_kernels(tmp_path / "kernels", one, SM_90)
    shards = []
    for i, kernel in enumerate(one.kernels):
        shard = tmp_path / f"shard{i}"
        (shard / "sm_90").mkdir(parents=True)
        for suffix in ("json", "cubin"):
            name = f"sm_90/{kernel.name}.{suffix}"
            (everything / name).rename(shard / name)
        shards.append(shard)
    split = codegen.generate("chain", {SM_90: one}, shards, [SM_90])
    samples.write_kernels(everything, one, SM_90)
    assert split == codegen.generate("chain", {SM_90: one}, [everything], [SM_90])
    # The same kernel twice is fine as long as it is the same.
    both = [everything, *shards]
    assert split == codegen.generate("chain", {SM_90: one}, both, [SM_90])


def test_more_steps_than_one_function_holds(tmp_path: Path) -> None:
    count = 2 * launch.STEPS_PER_FUNCTION + 1
    text = (wrap(tmp_path, samples.many_launches(count), SM_90) / "model.cc").read_text()
    assert text.count("AOTI_RETURN_IF_ERROR(Main") == 3
    assert f"  // [{count - 1}] " in text


# What is refused. Each change of a good build, and what the message must say.


def check_metadata(
    tmp_path: Path,
    message: str,
    image: bytes | None = None,
    built_for: Target = SM_90,
    **changes: Any,
) -> None:
    one = samples.elementwise(str(built_for))
    kernel = one.kernels[0]
    kernels = samples.write_kernels(tmp_path / "kernels", one, built_for)
    file = kernels / str(built_for) / f"{kernel.name}.json"
    data = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))
    if image is not None:
        file.with_suffix(".cubin").write_bytes(image)
    with pytest.raises(CodegenError, match=message) as caught:
        codegen.generate("model_a", {built_for: one}, [kernels], [built_for])
    assert kernel.name in str(caught.value)


PARAMS = [
    {"offset": 0, "size": 8},
    {"offset": 8, "size": 8},
    {"offset": 16, "size": 4},
    {"offset": 24, "size": 8},
    {"offset": 32, "size": 8},
]


def test_params_of_the_sample(tmp_path: Path) -> None:
    """So that the cases below differ from a good one in what they name only."""
    one = samples.elementwise()
    assert samples.metadata(one.kernels[0], SM_90, b"")["params"] == PARAMS


@pytest.mark.parametrize(
    ("index", "param", "message"),
    [
        (
            2,
            {"offset": 16, "size": 8},
            r"parameter 2 'n' \(int32\): expected 4 bytes at offset 16, the compiled kernel has 8 "
            "bytes at offset 16",
        ),
        (
            1,
            {"offset": 8, "size": 4},
            r"parameter 1 'out_ptr0' \(pointer to float32\): expected 8 bytes at offset 8, the "
            "compiled kernel has 4 bytes at offset 8",
        ),
        (
            3,
            {"offset": 20, "size": 8},
            "the global scratch pointer: expected 8 bytes at offset 24, the compiled kernel has 8 "
            "bytes at offset 20",
        ),
        (4, {"offset": 32, "size": 16}, "the profile scratch pointer: expected 8 bytes"),
    ],
)
def test_a_parameter_that_is_elsewhere(
    tmp_path: Path, index: int, param: dict[str, int], message: str
) -> None:
    params = [*PARAMS[:index], param, *PARAMS[index + 1 :]]
    check_metadata(tmp_path, message, params=params)


def test_params_missing(tmp_path: Path) -> None:
    message = "has 3 parameters, expected 5: 3 of the program and 2 scratch pointers"
    check_metadata(tmp_path, message, params=PARAMS[:3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 1}, "schema_version is 1, expected 2"),
        ({"target": "sm_80"}, "target is 'sm_80', expected 'sm_90'"),
        ({"format": "ptx"}, "format is 'ptx', expected 'cubin'"),
        ({"format": "elf"}, "format: Input should be 'cubin', 'ptx' or 'hsaco'"),
        ({"num_ctas": 2}, "num_ctas is 2, expected 1"),
        ({"ttir_sha256": "0" * 64}, "ttir_sha256 is '0000"),
        ({"threads": None}, "threads: Field required"),
        ({"threads": "128"}, "threads: Input should be a valid integer"),
        ({"threads": -32}, "threads: Input should be greater than or equal to 0"),
        ({"threads": 100}, "blocks of 100 threads, expected a multiple of 32 up to 1024"),
        ({"threads": 0}, "blocks of 0 threads"),
        ({"threads": 2048}, "blocks of 2048 threads"),
        ({"params": [{"offset": 0}]}, r"params\[0\].size: Field required"),
        (
            {"global_scratch": 128, "global_scratch_align": 512},
            "needs scratch memory at a multiple of 512 bytes, expected a divisor of 256",
        ),
        ({"profile_scratch": 8}, "needs 8 bytes of profile scratch memory a block"),
        (
            {"tensor_maps": [{"param": 0, "element": 6, "swizzle": 3, "box": [64, 64]}]},
            r"has tensor maps at parameters \[\], the metadata describes those at \[0\]",
        ),
        (
            {"shared_memory": 300 << 10},
            "needs 307200 bytes of shared memory a block, a device of sm_90 has 232448",
        ),
        (
            {"sha256": "0" * 64},
            r"cubin: the image of kernel [a-z0-9_]+ for sm_90 is damaged: expected \d+ bytes with "
            r"SHA-256 0{64}, as [a-z0-9_]+\.json says, found \d+ bytes with SHA-256 [0-9a-f]{64}\. "
            "Compile its shard again",
        ),
        (
            {"size": 7},
            r"expected 7 bytes with SHA-256 (\w{64}), .* found \d+ bytes with .*\1",
        ),
        ({"size": None}, "size: Field required"),
    ],
)
def test_metadata_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    check_metadata(tmp_path, message, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "cubin"}, "format is 'cubin', expected 'hsaco'"),
        ({"threads": 32}, "blocks of 32 threads, expected a multiple of 64 up to 1024"),
        (
            {"shared_memory": 65 << 10},
            "needs 66560 bytes of shared memory a block, a device of gfx942 has 65536",
        ),
    ],
)
def test_metadata_of_amds_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    check_metadata(tmp_path, message, built_for=GFX942, **changes)


def test_image_changed(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"other").hexdigest()
    check_metadata(tmp_path, f"found 5 bytes with SHA-256 {digest}", image=b"other")


def test_image_missing(tmp_path: Path) -> None:
    one = samples.elementwise()
    kernels = samples.write_kernels(tmp_path, one, SM_90)
    (kernels / "sm_90" / f"{one.kernels[0].name}.cubin").unlink()
    with pytest.raises(CodegenError, match=r"\.cubin is missing, though .*\.json describes it"):
        codegen.generate("model_a", {SM_90: one}, [kernels], [SM_90])


def test_metadata_not_json(tmp_path: Path) -> None:
    one = samples.elementwise()
    kernels = samples.write_kernels(tmp_path, one, SM_90)
    (kernels / "sm_90" / f"{one.kernels[0].name}.json").write_text("{")
    with pytest.raises(CodegenError, match="Invalid JSON"):
        codegen.generate("model_a", {SM_90: one}, [kernels], [SM_90])


def test_kernel_not_compiled(tmp_path: Path) -> None:
    one = samples.elementwise()
    kernels = samples.write_kernels(tmp_path / "kernels", one, SM_90)
    with pytest.raises(
        CodegenError,
        match=r"add_relu_\w+ is not compiled for compute_90: there is no add_relu_\w+\.json in "
        r".*kernels/compute_90\. Compile its shard \(00\) for compute_90",
    ):
        codegen.generate("model_a", {SM_90: one}, [kernels], [SM_90, COMPUTE_90])


def test_two_different_images(tmp_path: Path) -> None:
    one = samples.elementwise()
    kernel = one.kernels[0]
    first = samples.write_kernels(tmp_path / "first", one, SM_90)
    second = samples.write_kernels(tmp_path / "second", one, SM_90)
    data = samples.metadata(kernel, SM_90, b"other")
    (second / "sm_90" / f"{kernel.name}.json").write_text(json.dumps(data))
    (second / "sm_90" / f"{kernel.name}.cubin").write_bytes(b"other")
    with pytest.raises(CodegenError, match=r"differs between .*first and .*second"):
        codegen.generate("model_a", {SM_90: one}, [first, second], [SM_90])


@pytest.mark.parametrize(
    ("programs", "targets", "message"),
    [
        ([SM_90], [], "no target: name at least one"),
        ([SM_90], [SM_90, SM_90], "a target is named twice: sm_90, sm_90"),
        ([SM_90], [SM_80], "sm_80 needs the program lowered for sm_80; given: sm_90"),
        ([SM_90], [SM_90, COMPUTE_80], "compute_80 needs the program lowered for sm_80; given"),
        ([SM_80, SM_90], [SM_90], "the program for sm_80 is used by none of the targets sm_90"),
        (
            [SM_90, GFX942],
            [SM_90, GFX942],
            "targets sm_90 run on NVIDIA's GPUs and gfx942 on AMD's: a library calls one vendor's",
        ),
    ],
)
def test_targets_refused(programs: list[Target], targets: list[Target], message: str) -> None:
    with pytest.raises(CodegenError, match=message):
        made = {target: samples.elementwise(str(target)) for target in programs}
        codegen.generate("model_a", made, [], targets)


def test_aotinductors_interface_is_refused_for_amds(tmp_path: Path) -> None:
    one = samples.elementwise("gfx942")
    kernels = samples.write_kernels(tmp_path / "kernels", one, GFX942)
    with pytest.raises(CodegenError, match=r"NVIDIA's GPUs alone, the targets are gfx942"):
        codegen.generate("model_a", {GFX942: one}, [kernels], [GFX942], aotinductor=True)


def test_program_of_another_target() -> None:
    with pytest.raises(CodegenError, match="given for sm_80 was lowered for sm_90"):
        codegen.generate("model_a", {SM_80: samples.elementwise("sm_90")}, [], [SM_80])


@pytest.mark.parametrize("field", ["inputs", "outputs", "weights"])
def test_programs_that_differ(field: str) -> None:
    """All targets of a model take the same tensors, so the message names the first that differs."""
    ours, theirs = samples.conv_chain("sm_80"), samples.conv_chain("sm_90")
    first = getattr(theirs, field)[0]
    renamed = (dataclasses.replace(first, name="zz"), *getattr(theirs, field)[1:])
    for changed in (renamed, getattr(theirs, field)[1:]):
        other = dataclasses.replace(theirs, **{field: changed})
        with pytest.raises(CodegenError, match=rf"the programs differ in {field}\[\d\]: sm_80 has"):
            codegen.generate("model_a", {SM_80: ours, SM_90: other}, [], [SM_80, SM_90])


def dynamic(**changes: Any) -> Program:
    """The sample ``dynamic``, its launch of ``shift`` with other values of ``start`` and ``n``."""
    one = samples.dynamic()
    steps = list(one.main.steps)
    shift = steps[2]
    assert isinstance(shift, Launch)
    n, start = (
        dataclasses.replace(arg, value=changes.get(name, arg.value))
        for name, arg in zip(("n", "start"), shift.args[2:4], strict=True)
        if isinstance(arg, ScalarArg)
    )
    steps[2] = dataclasses.replace(shift, args=(*shift.args[:2], n, start, shift.args[4]))
    return dataclasses.replace(one, main=dataclasses.replace(one.main, steps=tuple(steps)))


def test_values_that_may_not_fit_are_checked_at_each_run(tmp_path: Path) -> None:
    text = (wrap(tmp_path, dynamic(n="s0 * 1000000000"), SM_90) / "model.cc").read_text()
    assert "values::kS0Times1000000000, -2147483648, 2147483647, 1," in text
    assert "kernel shift_" in text
    assert "argument n of type int32" in text


def test_promised_multiples_are_checked_at_each_run(tmp_path: Path) -> None:
    one = dynamic(n="s0 * s1 * 16")
    kernels = tuple(
        dataclasses.replace(
            k,
            params=tuple(
                dataclasses.replace(p, divisible_by_16=p.kind == "scalar") for p in k.params
            ),
        )
        if k.name.startswith("shift")
        else k
        for k in one.kernels
    )
    model = wrap(tmp_path, dataclasses.replace(one, kernels=kernels), SM_90)
    limits = re.findall(r"^    \{(\S+), \S+, \S+, 16,$", (model / "model.cc").read_text(), re.M)
    # 16 * s0 * s1 is one at any sizes.
    assert limits == ["sizes::kU0", "values::kU1Times3"]


@pytest.mark.parametrize(
    ("start", "passed"), [("u0", ["u0", "u1"]), ("u0 + s0", ["u0", "u1"]), ("7", ["u0", "u1"])]
)
def test_scalars_that_are_but_passed_on(start: str, passed: list[str]) -> None:
    assert sorted(launch.passed_scalars(dynamic(start=start))) == passed


def test_a_tensor_map_of_a_scalar_that_is_passed_on_may_change(tmp_path: Path) -> None:
    """Though all memory it names is the library's: a graph must encode it anew."""
    one = samples.launches()
    *before, tiles = one.main.steps
    assert isinstance(tiles, Launch)
    x, _, columns = tiles.args
    assert isinstance(x, TensorMapArg)
    shape = ("u0", 64)
    inside = (
        dataclasses.replace(x, shape=shape),
        dataclasses.replace(x, ref=Ref(space="arena", name="doubled"), access="write"),
        columns,
    )
    steps = (*before, dataclasses.replace(tiles, args=inside), tiles)
    changed = dataclasses.replace(
        one,
        symbols=(Symbol(name="u0", minimum=1, maximum=128),),
        inputs=(*one.inputs, ScalarSpec(name="rows", path="args[1]", symbol="u0")),
        main=dataclasses.replace(one.main, steps=steps),
    )
    assert launch.passed_scalars(changed) == {"u0"}
    text = (wrap(tmp_path, changed, SM_90) / "model.cc").read_text()
    calls = re.findall(r"kernels::(\w+)\(\s*launcher, \{[^}]*\}, Pointers::(\w+)", text)
    assert [pointers for name, pointers in calls if name.startswith("tiles")] == ["kCaller"] * 2
    assert [pointers for name, pointers in calls if name.startswith("shift")] == ["kOwned"]


def test_long_expressions_are_laid_out(tmp_path: Path) -> None:
    one = samples.dynamic()
    grid = tuple(f"max(({n} * s0 + 127) // 128, min(s1, s0 * s0 + {n}))" for n in (11, 12, 13))
    steps = list(one.main.steps)
    steps[2] = dataclasses.replace(steps[2], grid=grid)
    changed = dataclasses.replace(one, main=dataclasses.replace(one.main, steps=tuple(steps)))
    text = (wrap(tmp_path, changed, SM_90) / "model.cc").read_text()
    assert max(map(len, text.splitlines())) <= 100


def test_scalars_that_decide_what_is_launched() -> None:
    one = samples.dynamic()
    steps = list(one.main.steps)
    steps[2] = dataclasses.replace(steps[2], grid=("u0 + 1", 1, 1))
    steps[1] = dataclasses.replace(steps[1], nbytes="min(s1 * s1 * 4, abs(u1))")
    changed = dataclasses.replace(one, main=dataclasses.replace(one.main, steps=tuple(steps)))
    assert launch.passed_scalars(changed) == frozenset()


def test_all_programs_have_the_same_symbols() -> None:
    one, other = samples.dynamic("sm_80"), samples.dynamic("sm_90")
    wider = (dataclasses.replace(other.symbols[0], maximum=65), *other.symbols[1:])
    other = dataclasses.replace(other, symbols=wider)
    with pytest.raises(CodegenError, match=r"the programs differ in symbols\[0\]"):
        codegen.generate("model_a", {SM_80: one, SM_90: other}, [], [SM_80, SM_90])


def test_a_name_of_a_symbol_may_be_a_word_of_cpp(tmp_path: Path) -> None:
    one = samples.dynamic()
    text = program.dumps(one)
    for old, new in (("s0", "value"), ("s1", "double"), ("u1", "std")):
        text = re.sub(rf"\b{old}\b", new, text)
    model = wrap(tmp_path, program.loads(text), SM_90)
    for compiler in cpp.compilers():
        flags = [*cpp.FLAGS, *cpp.include_flags(tmp_path), "-fsyntax-only"]
        cpp.run([compiler, *flags, f"-I{model}", model / "model.cc"])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((1 << 31, 1, 1), "main.steps.0..grid: 2147483648 blocks in direction x"),
        ((1, 65536, 1), "65536 blocks in direction y, the hardware takes 65535"),
        ((1, 1, 65536), "65536 blocks in direction z"),
    ],
)
def test_grids_refused(tmp_path: Path, grid: tuple[int, int, int], message: str) -> None:
    one = samples.elementwise()
    step = dataclasses.replace(one.main.steps[0], grid=grid)
    one = dataclasses.replace(one, main=dataclasses.replace(one.main, steps=(step,)))
    with pytest.raises(CodegenError, match=message):
        wrap(tmp_path, one, SM_90)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (DType.FLOAT32, (1e39).hex(), r"main.steps\[0\].args\[2\].value: .* beyond the range of"),
        (DType.FLOAT16, (65520.0).hex(), "beyond the range of float16"),
        (DType.BFLOAT16, (3.4e38).hex(), "beyond the range of bfloat16"),
        (DType.FLOAT8_E5M2, (1.0).hex(), "float8_e5m2 arguments by value are not supported"),
    ],
)
def test_scalars_refused(tmp_path: Path, dtype: DType, value: str, message: str) -> None:
    with pytest.raises(CodegenError, match=message):
        wrap(tmp_path, _with_scalar(dtype, value), SM_90)


def _with_scalar(dtype: DType, value: int | str) -> Program:
    kernel = samples.kernel(
        "scalar", samples.pointer("a"), samples.pointer("b"), samples.scalar("c", dtype)
    )
    one = samples.elementwise()
    step = samples.launch(
        kernel,
        (1, 1, 1),
        samples.reads("input", "x"),
        samples.writes("output", "output0"),
        ScalarArg(dtype=dtype, value=value),
    )
    main = dataclasses.replace(one.main, steps=(step,))
    return dataclasses.replace(one, kernels=(kernel,), main=main)


SCALARS: list[tuple[DType, int | str, str]] = [
    (DType.BOOL, 1, "true"),
    (DType.UINT8, 255, "255"),
    (DType.INT8, -128, "-128"),
    (DType.INT32, -(1 << 31), "-2147483648"),
    (DType.INT64, -(1 << 63), "INT64_MIN"),
    (DType.INT64, "3 * 7 // 2", "10"),
    (DType.FLOAT64, (0.1).hex(), "0.1"),
    (DType.FLOAT32, (1 / 3).hex(), "0.3333333432674408f"),
    (DType.FLOAT32, (1e-45).hex(), "1.401298464324817e-45f"),
    (DType.FLOAT32, "inf", "std::numeric_limits<float>::infinity()"),
    (DType.FLOAT64, "-inf", "-std::numeric_limits<double>::infinity()"),
    (DType.FLOAT32, "nan", "std::numeric_limits<float>::quiet_NaN()"),
    (DType.FLOAT32, (-0.0).hex(), "-0.0f"),
    (DType.FLOAT16, (1.0).hex(), "0x3c00"),
    (DType.FLOAT16, "nan", "0x7e00"),
    (DType.BFLOAT16, (1.0).hex(), "0x3f80"),
    (DType.BFLOAT16, (-0.0).hex(), "0x8000"),
    (DType.BFLOAT16, "-inf", "0xff80"),
    (DType.BFLOAT16, "nan", "0x7fc0"),
    # Halfway between two values: to the even one. Nearest once, not by way of float32.
    (DType.BFLOAT16, (1 + 2**-8).hex(), "0x3f80"),
    (DType.BFLOAT16, (1 + 3 * 2**-8).hex(), "0x3f82"),
    (DType.BFLOAT16, (1 + 2**-8 + 2**-40).hex(), "0x3f81"),
    (DType.BFLOAT16, (2.0**-133).hex(), "0x0001"),
    (DType.BFLOAT16, (2.0**-135).hex(), "0x0000"),
    (DType.BFLOAT16, float.fromhex("0x1.fep+127").hex(), "0x7f7f"),
]


@pytest.mark.parametrize(("dtype", "value", "literal"), SCALARS)
def test_scalars(dtype: DType, value: int | str, literal: str) -> None:
    arg = ScalarArg(dtype=dtype, value=value)
    param = samples.scalar("s", dtype)
    assert args.scalar("", arg, param, Values(samples.program()), "") == literal


def test_scalars_compile(tmp_path: Path) -> None:
    """All of them in one launch: no literal is too wide for its parameter or has no type."""
    params = [samples.scalar(f"s{i}", dtype) for i, (dtype, _, _) in enumerate(SCALARS)]
    kernel = samples.kernel("scalars", samples.pointer("out"), *params)
    values = [ScalarArg(dtype=dtype, value=value) for dtype, value, _ in SCALARS]
    step = samples.launch(kernel, (1, 1, 1), samples.writes("output", "output0"), *values)
    one = samples.elementwise()
    main = dataclasses.replace(one.main, steps=(step,))
    model = wrap(tmp_path, dataclasses.replace(one, kernels=(kernel,), main=main), SM_90)
    for compiler in cpp.compilers():
        flags = [*cpp.FLAGS, *cpp.include_flags(tmp_path), "-fsyntax-only"]
        cpp.run([compiler, *flags, model / "model.cc"])


def test_a_model_without_inputs_and_weights_compiles(tmp_path: Path) -> None:
    fill = Fill(dst=Ref(space="output", name="y"), byte=0, nbytes=16, sources=())
    one = samples.program(
        outputs=(samples.tensor("y", "outputs", DType.FLOAT32, 4),),
        main=Procedure(buffers=(), steps=(fill,)),
    )
    model = wrap(tmp_path, one, SM_90)
    for compiler in cpp.compilers():
        flags = [*cpp.FLAGS, *cpp.include_flags(tmp_path), "-fsyntax-only"]
        cpp.run([compiler, *flags, model / "model.cc"])


def test_a_source_line_cannot_leave_its_comment(tmp_path: Path) -> None:
    """Code that ends in a backslash, looks like code or is not ASCII stays a comment."""
    one = samples.elementwise()
    (step,) = one.main.steps
    lines = ["x = 1 \\", "y ??/", "*/ #error /*", "caf\u00e9 \u2028 at.inputs[0]", "\t", "a" * 300]
    nodes = tuple(samples.node(f"n{i}", "op", "", code) for i, code in enumerate(lines))
    main = dataclasses.replace(one.main, steps=(dataclasses.replace(step, sources=nodes),))
    model = wrap(tmp_path, dataclasses.replace(one, main=main), SM_90)
    flags = [*cpp.FLAGS, *cpp.include_flags(tmp_path), "-fsyntax-only", "-trigraphs"]
    cpp.run(["g++", *flags, model / "model.cc"])


@pytest.mark.parametrize(
    "name",
    [
        *("", "Resnet", "1st", "a__b", "a_", "_a", "a-b", "a.b", "../a", "class", "std", "load"),
        "aoti",
        "aoti_model",  # whose description function would be the one that entry.cc defines
    ],
)
def test_names_refused(name: str) -> None:
    with pytest.raises(CodegenError, match="cannot name a model"):
        codegen.generate(name, {SM_90: samples.elementwise()}, [], [SM_90])


def test_nothing_is_written_on_failure(tmp_path: Path) -> None:
    with pytest.raises(CodegenError):
        codegen.wrap("model_a", {SM_90: samples.elementwise()}, [], [SM_90], tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_failure_to_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = wrap(tmp_path, samples.conv_chain(), SM_90)
    before = files(model)
    samples.write_kernels(tmp_path / "other", samples.elementwise(), SM_90)
    write_bytes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "kernels.S":
            raise OSError(errno.ENOSPC, "no space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        codegen.wrap(
            "model_a", {SM_90: samples.elementwise()}, [tmp_path / "other"], [SM_90], model
        )
    assert files(model) == before
    assert [path.name for path in model.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("layer1.0.conv2.weight", "Layer1_0Conv2Weight"),
        ("resnet_b32", "ResnetB32"),
        ("a_b", "AB"),
        ("x", "X"),
        ("...", ""),
    ],
)
def test_pascal(text: str, name: str) -> None:
    assert pascal(text) == name


def test_names_that_look_alike_stay_apart() -> None:
    namer = Namer(frozenset({"grid"}))
    assert [namer.name(key, wanted) for key, wanted in [("a", "x"), ("b", "x"), ("a", "x")]] == [
        "x",
        "x_2",
        "x",
    ]
    assert namer.name("c", "grid") == "grid_2"
    assert namer.name("d", "class") == "class_2"


def test_parameters_called_like_what_the_function_uses(tmp_path: Path) -> None:
    names = ("grid", "params", "DeviceAddress", "class", "global_scratch")
    kernel = samples.kernel("awkward", *(samples.pointer(name) for name in names))
    one = samples.elementwise()
    arguments = [samples.reads("input", "x")] * 4 + [samples.writes("output", "output0")]
    main = dataclasses.replace(one.main, steps=(samples.launch(kernel, (1, 1, 1), *arguments),))
    model = wrap(tmp_path, dataclasses.replace(one, kernels=(kernel,), main=main), SM_90)
    cpp.run(["g++", *cpp.FLAGS, *cpp.include_flags(tmp_path), "-fsyntax-only", model / "model.cc"])


@pytest.mark.parametrize("name", ["element", "DLDataType", "DLTensor", "inputs", "stream", "_"])
def test_tensors_called_like_what_the_class_uses(tmp_path: Path, name: str) -> None:
    text = program.dumps(samples.elementwise())
    renamed = text.replace('"name": "x"', f'"name": "{name}"').replace('"output0"', f'"{name}"')
    model = wrap(tmp_path, program.loads(renamed), SM_90)
    cpp.run(["g++", *cpp.FLAGS, *cpp.include_flags(tmp_path), "-fsyntax-only", model / "model.cc"])


def test_clang_format_has_nothing_to_change(tmp_path: Path) -> None:
    formatter = pytest.importorskip("clang_format")
    tool = Path(formatter.__file__).parent / "data/bin/clang-format"
    style = "{BasedOnStyle: Google, ColumnLimit: 100}"
    for make in (samples.elementwise, samples.conv_chain, samples.copies, samples.dynamic):
        model = wrap(tmp_path / make.__name__, make(), SM_90, COMPUTE_90)
        for name in ("model.h", "model.cc", "entry.cc"):
            text = (model / name).read_text()
            assert cpp.run([tool, f"--style={style}", model / name]) == text
