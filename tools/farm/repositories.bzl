"""The Python packages of the build farms that the tests bring up."""

# buildifier: disable=bzl-visibility
load("//aoti/private/repositories:pip_group.bzl", "pip_group")

# buildifier: disable=unnamed-macro
def farm_packages():
    """Declares `@aoti_pip_farm` and `@aoti_pip_casd`."""
    for group in ["casd", "farm"]:
        pip_group(
            name = "aoti_pip_" + group,
            lock = Label("//tools/python:requirements_%s.txt" % group),
        )
