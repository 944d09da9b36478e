"""What only rules_aoti's own tests need."""

load(":npm_file.bzl", "buildifier")

def _dev_impl(mctx):
    buildifier()
    return mctx.extension_metadata(reproducible = True)

dev = module_extension(
    implementation = _dev_impl,
    doc = "@aoti_buildifier, the formatter of BUILD files.",
)
