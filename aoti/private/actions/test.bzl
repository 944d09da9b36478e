"""Writes what `aoti_test` runs: a settings file, and a script that starts the driver with it."""

load(":common.bzl", "write_with_settings")

_SCRIPT = """\
#!/bin/sh
# Under `bazel test` and `bazel run` the working directory is the one with the runfiles.
if [ -z "$TEST_SRCDIR" ]; then
  cd "${RUNFILES_DIR:-$0.runfiles}/%s" || exit 1
fi
exec "./%s" "./%s" "$@"
"""

def write_test(actions, **kwargs):
    """Writes the settings and the script of a test.

    Args:
      actions: `ctx.actions`.
      **kwargs: of `write_with_settings`; `settings` as aoti/testing/settings.py reads them.
    """
    write_with_settings(actions, template = _SCRIPT, **kwargs)
