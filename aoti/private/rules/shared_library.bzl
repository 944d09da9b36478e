"""The rule behind `:NAME.so`."""

load("@rules_cc//cc:find_cc_toolchain.bzl", "find_cc_toolchain", "use_cc_toolchain")
load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")
load("//aoti:providers.bzl", "AotiModelInfo")
load("//aoti/private:targets.bzl", "is_amds")
load("//aoti/private/actions:cc.bzl", "cc_compile", "cc_features", "cc_shared_library")
load(":library.bzl", "AotiObjectsInfo")

def _aoti_shared_library_impl(ctx):
    toolchain = ctx.toolchains["//aoti:toolchain_type"].aoti
    library = ctx.attr.library
    model = library[AotiModelInfo]
    cc_toolchain = find_cc_toolchain(ctx)
    features = cc_features(ctx, cc_toolchain)
    runtime = (ctx.attr._runtime_hip if is_amds(model.targets[0]) else ctx.attr._runtime)[CcInfo]
    aotinductor = library[AotiObjectsInfo].aotinductor
    deps = [ctx.attr._aotinductor[CcInfo]] if aotinductor else []
    _, entry_objects = cc_compile(
        ctx.actions,
        cc_toolchain = cc_toolchain,
        features = features,
        name = ctx.label.name + ".entry",
        march = toolchain.march,
        srcs = [library[AotiObjectsInfo].entry] + ([aotinductor] if aotinductor else []),
        hdrs = [],
        deps = [library[CcInfo]] + deps,
    )
    out = cc_shared_library(
        ctx.actions,
        cc_toolchain = cc_toolchain,
        features = features,
        name = model.name,
        compilation_outputs = library[AotiObjectsInfo].compilation_outputs + [entry_objects],
        deps = [runtime] + deps,
        exports = ctx.file._aotinductor_exports if aotinductor else ctx.file._exports,
    )
    return [DefaultInfo(
        files = depset([out]),
        runfiles = ctx.runfiles([out, model.weights]),
    )]

aoti_shared_library = rule(
    implementation = _aoti_shared_library_impl,
    doc = "`libNAME.so` of an `aoti_library`: exports the C ABI of runtime/aoti.h, AOTInductor's " +
          "interface if the library has it, and nothing else.",
    attrs = {
        "library": attr.label(
            doc = "The `aoti_library`.",
            mandatory = True,
            providers = [AotiModelInfo, AotiObjectsInfo, CcInfo],
        ),
        "_aotinductor": attr.label(
            doc = "AOTInductor's interface.",
            default = Label("//runtime/aotinductor"),
            providers = [CcInfo],
        ),
        "_aotinductor_exports": attr.label(
            doc = "The version script of a library with that interface.",
            default = Label("//runtime/aotinductor:exports.lds"),
            allow_single_file = True,
        ),
        "_exports": attr.label(
            doc = "The version script that lists what is exported.",
            default = Label("//runtime:exports.lds"),
            allow_single_file = True,
        ),
        "_runtime": attr.label(
            doc = "The C++ runtime.",
            default = Label("//runtime"),
            providers = [CcInfo],
        ),
        "_runtime_hip": attr.label(
            doc = "The same for AMD's GPUs.",
            default = Label("//runtime:hip"),
            providers = [CcInfo],
        ),
    },
    fragments = ["cpp"],
    toolchains = ["//aoti:toolchain_type"] + use_cc_toolchain(),
)
