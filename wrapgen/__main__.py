"""``python -m wrapgen``."""

from __future__ import annotations

import importlib
import sys

from wrapgen import cli

WORKERS = {"compile": "wrapgen.kernels", "lower": "wrapgen.lowering"}
"""Steps that can be persistent workers, and the package whose ``preload`` readies them."""


def main() -> int:
    """Runs the process's command line, as a persistent worker if it says so."""
    step = sys.argv[1] if len(sys.argv) > 1 else ""
    if step not in WORKERS:
        return cli.main()
    from wrapgen import worker

    return worker.run(cli.main, preload=lambda: importlib.import_module(WORKERS[step]).preload())


if __name__ == "__main__":
    sys.exit(main())
