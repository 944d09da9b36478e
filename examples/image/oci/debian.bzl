"""Debian packages, as files, by their hashes."""

_BUILD = """\
filegroup(
    name = "debs",
    srcs = glob(["*.deb"]),
    visibility = ["//visibility:public"],
)
"""

_HELP = """
Name a mirror of Debian's archive, or several with blanks between them:
    --repo_env=DEBIAN_MIRROR=https://..."""

def _debian_packages_impl(rctx):
    mirrors = rctx.os.environ.get("DEBIAN_MIRROR", "").split(" ")
    mirrors = [mirror.rstrip("/") for mirror in mirrors if mirror]
    if not mirrors:
        fail("%s: where to fetch Debian's packages is not said.%s" % (rctx.name, _HELP))
    for path, sha256 in rctx.attr.packages.items():
        rctx.download(
            url = ["%s/%s" % (mirror, path.replace("+", "%2B")) for mirror in mirrors],
            output = path.rpartition("/")[2],
            sha256 = sha256,
        )
    rctx.file("BUILD.bazel", _BUILD)

debian_packages = repository_rule(
    implementation = _debian_packages_impl,
    doc = """Fetches packages of Debian's archive and provides them as `:debs`.

`DEBIAN_MIRROR` says where the archive is: a mirror near you, or your own.""",
    attrs = {
        "packages": attr.string_dict(
            doc = "Paths in the archive, and the SHA-256 of each file.",
            mandatory = True,
        ),
    },
    environ = ["DEBIAN_MIRROR"],
)
