"""Debian packages, as files, by their hashes."""

_BUILD = """\
filegroup(
    name = "debs",
    srcs = glob(["*.deb"]),
    visibility = ["//visibility:public"],
)
"""

def _debian_packages_impl(rctx):
    for path, sha256 in rctx.attr.packages.items():
        rctx.download(
            url = ["%s/%s" % (mirror, path.replace("+", "%2B")) for mirror in rctx.attr.mirrors],
            output = path.rpartition("/")[2],
            sha256 = sha256,
        )
    rctx.file("BUILD.bazel", _BUILD)

debian_packages = repository_rule(
    implementation = _debian_packages_impl,
    doc = "Fetches packages of Debian's archive and provides them as `:debs`.",
    attrs = {
        "mirrors": attr.string_list(
            doc = "Where the archive is, in the order to try.",
            mandatory = True,
        ),
        "packages": attr.string_dict(
            doc = "Paths in the archive, and the SHA-256 of each file.",
            mandatory = True,
        ),
    },
)
