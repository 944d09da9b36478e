"""The rule `aoti_export`."""

load("@rules_python//python:defs.bzl", "PyInfo")
load("//aoti/private/actions:export.bzl", "export")

def _python_path(ctx):
    """Returns the directories, relative to the execution root, that dependencies are imported from."""
    directories = {}
    for dep in ctx.attr.deps:
        for entry in dep[PyInfo].imports.to_list():
            repository, _, path = entry.partition("/")
            main = repository == ctx.workspace_name
            directory = path if main else "external/" + entry
            for root in ("", ctx.bin_dir.path):
                full = "/".join([part for part in (root, directory) if part])
                directories[full or "."] = None
        directories["."] = None
        directories[ctx.bin_dir.path] = None
    return directories.keys()

def _aoti_export_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".pt2")
    export(
        ctx.actions,
        toolchain = ctx.toolchains["//aoti:toolchain_type"].aoti,
        src = ctx.file.src,
        entry_point = ctx.attr.entry_point,
        args = ctx.attr.args,
        weights = ctx.file.weights,
        python_path = _python_path(ctx),
        inputs = depset(transitive = [
            depset(transitive = [
                dep[PyInfo].transitive_sources,
                dep[DefaultInfo].default_runfiles.files,
            ])
            for dep in ctx.attr.deps
        ]),
        out = out,
    )
    return [DefaultInfo(files = depset([out]))]

aoti_export = rule(
    implementation = _aoti_export_impl,
    doc = """Runs a function of a Python file that returns a `torch.export.ExportedProgram`.

Writes it as `NAME.pt2`. The action sees the file, `deps` and `weights`, and no network.""",
    attrs = {
        "args": attr.string_dict(
            doc = "Keyword arguments of the entry point. A value is a Python literal, or else a string.",
        ),
        "deps": attr.label_list(
            doc = "Python libraries that `src` imports. PyTorch, numpy and safetensors are there already.",
            providers = [PyInfo],
        ),
        "entry_point": attr.string(
            doc = "The function's name.",
            default = "export",
        ),
        "src": attr.label(
            doc = "The Python file.",
            allow_single_file = [".py"],
            mandatory = True,
        ),
        "weights": attr.label(
            doc = "A safetensors file; its path is the entry point's argument `weights`.",
            allow_single_file = [".safetensors"],
        ),
    },
    toolchains = ["//aoti:toolchain_type"],
)
