"""Lowers a graph to Triton kernels: PyTorch's last appearance."""

load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "dirname", "step_args")

def lower(actions, *, toolchain, graph, target, options, directory, tuning = None):
    """Declares the action `AotiLower`, which weights' values have no part in.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      graph: `File`, the graph.
      target: the machine-code target to lower for, such as `sm_90`.
      options: names of options of lowering.
      directory: where to declare the outputs, relative to the package.
      tuning: `File`, the tuning lock, or `None`.

    Returns:
      A struct of `program` (`File`), `shards` (list of `File`), `sources` (`File`) and `sites`
      (`File`).
    """
    program = actions.declare_file(directory + "/program.json")
    sources = actions.declare_directory(directory + "/sources")
    sites = actions.declare_file(directory + "/sites.json")
    shards = [
        actions.declare_directory("%s/shards/%s%d" % (directory, "0" if i < 10 else "", i))
        for i in range(toolchain.shards)
    ]
    arguments = step_args(actions)
    arguments.add(graph)
    arguments.add("--target", target)
    arguments.add("--shards", toolchain.shards)
    arguments.add_all(options, before_each = "--option")
    if tuning:
        arguments.add("--tuning", tuning)
    arguments.add_all("-o", [program], map_each = dirname)
    actions.run(
        executable = toolchain.lower,
        arguments = ["lower", arguments],
        inputs = [graph] + ([tuning] if tuning else []),
        outputs = [program, sources, sites] + shards,
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiLower",
        progress_message = "Lowering %%{label} for %s" % target,
        resource_set = _resources,
    )
    return struct(program = program, shards = shards, sites = sites, sources = sources)

def _resources(_os, _inputs):
    return {"cpu": 1, "memory": 3000}
