"""`debug_mode_asked`: what `--//aoti:debug` asks for, for `config_setting`."""

load("@bazel_skylib//rules:common_settings.bzl", "BuildSettingInfo")

DEBUG_MODES = ["launches", "nan", "nvtx", "sync", "values"]

def check_debug_modes(modes):
    """Checks the value of `--//aoti:debug`.

    Args:
      modes: list of string.

    Returns:
      A message if one of them is unknown, else None.
    """
    for mode in modes:
        if mode not in DEBUG_MODES:
            return "--//aoti:debug: unknown mode %r; expected some of %s, separated by commas" % (
                mode,
                ", ".join(DEBUG_MODES),
            )
    return None

def _debug_mode_asked_impl(ctx):
    asked = ctx.attr._debug[BuildSettingInfo].value
    yes = any([mode in asked for mode in ctx.attr.modes])
    return [config_common.FeatureFlagInfo(value = "yes" if yes else "no")]

debug_mode_asked = rule(
    implementation = _debug_mode_asked_impl,
    doc = "`yes` to a `config_setting` if `--//aoti:debug` names one of `modes`, else `no`.",
    attrs = {
        "modes": attr.string_list(
            doc = "The modes that are asked about.",
            mandatory = True,
        ),
        "_debug": attr.label(
            doc = "The modes that are asked for.",
            default = Label("//aoti:debug"),
            providers = [BuildSettingInfo],
        ),
    },
)
