"""Packs what is deployed into one archive, with a statement of what it was made from."""

load("//aoti/private:targets.bzl", "is_amds")
load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "step_args")

def package(
        actions,
        *,
        toolchain,
        name,
        library,
        weights,
        header,
        runtime_headers,
        programs,
        targets,
        graph,
        generated,
        components,
        locks,
        options,
        tuning,
        debug,
        aotinductor,
        out):
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
      graph: `File`, the graph. This and what follows is for the statement and the bill of materials.
      generated: list of `File`, the generated C++ and assembly.
      components: `{name: list of File}`, the C++ that is compiled into the library.
      locks: list of `File`, lock files of the tools' Python packages.
      options: names of options of lowering.
      tuning: `File`, the tuning lock, or `None`.
      debug: what the model does besides, for debugging.
      aotinductor: whether the library has AOTInductor's interface.
      out: `File`, the archive.
    """
    inputs = [library, weights, header, graph] + runtime_headers + generated + locks
    arguments = step_args(actions)
    arguments.add("--name", name)
    arguments.add("--library", library)
    arguments.add("--weights", weights)
    arguments.add("--header", header)
    arguments.add_all(runtime_headers, before_each = "--runtime-header")
    arguments.add_all(targets, before_each = "--target")
    for program in programs:
        arguments.add("--program", program.program, format = program.target + "=%s")
        arguments.add_all(program.kernels, before_each = "--kernels", expand_directories = False)
        inputs.append(program.program)
        inputs.extend(program.kernels)
    arguments.add("--graph", graph)
    arguments.add_all(generated, before_each = "--generated")
    for component, files in components.items():
        arguments.add_all(files, before_each = "--component", format_each = component + "=%s")
        inputs.extend(files)
    arguments.add_all(locks, before_each = "--lock")
    if not is_amds(targets[0]):
        arguments.add("--ptxas", toolchain.ptxas)
        inputs.append(toolchain.ptxas)
    arguments.add_all(options, before_each = "--option")
    if tuning:
        arguments.add("--tuning", tuning)
        inputs.append(tuning)
    arguments.add_all(debug, before_each = "--instrument", uniquify = True)
    if aotinductor:
        arguments.add("--aotinductor")
    arguments.add("--march", toolchain.march)
    arguments.add("--shards", toolchain.shards)
    arguments.add("-o", out)
    actions.run(
        executable = toolchain.package,
        arguments = ["package", arguments],
        inputs = inputs,
        outputs = [out],
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiPackage",
        progress_message = "Packing %{label}",
    )
