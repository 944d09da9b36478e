"""``python -m wrapgen.tuning.main``, as an executable of Bazel's: a file outside of the package it
imports, so that the package's modules do not become top-level ones."""

from __future__ import annotations

import sys

from wrapgen.tuning.main import main

if __name__ == "__main__":
    sys.exit(main())
