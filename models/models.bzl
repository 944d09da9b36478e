"""`model`: what is built of each family in this directory."""

load("//aoti:defs.bzl", "aoti_export", "aoti_library")

def model(name, src, args = {}, base = {}, small = {}, test = {}, transformers = True, zoo = True):
    """Declares `:NAME_base_aoti`, the size that people deploy, and `:NAME_small_aoti`, for tests.

    Both come from the entry point `export` of one file, which gets `size = "base"` or `"small"` and
    the arguments below. The base size is tagged `manual`: `//...` leaves it out, and whoever names it
    builds it. So is its test, which needs a GPU; the small size's runs on the simulator too.

    Args:
      name: of the model, lowercase words joined by underscores.
      src: the Python file.
      args: arguments of both sizes, as `args` of `aoti_export`.
      base: arguments of the base size.
      small: arguments of the small size.
      test: attributes of both sizes' tests, as `test` of `aoti_library`.
      transformers: whether the file imports the package of that name.
      zoo: whether the small size is tagged `zoo`: CI tests those in one of Bazel's two modes only.
    """
    packages = ["@aoti_pip_transformers//:packages"] if transformers else []
    for size, arguments, targets, tags, test_attributes in [
        ("base", base, ["sm_90", "compute_90"], ["manual"], test | {"device": "gpu"}),
        ("small", small, ["sm_90"], ["zoo"] if zoo else [], test),
    ]:
        aoti_export(
            name = "%s_%s_pt2" % (name, size),
            src = src,
            args = {"size": size} | args | arguments,
            tags = tags,
            deps = [":shared_py"] + packages,
        )
        aoti_library(
            name = "%s_%s_aoti" % (name, size),
            model = ":%s_%s_pt2" % (name, size),
            tags = tags,
            targets = targets,
            test = test_attributes,
        )
