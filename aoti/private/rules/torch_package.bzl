"""The rule behind `:NAME.aotinductor`."""

load("//aoti:providers.bzl", "AotiModelInfo")
load("//aoti/private/actions:torch_package.bzl", "torch_package")

def _aoti_torch_package_impl(ctx):
    model = ctx.attr.library[AotiModelInfo]
    out = ctx.actions.declare_file(ctx.label.name + ".pt2")
    torch_package(
        ctx.actions,
        toolchain = ctx.toolchains["//aoti:toolchain_type"].aoti,
        name = model.name,
        library = ctx.file.shared_library,
        weights = model.weights,
        source = model.sources[0],
        targets = model.targets,
        device = ctx.attr.device,
        out = out,
    )
    return [DefaultInfo(files = depset([out]), runfiles = ctx.runfiles([out]))]

aoti_torch_package = rule(
    implementation = _aoti_torch_package_impl,
    doc = "A `.pt2` of an `aoti_library` for `torch._inductor.aoti_load_package`.",
    attrs = {
        "device": attr.string(
            doc = "Where callers have their tensors.",
            mandatory = True,
            values = ["cuda", "cpu"],
        ),
        "library": attr.label(
            doc = "The `aoti_library`, with AOTInductor's interface.",
            mandatory = True,
            providers = [AotiModelInfo],
        ),
        "shared_library": attr.label(
            doc = "Its shared library.",
            allow_single_file = [".so"],
            mandatory = True,
        ),
    },
    toolchains = ["//aoti:toolchain_type"],
)
