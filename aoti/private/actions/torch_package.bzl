"""Packs a shared library for PyTorch."""

load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "step_args")

def torch_package(actions, *, toolchain, name, library, weights, source, targets, device, out):
    """Declares the action `AotiTorchPackage`.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      name: what the generated code calls the model.
      library: `File`, the shared library, with AOTInductor's interface.
      weights: `File`, the weights.
      source: `File`, the model's C++.
      targets: what the library carries code for.
      device: where callers have their tensors, `cuda` or `cpu`.
      out: `File`, the `.pt2`.
    """
    arguments = step_args(actions)
    arguments.add("--name", name)
    arguments.add("--library", library)
    arguments.add("--weights", weights)
    arguments.add("--source", source)
    arguments.add_all(targets, before_each = "--target")
    arguments.add("--device", device)
    arguments.add("-o", out)
    actions.run(
        executable = toolchain.package,
        arguments = ["torch-package", arguments],
        inputs = [library, weights, source],
        outputs = [out],
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiTorchPackage",
        progress_message = "Packing %{label} for PyTorch",
    )
