"""One file of an npm package, for tools that are published there as executables."""

def _npm_file_impl(rctx):
    npm = rctx.which("npm")
    if not npm:
        # Only a test of this repository's own wants it, and can say so itself.
        rctx.file("BUILD.bazel", "filegroup(name = \"file\", visibility = [\"//visibility:public\"])\n")
        return
    pack = rctx.execute(
        [npm, "pack", "--silent", "--ignore-scripts", rctx.attr.package],
        environment = {"npm_config_cache": str(rctx.path(".npm"))},
    )
    if pack.return_code:
        fail("npm cannot fetch %s: %s" % (rctx.attr.package, pack.stderr))
    archive = pack.stdout.strip().split("\n")[-1]
    digest = rctx.execute(["sha256sum", archive]).stdout.split(" ")[0]
    if digest != rctx.attr.sha256:
        fail("%s: SHA-256 is %s, expected %s" % (rctx.attr.package, digest, rctx.attr.sha256))
    rctx.extract(archive)
    rctx.symlink(rctx.path("package").get_child(rctx.attr.file), "file")
    rctx.file("BUILD.bazel", "exports_files([\"file\"])\n")

npm_file = repository_rule(
    implementation = _npm_file_impl,
    doc = "Fetches a package with npm, runs nothing of it, and provides `:file`.",
    attrs = {
        "file": attr.string(
            doc = "Path in the package.",
            mandatory = True,
        ),
        "package": attr.string(
            doc = "Name and version.",
            mandatory = True,
        ),
        "sha256": attr.string(
            doc = "Of the package's archive.",
            mandatory = True,
        ),
    },
)

def buildifier(name = "aoti_buildifier"):
    """Declares the formatter of BUILD files.

    Args:
      name: the repository's.
    """
    npm_file(
        name = name,
        file = "buildifier-linux_amd64",
        package = "@bazel/buildifier@8.2.1",
        sha256 = "b96ea9b13003036c801f52bee6f9b0314738f8432e5cb9d814c89f59292604ee",
    )
