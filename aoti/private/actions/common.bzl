"""What the actions have in common."""

# Nothing of the machine or the caller may show in an output.
ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "TZ": "UTC",
}

WORKER_REQUIREMENTS = {
    "requires-worker-protocol": "json",
    "supports-workers": "1",
}

def worker_args(actions):
    """Arguments that go to a worker with each request: a parameter file, one a line.

    Args:
      actions: `ctx.actions`.

    Returns:
      An `Args` to add them to.
    """
    args = actions.args()
    args.use_param_file("@%s", use_always = True)
    args.set_param_file_format("multiline")
    return args
