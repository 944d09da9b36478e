"""`debugged_test`: another test, of models that are built with `--//aoti:debug`."""

def _debug_impl(_settings, attr):
    return {"//aoti:debug": attr.modes}

_debug = transition(
    implementation = _debug_impl,
    inputs = [],
    outputs = ["//aoti:debug"],
)

def _debugged_test_impl(ctx):
    (test,) = ctx.attr.test
    executable = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.symlink(
        output = executable,
        target_file = test[DefaultInfo].files_to_run.executable,
        is_executable = True,
    )
    return [
        DefaultInfo(
            executable = executable,
            runfiles = test[DefaultInfo].default_runfiles,
        ),
        test[RunEnvironmentInfo],
    ]

debugged_test = rule(
    implementation = _debugged_test_impl,
    doc = "Runs a test whose models are built for debugging.",
    attrs = {
        "modes": attr.string_list(
            doc = "Of `--//aoti:debug`.",
            mandatory = True,
        ),
        "test": attr.label(
            doc = "The `aoti_test`.",
            cfg = _debug,
            mandatory = True,
        ),
        "_allowlist_function_transition": attr.label(
            default = "@bazel_tools//tools/allowlists/function_transition_allowlist",
        ),
    },
    test = True,
)
