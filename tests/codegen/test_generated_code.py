"""Generated C++ is as the golden files say, compiles without a warning and launches what the
program says."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest

from tests.codegen import cpp, samples
from tests.codegen.generated import GOLDEN, SAMPLES, SM_90, UPDATE, generate
from wrapgen import codegen
from wrapgen.codegen import model_source
from wrapgen.dtype import INFO
from wrapgen.program import weights_digest


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_golden(name: str, tmp_path: Path) -> None:
    """A change of the generator shows as a change of these files; UPDATE_GOLDEN=1 writes them."""
    model = generate(name, tmp_path)
    for file in ("model.h", "model.cc", "entry.cc", "kernels.S"):
        text = (model / file).read_text()
        golden = GOLDEN / name / f"{file}.txt"
        if os.environ.get(UPDATE):
            golden.parent.mkdir(parents=True, exist_ok=True)
            golden.write_text(text)
        assert text == golden.read_text(), f"{golden} differs; run again with {UPDATE}=1 and look"


def record(name: str, scratch: Path, compiler: str = "g++") -> dict[str, list[list[str]]]:
    """Runs a sample's procedures against a recording launcher; returns for each section, such as
    ``sm_90 main``, the lines it printed, split at blanks."""
    model = generate(name, scratch)
    recorder = scratch / "recorder.cc"
    text = (cpp.ROOT / "tests/codegen/recorder.cc").read_text()
    recorder.write_text(f"#define MODEL {name}\n{text}")
    program = cpp.build_model(model, scratch, compiler, recorder)
    make, targets = SAMPLES[name]
    sizes = [
        f"{kernel.name}="
        + ",".join(
            {"pointer": "8", "tensor_map": "128"}.get(p.kind) or str(INFO[p.dtype].itemsize)
            for p in kernel.params
        )
        for kernel in make(str(targets[0].lowering)).kernels
    ]
    sections: dict[str, list[list[str]]] = {"model": []}
    target = section = "model"
    for line in cpp.run([program, *sizes]).splitlines():
        words = line.split()
        if words[0] == "target":
            target = words[1]
            section = f"{target} tables"
        elif words[0] in ("folding", "main", "failing"):
            section = f"{target} {words[0]}"
            sections[section] = []
            continue
        sections.setdefault(section, []).append(words)
    return sections


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_compiles_everywhere_without_warnings(name: str, tmp_path: Path) -> None:
    model = generate(name, tmp_path)
    flags = [*cpp.FLAGS, *cpp.include_flags(tmp_path), f"-I{model}", "-fsyntax-only"]
    for compiler in cpp.compilers():
        for optimisation in ("-O0", "-O2"):
            cpp.run([compiler, *flags, optimisation, model / "model.cc"])
        cpp.run([compiler, *flags, model / "entry.cc"])


def test_elementwise(tmp_path: Path) -> None:
    sections = record("elementwise", tmp_path)
    assert sections["model"] == [
        ["model", "elementwise", "version=1", f"digest={weights_digest(())}"],
        ["input", "x", "2/32/1", "shape=2,1000,", "strides=1000,1,"],
        ["output", "output0", "2/32/1", "shape=2,1000,", "strides=1000,1,"],
    ]
    kernel = samples.elementwise().kernels[0].name
    assert sections["sm_90 tables"] == [
        ["target", "sm_90", "9.0", "ptx=0", "driver=12000"],
        ["memory", "0", "0", "0", "0", "0"],
        ["kernel", kernel, "threads=128", "shared=4096", "cluster=1", "params=5", "aligned=1"]
        + ["terminated=0", "image", "of", kernel, "for", "sm_90"],
    ]
    assert sections["sm_90 folding"] == []
    arguments = ["8:0x1000000", "8:0x2000000", "4:0x7d0", "8:0x0", "8:0x0"]
    assert sections["sm_90 main"] == [["launch", kernel, "2x1x1", "caller", *arguments]]
    assert sections["sm_90 failing"][-1][:2] == ["status", "6"]


def test_launches(tmp_path: Path) -> None:
    """Tensors are described before the launch that takes the descriptions, and scratch memory is a
    temporary of the launch."""
    sections = record("launches", tmp_path)
    kernels = {k.name.partition("_")[0]: k.name for k in samples.launches().kernels}
    attributes = {x[1]: x[2:] for x in sections["sm_90 tables"] if x[0] == "attributes"}
    assert attributes == {
        kernels["shift"]: ["flags=2", "blocks=0", "maps="],
        kernels["tiles"]: ["flags=0", "blocks=0", "maps=0:6/2/2/64x32x,1:6/2/3/64x64x,"],
        kernels["total"]: ["flags=1", "blocks=16", "maps="],
    }
    [fill, total, pairs, shift, x, out, tiles] = sections["sm_90 main"]
    assert fill[0] == "fill"
    assert total[1:4] == [kernels["total"], "16x1x1", "caller"]
    assert pairs[1:4] == [kernels["pairs"], "4x2x3", "caller"]
    assert shift[1:4] == [kernels["shift"], "8x1x1", "owned"]
    shape, strides = "128 64 0 0 0".split(), "64 1 0 0 0".split()
    assert x == ["map", kernels["tiles"], "0", "0x70004000", *shape, *strides, "1", "0"]
    assert out == ["map", kernels["tiles"], "1", "0x2100000", *shape, *strides, "0", "0"]
    maps = ["128:0x1111111111111111"] * 2
    assert tiles[1:] == [
        *(kernels["tiles"], "2x2x1", "caller", *maps),
        *("4:0x40", "8:0x70000000", "8:0x0"),
    ]


def test_conv_chain(tmp_path: Path) -> None:
    """Folding reads weights and writes constants; ``main`` reads both; the last temporary takes the
    place of the first."""
    sections = record("conv_chain", tmp_path)
    add, conv, fold, linear = (kernel.name for kernel in samples.conv_chain().kernels)
    assert sections["sm_90 folding"] == [
        ["launch", fold, "16x1x1", "owned", "8:0x40020000", "8:0x40010000", "8:0x40000000"]
        + ["8:0x60000000", "8:0x60001200", "8:0x0", "8:0x0"],
        ["launch", fold, "16x1x1", "owned", "8:0x40050000", "8:0x40040000", "8:0x40030000"]
        + ["8:0x60001300", "8:0x60002500", "8:0x0", "8:0x0"],
    ]
    scale = f"4:0x{struct.unpack('<I', struct.pack('<f', 0.1))[0]:x}"
    main = [
        ["launch", conv, "49x2x1", "caller", "8:0x1000000", "8:0x60000000", "8:0x60001200"]
        + ["8:0x70000000", "8:0x0", "8:0x0"],
        ["launch", conv, "49x2x1", "owned", "8:0x70000000", "8:0x60001300", "8:0x60002500"]
        + ["8:0x70006200", "8:0x0", "8:0x0"],
        ["launch", add, "1x1x1", "owned", "8:0x70006200", "8:0x70000000", "4:0x3100"]
        + ["8:0x0", "8:0x0"],
        ["copy", "0x70000000", "0x70006240", "512", "owned"],
        ["launch", linear, "1x1x1", "caller", "8:0x70000000", "8:0x40070000", "8:0x40060000"]
        + ["8:0x2000000", scale, "8:0x10000000000", "8:0x0", "8:0x0"],
    ]
    assert sections["sm_90 main"] == main
    assert sections["compute_90 main"] == main
    tables = sections["compute_90 tables"]
    assert tables[0] == ["target", "compute_90", "9.0", "ptx=1", "driver=12000"]
    assert tables[1] == ["memory", "768", "10240", "9728", "0", "50176"]
    assert [row for row in tables if row[0] == "weight"][2] == [
        *["weight", "layers.0.conv.weight", "2/16", "nbytes=4608"],
        *["folding=1", "main=0", "shape=16,16,3,3,"],
    ]
    images = [row for row in tables if row[0] == "kernel"]
    assert [row[1] for row in images] == [add, conv, fold, linear]
    assert all(row[7] == "terminated=1" and row[-1] == "compute_90" for row in images)


def test_copies(tmp_path: Path) -> None:
    sections = record("copies", tmp_path)
    assert sections["model"][1:] == [
        ["input", "class", "2/32/1", "shape=4,", "strides=1,"],
        ["input", "state", "6/8/1", "shape=16,", "strides=1,"],
        ["output", "a_b", "2/32/1", "shape=4,", "strides=1,"],
        ["output", "aB", "2/32/1", "shape=", "strides="],
        ["output", "none", "0/64/1", "shape=0,3,", "strides=3,1,"],
    ]
    assert sections["sm_80 folding"] == [["copy", "0x60000000", "0x40000000", "16", "owned"]]
    assert sections["sm_80 main"] == sections["sm_90 main"]
    assert sections["sm_90 main"] == [
        ["fill", "0x70000000", "0", "16", "owned"],
        ["copy", "0x70000008", "0x60000000", "8", "owned"],
        ["copy", "0x2000000", "0x70000000", "16", "caller"],
        ["copy", "0x2100000", "0x1000004", "4", "caller"],
        ["fill", "0x1100000", "1", "16", "caller"],
    ]


def test_each_operation_is_followed_back_to_its_line(tmp_path: Path) -> None:
    text = (generate("conv_chain", tmp_path) / "model.cc").read_text()
    assert re.search(
        r"  // \[1\] sample\.py, in forward: x = self\.bn\(self\.conv\(x\)\)\n"
        r"  //     layers\.1\.conv \(aten\.conv2d\.default\), "
        r"layers\.1\.bn \(aten\.batch_norm\.default\)\n"
        r"  //     sample\.py, in forward: return F\.relu\(x\).*\n"
        r"  //     layers\.1 \(aten\.relu\.default\)\n"
        r"  AOTI_RETURN_IF_ERROR\(kernels::conv_[0-9a-f]{12}\(\n",
        text,
    )


def test_typed_class_takes_tensors_by_name(tmp_path: Path) -> None:
    """A user's program against the header, the C ABI replaced by functions that look at what they
    get."""
    model = generate("copies", tmp_path)
    user = tmp_path / "user.cc"
    user.write_text(_USER)
    program = cpp.build_model(model, tmp_path, "g++", user)
    assert cpp.run([program]).splitlines() == [
        "load weights.safetensors",
        "create 2",
        "run 2 inputs 3 outputs: 4 floats at 0x1000, bools at 0x2000, 0 dimensions, device 1",
        "status 1: no such stream",
        "destroy session",
        "destroy model",
    ]


_USER = r"""
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "model.h"

