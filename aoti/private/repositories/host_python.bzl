"""A Python toolchain of the machine's own CPython 3.11, whose ABI the locked wheels are built for.

It is a copy of the interpreter and its standard library, without packages: an input of actions, so
that a machine that runs them needs no Python, and what somebody installed on this one is not there to
be imported by accident. No path of this machine is in it, beyond what was compiled into it.
"""

load(":stamp.bzl", "STAMP_ATTRS", "stamp")

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

package(default_visibility = ["//visibility:public"])

exports_files([
    "bin/python3",
    "interpreter",
])

# What the interpreter loads. The standard library is one directory, as packages are.
filegroup(
    name = "libraries",
    srcs = ["lib/python3.11"] + glob(
        [
            "bin/*.so",
            "lib/**/*.so*",
        ],
        allow_empty = True,
        exclude = ["lib/python3.11/**"],
    ),
)

# For py_binary and py_test. Their own first lines are run by the machine's interpreter.
py_runtime(
    name = "runtime",
    files = [":libraries"],
    interpreter = "bin/python3",
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
    if hasattr(rctx, "watch"):
        rctx.watch(interpreter)  # Bazel before 7.1 cannot
    rctx.report_progress("Copying %s" % interpreter)
    copied = rctx.execute([interpreter, rctx.path(rctx.attr._copy), "."])
    if copied.return_code:
        fail(copied.stderr + _HELP)
    stamp(rctx, interpreter, "lib/python3.11")
    rctx.file("interpreter", interpreter)
    rctx.file("BUILD.bazel", _BUILD.format(shebang = repr("#!" + interpreter)))

host_python = repository_rule(
    implementation = _host_python_impl,
    doc = """Copies CPython 3.11: `RULES_AOTI_PYTHON`, else `python3.11` on `PATH`.

Provides the copy as `bin/python3` and `:libraries`; `:toolchain`, to register; and the file
`interpreter`, which holds the path of the original.""",
    attrs = {
        "_copy": attr.label(
            doc = "What copies it.",
            default = Label("//aoti/private/repositories:copy_python.py"),
            allow_single_file = True,
        ),
    } | STAMP_ATTRS,
    environ = [
        "PATH",
        "RULES_AOTI_PYTHON",
    ],
)
