"""Writes what `aoti_benchmark` runs: a settings file, and a script that starts the driver with it."""

load(":common.bzl", "write_with_settings")

_SCRIPT = """\
#!/bin/sh
# Files that the caller names are in the caller's directory.
export BUILD_WORKING_DIRECTORY="${BUILD_WORKING_DIRECTORY:-$PWD}"
cd "${RUNFILES_DIR:-$0.runfiles}/%s" || exit 1
exec "./%s" "./%s" "$@"
"""

def write_benchmark(actions, **kwargs):
    """Writes the settings and the script of a benchmark.

    Args:
      actions: `ctx.actions`.
      **kwargs: of `write_with_settings`; `settings` as aoti/benchmark/settings.py reads them.
    """
    write_with_settings(actions, template = _SCRIPT, **kwargs)
