"""The rule `aoti_export`."""

load("@rules_python//python:defs.bzl", "PyInfo")
load("//aoti/private/actions:export.bzl", "export")

def _imports(ctx):
    """Returns the directories that dependencies are imported from, relative to the execution root."""
    directories = {}
    for dep in ctx.attr.deps:
        for entry in dep[PyInfo].imports.to_list():
            repository, _, path = entry.partition("/")
            directories[(path or ".") if repository == ctx.workspace_name else "external/" + entry] = None
        directories["."] = None
    return directories.keys()

def _aoti_export_impl(ctx):
    for name, value in ctx.attr.args.items():
        if "\n" in value:
            fail("%s: args: the value of \"%s\" has a line break; pass a number, a name or a literal in one line" % (
                ctx.label,
                name,
            ))
    out = ctx.actions.declare_file(ctx.label.name + ".pt2")
    export(
        ctx.actions,
        toolchain = ctx.toolchains["//aoti:toolchain_type"].aoti,
        src = ctx.file.src,
        entry_point = ctx.attr.entry_point,
        args = ctx.attr.args,
        weights = ctx.file.weights,
        imports = _imports(ctx),
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
