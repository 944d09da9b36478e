"""The report: what a model's library does on a device, for a reader and for other programs.

Made of programs and compiled kernels. Imports neither torch nor triton, and reads no weights:
what it says of weights is what a program says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from wrapgen import program as program_module
from wrapgen.reporting.facts import SCHEMA_VERSION, facts
from wrapgen.reporting.text import text
from wrapgen.target import Target

__all__ = ["SCHEMA_VERSION", "facts", "text", "write"]


def write(
    name: str,
    programs: Mapping[Target, Path],
    kernel_dirs: Sequence[Path],
    targets: Sequence[Target],
    *,
    text_file: Path,
    json_file: Path,
) -> None:
    """Writes the report as Markdown and as JSON.

    Args:
      name: what the generated code calls the model.
      programs: program.json of each machine-code target that something is built from.
      kernel_dirs: outputs of the compile step.
      targets: what the library carries code for.
      text_file: the Markdown to write.
      json_file: the JSON to write; docs/report.md has its fields.

    Raises:
      ProgramError: a program is malformed.
      CodegenError: the parts do not make a model; the message says which is missing.
      OSError: a file cannot be read or written.
    """
    loaded = {target: program_module.load(path) for target, path in programs.items()}
    found = facts(name, loaded, kernel_dirs, targets)
    json_file.write_text(program_module.canonical_json(found), encoding="utf-8")
    text_file.write_text(text(found), encoding="utf-8")
