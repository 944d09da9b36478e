"""Generates the model's C++ from its programs and compiled kernels."""

load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "dirname", "step_args")

def wrap(actions, *, toolchain, name, targets, programs, directory, debug = [], aotinductor = False):
    """Declares the action `AotiWrap`, which needs neither PyTorch nor Triton.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      name: what the code calls the model.
      targets: what the library carries code for.
      programs: list of `AotiProgramInfo`.
      directory: where to declare the outputs, relative to the package.
      debug: what the model does besides, for debugging; the modes of `--//aoti:debug`.
      aotinductor: whether to generate what AOTInductor's interface needs, too.

    Returns:
      A struct of `File`s: `header`, `model` (the model's C++), `entry` (C++ for a shared library
      alone), `kernels` (assembly that embeds the images), `images` (a directory), `aotinductor`
      (C++ for a shared library with AOTInductor's interface, else `None`).
    """
    outputs = struct(
        header = actions.declare_file(directory + "/model.h"),
        model = actions.declare_file(directory + "/model.cc"),
        entry = actions.declare_file(directory + "/entry.cc"),
        kernels = actions.declare_file(directory + "/kernels.S"),
        images = actions.declare_directory(directory + "/images"),
        aotinductor = actions.declare_file(directory + "/aotinductor.cc") if aotinductor else None,
    )
    arguments = step_args(actions)
    arguments.add("--name", name)
    arguments.add_all(targets, before_each = "--target")
    inputs = []
    for program in programs:
        arguments.add("--program", program.program, format = program.target + "=%s")
        arguments.add_all(program.kernels, before_each = "--kernels", expand_directories = False)
        inputs.append(program.program)
        inputs.extend(program.kernels)
    arguments.add_all(debug, before_each = "--instrument", uniquify = True)
    made = [outputs.header, outputs.model, outputs.entry, outputs.kernels, outputs.images]
    if aotinductor:
        arguments.add("--aotinductor")
        made.append(outputs.aotinductor)
    arguments.add_all("-o", [outputs.header], map_each = dirname)
    actions.run(
        executable = toolchain.wrap,
        arguments = ["wrap", arguments],
        inputs = inputs,
        outputs = made,
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiWrap",
        progress_message = "Generating C++ of %{label}",
    )
    return outputs
