"""Tests at analysis of the rules with one action, or a few: what they run, on what, and what they give."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")

# buildifier: disable=bzl-visibility
load("//aoti/private/rules:simulator.bzl", "AotiSimulatorInfo", "aoti_simulator_link")
load(":failures.bzl", "failure_test")

def _step_test_impl(ctx):
    env = analysistest.begin(ctx)
    actions = [action for action in analysistest.target_actions(env) if action.mnemonic.startswith("Aoti")]
    asserts.equals(env, sorted(ctx.attr.mnemonics), sorted([action.mnemonic for action in actions]))
    inputs = [file.basename for action in actions for file in action.inputs.to_list()]
    for name in ctx.attr.reads:
        asserts.true(env, name in inputs, "%s is no input" % name)
    for name in ctx.attr.reads_not:
        asserts.false(env, name in inputs, "%s is an input" % name)
    files = analysistest.target_under_test(env)[DefaultInfo].files.to_list()
    asserts.equals(env, sorted(ctx.attr.files), sorted([file.basename for file in files]))
    return analysistest.end(env)

_step_test = analysistest.make(
    _step_test_impl,
    attrs = {
        "files": attr.string_list(doc = "What the target gives."),
        "mnemonics": attr.string_list(doc = "Of our actions."),
        "reads": attr.string_list(doc = "Names of inputs."),
        "reads_not": attr.string_list(doc = "Of what is none."),
    },
)

def _simulator_test_impl(ctx):
    env = analysistest.begin(ctx)
    info = analysistest.target_under_test(env)[AotiSimulatorInfo]
    if not ctx.attr.wanted:
        asserts.equals(env, [None] * 4, [info.driver, info.executor, info.link, info.runfiles])
        return analysistest.end(env)
    asserts.equals(env, "libcuda.so.1", info.driver.basename)
    asserts.equals(env, "executor", info.executor.basename)
    asserts.true(env, info.driver in info.runfiles.files.to_list(), "the driver is no runfile")
    return analysistest.end(env)

_simulator_test = analysistest.make(
    _simulator_test_impl,
    attrs = {"wanted": attr.bool()},
)

def _simulator_link_test_impl(ctx):
    env = analysistest.begin(ctx)
    target = analysistest.target_under_test(env)
    inputs = target[CcInfo].linking_context.linker_inputs.to_list()
    libraries = [library for each in inputs for library in each.libraries]
    asserts.true(env, any([library.alwayslink for library in libraries]), "nothing is linked whatever is used")
    runfiles = [file.short_path for file in target[DefaultInfo].default_runfiles.files.to_list()]
    for path in ["simulator/libcuda.so.1", "tests/bazel/small/small.programs/sm_90/shards/00"]:
        asserts.true(env, path in runfiles, "%s is no runfile" % path)
    return analysistest.end(env)

_simulator_link_test = analysistest.make(_simulator_link_test_impl)

def steps_test_suite(name):
    """Declares all tests of this file.

    Args:
      name: what their names begin with.
    """
    _step_test(
        name = name + "_export_test",
        files = ["small_pt2.pt2"],
        mnemonics = ["AotiExport"],
        reads = ["small.py"],
        target_under_test = "//tests/bazel/small:small_pt2",
    )
    _step_test(
        name = name + "_standalone_test",
        files = ["kernels", "small.cc", "small.h", "small.weights"],
        mnemonics = ["AotiPack", "AotiStandalone"],
        reads = ["program.json", "launcher.h", "small.safetensors"],
        reads_not = ["small_pt2.pt2", "ptxas"],
        target_under_test = "//tests/bazel/small:small.standalone",
    )
    _simulator_test(
        name = name + "_simulator_test",
        target_under_test = "//simulator:enabled",
        wanted = True,
    )
    _simulator_test(
        name = name + "_no_simulator_test",
        target_under_test = "//simulator:for_models",
    )
    for library in ["small", "small_hip"]:
        aoti_simulator_link(
            name = "%s_%s_link" % (name, library),
            library = "//tests/bazel/small:" + library,
            tags = ["manual"],
        )
    _simulator_link_test(
        name = name + "_simulator_link_test",
        target_under_test = ":%s_small_link" % name,
    )
    failure_test(
        name = name + "_simulator_of_amds_test",
        message = ["small_hip is for AMD's GPUs, of which there is no simulated one"],
        target_under_test = ":%s_small_hip_link" % name,
    )
