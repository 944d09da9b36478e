"""What only rules_aoti's own tests need."""

load("//tools/farm:repositories.bzl", "farm_packages")
load(":npm_file.bzl", "buildifier")

def _dev_impl(mctx):
    buildifier()
    farm_packages()
    return mctx.extension_metadata(reproducible = True)

dev = module_extension(
    implementation = _dev_impl,
    doc = "@aoti_buildifier, the formatter of BUILD files; @aoti_pip_casd and _farm, of build farms.",
)
