"""The table of element types says what the libraries say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import triton.language as tl
from safetensors.torch import save_file
from torch import nn
from torch._inductor import utils
from torch.utils import dlpack
from triton._C.libtriton import ir

from tests.lowering import support
from wrapgen.dtype import DLPACK_CODES, INFO, DType
from wrapgen.kernels import compile_shard
from wrapgen.lowering import LoweringError, lower
from wrapgen.program import integer_range
from wrapgen.target import parse

ALL = pytest.mark.parametrize("dtype", list(DType), ids=str)


def of_torch(dtype: DType) -> torch.dtype:
    found: torch.dtype = getattr(torch, dtype)
    return found


@ALL
def test_pytorch(dtype: DType) -> None:
    assert of_torch(dtype).itemsize == INFO[dtype].itemsize
    if not of_torch(dtype).is_floating_point and dtype not in (DType.BOOL, DType.UINT64):
        limits = torch.iinfo(of_torch(dtype))
        assert integer_range(dtype) == (limits.min, limits.max)


def test_what_pytorch_has_besides() -> None:
    every = {str(value).removeprefix("torch.") for value in vars(torch).values()
             if isinstance(value, torch.dtype)}  # fmt: skip
    rest = {name for name in every - set(DType) if not re.search(r"int[1-7]$|^q|^bits", name)}
    assert rest == {
        "complex32", "complex64", "complex128", "float8_e8m0fnu", "float4_e2m1fn_x2",
    }  # fmt: skip


@ALL
def test_triton(dtype: DType) -> None:
    """The names of signatures are Inductor's, and the types in TTIR what Triton makes of them."""
    row = INFO[dtype]
    assert utils._type_of(of_torch(dtype)) == f"*{row.triton}"
    context = ir.context()
    ir.load_dialects(context)
    builder = ir.builder(context)
    name = {"i": "int", "u": "uint"}.get(row.triton[0], "")
    made = tl.dtype(name + row.triton[1:] if name else row.triton).to_ir(builder)
    assert str(made) == row.ttir


@ALL
def test_dlpack(dtype: DType) -> None:
    """PyTorch's own header has the codes; what PyTorch exports has them too."""
    header = Path(torch.__file__).parent / "include/ATen/dlpack.h"
    codes = dict(re.findall(r"^\s*(kDL\w+) = (\d+)U,", header.read_text(), re.MULTILINE))
    code = INFO[dtype].dlpack_code
    assert DLPACK_CODES[code] == int(codes[code])
    tensor = torch.zeros(3, dtype=torch.uint8).repeat(8)[: 3 * INFO[dtype].itemsize]
    given = (
        tensor.view(of_torch(dtype)) if dtype != DType.BOOL else torch.zeros(3, dtype=torch.bool)
    )
    back = dlpack.from_dlpack(dlpack.to_dlpack(given))
    assert back.dtype == of_torch(dtype)


@ALL
def test_safetensors(dtype: DType, tmp_path: Path) -> None:
    tensor = torch.zeros(4, dtype=torch.float32).to(of_torch(dtype))
    save_file({"x": tensor}, tmp_path / "x.safetensors")
    assert (
        f'"dtype":"{INFO[dtype].safetensors}"'.encode() in (tmp_path / "x.safetensors").read_bytes()
    )


class Scaled(nn.Module):
    """Arithmetic on 8-bit floats: after a cast."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.to(torch.float32) * 2, (x.float() * 3).to(x.dtype)


@pytest.mark.parametrize("dtype", [DType.FLOAT8_E4M3FNUZ, DType.FLOAT8_E5M2FNUZ])
def test_amds_own_floats(dtype: DType, tmp_path: Path) -> None:
    """They compile for CDNA 3; on an NVIDIA GPU the operation is refused."""
    x = torch.zeros(4, 4).to(of_torch(dtype))
    support.write_graph(support.export(Scaled(), (x,)), tmp_path / "graph.json")
    program = lower(tmp_path / "graph.json", parse("gfx942"), tmp_path / "amd")
    assert program.tensor_inputs[0].dtype == program.outputs[1].dtype == dtype
    for shard in sorted((tmp_path / "amd/shards").iterdir()):
        compile_shard(shard, [parse("gfx942")], tmp_path / "kernels" / shard.name, jobs=1)
    with pytest.raises(LoweringError, match=r"aten\.to\.dtype .*there is no Triton kernel for it"):
        lower(tmp_path / "graph.json", parse("sm_90"), tmp_path / "nvidia")
