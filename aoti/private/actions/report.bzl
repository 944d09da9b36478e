"""Says what a model's library does on a device."""

load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "step_args")

def report(actions, *, toolchain, name, targets, programs, text, json):
    """Declares the action `AotiReport`, which needs neither PyTorch nor Triton nor weights.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      name: what the generated code calls the model.
      targets: what the library carries code for.
      programs: list of `AotiProgramInfo`.
      text: `File` to write: Markdown.
      json: `File` to write: the same for programs.
    """
    arguments = step_args(actions)
    arguments.add("--name", name)
    arguments.add_all(targets, before_each = "--target")
    inputs = []
    for program in programs:
        arguments.add("--program", program.program, format = program.target + "=%s")
        arguments.add_all(program.kernels, before_each = "--kernels", expand_directories = False)
        inputs.append(program.program)
        inputs.extend(program.kernels)
    arguments.add("--text", text)
    arguments.add("--json", json)
    actions.run(
        executable = toolchain.report,
        arguments = ["report", arguments],
        inputs = inputs,
        outputs = [text, json],
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiReport",
        progress_message = "Reporting on %{label}",
    )
