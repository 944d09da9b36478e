"""Packs the weights of a model in one file."""

load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "step_args")

def pack(actions, *, toolchain, weights, program, out):
    """Declares the action `AotiPack`.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      weights: `File`, the weights.
      program: `File`, a program, which says which weights the model takes.
      out: `File`, the packed weights.
    """
    arguments = step_args(actions)
    arguments.add("--weights", weights)
    arguments.add("--program", program)
    arguments.add("-o", out)
    actions.run(
        executable = toolchain.wrap,
        arguments = ["pack", arguments],
        inputs = [weights, program],
        outputs = [out],
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiPack",
        progress_message = "Packing the weights of %{label}",
    )
