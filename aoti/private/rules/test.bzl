"""The rule `aoti_test`."""

load("@bazel_skylib//rules:common_settings.bzl", "BuildSettingInfo")
load("//aoti:providers.bzl", "AotiModelInfo")
load("//aoti/private:targets.bzl", "capability", "is_amds")
load("//aoti/private/actions:test.bzl", "write_test")

DEVICES = ["auto", "gpu", "simulator"]

def simulated_capabilities(targets, asked):
    """Says which compute capabilities to simulate.

    Args:
      targets: what the library carries code for.
      asked: the attribute `capabilities`.

    Returns:
      A list of strings such as `"90"`, sorted by number; and a message, or `None` if all is well.
    """
    machine = [capability(target) for target in targets if target.startswith("sm_")]
    portable = [capability(target) for target in targets if target.startswith("compute_")]
    if not asked:
        asked = [str(max([int(number) for number in machine or portable]))]
    for number in asked:
        if not number.isdigit():
            return [], "capabilities: \"%s\" is no compute capability such as \"90\"" % number
        fits = [
            built
            for built in machine
            if built == number or (int(built) < 90 and int(built) // 10 == int(number) // 10 and int(built) <= int(number))
        ] + [built for built in portable if int(built) <= int(number)]
        if not fits:
            return [], "capabilities: the library has no code for \"%s\", only %s" % (
                number,
                ", ".join(targets),
            )
    return [str(number) for number in sorted({int(number): None for number in asked}.keys())], None

def _numbers(label, attribute, values):
    for value in values:
        if not value.isdigit():
            fail("%s: %s: \"%s\" is no size" % (label, attribute, value))
    return [int(value) for value in values]

def _aoti_test_impl(ctx):
    model = ctx.attr.library[AotiModelInfo]
    if is_amds(model.targets[0]):
        fail("%s: %s is for AMD's GPUs: the test runs models on NVIDIA's, or simulates one" % (ctx.label, ctx.attr.library.label))
    capabilities, message = simulated_capabilities(model.targets, ctx.attr.capabilities)
    if message:
        fail("%s: %s" % (ctx.label, message))
    settings_file = ctx.actions.declare_file(ctx.label.name + ".settings.json")
    script = ctx.actions.declare_file(ctx.label.name)
    driver = ctx.attr._driver[DefaultInfo]
    settings = {
        "capabilities": [int(number) for number in capabilities],
        "check_kernels": ctx.attr.check_kernels,
        "device": ctx.attr.device or ctx.attr._device[BuildSettingInfo].value,
        "graph": model.graph.short_path,
        "input_ranges": ctx.attr.input_ranges,
        "library": ctx.file.shared_library.short_path,
        "model": model.model.short_path,
        "name": "//%s:%s" % (ctx.label.package, ctx.label.name),
        "programs": [
            {
                "kernels": [directory.short_path for directory in program.kernels],
                "program": program.program.short_path,
                "target": program.target,
            }
            for program in model.programs
        ],
        "seeds": ctx.attr.seeds,
        "simulator": ctx.file._simulator.short_path,
        "sizes": {
            name: _numbers(ctx.label, "sizes", values)
            for name, values in ctx.attr.sizes.items()
        },
        "targets": model.targets,
        "tolerance": ctx.attr.tolerance,
        "weights": model.weights.short_path,
    }
    write_test(
        ctx.actions,
        settings = settings,
        driver = driver.files_to_run.executable,
        workspace = ctx.workspace_name,
        settings_file = settings_file,
        script = script,
    )
    files = [
        settings_file,
        ctx.file.shared_library,
        ctx.file._simulator,
        model.graph,
        model.model,
        model.weights,
    ]
    for program in model.programs:
        files += [program.program] + program.shards + program.kernels
    return [
        DefaultInfo(
            executable = script,
            runfiles = ctx.runfiles(files).merge(driver.default_runfiles),
        ),
        RunEnvironmentInfo(environment = {
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
        }),
    ]

aoti_test = rule(
    implementation = _aoti_test_impl,
    doc = """Runs a model's shared library beside eager PyTorch, on a GPU or on the simulator.

See docs/testing.md. `aoti_library` declares one for each model.""",
    attrs = {
        "capabilities": attr.string_list(
            doc = "The compute capabilities to simulate where there is no GPU, such as `90`; by default the " +
                  "highest that the library has machine code for.",
        ),
        "check_kernels": attr.string(
            doc = "When to compare each kernel's results with the operations they stand for: `auto`, when the " +
                  "model's results are wrong; `always`; `never`.",
            default = "auto",
            values = ["always", "auto", "never"],
        ),
        "device": attr.string(
            doc = "`gpu`, `simulator`, or `auto`: the machine's GPU if it has one that the library has code " +
                  "for, else the simulator. By default what the flag `--@rules_aoti//aoti:test_device` says.",
            values = ["", "auto", "gpu", "simulator"],
        ),
        "input_ranges": attr.string_dict(
            doc = "Where inputs' values are drawn from, by the input's name: `{\"input_ids\": \"0:30522\"}` " +
                  "is from 0 to 30521.",
        ),
        "library": attr.label(
            doc = "The `aoti_library`.",
            mandatory = True,
            providers = [AotiModelInfo],
        ),
        "seeds": attr.int(
            doc = "How many sets of random inputs are tried at the first sizes.",
            default = 2,
        ),
        "shared_library": attr.label(
            doc = "Its shared library.",
            allow_single_file = [".so"],
            mandatory = True,
        ),
        "sizes": attr.string_list_dict(
            doc = "The sizes to test, by the name of the symbol: `{\"batch\": [\"1\", \"7\"]}`. By default " +
                  "its least, 37 and 64 where these are in its range.",
        ),
        "tolerance": attr.string_dict(
            doc = "Limits of the relative error by the output's name, in place of the computed ones: " +
                  "`{\"logits\": \"2e-3\"}`.",
        ),
        "_device": attr.label(
            doc = "The flag.",
            default = Label("//aoti:test_device"),
            providers = [BuildSettingInfo],
        ),
        "_driver": attr.label(
            doc = "What runs the library and PyTorch.",
            default = Label("//aoti/testing:main"),
            cfg = "target",
            executable = True,
        ),
        "_simulator": attr.label(
            doc = "A libcuda.so.1 for machines without a GPU.",
            default = Label("//simulator:libcuda.so.1"),
            allow_single_file = True,
        ),
    },
    test = True,
)
