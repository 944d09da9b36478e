"""Writes what `aoti_test` runs: a settings file, and a script that starts the driver with it.

These are files, not actions of ours, so they have no mnemonic.
"""

_SCRIPT = """\
#!/bin/sh
# Under `bazel test` and `bazel run` the working directory is the one with the runfiles.
if [ -z "$TEST_SRCDIR" ]; then
  cd "${RUNFILES_DIR:-$0.runfiles}/%s" || exit 1
fi
exec "./%s" "./%s" "$@"
"""

def write_test(actions, *, settings, driver, workspace, settings_file, script):
    """Writes the settings and the script of a test.

    Args:
      actions: `ctx.actions`.
      settings: a struct or dict that JSON can hold; see aoti/testing/settings.py.
      driver: `File`, the executable to start.
      workspace: the name of the directory of the main repository's runfiles.
      settings_file: `File` to write.
      script: `File` to write.
    """
    actions.write(
        output = settings_file,
        content = json.encode_indent(settings, indent = "  ") + "\n",
    )
    actions.write(
        output = script,
        content = _SCRIPT % (workspace, driver.short_path, settings_file.short_path),
        is_executable = True,
    )
