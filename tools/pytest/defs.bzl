"""`pytest_test`: pytest files as a Bazel test."""

load("@rules_python//python:defs.bzl", "py_test")

def pytest_test(name, srcs, deps = [], data = [], env = {}, torch = False, triton = False, **kwargs):
    """Runs pytest on `srcs`.

    Args:
      name: the test's name.
      srcs: test files, `test_*.py`, and modules that they import.
      deps: Python libraries; pytest and the base packages are there already.
      data: files found through `bazel-runfiles` or relative to the workspace's root.
      env: environment variables.
      torch: whether PyTorch, and so Triton, can be imported.
      triton: whether Triton can be imported.
      **kwargs: as of `py_test`. With `shard_count` each shard runs its share of the test functions.
    """
    packages = ["@aoti_pip_base//:packages", "@aoti_pip_dev//:packages"]
    if torch or triton:
        packages.append("@aoti_pip_triton//:packages")
    if torch:
        packages.append("@aoti_pip_torch//:packages")
    tests = ["$(rootpath %s)" % src for src in srcs if src.rpartition(":")[2].rpartition("/")[2].startswith("test_")]
    py_test(
        name = name,
        srcs = srcs + [Label("//tools/pytest:runner.py")],
        args = tests + kwargs.pop("args", []),
        data = data + [Label("//:pyproject")],
        env = {
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
        } | env,
        main = Label("//tools/pytest:runner.py"),
        deps = deps + packages,
        **kwargs
    )

def pytest_tests(srcs, deps = [], data = [], options = {}, **kwargs):
    """Declares a test for each test file, named like the file.

    Args:
      srcs: all Python files, `test_*.py` and the modules that they share.
      deps: Python libraries for all of them.
      data: data for all of them.
      options: `{"test_x.py": {...}}`: attributes of single tests; `data` is in addition.
      **kwargs: attributes of all tests.
    """
    shared = [src for src in srcs if not src.startswith("test_")]
    for src in options:
        if src not in srcs:
            fail("options: there is no %s" % src)
    for src in srcs:
        if src.startswith("test_"):
            pytest_test(
                name = src.removesuffix(".py"),
                srcs = [src] + shared,
                data = data + options.get(src, {}).get("data", []),
                deps = deps,
                **(kwargs | {key: value for key, value in options.get(src, {}).items() if key != "data"})
            )
