"""The rule `aoti_for_gpu`."""

load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")
load("//aoti:providers.bzl", "AotiModelInfo")
load("//aoti/private/actions:for_gpu.bzl", "link_to")
load(":library.bzl", "AotiObjectsInfo")

_FLAG = str(Label("//aoti:targets"))
_FOR_GPU = str(Label("//aoti/private:targets_for_gpu"))
_PLATFORMS = "//command_line_option:platforms"

def _for_gpu_impl(settings, attr):
    if attr.platform:
        # The platform's GPU decides, and not what the command line names for the rest of the build.
        return {_FLAG: [], _FOR_GPU: [], _PLATFORMS: [str(attr.platform)]}
    return settings | {_FOR_GPU: attr.targets}

_for_gpu = transition(
    implementation = _for_gpu_impl,
    inputs = [_FLAG, _FOR_GPU, _PLATFORMS],
    outputs = [_FLAG, _FOR_GPU, _PLATFORMS],
)

# What is handed on where the target has it.
_PROVIDERS = [AotiModelInfo, AotiObjectsInfo, CcInfo, OutputGroupInfo]

def _aoti_for_gpu_impl(ctx):
    if bool(ctx.attr.platform) == bool(ctx.attr.targets):
        fail("%s: name the platform or the targets to build %s for, one of the two" % (
            ctx.label,
            ctx.attr.target[0].label,
        ))
    target = ctx.attr.target[0]
    files = [
        link_to(ctx.actions, file = file, directory = ctx.label.name)
        for file in target[DefaultInfo].files.to_list()
    ]
    return [
        DefaultInfo(
            files = depset(files),
            runfiles = ctx.runfiles(files).merge(target[DefaultInfo].default_runfiles),
        ),
    ] + [target[provider] for provider in _PROVIDERS if provider in target]

aoti_for_gpu = rule(
    implementation = _aoti_for_gpu_impl,
    doc = """An `aoti_library`, or another target, built for a GPU of its own, whatever the rest of the build is for.

So one build makes a model for several GPUs. The target's files are there in the directory `NAME`, and
its providers are handed on, so that a `cc_binary` may depend on it:

```starlark
aoti_library(
    name = "ranker",
    model = "ranker.pt2",
)

[
    aoti_for_gpu(
        name = "ranker_" + gpu,          # ranker_a100/ranker.tar, ranker_h100/ranker.tar
        platform = "//platforms:" + gpu,
        target = ":ranker.package",
    )
    for gpu in ["a100", "h100"]
]
```
""",
    attrs = {
        "platform": attr.label(
            doc = "The platform to build for, with one of `@rules_aoti//aoti/gpu:*` among its constraint " +
                  "values. A library's own `targets` come before it.",
            providers = [platform_common.PlatformInfo],
        ),
        "target": attr.label(
            doc = "What to build: an `aoti_library`, its `.so`, `.package` and the like, or a target that " +
                  "depends on such.",
            cfg = _for_gpu,
            mandatory = True,
        ),
        "targets": attr.string_list(
            doc = "In place of a platform: the targets of all libraries below, such as `[\"sm_90\"]`. They " +
                  "come before a library's own and before the flag `--@rules_aoti//aoti:targets`.",
        ),
    },
)
