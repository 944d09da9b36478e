"""How long the host's compiler takes for the code of the largest models.

    python -m bench.host_compile [--compiler g++] [MODEL_DIRECTORY ...]

Without a directory: hand-made models of 1,000 launches and 300 kernels, one of fixed sizes, one
whose launches all depend on the inputs. With directories: models that ``wrapgen wrap`` wrote.
Prints for each file its size and the processor's time for compiling it with ``-O2``, which depends
less on who else uses the machine than the clock's.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import tempfile
from pathlib import Path

from tests.codegen import cpp, samples
from wrapgen import codegen
from wrapgen.target import parse

SM_90 = parse("sm_90")


def hand_made(scratch: Path, *, dynamic: bool) -> Path:
    """Generates the model of 1,000 launches; returns its directory."""
    model = samples.large(dynamic=dynamic)
    kernels = samples.write_kernels(scratch / "kernels", model, SM_90)
    codegen.wrap("large", {SM_90: model}, [kernels], [SM_90], scratch / "model")
    return scratch / "model"


def measure(source: Path, compiler: str, flags: list[str], scratch: Path) -> float:
    """Seconds of the processor for one file."""
    command = [compiler, "-std=c++17", "-O2", "-fPIC", "-c", str(source), "-o"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, str(scratch / "out.o"), f"-I{source.parent}", *flags], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prints a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--compiler", default="g++")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        models = options.models or [
            hand_made(scratch / kind, dynamic=kind == "dynamic") for kind in ("static", "dynamic")
        ]
        flags = cpp.include_flags(scratch)
        for model in models:
            for source in sorted(model.glob("*.cc")):
                seconds = measure(source, options.compiler, flags, scratch)
                size = source.stat().st_size
                print(f"{source.parent.parent.name}/{source.name}: {size} bytes, {seconds:.1f} s")


if __name__ == "__main__":
    main()
