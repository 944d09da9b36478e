"""Upstream archives of the C++ libraries that the runtime, the example and the tests use.

The checksums are of the files that GitHub serves under these addresses. `./bazelw` replaces the
archives by Debian's packages where it installs Bazel itself (see tools/bootstrap).
"""

load("@bazel_tools//tools/build_defs/repo:http.bzl", "http_archive")
load("@bazel_tools//tools/build_defs/repo:utils.bzl", "maybe")

def cpp_archives():
    """Declares `@dlpack`, `@nlohmann_json`, `@stb` and `@googletest` unless they are there already."""
    maybe(
        http_archive,
        name = "dlpack",
        build_file = Label("//third_party:dlpack.BUILD"),
        sha256 = "cf965c26a5430ba4cc53d61963f288edddcd77443aa4c85ce722aaf1e2f29513",
        strip_prefix = "dlpack-0.8",
        url = "https://github.com/dmlc/dlpack/archive/refs/tags/v0.8.tar.gz",
    )
    maybe(
        http_archive,
        name = "nlohmann_json",
        build_file = Label("//third_party:nlohmann_json.BUILD"),
        sha256 = "e5c7a9f49a16814be27e4ed0ee900ecd0092bfb7dbfca65b5a421b774dccaaed",
        url = "https://github.com/nlohmann/json/releases/download/v3.11.2/include.zip",
    )
    maybe(
        http_archive,
        name = "stb",
        build_file = Label("//third_party:stb.BUILD"),
        sha256 = "13a99ad430e930907f5611325ec384168a958bf7610e63e60e2fd8e7b7379610",
        strip_prefix = "stb-b42009b3b9d4ca35bc703f5310eedc74f584be58",
        url = "https://github.com/nothings/stb/archive/b42009b3b9d4ca35bc703f5310eedc74f584be58.tar.gz",
    )
    maybe(
        http_archive,
        name = "googletest",
        build_file = Label("//third_party:googletest.BUILD"),
        sha256 = "8ad598c73ad796e0d8280b082cebd82a630d73e73cd3c70057938a6501bba5d7",
        strip_prefix = "googletest-1.14.0",
        url = "https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz",
    )
