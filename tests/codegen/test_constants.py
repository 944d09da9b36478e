"""Numbers that the generator and the runtime must agree on, each of which is written in both."""

from __future__ import annotations

import re

import pytest

from tests.codegen import cpp
from wrapgen import program
from wrapgen.codegen import memory, model_source


@pytest.mark.parametrize(
    ("header", "constant", "value"),
    [
        ("cuda_driver.h", "AOTI_CUDA_MINIMUM_DRIVER", model_source.RUNTIME_DRIVER),
        ("hip_driver.h", "AOTI_HIP_MINIMUM_VERSION", model_source.HIP_RUNTIME_DRIVER),
        ("memory.h", "kAlignment", memory.ALIGNMENT),
        ("tensor.h", "kTensorAlignment", program.ALIGNMENT),
    ],
)
def test_generator_and_runtime_agree(header: str, constant: str, value: int) -> None:
    text = (cpp.ROOT / "runtime" / header).read_text(encoding="utf-8")
    assert re.findall(rf"\b{constant}(?: = | )(\d+)", text) == [str(value)]
