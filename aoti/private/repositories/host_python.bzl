"""A Python toolchain of the machine's own CPython 3.11, whose ABI the locked wheels are built for.

It is a virtual environment without packages: what somebody installed on the machine is not there to
be imported by accident. It is made of two files, so that the interpreter's content is an input of
actions and no path into Bazel's directories is.
"""

_PROBE = """\
import sys
assert sys.implementation.name == "cpython", sys.implementation.name
print(sys._base_executable)
print("%d.%d.%d" % sys.version_info[:3])
"""

_HELP = """
Install CPython 3.11 and put it on PATH as python3.11, or name it:
    --repo_env=RULES_AOTI_PYTHON=/path/to/python3.11"""

_BUILD = """\
load("@rules_python//python:defs.bzl", "py_runtime", "py_runtime_pair")

exports_files(["interpreter"])

py_runtime(
    name = "runtime",
    files = ["env/pyvenv.cfg"],
    interpreter = "env/bin/python3",
    python_version = "PY3",
    stub_shebang = {shebang},
)

py_runtime_pair(
    name = "runtime_pair",
    py3_runtime = ":runtime",
)

toolchain(
    name = "toolchain",
    exec_compatible_with = [
        "@platforms//cpu:x86_64",
        "@platforms//os:linux",
    ],
    target_compatible_with = [
        "@platforms//cpu:x86_64",
        "@platforms//os:linux",
    ],
    toolchain = ":runtime_pair",
    toolchain_type = "@bazel_tools//tools/python:toolchain_type",
)
"""

def _host_python_impl(rctx):
    named = rctx.os.environ.get("RULES_AOTI_PYTHON")
    python = rctx.path(named) if named else rctx.which("python3.11")
    if not python or not python.exists:
        fail("%s not found.%s" % (named or "python3.11", _HELP))

    # What PATH names may be a version manager's script, which would want that manager's environment
    # in every action: ask for the interpreter itself.
    probe = rctx.execute([python, "-c", _PROBE])
    if probe.return_code:
        fail("%s does not work: %s%s" % (python, probe.stderr, _HELP))
    interpreter, version = probe.stdout.strip().split("\n")
    if not version.startswith("3.11."):
        fail("%s is Python %s.%s" % (interpreter, version, _HELP))
    rctx.file("interpreter", interpreter)
    rctx.symlink(interpreter, "env/bin/python3")
    rctx.file("env/pyvenv.cfg", """\
home = %s
include-system-site-packages = false
version = %s
""" % (rctx.path(interpreter).dirname, version))
    rctx.file("BUILD.bazel", _BUILD.format(shebang = repr("#!" + interpreter)))

host_python = repository_rule(
    implementation = _host_python_impl,
    doc = """Finds CPython 3.11: `RULES_AOTI_PYTHON`, else `python3.11` on `PATH`.

Provides `:toolchain`, to register, and the file `interpreter`, which holds the path.""",
    environ = [
        "PATH",
        "RULES_AOTI_PYTHON",
    ],
    local = True,
)
