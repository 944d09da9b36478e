"""Rules that build PyTorch models into C++ libraries for the GPUs you declare.

No GPU or driver is needed, or looked at, at build time. A model exported elsewhere, for two
generations of GPUs:

```starlark
load("@rules_aoti//aoti:defs.bzl", "aoti_library")

aoti_library(
    name = "ranker",
    model = "ranker.pt2",
    targets = ["sm_80", "sm_90"],
)

cc_binary(
    name = "server",
    srcs = ["server.cc"],     # #include "PACKAGE/ranker/model.h"
    deps = [":ranker"],
)
```

A model exported by the build, with PTX for GPUs that are still to come:

```starlark
load("@rules_aoti//aoti:defs.bzl", "aoti_export", "aoti_library")

aoti_export(
    name = "resnet_pt2",
    src = "resnet.py",
    entry_point = "export",
    args = {"batch": "1"},
)

aoti_library(
    name = "resnet",
    model = ":resnet_pt2",
    targets = ["sm_90", "compute_90"],
)
```

A model for the GPU of whatever platform is built for (`--platforms=//platforms:h100`):

```starlark
load("@rules_aoti//aoti:defs.bzl", "aoti_library")

aoti_library(
    name = "ranker",
    model = "ranker.pt2",
)

platform(
    name = "h100",
    constraint_values = [
        "@platforms//cpu:x86_64",
        "@platforms//os:linux",
        "@rules_aoti//aoti/gpu:sm_90",
    ],
)
```
"""

load("//aoti/private:targets.bzl", "is_amds")
load("//aoti/private/rules:asked_targets.bzl", "gpu_vendor")
load("//aoti/private/rules:benchmark.bzl", _aoti_benchmark = "aoti_benchmark")
load("//aoti/private/rules:export.bzl", _aoti_export = "aoti_export")
load("//aoti/private/rules:for_gpu.bzl", _aoti_for_gpu = "aoti_for_gpu")
load("//aoti/private/rules:library.bzl", "aoti_library_rule")
load("//aoti/private/rules:package.bzl", "aoti_package")
load("//aoti/private/rules:report.bzl", "aoti_report")
load("//aoti/private/rules:shared_library.bzl", "aoti_shared_library")
load("//aoti/private/rules:standalone.bzl", "aoti_standalone")
load("//aoti/private/rules:test.bzl", _aoti_test = "aoti_test")
load("//aoti/private/rules:torch_package.bzl", "aoti_torch_package")
load("//aoti/private/rules:tune.bzl", "aoti_tune")

aoti_benchmark = _aoti_benchmark
aoti_export = _aoti_export
aoti_for_gpu = _aoti_for_gpu

# What a target that does nothing without a GPU is tagged with.
_REQUIRES_GPU = "requires-gpu"

def aoti_test(name, **kwargs):
    """Runs a model's shared library beside eager PyTorch, on a GPU or on the simulator.

    See docs/testing.md. `aoti_library` declares one for each model. With `device = "gpu"` it is
    tagged `requires-gpu`.

    Args:
      name: of the test.
      **kwargs: attributes of the rule, and those that all tests have.
    """
    tags = kwargs.pop("tags", None) or []
    if kwargs.get("device") == "gpu" and _REQUIRES_GPU not in tags:
        tags = tags + [_REQUIRES_GPU]
    _aoti_test(
        name = name,
        tags = tags,
        **kwargs
    )

def _is_for_amds(targets):
    """Whether targets name a GPU of AMD's; what a `select`, the flag or the platform says is not known here."""
    return type(targets) == "list" and any([is_amds(target) for target in targets])

def _unless_for_amds(name, targets):
    """Returns the `target_compatible_with` of what there is for NVIDIA's GPUs alone."""
    vendor = name + ".gpu_vendor"
    for_amds = name + ".is_for_amds"
    gpu_vendor(
        name = vendor,
        tags = ["manual"],
        targets = targets,
        visibility = ["//visibility:private"],
    )
    native.config_setting(
        name = for_amds,
        flag_values = {":" + vendor: "amd"},
        visibility = ["//visibility:private"],
    )
    return select({
        ":" + for_amds: [Label("@platforms//:incompatible")],
        "//conditions:default": [],
    })

