"""Packs what is deployed into one archive."""

load(":common.bzl", "ENVIRONMENT")

def package(actions, *, toolchain, name, library, weights, header, runtime_headers, programs, targets, out):
    """Declares the action `AotiPackage`.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      name: what the generated code calls the model.
      library: `File`, the shared library.
      weights: `File`, the weights.
      header: `File`, the generated header.
      runtime_headers: list of `File`, what the generated header includes.
      programs: list of `AotiProgramInfo`.
      targets: what the library carries code for.
      out: `File`, the archive.
    """
    inputs = [library, weights, header] + runtime_headers
    arguments = actions.args()
    arguments.add("package")
    arguments.add("--name", name)
    arguments.add("--library", library)
    arguments.add("--weights", weights)
    arguments.add("--header", header)
    arguments.add_all(runtime_headers, before_each = "--runtime-header")
    arguments.add_all(targets, before_each = "--target")
    inputs = [library, weights, header] + runtime_headers
    for program in programs:
        arguments.add("--program", program.program, format = program.target + "=%s")
        arguments.add_all(program.kernels, before_each = "--kernels", expand_directories = False)
        inputs.append(program.program)
        inputs.extend(program.kernels)
    arguments.add("-o", out)
    actions.run(
        executable = toolchain.package,
        arguments = [arguments],
        inputs = inputs,
        outputs = [out],
        env = ENVIRONMENT,
        mnemonic = "AotiPackage",
        progress_message = "Packing %{label}",
    )
