"""Tests of tuning at analysis: what the lock is an input of, what `:NAME.tune` is made of."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//aoti:defs.bzl", "aoti_library")

# buildifier: disable=bzl-visibility
load("//aoti/private/rules:tune.bzl", "aoti_tune")
load(":failures.bzl", "failure_test")

_LOCK = "tests/bazel/rules/locked.tuning.json"

def _lock_test_impl(ctx):
    """Lowering reads the lock. Nothing behind it does: what it changes, the shards show."""
    env = analysistest.begin(ctx)
    readers = {}
    for action in analysistest.target_actions(env):
        paths = [file.short_path for file in action.inputs.to_list()]
        if [path for path in paths if path.endswith(".tuning.json")]:
            readers[action.mnemonic] = readers.get(action.mnemonic, 0) + 1
            asserts.true(env, _LOCK in paths)
    asserts.equals(env, {"AotiLower": 2} if ctx.attr.locked else {}, readers)
    return analysistest.end(env)

_lock_test = analysistest.make(_lock_test_impl, attrs = {"locked": attr.bool()})

def _tune_test_impl(ctx):
    env = analysistest.begin(ctx)
    target = analysistest.target_under_test(env)
    actions = analysistest.target_actions(env)
    counts = {}
    for action in actions:
        counts[action.mnemonic] = counts.get(action.mnemonic, 0) + 1
        paths = [file.short_path for file in action.inputs.to_list()]

        # Candidates follow from the graph alone: tuning again builds nothing again.
        asserts.equals(env, [], [path for path in paths if path.endswith(".tuning.json")])
    asserts.equals(env, 2, counts.get("AotiCandidates", 0))
    asserts.equals(env, 16, counts.get("AotiCompile", 0))
    (content,) = [
        action.content
        for action in actions
        if action.outputs.to_list()[0].basename.endswith(".settings.json")
    ]
    settings = json.decode(content)
    asserts.equals(env, ctx.attr.output, settings["output"])
    asserts.equals(env, ctx.attr.locked, settings["tuning"])
    asserts.equals(env, ["sm_80", "sm_90"], [program["target"] for program in settings["programs"]])

    # It runs on a machine with a GPU, which has Python, perhaps of another version, and no package.
    runfiles = target[DefaultInfo].default_runfiles.files.to_list()
    for file in runfiles:
        asserts.false(env, "aoti_pip_" in file.owner.workspace_name, "%s is among the runfiles" % file.path)
        asserts.false(env, file.short_path.startswith("wrapgen/lowering/"), "%s is among the runfiles" % file.path)
    present = [file.short_path for file in runfiles]
    for program in settings["programs"]:
        for path in program["kernels"] + [program["candidates"]]:
            asserts.true(env, path in present, "%s is no runfile" % path)
    return analysistest.end(env)

_tune_test = analysistest.make(
    _tune_test_impl,
    attrs = {
        "locked": attr.bool(),
        "output": attr.string(),
    },
)

def tuning_test_suite(name):
    """Declares the tests.

    Args:
      name: of the test suite.
    """
    aoti_library(
        name = "locked",
        model = "//tests/bazel/small:small_pt2",
        tags = ["manual"],
        targets = [
            "sm_80",
            "sm_90",
        ],
        test = None,
        tuning = "locked.tuning.json",
    )
    _lock_test(
        name = "lock_test",
        locked = True,
        target_under_test = ":locked",
    )
    _lock_test(
        name = "no_lock_test",
        locked = False,
        target_under_test = "//tests/bazel/small",
    )
    _tune_test(
        name = "tune_test",
        locked = True,
        output = _LOCK,
        target_under_test = ":locked.tune",
    )
    _tune_test(
        name = "tune_without_lock_test",
        locked = False,
        output = "tests/bazel/small/small.tuning.json",
        target_under_test = "//tests/bazel/small:small.tune",
    )
    aoti_tune(
        name = "tune_hip",
        library = "//tests/bazel/small:small_hip",
        tags = ["manual"],
    )
    failure_test(
        name = "tune_hip_test",
        message = ["is for AMD's GPUs: the tuner measures on NVIDIA's; write the lock by hand"],
        target_under_test = ":tune_hip",
    )
    native.test_suite(
        name = name,
        tests = [
            "lock_test",
            "no_lock_test",
            "tune_hip_test",
            "tune_test",
            "tune_without_lock_test",
        ],
    )
