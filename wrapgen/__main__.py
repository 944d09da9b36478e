"""``python -m wrapgen``."""

from __future__ import annotations

import importlib
import sys
from typing import Final

from wrapgen import cli

WORKERS: Final = {
    "candidates": ("wrapgen.lowering",),
    "compile": ("wrapgen.kernels",),
    "export": ("wrapgen.export",),
    "lower": ("wrapgen.lowering",),
    "pack": ("wrapgen.codegen.packed_weights",),
    "package": ("wrapgen.package",),
    "report": ("wrapgen.reporting",),
    "split": ("wrapgen.intake",),
    "torch-package": ("wrapgen.torch_package",),
    "wrap": ("wrapgen.codegen", "wrapgen.codegen.standalone"),
}
"""Steps that can be persistent workers, and the modules that one imports before its first request.
A module that has more to do beforehand does it in its function ``preload``."""


def main() -> int:
    """Runs the process's command line, as a persistent worker if it says so."""
    step = sys.argv[1] if len(sys.argv) > 1 else ""
    if step not in WORKERS:
        return cli.main()
    from wrapgen import worker

    return worker.run(cli.main, preload=lambda: _preload(step))


def _preload(step: str) -> None:
    for name in WORKERS[step]:
        module = importlib.import_module(name)
        if hasattr(module, "preload"):
            module.preload()


if __name__ == "__main__":
    sys.exit(main())
