"""Our declarations of PyTorch's C interfaces are PyTorch's; a library exports what it should."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from elftools.elf.elffile import ELFFile

INCLUDE = Path(torch.__file__).parent / "include"
INTERFACE = INCLUDE / "torch/csrc/inductor/aoti_runtime/interface.h"
LIBRARY = Path("tests/aotinductor/libserved.so")

# Of a model without its container, which handles neither threads nor weights: nothing of PyTorch's
# Python calls them. One of the runtime's own array type.
NOT_OFFERED = re.compile(r"AOTInductorModel(?!Container|UpdateConstantsFromBlob)\w+")


def symbols(path: Path) -> set[str]:
    """The functions that a library exports."""
    with path.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".dynsym")
        return {
            symbol.name
            for symbol in table.iter_symbols()
            if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_shndx"] != "SHN_UNDEF"
        }


def test_every_function_of_a_container_is_there() -> None:
    declared = set(re.findall(r"\b(AOTInductor\w+)\(", INTERFACE.read_text()))
    wanted = {name for name in declared if not NOT_OFFERED.fullmatch(name)}
    assert len(wanted) > 30
    assert {name for name in symbols(LIBRARY) if name.startswith("AOTInductor")} == wanted


def test_the_library_needs_nothing_of_pytorch() -> None:
    with LIBRARY.open("rb") as stream:
        dynamic = ELFFile(stream).get_section_by_name(".dynamic")
        needed = [tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]
    assert needed
    assert not [name for name in needed if "torch" in name or "c10" in name or "cuda" in name]


WITHOUT = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
container, message = ctypes.c_void_p(), ctypes.c_char_p()
create = library.AOTInductorModelContainerCreateWithDevice
assert create(ctypes.byref(container), ctypes.c_size_t(1), b"cuda", None) == 1
assert not container
assert library.AOTInductorGetLastError(ctypes.byref(message)) == 0
print(message.value.decode())
"""


def test_without_pytorch() -> None:
    """The library loads in any process, and says there what its interface is for."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(LIBRARY.resolve())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "works in a process that has PyTorch loaded, 2.11 or newer, and this one has not" in (
        done.stdout
    )


SAME = """
// The order matters: a declaration that differs from an earlier one is an error.
#include <torch/csrc/inductor/aoti_runtime/interface.h>
#include <torch/csrc/inductor/aoti_runtime/constant_type.h>
#include <torch/csrc/stable/c/shim.h>

#include <cstddef>
#include <type_traits>

#include "runtime/aotinductor/interface.h"
#include "runtime/aotinductor/model_info.h"
#include "runtime/aotinductor/torch.h"

#define SAME(name, result, parameters) \\
  static_assert(std::is_same_v<decltype(&::aoti_torch_##name), result(*) parameters>, #name);
AOTI_SHIM_FUNCTIONS(SAME)
AOTI_SHIM_CUDA_FUNCTIONS(SAME)

// Of interface.cc.
using Entry = AOTInductorConstantMapEntry;
static_assert(sizeof(Entry) == 16 && offsetof(Entry, name) == 0 && offsetof(Entry, handle) == 8);

static_assert(std::is_same_v<decltype(&torch_exception_get_what_without_backtrace),
                             const char* (*)()>);
using aoti::aotinductor::Role;
using torch::aot_inductor::ConstantType;
static_assert(static_cast<int>(Role::kParameter) == ConstantType::Parameter);
static_assert(static_cast<int>(Role::kBuffer) == ConstantType::Buffer);
static_assert(static_cast<int>(Role::kConstant) == ConstantType::TensorConstant);
"""


def compile_text(text: str, scratch: Path) -> str:
    """Compiles a file that includes our headers and PyTorch's; returns what the compiler says."""
    if "DLPACK_H" in os.environ:
        scratch.joinpath("dlpack").symlink_to(Path(os.environ["DLPACK_H"]).resolve().parent)
    source = scratch / "same.cc"
    source.write_text(text)
    done = subprocess.run(
        [
            *("g++", "-std=c++17", "-fsyntax-only", "-DUSE_CUDA", "-Wno-attributes"),
            *(f"-I{Path.cwd()}", f"-isystem{scratch}", f"-isystem{INCLUDE}", str(source)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


def test_declarations_are_pytorchs(tmp_path: Path) -> None:
    assert compile_text(SAME, tmp_path) == ""


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ("void AOTInductorModelContainerDelete(AOTInductorModelContainerHandle);", "conflict"),
        ("SAME(get_dim, AOTITorchError, (AtenTensorHandle, int32_t*))", "get_dim"),
    ],
)
def test_others_would_be_noticed(wrong: str, fault: str, tmp_path: Path) -> None:
    text = SAME + 'extern "C" {\n' + wrong + "\n}\n"
    assert fault in compile_text(text, tmp_path)
