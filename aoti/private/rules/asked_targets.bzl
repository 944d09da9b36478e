"""What is asked to be built for: by `aoti_for_gpu`, the flag, an attribute or the platform."""

load("@bazel_skylib//rules:common_settings.bzl", "BuildSettingInfo")
load("//aoti/private:targets.bzl", "is_amds")

AotiAskedTargetsInfo = provider(
    doc = "What a configuration asks for, whatever libraries say of themselves.",
    fields = {
        "flag": "list of `string`: of `--//aoti:targets`.",
        "for_gpu": "list of `string`: of the `aoti_for_gpu` that a library is built for.",
        "platform": "list of `string`: the GPU of the target platform; none or one.",
    },
)

def _asked_targets_impl(ctx):
    return [AotiAskedTargetsInfo(
        flag = ctx.attr._flag[BuildSettingInfo].value,
        for_gpu = ctx.attr._for_gpu[BuildSettingInfo].value,
        platform = [
            gpu.label.name
            for gpu in ctx.attr.gpus
            if ctx.target_platform_has_constraint(gpu[platform_common.ConstraintValueInfo])
        ],
    )]

asked_targets = rule(
    implementation = _asked_targets_impl,
    doc = "Reads off a configuration what it asks for.",
    attrs = {
        "gpus": attr.label_list(
            doc = "The GPUs that a platform may have, each named as the target that it runs.",
            mandatory = True,
            providers = [platform_common.ConstraintValueInfo],
        ),
        "_flag": attr.label(
            doc = "The flag.",
            default = Label("//aoti:targets"),
            providers = [BuildSettingInfo],
        ),
        "_for_gpu": attr.label(
            doc = "What `aoti_for_gpu` sets.",
            default = Label("//aoti/private:targets_for_gpu"),
            providers = [BuildSettingInfo],
        ),
    },
    provides = [AotiAskedTargetsInfo],
)

# For rules that have targets.
ASKED_TARGETS_ATTRIBUTE = attr.label(
    doc = "What the flag and the platform ask for.",
    default = Label("//aoti/private:asked_targets"),
    providers = [AotiAskedTargetsInfo],
)

def choose_targets(asked, attribute):
    """Decides what to build a library for.

    Args:
      asked: `AotiAskedTargetsInfo`.
      attribute: the library's own `targets`.

    Returns:
      A struct of `targets`, a list of strings that is empty where nothing says what, and `source`,
      which of the ways it was that says so.
    """
    for targets, source in [
        (asked.for_gpu, "aoti_for_gpu"),
        (asked.flag, "--@rules_aoti//aoti:targets"),
        (attribute, "targets"),
        (asked.platform, "the platform's GPU"),
    ]:
        if targets:
            return struct(targets = targets, source = source)
    return struct(targets = [], source = "targets")

def _gpu_vendor_impl(ctx):
    targets = choose_targets(ctx.attr._asked[AotiAskedTargetsInfo], ctx.attr.targets).targets
    amds = any([is_amds(target) for target in targets])
    return [config_common.FeatureFlagInfo(value = "amd" if amds else "nvidia")]

gpu_vendor = rule(
    implementation = _gpu_vendor_impl,
    doc = "Says to a `config_setting` whose GPUs a library is built for: `amd`, or else `nvidia`.",
    attrs = {
        "targets": attr.string_list(
            doc = "The library's own `targets`.",
        ),
        "_asked": ASKED_TARGETS_ATTRIBUTE,
    },
)
