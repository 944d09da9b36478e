"""Writes what `aoti_benchmark` runs: a settings file, and a script that starts the driver with it.

These are files, not actions of ours, so they have no mnemonic.
"""

_SCRIPT = """\
#!/bin/sh
# Files that the caller names are in the caller's directory.
export BUILD_WORKING_DIRECTORY="${BUILD_WORKING_DIRECTORY:-$PWD}"
cd "${RUNFILES_DIR:-$0.runfiles}/%s" || exit 1
exec "./%s" "./%s" "$@"
"""

def write_benchmark(actions, *, settings, driver, workspace, settings_file, script):
    """Writes the settings and the script of a benchmark.

    Args:
      actions: `ctx.actions`.
      settings: a struct or dict that JSON can hold; see aoti/benchmark/settings.py.
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
