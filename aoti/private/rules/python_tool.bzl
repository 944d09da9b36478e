"""The rule `python_tool`: what the toolchain's tools are.

`py_binary` would take whatever Python toolchain the user's workspace registers, while the locked
packages are for one version; and its first lines are run by a Python of the machine, which a remote
worker need not have, and which takes longer to start than the program.
"""

load("@rules_python//python:defs.bzl", "PyInfo")
load("//aoti/private:runfiles.bzl", "runfiles_path")
load("//aoti/private/actions:launcher.bzl", "write_launcher")

def _python_path(ctx, sources, imports):
    """Returns the directories to import from: those that dependencies name, then their repositories."""
    roots = {
        runfiles_path(ctx.workspace_name, source).partition("/")[0]: None
        for source in sources
    }
    return imports + sorted(roots.keys())

def _python_tool_impl(ctx):
    sources = depset([ctx.file.main], transitive = [dep[PyInfo].transitive_sources for dep in ctx.attr.deps])
    imports = depset(transitive = [dep[PyInfo].imports for dep in ctx.attr.deps])
    launcher = ctx.actions.declare_file(ctx.label.name)
    write_launcher(
        ctx.actions,
        interpreter = runfiles_path(ctx.workspace_name, ctx.file._interpreter),
        main = runfiles_path(ctx.workspace_name, ctx.file.main),
        python_path = _python_path(ctx, sources.to_list(), imports.to_list()),
        out = launcher,
    )
    runfiles = ctx.runfiles(
        [launcher, ctx.file._interpreter] + ctx.files._libraries,
        transitive_files = sources,
    )
    return [DefaultInfo(
        executable = launcher,
        files = depset([launcher]),
        runfiles = runfiles.merge_all([dep[DefaultInfo].default_runfiles for dep in ctx.attr.deps]),
    )]

python_tool = rule(
    implementation = _python_tool_impl,
    doc = "A Python program with its interpreter: it needs a shell and a C library to run, and no Python.",
    attrs = {
        "deps": attr.label_list(
            doc = "Python libraries that it imports.",
            providers = [PyInfo],
        ),
        "main": attr.label(
            doc = "The Python file to run.",
            allow_single_file = [".py"],
            mandatory = True,
        ),
        "_interpreter": attr.label(
            doc = "The interpreter.",
            default = Label("@aoti_host_python//:bin/python3"),
            allow_single_file = True,
        ),
        "_libraries": attr.label(
            doc = "What the interpreter loads.",
            default = Label("@aoti_host_python//:libraries"),
        ),
    },
    executable = True,
)
