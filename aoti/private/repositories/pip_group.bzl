"""Python packages of a lock file, installed into one directory that is one input of an action.

A label a file, as rules_python's `pip_parse` gives, makes each sandbox of an action that uses
PyTorch a forest of 16000 symbolic links, and leaves out the byte code, so that each action compiles
all of PyTorch again. One source directory costs one link, and holds the byte code. The price: Bazel
sees a change inside only by the directory's own modification time, which is enough for a directory
that nothing but a new fetch changes; stamp.py makes it a digest of the content.
"""

load(":stamp.bzl", "STAMP_ATTRS", "stamp")

_BUILD = """\
load("@rules_cc//cc:defs.bzl", "cc_library")
load("@rules_python//python:defs.bzl", "py_library")

package(default_visibility = ["//visibility:public"])

exports_files({files})

# The lock's own text is an input too: it changes when the packages do, whatever clocks say.
py_library(
    name = "packages",
    data = [
        "requirements.txt",
        "site",
    ],
    imports = ["site"],
)
"""

# For tests that compare the runtime's declarations with NVIDIA's and AMD's.
_DRIVER_HEADERS = """
cc_library(
    name = "cuda_headers",
    hdrs = glob(["site/triton/backends/nvidia/include/*.h"]),
    includes = ["site/triton/backends/nvidia/include"],
)

cc_library(
    name = "hip_headers",
    hdrs = glob(["site/triton/backends/amd/include/**/*.h"]),
    includes = ["site/triton/backends/amd/include"],
)
"""

# For debug builds with ranges.
_NVTX_HEADERS = """
cc_library(
    name = "nvtx",
    hdrs = glob(["site/nvidia/cu13/include/nvtx3/**/*.h"]),
    includes = ["site/nvidia/cu13/include"],
)
"""

# The library of a profiler.
_TRITON_EXCLUDE = ["triton/backends/nvidia/lib/cupti/*"]

# What C++ that uses PyTorch is built with, and tests. No Python that can be imported but tests.
_TORCH_EXCLUDE = [
    "*/tests/*",
    "torch/bin/protoc*",
    "torch/bin/script_module_*",
    "torch/bin/test_*",
    "torch/include/*",
    # What declarations of ours are compared with.
    "!torch/include/ATen/dlpack.h",
    "!torch/include/torch/csrc/inductor/*",
    "!torch/include/torch/csrc/stable/*",
    "!torch/include/torch/headeronly/*",
    "torch/lib/libbackend_with_compiler.so",
    "torch/lib/lib*_test.so",
    "torch/share/*",
    "torch/test/*",
]

# Packages' own tests, and the largest parts that no step loads.
_NOT_COMPILED = "/tests?/|/torch/(testing/_internal|onnx)/"

# Checked by nobody, so that the files are the same whenever they are made.
_COMPILE_OPTIONS = ["-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-x", _NOT_COMPILED]

def _pip_error(lock, stderr):
    lines = [line for line in stderr.strip().split("\n") if line.strip()]
    text = "pip cannot install %s:\n%s" % (lock, "\n".join(lines[-15:]))
    if "No module named pip" in stderr:
        text += "\nInstall pip for this Python, or name another with --repo_env=RULES_AOTI_PYTHON."
    if "+cpu" in stderr or "torch" in stderr:
        text += """
PyTorch's CPU build is on PyTorch's own index, not on the default one. Name that index, or a
directory with the wheel, in pip's configuration: PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS."""
    return text