struct AotiModel {};
struct AotiSession {};
static AotiModel the_model;
static AotiSession the_session;

int32_t aoti_model_load(const AotiDescription* description, const AotiModelOptions* options,
                        AotiModel** model, AotiStatus* status) {
  if (description != copies_description()) std::abort();
  std::printf("load %s\n", options->weights_path);
  *model = &the_model;
  status->code = AOTI_OK;
  return AOTI_OK;
}
void aoti_model_destroy(AotiModel*) { std::printf("destroy model\n"); }
int32_t aoti_session_create(AotiModel* model, const AotiSessionOptions* options,
                            AotiSession** session, AotiStatus*) {
  if (model != &the_model) std::abort();
  std::printf("create %d\n", static_cast<int>(options->flags));
  *session = &the_session;
  return AOTI_OK;
}
void aoti_session_destroy(AotiSession*) { std::printf("destroy session\n"); }
int32_t aoti_session_run(AotiSession*, const DLTensor* const* inputs, uint64_t num_inputs,
                         const DLTensor* const* outputs, uint64_t num_outputs, void*,
                         AotiStatus* status) {
  std::printf("run %" PRIu64 " inputs %" PRIu64 " outputs: %" PRId64 " floats at %p, bools at %p, "
              "%d dimensions, device %d\n", num_inputs, num_outputs, inputs[0]->shape[0],
              inputs[0]->data, inputs[1]->data, outputs[1]->ndim, outputs[1]->device.device_id);
  std::snprintf(status->message, sizeof status->message, "no such stream");
  return AOTI_INVALID_ARGUMENT;
}

