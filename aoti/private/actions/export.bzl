"""Runs a model file's entry point: `.py` to `.pt2`."""

load(":common.bzl", "ENVIRONMENT")

def export(actions, *, toolchain, src, entry_point, args, weights, python_path, inputs, out):
    """Declares the action `AotiExport`.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      src: `File`, the Python file.
      entry_point: the name of a function in it that returns an `ExportedProgram`.
      args: its keyword arguments, `{name: value}`.
      weights: `File` or `None`: safetensors for the entry point.
      python_path: list of directories to import from.
      inputs: depset of `File`, what can be imported there.
      out: `File`, the `.pt2`.
    """
    arguments = actions.args()
    arguments.add("export")
    arguments.add(src)
    arguments.add("--entry-point", entry_point)
    for name in sorted(args):
        arguments.add("--arg", "%s=%s" % (name, args[name]))
    if weights:
        arguments.add("--weights", weights)
    arguments.add("-o", out)
    actions.run(
        executable = toolchain.export,
        arguments = [arguments],
        inputs = depset([src] + ([weights] if weights else []), transitive = [inputs]),
        outputs = [out],
        env = ENVIRONMENT | ({"PYTHONPATH": ":".join(python_path)} if python_path else {}),
        mnemonic = "AotiExport",
        progress_message = "Exporting %{label}",
        resource_set = _resources,
    )

def _resources(_os, _inputs):
    return {"cpu": 1, "memory": 3000}
