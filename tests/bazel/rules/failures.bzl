"""Tests that something is refused, and in which words."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")

def _failure_test_impl(ctx):
    env = analysistest.begin(ctx)
    for part in ctx.attr.message:
        asserts.expect_failure(env, part)
    return analysistest.end(env)

def make_failure_test(config_settings = {}):
    """Makes a rule that tests that its `target_under_test` fails.

    Args:
      config_settings: the configuration it is analysed in.

    Returns:
      The rule, whose attribute `message` is parts of what is said.
    """
    return analysistest.make(
        _failure_test_impl,
        attrs = {"message": attr.string_list()},
        config_settings = config_settings,
        expect_failure = True,
    )

failure_test = make_failure_test()