int main() {
  copies::Copies model;
  AotiModelOptions options = {};
  options.struct_size = sizeof options;
  options.weights_path = "weights.safetensors";
  options.device = 1;
  if (!copies::Copies::Load(options, &model).ok()) return 1;
  copies::Copies::Session session;
  AotiSessionOptions flags = {sizeof flags, AOTI_SESSION_NO_CHECKS, 0};
  if (!model.CreateSession(&flags, &session).ok()) return 1;
  auto at = [](uintptr_t address) { return reinterpret_cast<void*>(address); };
  const DLTensor x = aoti::View<copies::inputs::Class>(at(0x1000), 1);
  DLTensor state = aoti::View<copies::inputs::State>(at(0x2000), 1);
  const DLTensor a = aoti::View<copies::outputs::AB>(at(0x3000), 1);
  const DLTensor b = aoti::View<copies::outputs::AB_2>(at(0x4000), 1);
  const DLTensor c = aoti::View<copies::outputs::None>(at(0x5000), 1);
  copies::Copies::Inputs inputs = {};
  inputs.class_2 = &x;
  inputs.state = &state;
  const aoti::Status status = session.Run(inputs, {&a, &b, &c}, nullptr);
  std::printf("status %d: %s\n", static_cast<int>(status.code()), status.message());
}
"""


def test_parts_of_many_functions_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long computations are divided among functions, which changes no value, nor what is told of
    one that does not fit 64 bits."""

    def values(name: str) -> list[str]:
        model = generate("dynamic", tmp_path / name)
        source = cpp.ROOT / "tests/codegen/values.cc"
        program = cpp.build_model(model, tmp_path / name, "g++", source)
        return cpp.run([program]).splitlines()

    whole = values("whole")
    monkeypatch.setattr(model_source, "VALUES_PER_FUNCTION", 1)
    assert values("divided") == whole
    # s0 * s1, s1 * s1 * 4, u1 * 3; the arena
    assert [line.split()[0] for line in whole[:3]] == ["all:"] * 3
    assert {"56", "256", "21"} <= set(whole[1].split())
    assert whole[1].split()[-1] == "512"
    assert whole[3] == "u1 * 3:"
    code = (tmp_path / "divided/model/model.cc").read_text()
    for function in ("ComputeSizes3", "Plan9", "Slots1"):
        assert f" {function}(" in code


