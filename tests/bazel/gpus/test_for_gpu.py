"""A package that the build makes for a GPU of its own."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path


def test_package_is_for_the_platforms_gpu() -> None:
    archive = Path("tests/bazel/gpus/on_h100/anywhere.tar")
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("anywhere/manifest.json")
        assert manifest is not None
        assert list(json.load(manifest)["targets"]) == ["sm_90"]