def _pip_group_impl(rctx):
    python = rctx.read(rctx.attr.interpreter)
    lock = rctx.path(rctx.attr.lock)
    rctx.report_progress("Installing %s" % lock.basename)
    pip = rctx.execute(
        [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--require-hashes",
            "--no-deps",
            "--only-binary=:all:",
            "--no-compile",
            "--target=site",
            "--requirement",
            lock,
        ],
        environment = {"PYTHONNOUSERSITE": "1"},
        timeout = 1800,
    )
    if pip.return_code:
        fail(_pip_error(lock.basename, pip.stderr))

    if not rctx.path("site").exists:
        fail("pip installed nothing for %s" % lock.basename)
    trimmed = rctx.execute([python, rctx.path(rctx.attr._trim), "site"] + rctx.attr.exclude)
    if trimmed.return_code:
        fail("%s: exclude: %s" % (lock.basename, trimmed.stderr))

    rctx.report_progress("Compiling the Python files of %s" % lock.basename)

    # Its status says nothing: some packages carry templates that are no valid Python.
    rctx.execute(
        [python, "-m", "compileall"] + _COMPILE_OPTIONS + ["-s", rctx.path("site"), "-p", "site", "site"],
        timeout = 1800,
    )
    stamp(rctx, python, "site")
    rctx.file("requirements.txt", rctx.read(lock))
    for path in rctx.attr.files:
        if not rctx.path("site").get_child(*path.split("/")).exists:
            fail("%s: the packages hold no %s" % (lock.basename, path))
    build = _BUILD.format(files = repr(["site/" + path for path in rctx.attr.files]))
    rctx.file("BUILD.bazel", build + rctx.attr.build)

pip_group = repository_rule(
    implementation = _pip_group_impl,
    doc = """Installs a lock file's packages and provides them as the Python library `:packages`.

Wheels only, each checked against the lock; pip's own configuration says where they come from.""",
    attrs = {
        "build": attr.string(
            doc = "Text to append to the BUILD file.",
        ),
        "exclude": attr.string_list(
            doc = "Files below the installation directory that no step loads: patterns, where `*` stands " +
                  "for directories, too. See trim_packages.py.",
        ),
        "files": attr.string_list(
            doc = "Files below the installation directory that get labels of their own.",
        ),
        "interpreter": attr.label(
            doc = "A file that holds the path of the Python interpreter.",
            default = Label("@aoti_host_python//:interpreter"),
            allow_single_file = True,
        ),
        "lock": attr.label(
            doc = "The lock file, in the form of pip's requirements, with hashes.",
            allow_single_file = True,
            mandatory = True,
        ),
        "_trim": attr.label(
            doc = "What deletes files.",
            default = Label("//aoti/private/repositories:trim_packages.py"),
            allow_single_file = True,
        ),
    } | STAMP_ATTRS,
    environ = [
        "PIP_CONFIG_FILE",
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_INDEX_URL",
        "PIP_NO_INDEX",
    ],
)

def pip_groups():
    """Declares `@aoti_pip_base`, `_triton`, `_torch`, `_nvtx`, `_dev`, `_transformers` and `_validators`.

    A group holds what those that it stands on lack: an action that compiles kernels has base and
    triton among its inputs and no PyTorch. NVTX's headers are for debug builds alone.
    Those of the last three are for this repository's own tests and models. What nothing asks for is
    not fetched.
    """
    pip_group(
        name = "aoti_pip_base",
        exclude = ["*/tests/*"],
        lock = Label("//tools/python:requirements_base.txt"),
    )
    pip_group(
        name = "aoti_pip_triton",
        build = _DRIVER_HEADERS,
        exclude = _TRITON_EXCLUDE,
        files = ["triton/backends/nvidia/bin/ptxas"],
        lock = Label("//tools/python:requirements_triton.txt"),
    )
    pip_group(
        name = "aoti_pip_torch",
        exclude = _TORCH_EXCLUDE,
        lock = Label("//tools/python:requirements_torch.txt"),
    )
    pip_group(
        name = "aoti_pip_nvtx",
        build = _NVTX_HEADERS,
        lock = Label("//tools/python:requirements_nvtx.txt"),
    )
    pip_group(
        name = "aoti_pip_dev",
        lock = Label("//tools/python:requirements_dev.txt"),
    )
    pip_group(
        name = "aoti_pip_transformers",
        lock = Label("//tools/python:requirements_transformers.txt"),
    )
    pip_group(
        name = "aoti_pip_validators",
        lock = Label("//tools/python:requirements_validators.txt"),
    )
