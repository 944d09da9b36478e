"""Compiles a rendered kernel for sm_90. Needs triton, and no GPU."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from pathlib import Path
from typing import Any


def compile_source(text: str, name: str, dtypes: dict[str, str], warps: int, stages: int) -> Any:
    """Compiles a rendered kernel; returns (cubin, shared, parameters) or the error's text."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.py"
            path.write_text(text)
            spec = importlib.util.spec_from_file_location(name, path)
            assert spec and spec.loader
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            kernel = getattr(module, name)
            names = kernel.arg_names
            signature = {n: dtypes.get(n, "*fp16") for n in names}
            attrs = {
                (i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if "*" in signature[n]
            }
            built = triton.compile(
                ASTSource(kernel, signature, {}, attrs),
                target=GPUTarget("cuda", 90, 32),
                options={"num_warps": warps, "num_stages": stages},
            )
        entry = built.asm["ptx"].split(".entry", 1)[1].split(")", 1)[0]
        return (
            built.asm["cubin"],
            built.metadata.shared,
            len(re.findall(r"\.param", entry)),
        )
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
