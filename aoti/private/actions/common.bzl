"""What the actions have in common."""

# Nothing of the machine or the caller may show in an output. A model file that initialises weights
# computes on the CPU, and PyTorch, oneDNN and MKL round differently on each instruction set that they
# know: they are held to the one that all of them have.
ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "default",
    "LC_ALL": "C.UTF-8",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "TZ": "UTC",
}

# Of all of wrapgen's steps. wrapgen/worker.py serves requests, many at once, each in a directory of
# its own. No output has a path in it, and no argument but what Bazel maps (docs/performance.md).
REQUIREMENTS = {
    "requires-worker-protocol": "json",
    "supports-multiplex-sandboxing": "1",
    "supports-multiplex-workers": "1",
    "supports-path-mapping": "1",
    "supports-worker-cancellation": "1",
    "supports-workers": "1",
}

def step_args(actions):
    """Arguments that go to a worker with each request: a parameter file, one a line.

    Paths among them are of `File` objects: `add` for files, `add_all` with
    `expand_directories = False` for directories, and with `map_each = dirname` for what they are in.
    Text that was made of a path beforehand holds the configuration's name, which path mapping does
    not see.

    Args:
      actions: `ctx.actions`.

    Returns:
      An `Args` to add them to.
    """
    args = actions.args()
    args.use_param_file("@%s", use_always = True)
    args.set_param_file_format("multiline")
    return args

def dirname(file):
    """`map_each` of `Args.add_all`: the directory that a file is in."""
    return file.dirname

def root(file):
    """`map_each` of `Args.add_all`: the directory that a generated file's package is below."""
    return file.root.path

def write_with_settings(actions, *, template, settings, driver, workspace, settings_file, script):
    """Writes a settings file, and a script that starts a driver with it.

    These are files, not actions of ours, so they have no mnemonic.

    Args:
      actions: `ctx.actions`.
      template: of the script, with `%s` for the workspace, the driver and the settings.
      settings: a struct or dict that JSON can hold.
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
        content = template % (workspace, driver.short_path, settings_file.short_path),
        is_executable = True,
    )
