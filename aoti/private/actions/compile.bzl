"""Compiles the kernels of one shard. An edit to a kernel re-runs this for its shard alone."""

load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "step_args")

def compile(actions, *, toolchain, shard, targets, out, keep_going = False):
    """Declares the action `AotiCompile`.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      shard: `File`, a directory of kernels as TTIR.
      targets: what to compile them for; all of the compute capability they were lowered for.
      out: `File`, the directory to write.
      keep_going: whether kernels that the device cannot run are left out, and are no fault.
    """
    arguments = step_args(actions)
    arguments.add_all([shard], expand_directories = False)
    arguments.add_all(targets, before_each = "--target")
    arguments.add("--ptxas", toolchain.ptxas)
    if keep_going:
        arguments.add("--keep-going")
    arguments.add_all("-o", [out], expand_directories = False)
    actions.run(
        executable = toolchain.compile,
        arguments = ["compile", arguments],
        inputs = [shard, toolchain.ptxas],
        outputs = [out],
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiCompile",
        progress_message = "Compiling kernels of %%{label} for %s, shard %s" % (
            ", ".join(targets),
            shard.basename,
        ),
    )
