"""The rule behind `:NAME.standalone`."""

load("//aoti:providers.bzl", "AotiModelInfo")
load("//aoti/private/actions:pack.bzl", "pack")
load("//aoti/private/actions:standalone.bzl", "standalone")

def _aoti_standalone_impl(ctx):
    model = ctx.attr.library[AotiModelInfo]
    toolchain = ctx.toolchains["//aoti:toolchain_type"].aoti
    directory = ctx.label.name
    made = standalone(
        ctx.actions,
        toolchain = toolchain,
        name = model.name,
        targets = model.targets,
        programs = model.programs,
        runtime = ctx.files._runtime,
        runtime_header = ctx.file._runtime_header,
        directory = directory,
    )
    weights = ctx.actions.declare_file("%s/%s.weights" % (directory, model.name))
    pack(
        ctx.actions,
        toolchain = toolchain,
        weights = model.weights,
        program = model.programs[0].program,
        out = weights,
    )
    return [DefaultInfo(files = depset([made.header, made.source, made.kernels, weights]))]

aoti_standalone = rule(
    implementation = _aoti_standalone_impl,
    doc = "The model of an `aoti_library` in one file, with its kernels and its weights beside it.",
    attrs = {
        "library": attr.label(
            doc = "The `aoti_library`.",
            mandatory = True,
            providers = [AotiModelInfo],
        ),
        "_runtime": attr.label(
            doc = "The runtime's sources, parts of which the file has a copy of.",
            default = Label("//runtime:sources"),
            allow_files = [".cc", ".h"],
        ),
        "_runtime_header": attr.label(
            doc = "One of them, to find their directory.",
            default = Label("//runtime:launcher.h"),
            allow_single_file = True,
        ),
    },
    toolchains = ["//aoti:toolchain_type"],
)
