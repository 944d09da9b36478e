"""The rule behind `:NAME.package`."""

load("@bazel_skylib//rules:common_settings.bzl", "BuildSettingInfo")
load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")
load("//aoti:providers.bzl", "AotiModelInfo")
load("//aoti/private:targets.bzl", "is_amds")
load("//aoti/private/actions:package.bzl", "package")
load(":library.bzl", "AotiObjectsInfo")

def _aoti_package_impl(ctx):
    model = ctx.attr.library[AotiModelInfo]
    toolchain = ctx.toolchains["//aoti:toolchain_type"].aoti
    debug = ctx.attr._debug[BuildSettingInfo].value
    aotinductor = ctx.attr.library[AotiObjectsInfo].aotinductor
    amds = is_amds(model.targets[0])
    runtime = list(ctx.files._runtime_sources_hip if amds else ctx.files._runtime_sources)
    generated = list(model.sources)
    if aotinductor:
        runtime += ctx.files._aotinductor_sources
        generated.append(aotinductor)
    out = ctx.actions.declare_file(model.name + ".tar")
    package(
        ctx.actions,
        toolchain = toolchain,
        name = model.name,
        library = ctx.file.shared_library,
        weights = model.weights,
        header = model.header,
        runtime_headers = ctx.files._runtime_headers,
        programs = model.programs,
        targets = model.targets,
        graph = model.graph,
        generated = generated,
        components = {
            "dlpack": _headers(ctx.attr._dlpack),
            "nlohmann_json": _headers(ctx.attr._nlohmann_json),
            "runtime": runtime,
        },
        locks = toolchain.locks + (ctx.files._nvtx_lock if "nvtx" in debug else []),
        options = model.options,
        tuning = model.tuning,
        debug = debug,
        aotinductor = aotinductor != None,
        out = out,
    )
    return [DefaultInfo(files = depset([out]))]

def _headers(library):
    return library[CcInfo].compilation_context.direct_headers

aoti_package = rule(
    implementation = _aoti_package_impl,
    doc = "An archive of what an `aoti_library` deploys, with what it was made from and by what.",
    attrs = {
        "library": attr.label(
            doc = "The `aoti_library`.",
            mandatory = True,
            providers = [AotiModelInfo, AotiObjectsInfo],
        ),
        "shared_library": attr.label(
            doc = "Its shared library.",
            allow_single_file = [".so"],
            mandatory = True,
        ),
        "_aotinductor_sources": attr.label(
            doc = "The sources of AOTInductor's interface.",
            default = Label("//runtime/aotinductor:sources"),
            allow_files = [".cc", ".h"],
        ),
        "_debug": attr.label(
            doc = "What the model does besides, for debugging.",
            default = Label("//aoti:debug"),
            providers = [BuildSettingInfo],
        ),
        "_dlpack": attr.label(
            doc = "Headers that are compiled in.",
            default = Label("@dlpack"),
            providers = [CcInfo],
        ),
        "_nlohmann_json": attr.label(
            doc = "Headers that are compiled in.",
            default = Label("@nlohmann_json"),
            providers = [CcInfo],
        ),
        "_nvtx_lock": attr.label(
            doc = "The lock of the headers that are compiled into debug builds with ranges.",
            default = Label("//tools/python:requirements_nvtx.txt"),
            allow_single_file = [".txt"],
        ),
        "_runtime_headers": attr.label(
            doc = "The headers that users of the shared library include.",
            default = Label("//runtime:public_headers"),
            allow_files = [".h"],
        ),
        "_runtime_sources": attr.label(
            doc = "The sources of the runtime.",
            default = Label("//runtime:linked_sources"),
            allow_files = [".cc", ".h"],
        ),
        "_runtime_sources_hip": attr.label(
            doc = "The same for AMD's GPUs.",
            default = Label("//runtime:linked_sources_hip"),
            allow_files = [".cc", ".h"],
        ),
    },
    toolchains = ["//aoti:toolchain_type"],
)
