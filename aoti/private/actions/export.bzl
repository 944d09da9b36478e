"""Runs a model file's entry point: `.py` to `.pt2`."""

load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "root", "step_args")

def export(actions, *, toolchain, src, entry_point, args, weights, imports, inputs, out):
    """Declares the action `AotiExport`.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      src: `File`, the Python file.
      entry_point: the name of a function in it that returns an `ExportedProgram`.
      args: its keyword arguments, `{name: value}`.
      weights: `File` or `None`: safetensors for the entry point.
      imports: list of directories to import from, relative to the execution root and, of generated
        files, to the root of `out`.
      inputs: depset of `File`, what can be imported there.
      out: `File`, the `.pt2`.
    """
    arguments = step_args(actions)
    arguments.add(src)
    arguments.add("--entry-point", entry_point)
    for name in sorted(args):
        arguments.add("--arg", "%s=%s" % (name, args[name]))
    if weights:
        arguments.add("--weights", weights)
    for directory in imports:
        arguments.add("--import-from", directory)
        below = "%s" if directory == "." else "%s/" + directory.replace("%", "%%")
        arguments.add_all("--import-from", [out], map_each = root, format_each = below)
    arguments.add("-o", out)
    actions.run(
        executable = toolchain.export,
        arguments = ["export", arguments],
        inputs = depset([src] + ([weights] if weights else []), transitive = [inputs]),
        outputs = [out],
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiExport",
        progress_message = "Exporting %{label}",
        resource_set = _resources,
    )

def _resources(_os, _inputs):
    return {"cpu": 1, "memory": 3000}
