"""Module extensions: what aoti/repositories.bzl declares in a WORKSPACE, for bzlmod.

Users need none of them: rules_aoti's own MODULE.bazel uses both and registers the toolchains.
"""

load("//aoti/private/repositories:archives.bzl", _cpp_archives = "cpp_archives")
load("//aoti/private/repositories:host_python.bzl", _host_python = "host_python")
load("//aoti/private/repositories:pip_group.bzl", "pip_groups")

def _reproducible(mctx):
    # Nothing to record in the lock file. Bazel before 7.1 has no such metadata.
    return mctx.extension_metadata(reproducible = True)

def _cpp_archives_impl(mctx):
    _cpp_archives()
    return _reproducible(mctx)

cpp_archives = module_extension(
    implementation = _cpp_archives_impl,
    doc = "The C++ libraries that have no module: @dlpack, @nlohmann_json, @stb, @googletest.",
)

def _python_impl(mctx):
    _host_python(name = "aoti_host_python")
    pip_groups()
    return _reproducible(mctx)

python = module_extension(
    implementation = _python_impl,
    doc = "The machine's CPython 3.11 and the locked packages: @aoti_host_python, @aoti_pip_*.",
)
