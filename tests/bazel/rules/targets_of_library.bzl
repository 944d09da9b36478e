"""Tests at analysis of what `aoti_library` declares besides the library: `:NAME.report`."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
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

def targets_of_library_test_suite(name):
    """Declares all tests of this file.

    Args:
      name: of the test suite.
    """
    _report_test(
        name = "report_test",
        target_under_test = "//tests/bazel/small:small.report",
    )
    native.test_suite(
        name = name,
        tests = [":report_test"],
    )