def aoti_library(name, model, targets = None, weights = "external", options = [], tuning = None, aotinductor = "", test = {}, benchmark = {}, **kwargs):
    """A model as a C++ library, a shared library, an archive to deploy, a test and a benchmark.

    Declares:

    * `:name`, to be used as a `cc_library`: the generated class, in `PACKAGE/name/model.h`, and the C
      ABI of `runtime/aoti.h`. The weights are among its runfiles. Output groups: `program`
      (programs), `sites` (which configuration each kernel has), `shards` (kernels' TTIR), `kernels`
      (compiled kernels), `sources` (generated C++ and kernels' sources), `weights`.
    * `:name.so`: the same as `libname.so`, which exports the C ABI and needs libc, libm,
      libstdc++ and libgcc only.
    * `:name.package`: an archive of the shared library, the weights, the headers and a manifest. Its
      bytes depend on its content alone.
    * `:name.report`: what the library does on a device: `name.report.md` for a reader,
      `name.report.json` for programs. Kernels, launches, memory; see docs/report.md.
    * `:name.standalone`: the model as one file, `name.cc`, for a build without Bazel: with `name.h`,
      `kernels/` and `name.weights`. It is built where it is asked for by name.
    * `:name.aotinductor`, with `aotinductor`: `name.aotinductor.pt2`, the shared library and the
      weights as `torch._inductor.aoti_load_package` loads them.
    * `:name.tune`: `bazel run` it on a machine with a GPU: it measures kernels in several configurations
      and writes the tuning lock into the source tree (docs/tuning.md). Building it needs no GPU. It is
      built where it is asked for by name. A library for AMD's GPUs has none.
    * `:name_test`: an `aoti_test`, which compares the shared library with eager PyTorch, on a GPU or
      on the simulator. A library for AMD's GPUs has none: the simulator is a GPU of NVIDIA's.
      Where the flag or the platform asks for AMD's, it is incompatible, and skipped.
    * `:name_benchmark`: an `aoti_benchmark`, to be run on a machine with a GPU: load time, latency,
      throughput, memory, time by kernel. A library for AMD's GPUs has none either.

    Args:
      name: lowercase words joined by single underscores; the generated code bears it.
      model: a `.pt2` file of `torch.export.save`, or a label that gives one.
      targets: what to build for: `sm_90` is machine code for compute capability 9.0, `compute_90` is
        PTX, which the driver of a newer GPU compiles when the model is loaded; `gfx90a` and `gfx942`
        are machine code for AMD's MI200 and MI300. A library is for one vendor's GPUs. By default the
        GPU of the platform that is built for, of which `@rules_aoti//aoti/gpu:sm_90` and its like are
        constraint values. The flag `--@rules_aoti//aoti:targets` comes before both.
      weights: `external`: the library is told at run time where the file with the weights is.
      options: ways to make kernels that are not always the faster ones: `cooperative_reductions`,
        `dependent_launch` (docs/generator.md). One that a target cannot use changes nothing for it.
      tuning: the tuning lock, such as `ranker.tuning.json` beside this file: configurations of kernels
        that were measured to be faster than the default (docs/tuning.md). It is checked in.
      aotinductor: `cuda` or `cpu`: the shared library exports AOTInductor's interface too, and is
        packed for PyTorch. Callers have their tensors on a CUDA device; or on the CPU, from where
        each call copies them to CUDA device 0 and back.
      test: attributes of the test, such as `{"size": "small", "sizes": {"batch": ["1", "8"]}}`; see
        `aoti_test`. Its `tags` are in addition to the library's. `None` declares no test.
      benchmark: attributes of the benchmark, `sizes` and `input_ranges`; see `aoti_benchmark`. By
        default those of the test. `None` declares no benchmark.
      **kwargs: attributes that all rules have, for all targets.
    """
    if aotinductor not in ["", "cuda", "cpu"]:
        fail("//%s:%s: aotinductor = \"%s\": expected cuda or cpu, which is where callers have their tensors, or nothing" %
             (native.package_name(), name, aotinductor))
    aoti_library_rule(
        name = name,
        aotinductor = aotinductor != "",
        model = model,
        targets = targets,
        weights = weights,
        options = options,
        tuning = tuning,
        **kwargs
    )
    aoti_shared_library(
        name = name + ".so",
        library = ":" + name,
        **kwargs
    )
    aoti_package(
        name = name + ".package",
        library = ":" + name,
        shared_library = ":" + name + ".so",
        **kwargs
    )
    aoti_report(
        name = name + ".report",
        library = ":" + name,
        **kwargs
    )
    aoti_standalone(
        name = name + ".standalone",
        library = ":" + name,
        tags = kwargs.get("tags", []) + ["manual"],
        **{key: value for key, value in kwargs.items() if key != "tags"}
    )
    if aotinductor:
        aoti_torch_package(
            name = name + ".aotinductor",
            device = aotinductor,
            library = ":" + name,
            shared_library = ":" + name + ".so",
            **kwargs
        )
    if _is_for_amds(targets):
        for attribute, asked in [("test", test), ("benchmark", benchmark)]:
            if asked:
                fail("%s: %s: a library for AMD's GPUs has no %s: the simulator is a GPU of NVIDIA's" %
                     (name, attribute, attribute))
        return
    aoti_tune(
        name = name + ".tune",
        library = ":" + name,
        options = options,
        tags = kwargs.get("tags", []) + ["manual"],
        tuning = tuning,
        **{key: value for key, value in kwargs.items() if key != "tags"}
    )
    if test == None and benchmark == None:
        return
    incompatible = _unless_for_amds(name, targets)
    if test != None:
        attributes = kwargs | test
        aoti_test(
            name = name + "_test",
            library = ":" + name,
            shared_library = ":" + name + ".so",
            tags = kwargs.get("tags", []) + test.get("tags", []),
            target_compatible_with = attributes.get("target_compatible_with", []) + incompatible,
            **{key: value for key, value in attributes.items() if key not in ["tags", "target_compatible_with"]}
        )
    if benchmark != None:
        of_test = {key: value for key, value in (test or {}).items() if key in ["input_ranges", "sizes"]}
        attributes = kwargs | of_test | benchmark
        aoti_benchmark(
            name = name + "_benchmark",
            library = ":" + name,
            report = ":" + name + ".report",
            shared_library = ":" + name + ".so",
            tags = kwargs.get("tags", []) + benchmark.get("tags", []) + [_REQUIRES_GPU],
            target_compatible_with = attributes.get("target_compatible_with", []) + incompatible,
            **{key: value for key, value in attributes.items() if key not in ["tags", "target_compatible_with"]}
        )
