"""Parts a model's graph from its weights. The only action that opens a `.pt2`."""

load(":common.bzl", "ENVIRONMENT", "REQUIREMENTS", "step_args")

def split(actions, *, toolchain, model, graph, weights):
    """Declares the action `AotiSplit`.

    Args:
      actions: `ctx.actions`.
      toolchain: `AotiToolchainInfo`.
      model: `File`, the `.pt2`.
      graph: `File` to write: the graph, with no value of a weight in it.
      weights: `File` to write: the weights, as safetensors.
    """
    arguments = step_args(actions)
    arguments.add(model)
    arguments.add("--graph", graph)
    arguments.add("--weights", weights)
    actions.run(
        executable = toolchain.split,
        arguments = ["split", arguments],
        inputs = [model],
        outputs = [graph, weights],
        env = ENVIRONMENT,
        execution_requirements = REQUIREMENTS,
        mnemonic = "AotiSplit",
        progress_message = "Splitting %{label} into graph and weights",
    )
