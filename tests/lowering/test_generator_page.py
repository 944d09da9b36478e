"""docs/generator.md leaves out no method of PyTorch's own generator."""

from __future__ import annotations

import re
from pathlib import Path

from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu
from torch._inductor.codegen.cpp_wrapper_gpu import CppWrapperGpu, DeferredTritonCallWrapper

PAGE = Path(__file__).resolve().parents[2] / "docs/generator.md"


def test_every_method_has_a_row() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## Method by method")[2]
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    methods = {
        name
        for each in (CppWrapperGpu, CppWrapperCpu, DeferredTritonCallWrapper)
        for name, value in vars(each).items()
        if not name.startswith("_") and (callable(value) or isinstance(value, staticmethod))
    }
    assert len(listed) == len(set(listed))
    assert set(listed) == methods