@pytest.mark.parametrize("dynamic", [False, True])
def test_functions_are_small_in_the_largest_models(dynamic: bool, tmp_path: Path) -> None:
    """A compiler's time grows faster than a function's length; bench/host_compile.py has it."""
    launches = 300 if dynamic else 1000
    model = samples.large(launches, dynamic=dynamic)
    kernels = samples.write_kernels(tmp_path / "kernels", model, SM_90)
    codegen.wrap("large", {SM_90: model}, [kernels], [SM_90], tmp_path / "model")
    code = (tmp_path / "model/model.cc").read_text()
    assert code.count("AOTI_RETURN_IF_ERROR(kernels::") == launches
    functions = re.split(r"^}$", code, flags=re.MULTILINE)
    assert len(functions) > 300
    assert max(len(re.findall(r"^  .*;$", one, re.MULTILINE)) for one in functions) <= 140


def test_a_kernel_is_there_once_whoever_launches_it(tmp_path: Path) -> None:
    """Folding and the model itself share functions, images and rows of tables."""
    model = generate("expressions", tmp_path)
    code = (model / "model.cc").read_text()
    (kernel,) = (one.name for one in samples.expressions().kernels)
    assert code.count(f"Status {kernel}(") == 1
    assert code.count(f'{{"{kernel}",') == 1
    assert code.count(f"kernels::{kernel}(") == 3
    assert (model / "kernels.S").read_text().count(".incbin") == 1
    assert code.count("#include") == len(set(re.findall("#include.*", code)))


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_helpers_are_the_runtimes(name: str, tmp_path: Path) -> None:
    """Functions in generated code are kernels, procedures and what computes a model's values;
    whatever serves any model is in runtime/."""
    code = (generate(name, tmp_path) / "model.cc").read_text()
    text = re.sub(r"//.*", "", code)
    defined = set(re.findall(r"^[A-Za-z][\w:* ]* [*&]?(\w+)\((?:[^;{}]*)\) \{", text, re.MULTILINE))
    kernels = {kernel.name for kernel in SAMPLES[name][0](str(SM_90)).kernels}
    own = r"Run(Main|Folding)|(Main|Folding)\d\w*|ComputeSizes\d*|Plan\d*|Slots\d+|\w+_description"
    assert defined
    assert {one for one in defined - kernels if not re.fullmatch(own, one)} == set()
    assert "#define" not in code and "template" not in text
