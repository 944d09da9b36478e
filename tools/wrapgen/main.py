"""wrapgen as Bazel's actions run it: one command line, or a persistent worker for one step."""

from __future__ import annotations

import importlib
import sys

from wrapgen import cli, worker

PRELOADED = {
    "lower": "wrapgen.lowering.model",
    "compile": "wrapgen.kernels.shard",
}
"""What a worker imports before its first request, once."""


def preload() -> None:
    """Imports what each request to this worker needs."""
    for step in sys.argv[1:2]:
        if step in PRELOADED:
            importlib.import_module(PRELOADED[step])


if __name__ == "__main__":
    sys.exit(worker.run(cli.main, preload=preload))
