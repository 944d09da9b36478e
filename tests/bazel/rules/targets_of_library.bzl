"""Tests at analysis of what `aoti_library` declares besides the library: `:NAME.report`, `:NAME_benchmark`."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//aoti:defs.bzl", "aoti_benchmark")
load("//aoti:providers.bzl", "AotiReportInfo")

def _report_test_impl(ctx):
    env = analysistest.begin(ctx)
    target = analysistest.target_under_test(env)
    info = target[AotiReportInfo]
    asserts.equals(env, "small.report.md", info.text.basename)
    asserts.equals(env, "small.report.json", info.json.basename)
    asserts.equals(env, [info.json, info.text], sorted(target[DefaultInfo].files.to_list(), key = lambda file: file.path))
    (action,) = [a for a in analysistest.target_actions(env) if a.mnemonic == "AotiReport"]
    for file in action.inputs.to_list():
        # New weights make no new report, and PyTorch and Triton have no part in one.
        for forbidden in [".pt2", ".safetensors", "aoti_pip_torch", "aoti_pip_triton"]:
            asserts.false(env, forbidden in file.path, "the report reads %s" % file.path)
    return analysistest.end(env)

_report_test = analysistest.make(_report_test_impl)

def _benchmark_test_impl(ctx):
    env = analysistest.begin(ctx)
    files = analysistest.target_under_test(env)[DefaultInfo].default_runfiles.files.to_list()
    paths = [file.short_path for file in files]
    for wanted in ["libsmall.so", "small.safetensors", "small.report.json"]:
        asserts.true(env, "tests/bazel/small/" + wanted in paths, "%s is among the runfiles" % wanted)

    # It is carried to a machine with a GPU.
    for forbidden in ["aoti_pip_", "simulator/"]:
        asserts.equals(env, [], [path for path in paths if forbidden in path])
    return analysistest.end(env)

_benchmark_test = analysistest.make(
    _benchmark_test_impl,
    config_settings = {str(Label("//aoti:test_device")): "auto"},
)

def _failure_test_impl(ctx):
    env = analysistest.begin(ctx)
    asserts.expect_failure(env, ctx.attr.message)
    return analysistest.end(env)

_failure_test = analysistest.make(
    _failure_test_impl,
    attrs = {"message": attr.string()},
    expect_failure = True,
)

def _benchmark_failure(name, message, library = "//tests/bazel/small:small", **kwargs):
    """Declares an `aoti_benchmark` that is wrong, and the test that says so."""
    aoti_benchmark(
        name = name + "_wrong",
        library = library,
        report = library + ".report",
        shared_library = library + ".so",
        tags = ["manual"],
        **kwargs
    )
    _failure_test(
        name = name,
        message = message,
        target_under_test = ":%s_wrong" % name,
    )

def targets_of_library_test_suite(name):
    """Declares all tests of this file.

    Args:
      name: of the test suite.
    """
    _report_test(
        name = "report_test",
        target_under_test = "//tests/bazel/small:small.report",
    )
    _benchmark_test(
        name = "benchmark_test",
        target_under_test = "//tests/bazel/small:small_benchmark",
    )
    _benchmark_failure(
        name = "malformed_benchmark_size_test",
        message = "sizes: \"many\" is no size",
        sizes = {"batch": ["many"]},
    )
    _benchmark_failure(
        name = "benchmark_of_amds_test",
        library = "//tests/bazel/small:small_hip",
        message = "small_hip is for AMD's GPUs: the benchmark runs models on NVIDIA's",
    )
    native.test_suite(
        name = name,
        tests = [
            ":benchmark_of_amds_test",
            ":benchmark_test",
            ":malformed_benchmark_size_test",
            ":report_test",
        ],
    )
