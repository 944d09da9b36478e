"""The rule behind `:NAME.package`."""

load("//aoti:providers.bzl", "AotiModelInfo")
load("//aoti/private/actions:package.bzl", "package")

def _aoti_package_impl(ctx):
    model = ctx.attr.library[AotiModelInfo]
    out = ctx.actions.declare_file(model.name + ".tar")
    package(
        ctx.actions,
        toolchain = ctx.toolchains["//aoti:toolchain_type"].aoti,
        name = model.name,
        library = ctx.file.shared_library,
        weights = model.weights,
        header = model.header,
        runtime_headers = ctx.files._runtime_headers,
        programs = model.programs,
        targets = model.targets,
        out = out,
    )
    return [DefaultInfo(files = depset([out]))]

aoti_package = rule(
    implementation = _aoti_package_impl,
    doc = "An archive of what an `aoti_library` deploys.",
    attrs = {
        "library": attr.label(
            doc = "The `aoti_library`.",
            mandatory = True,
            providers = [AotiModelInfo],
        ),
        "shared_library": attr.label(
            doc = "Its shared library.",
            allow_single_file = [".so"],
            mandatory = True,
        ),
        "_runtime_headers": attr.label(
            doc = "The headers that users of the shared library include.",
            default = Label("//runtime:public_headers"),
            allow_files = [".h"],
        ),
    },
    toolchains = ["//aoti:toolchain_type"],
)
