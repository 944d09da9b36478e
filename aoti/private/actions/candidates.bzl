"""Makes each kernel of a model in several configurations, for the tuner to choose from. No GPU is needed."""

load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "dirname", "step_args")

def candidates(actions, *, toolchain, graph, target, options, count, directory):
    """Declares the action `AotiCandidates`.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      graph: `File`, the graph.
      target: the machine-code target to lower for, such as `sm_90`.
      options: names of options of lowering.
      count: how many configurations of a kernel.
      directory: where to declare the outputs, relative to the package.

    Returns:
      A struct of `candidates` (`File`) and `shards` (list of `File`).
    """
    out = actions.declare_file(directory + "/candidates.json")
    shards = [
        actions.declare_directory("%s/shards/%s%d" % (directory, "0" if i < 10 else "", i))
        for i in range(toolchain.shards)
    ]
    arguments = step_args(actions)
    arguments.add(graph)
    arguments.add("--target", target)
    arguments.add("--count", count)
    arguments.add("--shards", toolchain.shards)
    arguments.add_all(options, before_each = "--option")
    arguments.add_all("-o", [out], map_each = dirname)
    actions.run(
        executable = toolchain.lower,
        arguments = ["candidates", arguments],
        inputs = [graph],
        outputs = [out] + shards,
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiCandidates",
        progress_message = "Making candidates for %%{label}, %s" % target,
        resource_set = _resources,
    )
    return struct(candidates = out, shards = shards)

def _resources(_os, _inputs):
    return {"cpu": 1, "memory": 3000}
