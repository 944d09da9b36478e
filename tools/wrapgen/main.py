"""wrapgen as Bazel's actions run it: one command line, or a persistent worker for one step."""

from __future__ import annotations

import importlib
import sys

from wrapgen import cli

PRELOADED = {
    "compile": "wrapgen.kernels",
    "lower": "wrapgen.lowering",
}
"""Steps that can be workers, and the package whose ``preload`` imports what each request needs."""


def main() -> int:
    """Returns the exit code."""
    step = sys.argv[1] if len(sys.argv) > 1 else ""
    if step not in PRELOADED:
        return cli.main(sys.argv[1:])
    from wrapgen import worker  # not among the inputs of the other steps

    return worker.run(cli.main, preload=importlib.import_module(PRELOADED[step]).preload)


if __name__ == "__main__":
    sys.exit(main())
