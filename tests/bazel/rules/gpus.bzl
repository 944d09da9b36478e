"""Tests of what a model is built for: by attribute, by flag, by platform, by `aoti_for_gpu`."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")
load("//aoti:defs.bzl", "aoti_for_gpu")
load("//aoti:providers.bzl", "AotiModelInfo")

# buildifier: disable=bzl-visibility
load("//aoti/private:targets.bzl", "CAPABILITIES")
load(":failures.bzl", "failure_test", "make_failure_test")

_GPUS = "//tests/bazel/gpus:"
_SMALL = "//tests/bazel/small"

def _built_for(flag = [], platform = None):
    """Returns the settings of a configuration."""
    settings = {str(Label("//aoti:targets")): flag} if flag else {}
    if platform:
        settings["//command_line_option:platforms"] = [str(Label(_GPUS + platform))]
    return settings

def _targets_test_impl(ctx):
    env = analysistest.begin(ctx)
    model = analysistest.target_under_test(env)[AotiModelInfo]
    asserts.equals(env, ctx.attr.targets, model.targets)
    compiled = [
        action.argv[i + 1]
        for action in analysistest.target_actions(env)
        if action.mnemonic == "AotiWrap"
        for i, argument in enumerate(action.argv)
        if argument == "--target"
    ]
    asserts.equals(env, ctx.attr.targets, compiled)
    return analysistest.end(env)

def _make_targets_test(**kwargs):
    return analysistest.make(
        _targets_test_impl,
        attrs = {"targets": attr.string_list()},
        config_settings = _built_for(**kwargs),
    )

_by_default_test = _make_targets_test()
_on_a100_test = _make_targets_test(platform = "a100")
_on_h100_test = _make_targets_test(platform = "h100")
_on_mi300_test = _make_targets_test(platform = "mi300")
_by_flag_test = _make_targets_test(flag = ["sm_80", "compute_80"])
_by_flag_on_h100_test = _make_targets_test(flag = ["sm_80"], platform = "h100")

_on_v100_failure_test = make_failure_test(_built_for(platform = "v100"))
_by_unknown_flag_failure_test = make_failure_test(_built_for(flag = ["sm_90", "sm_42"]))
_by_two_vendors_failure_test = make_failure_test(_built_for(flag = ["sm_90", "gfx942"]))

# aoti_for_gpu.

def _for_gpu_test_impl(ctx):
    env = analysistest.begin(ctx)
    target = analysistest.target_under_test(env)
    asserts.equals(env, ctx.attr.files, sorted([file.short_path for file in target[DefaultInfo].files.to_list()]))
    runfiles = [file.short_path for file in target[DefaultInfo].default_runfiles.files.to_list()]
    for path in ctx.attr.runfiles:
        asserts.true(env, path in runfiles, "%s is no runfile" % path)
    if ctx.attr.targets:
        model = target[AotiModelInfo]
        asserts.equals(env, ctx.attr.targets, model.targets)
        asserts.true(env, CcInfo in target and OutputGroupInfo in target, "providers")

        # A model need not be exported again for each GPU.
        shared = model.model.path == ctx.file.model.path
        asserts.equals(env, ctx.attr.shares_model, shared, "whether the model is the other configurations'")
    return analysistest.end(env)

_ATTRIBUTES = {
    "files": attr.string_list(),
    "model": attr.label(
        allow_single_file = [".pt2"],
        default = "//tests/bazel/small:small_pt2",
    ),
    "runfiles": attr.string_list(),
    "shares_model": attr.bool(),
    "targets": attr.string_list(),
}

_for_gpu_test = analysistest.make(_for_gpu_test_impl, attrs = _ATTRIBUTES)

# What the command line asks of the rest of the build is none of its business.
_for_gpu_by_flag_test = analysistest.make(
    _for_gpu_test_impl,
    attrs = _ATTRIBUTES,
    config_settings = _built_for(flag = ["sm_80"]),
)

def _for_gpu_failure(name, **kwargs):
    aoti_for_gpu(
        name = name + "_for_gpu",
        tags = ["manual"],
        target = _SMALL,
        **kwargs
    )
    failure_test(
        name = name,
        message = [
            "%s_for_gpu: name the platform or the targets to build" % name,
            "tests/bazel/small:small for, one of the two",
        ],
        target_under_test = ":%s_for_gpu" % name,
    )

def gpus_test_suite(name):
    """Declares all tests of this file.

    Args:
      name: what their names begin with.
    """
    for case, test, library, targets in [
        ("attribute", _by_default_test, _SMALL, ["compute_90", "sm_80", "sm_90"]),
        ("attribute_before_platform", _on_a100_test, _SMALL, ["compute_90", "sm_80", "sm_90"]),
        ("flag_before_attribute", _by_flag_test, _SMALL, ["compute_80", "sm_80"]),
        ("flag_before_platform", _by_flag_on_h100_test, _GPUS + "anywhere", ["sm_80"]),
        ("flag_without_platform", _by_flag_test, _GPUS + "anywhere", ["compute_80", "sm_80"]),
        ("flag_of_other_vendor", _by_flag_test, _SMALL + ":small_hip", ["compute_80", "sm_80"]),
        ("platform", _on_h100_test, _GPUS + "anywhere", ["sm_90"]),
        ("platform_amd", _on_mi300_test, _GPUS + "anywhere", ["gfx942"]),
        ("select", _on_h100_test, _GPUS + "chosen", ["compute_90", "sm_90"]),
        ("select_amd", _on_mi300_test, _GPUS + "chosen", ["gfx942"]),
        ("select_default", _by_default_test, _GPUS + "chosen", ["sm_80"]),
        ("compatible", _on_h100_test, _GPUS + "hopper", ["sm_90"]),
    ]:
        test(
            name = "%s_%s_test" % (name, case),
            target_under_test = library,
            targets = targets,
        )
    for case, test in [("nothing", failure_test), ("no_gpu", _on_v100_failure_test)]:
        test(
            name = "%s_%s_test" % (name, case),
            message = [
                "anywhere: targets: nothing says what to build for: name targets in the attribute, targets = [\"sm_90\"]",
                "on the command line, --@rules_aoti//aoti:targets=sm_90",
                "a platform that has a GPU, such as @rules_aoti//aoti/gpu:sm_90 among its constraint values",
                "this toolchain builds for %s, gfx90a, gfx942" % ", ".join([
                    "sm_%s, compute_%s" % (number, number)
                    for number in CAPABILITIES
                ]),
            ],
            target_under_test = _GPUS + "anywhere",
        )
    _by_unknown_flag_failure_test(
        name = name + "_unknown_in_flag_test",
        message = ["small: --@rules_aoti//aoti:targets: unknown target \"sm_42\": this toolchain builds for sm_80,"],
        target_under_test = _SMALL,
    )
    _by_two_vendors_failure_test(
        name = name + "_two_vendors_in_flag_test",
        message = ["small: --@rules_aoti//aoti:targets: targets sm_90 run on NVIDIA's GPUs and gfx942 on AMD's"],
        target_under_test = _SMALL,
    )
    _for_gpu_test(
        name = name + "_for_gpu_by_platform_test",
        files = [
            "tests/bazel/gpus/anywhere_h100/anywhere.safetensors",
            "tests/bazel/gpus/anywhere_h100/libanywhere.a",
            "tests/bazel/gpus/anywhere_h100/model.h",
        ],
        runfiles = ["tests/bazel/gpus/anywhere.safetensors"],
        target_under_test = _GPUS + "anywhere_h100",
        targets = ["sm_90"],
    )
    _for_gpu_by_flag_test(
        name = name + "_for_gpu_despite_flag_test",
        files = ["tests/bazel/gpus/anywhere_mi300/libanywhere.so"],
        runfiles = [
            "tests/bazel/gpus/anywhere.safetensors",
            "tests/bazel/gpus/anywhere_mi300/libanywhere.so",
        ],
        target_under_test = _GPUS + "anywhere_mi300",
    )
    for case, test in [("targets", _for_gpu_test), ("targets_despite_flag", _for_gpu_by_flag_test)]:
        test(
            name = "%s_for_gpu_by_%s_test" % (name, case),
            files = [
                "tests/bazel/gpus/small_for_sm_90/libsmall.a",
                "tests/bazel/gpus/small_for_sm_90/model.h",
                "tests/bazel/gpus/small_for_sm_90/small.safetensors",
            ],
            shares_model = case == "targets",
            target_under_test = _GPUS + "small_for_sm_90",
            targets = ["sm_90"],
        )
    _for_gpu_failure(name = name + "_for_gpu_without_either_test")
    _for_gpu_failure(
        name = name + "_for_gpu_with_both_test",
        platform = _GPUS + "h100",
        targets = ["sm_90"],
    )
