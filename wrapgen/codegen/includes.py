"""What generated code includes: the headers of the names it uses, and no others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "<algorithm>": ("std::max", "std::min"),
    "<cstddef>": ("size_t",),
    "<cstdint>": (
        *(f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        "INT64_MIN",
    ),
    "<iterator>": ("std::size",),
    "<limits>": ("std::numeric_limits",),
    "dlpack/dlpack.h": ("DLDataType",),
    "runtime/aoti.h": (
        "AOTI_TENSOR_MUTATED",
        "AOTI_TENSOR_SCALAR",
        "AotiDescription",
        "AotiDimInfo",
    ),
    "runtime/debug/debug.h": ("aoti::debug",),
    "runtime/description.h": (
        "aoti::ConstraintDescription",
        "aoti::DynamicLayout",
        "aoti::KernelDescription",
        "aoti::LimitDescription",
        "aoti::ModelDescription",
        "aoti::SymbolDescription",
        "aoti::TargetDescription",
        "aoti::TensorDescription",
        "aoti::TensorMapDescription",
        "aoti::WeightDescription",
        "aoti::kCooperative",
        "aoti::kDependent",
        "aoti::kDescriptionVersion",
        "aoti::kFixed",
        "aoti::kHip",
        "aoti::kSetsCondition",
    ),
    "runtime/integer.h": (
        "aoti::Absolute",
        "aoti::AlignTo",
        "aoti::And",
        "aoti::Checked",
        "aoti::Equal",
        "aoti::FloorDivide",
        "aoti::Less",
        "aoti::LessOrEqual",
        "aoti::Max",
        "aoti::Min",
        "aoti::Modulo",
        "aoti::Not",
        "aoti::Or",
        "aoti::Power",
        "aoti::Select",
        "aoti::ShiftLeft",
        "aoti::ShiftRight",
        "aoti::Unequal",
    ),
    "runtime/launcher.h": (
        "aoti::Addresses",
        "aoti::DeviceAddress",
        "aoti::Grid",
        "aoti::Launcher",
        "aoti::MappedTensor",
        "aoti::Pointers",
        "aoti::TensorMap",
    ),
    "runtime/standalone/standalone.h": ("aoti::StandaloneNames",),
    "runtime/status.h": ("AOTI_RETURN_IF_ERROR", "aoti::Status"),
}
"""By header, what it declares that generated code may name."""

USINGS: Final = (
    *("Addresses", "DeviceAddress", "Grid", "Launcher"),
    *("MappedTensor", "Pointers", "Status", "TensorMap"),
)
"""Names of ``aoti`` that launch code writes without their namespace."""

_HEADER_OF: Final = {name: header for header, names in HEADERS.items() for name in names}

_NAME: Final = re.compile(r"[A-Za-z_]\w*(?:::[A-Za-z_]\w*)*")

_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//.*')


def _names(code: Sequence[str]) -> set[str]:
    """What is named outside comments and strings, ``a::b::c`` as a whole and by its beginnings."""
    found: set[str] = set()
    for line in code:
        for name in _NAME.findall(_TEXT.sub("", line)):
            parts = name.split("::")
            found.update("::".join(parts[: i + 1]) for i in range(len(parts)))
    return found


def usings(code: Sequence[str]) -> list[str]:
    """Declarations for the names of ``USINGS`` that code has without their namespace."""
    used = _names(code)
    return [f"using aoti::{name};" for name in USINGS if name in used]


def includes(code: Sequence[str]) -> list[str]:
    """The ``#include`` lines of a file: C++'s headers, a blank line and the project's.

    A name of namespace ``aoti`` that no header is known for is an error of the generator.
    """
    used = _names(code)
    known = {"::".join(name.split("::")[:2]) for name in used if name.startswith("aoti::")}
    unknown = sorted(known - set(_HEADER_OF))
    assert not unknown, f"no header is known for {unknown}: add them to HEADERS"
    headers = {_HEADER_OF[name] for name in used if name in _HEADER_OF}
    groups = [
        [f"#include {header}" for header in HEADERS if header in headers and header[0] == "<"],
        [f'#include "{header}"' for header in HEADERS if header in headers and header[0] != "<"],
    ]
    return [line for group in groups if group for line in (*group, "")]
