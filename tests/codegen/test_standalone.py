"""A model in one file: what it looks like, that it compiles anywhere and shows nothing but its C
functions. ``tests/features/test_loading.py`` runs one beside the library."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.codegen import cpp, samples
from tests.codegen.generated import SAMPLES, UPDATE
from wrapgen.codegen import CodegenError, amalgamation, standalone

RUNTIME = cpp.ROOT / "runtime"
GOLDEN = cpp.ROOT / "tests/codegen/golden_standalone"

HELPERS = re.compile(r"(?<=diagnostic push\n)(.*)(?=#pragma GCC diagnostic pop)", re.DOTALL)
"""What is copied from the runtime, which has tests of its own."""


def generate(name: str, scratch: Path) -> dict[str, bytes]:
    make, targets = SAMPLES[name]
    programs = {lowering: make(str(lowering)) for lowering in {t.lowering for t in targets}}
    kernels = samples.write_kernels(scratch / "compiled", next(iter(programs.values())), *targets)
    return standalone.generate(name, programs, [kernels], targets, RUNTIME)


def write(name: str, scratch: Path) -> Path:
    """Writes a sample's source and header; returns the source."""
    files = generate(name, scratch)
    for suffix in ("h", "cc"):
        (scratch / f"{name}.{suffix}").write_bytes(files[f"{name}.{suffix}"])
    return scratch / f"{name}.cc"


@pytest.mark.parametrize("suffix", ["cc", "h"])
def test_golden(suffix: str, tmp_path: Path) -> None:
    text = generate("dynamic", tmp_path)[f"dynamic.{suffix}"].decode()
    text, found = HELPERS.subn("// ... the runtime's files ...\n", text)
    assert found == (suffix == "cc")
    golden = GOLDEN / f"dynamic.{suffix}.txt"
    if os.environ.get(UPDATE):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    assert text == golden.read_text(), f"{golden} differs; run again with {UPDATE}=1 and look"


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_compiles_without_warnings_and_with_nothing_but_cpp(name: str, tmp_path: Path) -> None:
    """And shows three functions."""
    source = write(name, tmp_path)
    included = re.findall(r"^#include (.*)$", source.read_text(), re.MULTILINE)
    assert [each for each in included if each[0] != "<"] == [f'"{name}.h"']
    functions = {f"{name}_load", f"{name}_run", f"{name}_free"}
    for compiler in cpp.compilers():
        out = tmp_path / f"{compiler}.o"
        cpp.run([compiler, *cpp.FLAGS, "-O2", "-c", source, "-o", out])
        # T: defined in this file for all others. Templates of the library are weak.
        symbols = [line.split() for line in cpp.run(["nm", "--defined-only", out]).splitlines()]
        assert {symbol for _, kind, symbol in symbols if kind in "TDBR"} == functions


def test_the_header_is_c(tmp_path: Path) -> None:
    write("dynamic", tmp_path)
    program = tmp_path / "user.c"
    program.write_text(
        '#include "dynamic.h"\n'
        "int main(void) { return DYNAMIC_NUM_INPUTS == 4 && DYNAMIC_NUM_SIZES == 5 ? 0 : 1; }\n"
    )
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    cpp.run(["gcc", *flags, program, "-o", tmp_path / "user"])
    cpp.run([tmp_path / "user"])


def test_two_models_link_and_tell_why_they_do_not_load(tmp_path: Path) -> None:
    """On a machine, such as this one, without a driver; or where there is one, without kernels."""
    sources = [write(name, tmp_path) for name in ("elementwise", "copies")]
    user = tmp_path / "user.cc"
    user.write_text(
        """
        #include <cstdio>
        #include "copies.h"
        #include "elementwise.h"
        int main() {
          char error[200] = "";
          elementwise_model* one = nullptr;
          copies_model* other = nullptr;
          const int code = elementwise_load("x", nullptr, 0, 0, &one, error, sizeof error);
          std::printf("%d %d %s\\n", code != 0, one == nullptr, error);
          std::printf("%d\\n", copies_load("x", nullptr, 0, 0, &other, nullptr, 0) != 0);
          elementwise_free(one);
          copies_free(other);
        }
        """
    )
    program = tmp_path / "user"
    cpp.run(["g++", *cpp.FLAGS, *sources, user, "-o", program, "-ldl", "-pthread"])
    first, second = cpp.run([program]).splitlines()
    assert re.match(r"1 1 \S", first)
    assert second == "1"


def test_kernels_are_files(tmp_path: Path) -> None:
    files = generate("conv_chain", tmp_path)
    names = {kernel.name for kernel in samples.conv_chain().kernels}
    assert {path for path in files if path.startswith("kernels/")} == {
        *(f"kernels/sm_90/{name}.cubin" for name in names),
        *(f"kernels/compute_90/{name}.ptx" for name in names),
    }
    assert files == generate("conv_chain", tmp_path)


def test_launch_code_is_the_librarys(tmp_path: Path) -> None:
    """Word for word, from the first procedure to the last."""
    procedures = re.compile(r"// The kernels with their parameters\..*Status RunMain\(", re.DOTALL)
    library = (cpp.ROOT / "tests/codegen/golden/dynamic/model.cc.txt").read_text()
    ours = generate("dynamic", tmp_path)["dynamic.cc"].decode()
    expected = procedures.search(library)
    assert expected and expected[0] in ours


def write_runtime(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (directory / f"{stem}.{suffix}").write_text(text)
    return directory


def test_amalgamation_has_each_file_once(tmp_path: Path) -> None:
    write_runtime(
        tmp_path,
        a_h='#ifndef AOTI_RUNTIME_A_H_\n#define AOTI_RUNTIME_A_H_\n\n#include "runtime/b.h"\n'
        "#include <string>\n\n\nint A();\n#endif  // AOTI_RUNTIME_A_H_\n",
        a_cc='#include "runtime/a.h"\n#include "runtime/c.h"\n#include <map>\n'
        "int A() { return 1; }\n",
        b_h="int B();\n#ifndef AOTI_STANDALONE\n#include <vector>\nint Left();\n"
        "#endif  // AOTI_STANDALONE\nint C();\n",
        c_h='#include "runtime/b.h"\nint D();\n',
    )
    joined = amalgamation.amalgamate(tmp_path, ["runtime/a.h"])
    assert joined.headers == ("map", "string")
    assert [line for line in joined.lines if line] == [
        *("// runtime/b.h", "int B();", "int C();"),
        *("// runtime/a.h", "int A();"),
        *("// runtime/c.h", "int D();"),
        *("// runtime/a.cc", "int A() { return 1; }"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('#include "dlpack/dlpack.h"\n', "includes dlpack/dlpack.h, which a model in one file"),
        ('#include "runtime/missing.h"\n', r"missing\.h: cannot be read"),
        ("#ifndef AOTI_STANDALONE\n", "has no '#endif"),
        ("#endif  // AOTI_STANDALONE\n", "has no counterpart"),
        ("#ifndef AOTI_STANDALONE\n#ifndef AOTI_STANDALONE\n", "has no counterpart"),
    ],
)
def test_amalgamation_refuses(text: str, message: str, tmp_path: Path) -> None:
    write_runtime(tmp_path, a_h=text)
    with pytest.raises(CodegenError, match=message):
        amalgamation.amalgamate(tmp_path, ["runtime/a.h"])
