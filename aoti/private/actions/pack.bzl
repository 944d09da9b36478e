"""Packs the weights of a model in one file."""

load(":common.bzl", "ENVIRONMENT")

def pack(actions, *, toolchain, weights, program, out):
    """Declares the action `AotiPack`.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      weights: `File`, the weights.
      program: `File`, a program, which says which weights the model takes.
      out: `File`, the packed weights.
    """
    arguments = actions.args()
    arguments.add("pack")
    arguments.add("--weights", weights)
    arguments.add("--program", program)
    arguments.add("-o", out)
    actions.run(
        executable = toolchain.wrap,
        arguments = [arguments],
        inputs = [weights, program],
        outputs = [out],
        env = ENVIRONMENT,
        mnemonic = "AotiPack",
        progress_message = "Packing the weights of %{label}",
    )
