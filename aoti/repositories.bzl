"""What a WORKSPACE that uses these rules calls. With bzlmod, //aoti:extensions.bzl does the same.

```starlark
load("@rules_aoti//aoti:repositories.bzl", "rules_aoti_dependencies", "rules_aoti_register_toolchains")

rules_aoti_dependencies()

load("@rules_python//python:repositories.bzl", "py_repositories")

py_repositories()

rules_aoti_register_toolchains()
```
"""

load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_archive")
load("@bazel_tools//tools/build_defs/repo:utils.bzl", "maybe")
load("//aoti/private/repositories:archives.bzl", "cpp_archives")
load("//aoti/private/repositories:host_python.bzl", "host_python")
load("//aoti/private/repositories:pip_group.bzl", "pip_groups")

def rules_aoti_dependencies():
    """Declares the repositories that the rules need, unless they are declared already."""
    maybe(
        http_archive,
        name = "platforms",
        sha256 = "218efe8ee736d26a3572663b374a253c012b716d8af0c07e842e82f238a0a7ee",
        url = "https://github.com/bazelbuild/platforms/releases/download/0.0.10/platforms-0.0.10.tar.gz",
    )
    maybe(
        http_archive,
        name = "bazel_skylib",
        sha256 = "bc283cdfcd526a52c3201279cda4bc298652efa898b10b4db0837dc51652756f",
        url = "https://github.com/bazelbuild/bazel-skylib/releases/download/1.7.1/bazel-skylib-1.7.1.tar.gz",
    )
    maybe(
        http_archive,
        name = "rules_cc",
        sha256 = "abc605dd850f813bb37004b77db20106a19311a96b2da1c92b789da529d28fe1",
        strip_prefix = "rules_cc-0.0.17",
        url = "https://github.com/bazelbuild/rules_cc/releases/download/0.0.17/rules_cc-0.0.17.tar.gz",
    )
    maybe(
        http_archive,
        name = "rules_python",
        sha256 = "a5640fddd4beb03e8c1fde5ed7160c0ba6bd477e7d048661c30c06936a26fd63",
        strip_prefix = "rules_python-0.22.1",
        url = "https://github.com/bazelbuild/rules_python/releases/download/0.22.1/rules_python-0.22.1.tar.gz",
    )
    cpp_archives()

# buildifier: disable=unnamed-macro
def rules_aoti_register_toolchains():
    """Declares the Python environment and registers the toolchains."""
    host_python(name = "aoti_host_python")
    pip_groups()
    native.register_toolchains(
        "@aoti_host_python//:toolchain",
        str(Label("//aoti/toolchains:all")),
    )
