"""Tests of the providers: what they are made with, and what they refuse to be made with."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load("//aoti:providers.bzl", "AotiModelInfo", "AotiProgramInfo", "AotiToolchainInfo")

# buildifier: disable=bzl-visibility
load("//aoti/private:targets.bzl", "ARCHITECTURES", "CAPABILITIES")
load(":failures.bzl", "failure_test")

_PROGRAM = {
    "kernels": ["kernels"],
    "shards": ["shard"],
    "sources": None,
    "target": "sm_90",
}

_MODEL = {
    "graph": None,
    "header": None,
    "images": None,
    "model": None,
    "name": "net",
    "programs": ["program"],
    "sources": [],
    "targets": ["sm_90"],
    "weights": None,
    "weights_kind": "external",
}

# What a rule of somebody's own might get wrong.
_WRONG = {
    "architecture_of_nvidias": (AotiToolchainInfo, {"architectures": ["sm_90"]}, "architectures: \"sm_90\" is no gfx*"),
    "kernels_for_some_shards": (AotiProgramInfo, {"shards": ["a", "b"]}, "kernels: 1 directories for 2 shards"),
    "no_capabilities": (AotiToolchainInfo, {"capabilities": []}, "capabilities: there is at least one"),
    "no_programs": (AotiModelInfo, {"programs": []}, "programs: there is at least one"),
    "no_shards_of_program": (AotiProgramInfo, {"shards": []}, "shards: there is at least one"),
    "no_targets": (AotiModelInfo, {"targets": []}, "targets: there is at least one"),
    "program_for_ptx": (AotiProgramInfo, {"target": "compute_90"}, "target: \"compute_90\" is no sm_* and no gfx*"),
    "program_of_another_name": (AotiProgramInfo, {}, "program: tests/bazel/rules/failures.bzl is no program.json"),
    "unknown_kind_of_weights": (AotiModelInfo, {"weights_kind": "there"}, "weights_kind: \"there\" is none of [\"external\"]"),
}

def _wrong_provider_impl(ctx):
    kind, fields, _ = _WRONG[ctx.attr.case]
    if kind == AotiToolchainInfo:
        made = ctx.attr._toolchain[platform_common.ToolchainInfo].aoti
        right = {name: getattr(made, name) for name in dir(made) if name not in ["to_json", "to_proto"]}
    else:
        right = _PROGRAM | {"program": ctx.file._file} if kind == AotiProgramInfo else _MODEL
    return [kind(**(right | fields))]

_wrong_provider = rule(
    implementation = _wrong_provider_impl,
    attrs = {
        "case": attr.string(mandatory = True),
        "_file": attr.label(
            allow_single_file = True,
            default = ":failures.bzl",
        ),
        "_toolchain": attr.label(default = "//aoti/toolchains:linux_x86_64"),
    },
)

# What they are made with.

def _toolchain_test_impl(ctx):
    env = analysistest.begin(ctx)
    info = analysistest.target_under_test(env)[platform_common.ToolchainInfo].aoti
    asserts.equals(env, CAPABILITIES, info.capabilities)
    asserts.equals(env, ARCHITECTURES, info.architectures)
    asserts.equals(env, "x86-64-v2", info.march)
    asserts.equals(env, 8, info.shards)
    asserts.equals(env, "ptxas", info.ptxas.basename)
    for tool in ["export", "split", "lower", "compile", "wrap", "package"]:
        asserts.equals(env, tool, getattr(info, tool).executable.basename)
    return analysistest.end(env)

_toolchain_test = analysistest.make(_toolchain_test_impl)

def _program_test_impl(ctx):
    env = analysistest.begin(ctx)
    for program in analysistest.target_under_test(env)[AotiModelInfo].programs:
        root = "tests/bazel/small/small.programs/%s/" % program.target
        asserts.equals(env, root + "program.json", program.program.short_path)
        asserts.equals(env, root + "sources", program.sources.short_path)
        asserts.equals(env, root + "shards/07", program.shards[-1].short_path)
        asserts.equals(env, "tests/bazel/small/small.kernels/%s/07" % program.target, program.kernels[-1].short_path)
    return analysistest.end(env)

_program_test = analysistest.make(_program_test_impl)

def providers_test_suite(name):
    """Declares all tests of this file.

    Args:
      name: what their names begin with.
    """
    for case in _WRONG:
        _wrong_provider(
            name = "%s_%s" % (name, case),
            case = case,
            tags = ["manual"],
        )
        failure_test(
            name = "%s_%s_test" % (name, case),
            message = [_WRONG[case][2]],
            target_under_test = ":%s_%s" % (name, case),
        )
    _toolchain_test(
        name = name + "_toolchain_test",
        target_under_test = "//aoti/toolchains:linux_x86_64",
    )
    _program_test(
        name = name + "_program_test",
        target_under_test = "//tests/bazel/small",
    )
