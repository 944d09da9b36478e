"""Tests of the rules at analysis: what they refuse and in which words, what they run with what."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts", "unittest")
load("//aoti:defs.bzl", "aoti_export", "aoti_library", "aoti_test")
load("//aoti:providers.bzl", "AotiModelInfo")
load("//aoti:toolchain.bzl", "aoti_toolchain")

# buildifier: disable=bzl-visibility
load("//aoti/private:targets.bzl", "capability", "check_targets", "group_by_lowering", "is_amds")

# buildifier: disable=bzl-visibility
load("//aoti/private/rules:test.bzl", "simulated_capabilities")
load(":failures.bzl", "failure_test", "make_failure_test")

# Functions.

def _targets_test_impl(ctx):
    env = unittest.begin(ctx)
    asserts.equals(env, "90", capability("sm_90"))
    asserts.equals(env, "100", capability("compute_100"))
    for bad in ["", "sm_", "sm_x", "gfx942", "90", "SM_90", "sm-90"]:
        asserts.equals(env, None, capability(bad))
    asserts.equals(
        env,
        {"sm_80": ["sm_80"], "sm_90": ["compute_90", "sm_90"]},
        group_by_lowering(["sm_90", "sm_80", "compute_90"]),
    )
    asserts.equals(
        env,
        str(group_by_lowering(["compute_90", "sm_90", "sm_80"])),
        str(group_by_lowering(["sm_80", "sm_90", "compute_90"])),
    )
    asserts.equals(env, None, check_targets(["sm_80", "compute_90"], ["80", "90"]))
    for target in ["gfx90a", "gfx942"]:
        asserts.true(env, is_amds(target))
    for bad in ["", "gfx", "gfx_942", "GFX942", "gfx90A", "sm_90"]:
        asserts.false(env, is_amds(bad))
    asserts.equals(
        env,
        {"gfx90a": ["gfx90a"], "gfx942": ["gfx942"]},
        group_by_lowering(["gfx942", "gfx90a"]),
    )
    asserts.equals(env, None, check_targets(["gfx942", "gfx90a"], ["90"], ["gfx90a", "gfx942"]))
    asserts.equals(
        env,
        "unknown target \"gfx1100\": this toolchain builds for sm_90, compute_90, gfx942",
        check_targets(["gfx1100"], ["90"], ["gfx942"]),
    )
    return unittest.end(env)

_targets_test = unittest.make(_targets_test_impl)

def _capabilities_test_impl(ctx):
    env = unittest.begin(ctx)
    targets = ["compute_90", "sm_80", "sm_90"]
    asserts.equals(env, (["90"], None), simulated_capabilities(targets, []))
    asserts.equals(env, (["100"], None), simulated_capabilities(["sm_90", "sm_100"], []))
    asserts.equals(env, (["80"], None), simulated_capabilities(["compute_80"], []))
    asserts.equals(env, (["80", "90"], None), simulated_capabilities(targets, ["90", "80", "90"]))

    # Machine code of 8.0 runs on 8.6, PTX of 9.0 on 10.0.
    asserts.equals(env, (["86", "100"], None), simulated_capabilities(targets, ["100", "86"]))
    for bad, message in [
        ("75", "capabilities: the library has no code for \"75\", only compute_90, sm_80, sm_90"),
        ("sm_90", "capabilities: \"sm_90\" is no compute capability such as \"90\""),
    ]:
        asserts.equals(env, ([], message), simulated_capabilities(targets, [bad]))
    return unittest.end(env)

_capabilities_test = unittest.make(_capabilities_test_impl)

# Refusals.

def _library_failure(name, message, **kwargs):
    """Declares an `aoti_library` that is wrong, and the test that says so."""
    library = kwargs.pop("library", name + "_library")
    aoti_library(
        name = library,
        model = kwargs.pop("model", "//tests/bazel/small:small_pt2"),
        tags = ["manual"],
        **kwargs
    )
    failure_test(
        name = name,
        message = message,
        target_under_test = ":" + library,
    )

def _export_failure(name, message, **kwargs):
    """Declares an `aoti_export` that is wrong, and the test that says so."""
    aoti_export(
        name = name + "_export",
        src = "//tests/bazel/small:small.py",
        tags = ["manual"],
        **kwargs
    )
    failure_test(
        name = name,
        message = message,
        target_under_test = ":%s_export" % name,
    )

def _test_failure(name, message, **kwargs):
    """Declares an `aoti_test` that is wrong, and the test that says so."""
    library = kwargs.pop("library", "//tests/bazel/small:small")
    aoti_test(
        name = name + "_wrong_test",
        library = library,
        shared_library = library + ".so",
        tags = ["manual"],
        **kwargs
    )
    failure_test(
        name = name,
        message = message,
        target_under_test = ":%s_wrong_test" % name,
    )

def _toolchain_failure(name, message, **kwargs):
    aoti_toolchain(
        name = name + "_toolchain",
        tags = ["manual"],
        **kwargs
    )
    failure_test(
        name = name,
        message = message,
        target_under_test = ":%s_toolchain" % name,
    )

# Actions.

def _actions_test_impl(ctx):
    env = analysistest.begin(ctx)
    actions = analysistest.target_actions(env)
    counts = {}
    for action in actions:
        counts[action.mnemonic] = counts.get(action.mnemonic, 0) + 1

    # Two capabilities; 8 shards of each.
    for mnemonic, count in [("AotiSplit", 1), ("AotiLower", 2), ("AotiCompile", 16), ("AotiWrap", 1)]:
        asserts.equals(env, count, counts.get(mnemonic, 0), mnemonic)

    for action in actions:
        inputs = [file.short_path for file in action.inputs.to_list()]
        outputs = [file.short_path for file in action.outputs.to_list()]
        if action.mnemonic == "AotiSplit":
            continue

        # Values of weights are no business of what follows.
        for path in inputs:
            asserts.false(env, path.endswith(".pt2"), "%s reads %s" % (action.mnemonic, path))
            asserts.false(env, path.endswith(".safetensors"), "%s reads %s" % (action.mnemonic, path))
        if action.mnemonic == "AotiCompile":
            shards = [path for path in inputs if "/shards/" in path]
            asserts.equals(env, 1, len(shards), "shards that a compilation reads")
            asserts.equals(env, 1, len(outputs))
            asserts.equals(
                env,
                shards[0].replace(".programs/", ".kernels/").replace("/shards/", "/"),
                outputs[0],
            )
    return analysistest.end(env)

_actions_test = analysistest.make(_actions_test_impl)

def _model_info_test_impl(ctx):
    env = analysistest.begin(ctx)
    info = analysistest.target_under_test(env)[AotiModelInfo]
    asserts.equals(env, "small", info.name)
    asserts.equals(env, ["compute_90", "sm_80", "sm_90"], info.targets)
    asserts.equals(env, ["sm_80", "sm_90"], [program.target for program in info.programs])
    asserts.equals(env, "external", info.weights_kind)
    asserts.equals(env, "model.h", info.header.basename)
    asserts.equals(env, "small.safetensors", info.weights.basename)
    for program in info.programs:
        asserts.equals(env, 8, len(program.shards))
        asserts.equals(env, [d.basename for d in program.shards], [d.basename for d in program.kernels])
    return analysistest.end(env)

_model_info_test = analysistest.make(_model_info_test_impl)

# AOTInductor's interface.

def _interface_test_impl(ctx):
    env = analysistest.begin(ctx)
    made = [
        file.basename
        for action in analysistest.target_actions(env)
        if action.mnemonic == "AotiWrap"
        for file in action.outputs.to_list()
    ]
    asserts.equals(env, ctx.attr.wanted, "aotinductor.cc" in made)
    return analysistest.end(env)

_interface_test = analysistest.make(
    _interface_test_impl,
    attrs = {"wanted": attr.bool()},
)

def _torch_package_test_impl(ctx):
    env = analysistest.begin(ctx)
    (action,) = analysistest.target_actions(env)
    asserts.equals(env, "AotiTorchPackage", action.mnemonic)
    asserts.equals(env, ["served.aotinductor.pt2"], [f.basename for f in action.outputs.to_list()])
    inputs = [file.basename for file in action.inputs.to_list()]
    for name in ["libserved.so", "served.safetensors", "model.cc"]:
        asserts.true(env, name in inputs, name)
    asserts.true(env, "--device cuda" in " ".join(action.argv), "the device")
    return analysistest.end(env)

_torch_package_test = analysistest.make(_torch_package_test_impl)

# Packages.

def _package_test_impl(ctx):
    env = analysistest.begin(ctx)
    (action,) = analysistest.target_actions(env)
    asserts.equals(env, "AotiPackage", action.mnemonic)
    paths = [file.short_path for file in action.inputs.to_list()]
    names = [file.basename for file in action.inputs.to_list()]

    # What the statement tells comes from these: no model, whose comments would change it, and of the
    # Python packages no more than what the tool itself needs, and the locks.
    for name in ["dlpack.h", "json.hpp", "aoti.cc", "requirements_torch.txt"] + ctx.attr.present:
        asserts.true(env, name in names, "%s is no input" % name)
    for name in ctx.attr.absent:
        asserts.false(env, name in names, "%s is an input" % name)
    asserts.equals(env, [], [name for name in names if name.endswith(".pt2")])
    asserts.equals(env, [], [path for path in paths if "aoti_pip_torch" in path])
    return analysistest.end(env)

_ATTRIBUTES_OF_PACKAGES = {
    "absent": attr.string_list(doc = "Names of files that are no inputs."),
    "present": attr.string_list(doc = "Names of files that are."),
}

_package_test = analysistest.make(_package_test_impl, attrs = _ATTRIBUTES_OF_PACKAGES)

_debug_package_test = analysistest.make(
    _package_test_impl,
    attrs = _ATTRIBUTES_OF_PACKAGES,
    config_settings = {str(Label("//aoti:debug")): ["nvtx"]},
)

# The simulator.

_SIMULATOR = str(Label("//aoti:simulator"))

def _simulator_test_impl(ctx):
    env = analysistest.begin(ctx)
    target = analysistest.target_under_test(env)
    runfiles = [file.short_path for file in target[DefaultInfo].default_runfiles.files.to_list()]
    actions = analysistest.target_actions(env)

    # Of a program that links the model.
    for path in ["simulator/libcuda.so.1", "simulator/executor", "simulator/interpreter/execute.py"]:
        asserts.equals(env, ctx.attr.wanted, path in runfiles, path)
    shards = [path for path in runfiles if "/shards/" in path]
    asserts.equals(env, 16 if ctx.attr.wanted else 0, len(shards))

    # Nothing that makes the model knows of it; what does stands beside.
    made = [file.short_path for action in actions for file in action.outputs.to_list()]
    asserts.equals(env, ctx.attr.wanted, "tests/bazel/small/small.simulator.cc" in made)
    for action in actions:
        outputs = [file.short_path for file in action.outputs.to_list()]
        if any(["small.simulator" in path for path in outputs]):
            continue
        for file in action.inputs.to_list():
            asserts.false(
                env,
                file.short_path.startswith("simulator/") or "small.simulator" in file.short_path,
                "%s of %s reads %s" % (action.mnemonic, outputs, file.short_path),
            )
        asserts.false(env, "simulator" in " ".join(action.argv or []), action.mnemonic)
    return analysistest.end(env)

_ATTRIBUTES = {"wanted": attr.bool()}

_simulator_off_test = analysistest.make(_simulator_test_impl, attrs = _ATTRIBUTES)

_simulator_on_test = analysistest.make(
    _simulator_test_impl,
    attrs = _ATTRIBUTES,
    config_settings = {_SIMULATOR: True},
)

def _shared_library_test_impl(ctx):
    env = analysistest.begin(ctx)
    target = analysistest.target_under_test(env)
    files = target[DefaultInfo].default_runfiles.files.to_list()
    for action in analysistest.target_actions(env):
        files = files + action.inputs.to_list()
    for file in files:
        asserts.false(env, "simulator" in file.short_path, file.short_path)
    return analysistest.end(env)

_simulated_shared_library_test = analysistest.make(
    _shared_library_test_impl,
    config_settings = {_SIMULATOR: True},
)

def _runtime_test_impl(ctx):
    env = analysistest.begin(ctx)
    paths = [
        file.path
        for action in analysistest.target_actions(env)
        for file in action.inputs.to_list()
    ]
    hip = [path for path in paths if "/internal_hip/" in path or "libinternal_hip." in path]
    cuda = [path for path in paths if "/internal/" in path or "libinternal." in path]
    asserts.equals(env, ctx.attr.hip, bool(hip), "whether HIP's runtime is linked")
    asserts.equals(env, not ctx.attr.hip, bool(cuda), "whether CUDA's runtime is linked")
    return analysistest.end(env)

_runtime_test = analysistest.make(
    _runtime_test_impl,
    attrs = {"hip": attr.bool(doc = "Whether it is HIP's.")},
)

# Debug builds.

_DEBUG = str(Label("//aoti:debug"))

def _debug_test_impl(ctx):
    env = analysistest.begin(ctx)
    (wrap,) = [action for action in analysistest.target_actions(env) if action.mnemonic == "AotiWrap"]
    argv = wrap.argv
    asked = [argv[i + 1] for i, argument in enumerate(argv) if argument == "--instrument"]
    asserts.equals(env, ctx.attr.modes, asked)
    return analysistest.end(env)

_debug_off_test = analysistest.make(
    _debug_test_impl,
    attrs = {"modes": attr.string_list()},
)

_debug_on_test = analysistest.make(
    _debug_test_impl,
    attrs = {"modes": attr.string_list()},
    config_settings = {_DEBUG: ["launches", "nan"]},
)

_unknown_debug_mode_test = make_failure_test({_DEBUG: ["nan", "slow"]})

# aoti_test.

def _settings_test_impl(ctx):
    env = analysistest.begin(ctx)
    written = [
        action.content
        for action in analysistest.target_actions(env)
        if action.outputs.to_list()[0].basename.endswith(".settings.json")
    ]
    asserts.equals(env, 1, len(written))
    settings = json.decode(written[0])
    asserts.equals(env, ctx.attr.device, settings["device"])
    asserts.equals(env, [80, 90], settings["capabilities"])
    asserts.equals(env, "always", settings["check_kernels"])
    asserts.equals(env, ["compute_90", "sm_80", "sm_90"], settings["targets"])
    asserts.equals(env, ["sm_80", "sm_90"], [program["target"] for program in settings["programs"]])

    # All that it names is there when it runs.
    runfiles = analysistest.target_under_test(env)[DefaultInfo].default_runfiles.files.to_list()
    present = [file.short_path for file in runfiles]
    for key in ["graph", "library", "model", "simulator", "weights"]:
        asserts.true(env, settings[key] in present, "%s is no runfile" % key)
    for program in settings["programs"]:
        for path in program["kernels"] + [program["program"]]:
            asserts.true(env, path in present, "%s is no runfile" % path)
    return analysistest.end(env)

_settings_test = analysistest.make(_settings_test_impl, attrs = {"device": attr.string()})

_forced_settings_test = analysistest.make(
    _settings_test_impl,
    attrs = {"device": attr.string()},
    config_settings = {str(Label("//aoti:test_device")): "simulator"},
)

# Tools.

def _packages_test_impl(ctx):
    env = analysistest.begin(ctx)
    runfiles = analysistest.target_under_test(env)[DefaultInfo].default_runfiles.files.to_list()
    for repository, expected in [
        ("aoti_pip_base", True),
        ("aoti_pip_dev", False),
        ("aoti_pip_torch", ctx.attr.torch),
        ("aoti_pip_transformers", False),
        ("aoti_pip_triton", ctx.attr.triton),
    ]:
        # With bzlmod the names have a prefix.
        present = any([file.owner.workspace_name.endswith(repository) for file in runfiles])
        asserts.equals(env, expected, present, "whether %s is there" % repository)

    # So is the interpreter, with its library, which the script starts by its place among them.
    for name in ["bin/python3", "lib/python3.11"]:
        path = "aoti_host_python/" + name
        asserts.true(env, any([file.path.endswith(path) for file in runfiles]), "%s is no input" % path)
    [script] = [
        action.content
        for action in analysistest.target_actions(env)
        if action.mnemonic == "FileWrite" and action.content.startswith("#!")
    ]
    asserts.true(env, script.startswith("#!/bin/sh\n"))
    asserts.true(env, "aoti_host_python/bin/python3\" -B" in script)
    asserts.false(env, "bin/python3.11" in script, "the machine's own Python is named")
    modules = [file.short_path for file in runfiles if file.short_path.startswith("wrapgen/")]
    for folder in ctx.attr.without:
        found = [path for path in modules if path.startswith("wrapgen/%s/" % folder)]
        asserts.equals(env, [], found)
    return analysistest.end(env)

_packages_test = analysistest.make(
    _packages_test_impl,
    attrs = {
        "torch": attr.bool(),
        "triton": attr.bool(),
        "without": attr.string_list(),
    },
)

def rules_test_suite(name):
    """Declares all tests of this file.

    Args:
      name: of the test suite.
    """
    _targets_test(name = "targets_test")
    _capabilities_test(name = "capabilities_test")
    _test_failure(
        name = "unknown_capability_test",
        capabilities = ["75"],
        message = ["capabilities: the library has no code for \"75\""],
    )
    _test_failure(
        name = "malformed_size_test",
        message = ["sizes: \"many\" is no size"],
        sizes = {"batch": ["many"]},
    )
    _settings_test(
        name = "settings_test",
        device = "auto",
        target_under_test = "//tests/bazel/small:small_test",
    )
    _forced_settings_test(
        name = "forced_device_test",
        device = "simulator",
        target_under_test = "//tests/bazel/small:small_test",
    )
    _export_failure(
        name = "line_break_test",
        args = {"shape": "[1,\n2]"},
        message = ["args: the value of \"shape\" has a line break; pass a number, a name or a literal in one line"],
    )
    _library_failure(
        name = "unknown_target_test",
        message = ["unknown target \"sm_42\": this toolchain builds for sm_80, compute_80, sm_86, compute_86,"],
        targets = ["sm_42"],
    )
    _library_failure(
        name = "two_vendors_test",
        message = [
            "targets sm_90, compute_90 run on NVIDIA's GPUs and gfx942 on AMD's: a library calls one " +
            "vendor's driver; build one for each",
        ],
        targets = ["sm_90", "gfx942", "compute_90"],
    )
    _library_failure(
        name = "aotinductor_for_amds_test",
        aotinductor = "cuda",
        message = ["aotinductor: the interface is there for NVIDIA's GPUs alone"],
        targets = ["gfx942"],
    )
    _test_failure(
        name = "test_of_amds_test",
        library = "//tests/bazel/small:small_hip",
        message = ["small_hip is for AMD's GPUs: the test runs models on NVIDIA's, or simulates one"],
    )
    _runtime_test(
        name = "runtime_test",
        target_under_test = "//tests/bazel/small:small.so",
    )
    _runtime_test(
        name = "hip_runtime_test",
        hip = True,
        target_under_test = "//tests/bazel/small:small_hip.so",
    )
    _simulated_shared_library_test(
        name = "hip_simulator_test",
        target_under_test = "//tests/bazel/small:small_hip",
    )
    _library_failure(
        name = "malformed_target_test",
        message = ["unknown target \"h100\": this toolchain builds for"],
        targets = ["h100"],
    )
    _library_failure(
        name = "repeated_target_test",
        message = ["target \"sm_90\" is named twice"],
        targets = ["sm_90", "sm_80", "sm_90"],
    )
    _library_failure(
        name = "embedded_weights_test",
        message = ["weights = \"embedded\" is not there yet; use \"external\""],
        targets = ["sm_90"],
        weights = "embedded",
    )
    for name in ["no-identifier", "Resnet", "a__b", "1st", "aoti_net"]:
        _library_failure(
            name = name + "_name_test",
            library = name,
            message = ["it must be lowercase words joined by single underscores"],
            targets = ["sm_90"],
        )
    _toolchain_failure(
        name = "native_isa_test",
        march = "native",
        message = ["\"native\" makes the library depend on the machine that builds it"],
    )
    _toolchain_failure(
        name = "no_isa_test",
        march = "",
        message = ["march: name an instruction set"],
    )
    _toolchain_failure(
        name = "no_shards_test",
        message = ["shards: 0 is less than 1"],
        shards = 0,
    )
    _interface_test(
        name = "interface_test",
        target_under_test = "//tests/aotinductor:served",
        wanted = True,
    )
    _interface_test(
        name = "no_interface_test",
        target_under_test = "//tests/bazel/small",
        wanted = False,
    )
    _torch_package_test(
        name = "torch_package_test",
        target_under_test = "//tests/aotinductor:served.aotinductor",
    )
    _package_test(
        name = "package_test",
        absent = ["hip.cc", "debug.cc", "interface.cc", "requirements_nvtx.txt"],
        present = ["small.graph.json", "cuda.cc", "ptxas", "kernels.S"],
        target_under_test = "//tests/bazel/small:small.package",
    )
    _package_test(
        name = "hip_package_test",
        absent = ["cuda.cc", "ptxas"],
        present = ["small_hip.graph.json", "hip.cc"],
        target_under_test = "//tests/bazel/small:small_hip.package",
    )
    _package_test(
        name = "aotinductor_package_test",
        present = ["aotinductor.cc", "interface.cc"],
        target_under_test = "//tests/aotinductor:served.package",
    )
    _debug_package_test(
        name = "debug_package_test",
        present = ["debug.cc", "nvtx.cc", "requirements_nvtx.txt"],
        target_under_test = "//tests/bazel/small:small.package",
    )
    _actions_test(
        name = "actions_test",
        target_under_test = "//tests/bazel/small",
    )
    _model_info_test(
        name = "model_info_test",
        target_under_test = "//tests/bazel/small",
    )
    _simulator_off_test(
        name = "simulator_off_test",
        target_under_test = "//tests/bazel/small",
    )
    _simulator_on_test(
        name = "simulator_on_test",
        target_under_test = "//tests/bazel/small",
        wanted = True,
    )
    _debug_off_test(
        name = "debug_off_test",
        target_under_test = "//tests/bazel/small",
    )
    _debug_on_test(
        name = "debug_on_test",
        modes = ["launches", "nan"],
        target_under_test = "//tests/bazel/small",
    )
    _unknown_debug_mode_test(
        name = "unknown_debug_mode_test",
        message = [
            "--//aoti:debug: unknown mode \"slow\"; expected some of launches, nan, nvtx, sync, " +
            "values, separated by commas",
        ],
        target_under_test = "//tests/bazel/small",
    )
    _simulated_shared_library_test(
        name = "simulated_shared_library_test",
        target_under_test = "//tests/bazel/small:small.so",
    )
    for tool, torch, triton, without in [
        ("export", True, True, ["codegen", "intake", "kernels", "lowering"]),
        ("split", False, False, ["codegen", "kernels", "lowering"]),
        ("lower", True, True, ["codegen", "intake"]),
        ("compile", False, True, ["codegen", "intake", "lowering"]),
        ("wrap", False, False, ["intake", "lowering"]),
        ("package", False, False, ["codegen", "intake", "lowering"]),
        ("verify", False, False, ["codegen", "intake", "kernels", "lowering"]),
    ]:
        _packages_test(
            name = tool + "_packages_test",
            target_under_test = "//wrapgen:" + tool,
            torch = torch,
            triton = triton,
            without = without,
        )
