"""Generates a model in one file."""

load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "dirname", "step_args")

def standalone(actions, *, toolchain, name, targets, programs, runtime, runtime_header, directory):
    """Declares the action `AotiStandalone`, which needs neither PyTorch nor Triton.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      name: what the code calls the model.
      targets: what the file carries code for.
      programs: list of `AotiProgramInfo`.
      runtime: list of `File`, the runtime's sources.
      runtime_header: `File`, one of them; the others lie beside it.
      directory: where to declare the outputs, relative to the package.

    Returns:
      A struct of `File`s: `header`, `source`, `kernels` (a directory).
    """
    outputs = struct(
        header = actions.declare_file("%s/%s.h" % (directory, name)),
        source = actions.declare_file("%s/%s.cc" % (directory, name)),
        kernels = actions.declare_directory(directory + "/kernels"),
    )
    arguments = step_args(actions)
    arguments.add("--standalone")
    arguments.add_all("--runtime", [runtime_header], map_each = dirname)
    arguments.add("--name", name)
    arguments.add_all(targets, before_each = "--target")
    inputs = list(runtime)
    for program in programs:
        arguments.add("--program", program.program, format = program.target + "=%s")
        arguments.add_all(program.kernels, before_each = "--kernels", expand_directories = False)
        inputs.append(program.program)
        inputs.extend(program.kernels)
    arguments.add_all("-o", [outputs.header], map_each = dirname)
    actions.run(
        executable = toolchain.wrap,
        arguments = ["wrap", arguments],
        inputs = inputs,
        outputs = [outputs.header, outputs.source, outputs.kernels],
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiStandalone",
        progress_message = "Generating %{label}",
    )
    return outputs
