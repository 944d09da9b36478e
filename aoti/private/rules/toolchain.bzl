"""The rule `aoti_toolchain`."""

load("//aoti:providers.bzl", "AotiToolchainInfo")
load("//aoti/private:targets.bzl", "ARCHITECTURES", "CAPABILITIES")

def _aoti_toolchain_impl(ctx):
    def tool(name):
        return getattr(ctx.attr, name)[DefaultInfo].files_to_run

    return [platform_common.ToolchainInfo(
        aoti = AotiToolchainInfo(
            export = tool("export"),
            split = tool("split"),
            lower = tool("lower"),
            compile = tool("compile"),
            wrap = tool("wrap"),
            package = tool("package"),
            report = tool("report"),
            ptxas = ctx.file.ptxas,
            locks = ctx.files.locks,
            march = ctx.attr.march,
            shards = ctx.attr.shards,
            capabilities = ctx.attr.capabilities,
            architectures = ctx.attr.architectures,
        ),
    )]

def _tool(step):
    return attr.label(
        doc = "wrapgen, to be run as `wrapgen %s`." % step,
        default = Label("//wrapgen:" + step),
        cfg = "exec",
        executable = True,
    )

aoti_toolchain = rule(
    implementation = _aoti_toolchain_impl,
    doc = "A toolchain for `//aoti:toolchain_type`. All attributes have defaults.",
    attrs = {
        "architectures": attr.string_list(
            doc = "AMD's architectures that wrapgen can build for.",
            default = ARCHITECTURES,
        ),
        "capabilities": attr.string_list(
            doc = "The compute capabilities that wrapgen can build for.",
            default = CAPABILITIES,
        ),
        "compile": _tool("compile"),
        "export": _tool("export"),
        "locks": attr.label_list(
            doc = "The lock files of the tools' Python packages, which packages name their versions of.",
            default = [
                Label("//tools/python:requirements_base.txt"),
                Label("//tools/python:requirements_torch.txt"),
                Label("//tools/python:requirements_triton.txt"),
            ],
            allow_files = [".txt"],
        ),
        "lower": _tool("lower"),
        "march": attr.string(
            doc = "The host instruction set that generated C++ is compiled for, as gcc's `-march`. " +
                  "Never `native`: the library must not depend on the machine that builds it.",
            default = "x86-64-v2",
        ),
        "package": _tool("package"),
        "ptxas": attr.label(
            doc = "NVIDIA's assembler; by default the one in Triton's wheel.",
            default = Label("@aoti_pip_triton//:site/triton/backends/nvidia/bin/ptxas"),
            allow_single_file = True,
            cfg = "exec",
        ),
        "report": _tool("report"),
        "shards": attr.int(
            doc = "Into how many actions the kernels of a program are dealt.",
            default = 8,
        ),
        "split": _tool("split"),
        "wrap": _tool("wrap"),
    },
    provides = [platform_common.ToolchainInfo],
)
