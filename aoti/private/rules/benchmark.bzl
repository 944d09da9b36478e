"""The rule behind `:NAME_benchmark`."""

load("@bazel_skylib//rules:common_settings.bzl", "BuildSettingInfo")
load("//aoti:providers.bzl", "AotiModelInfo", "AotiReportInfo")
load("//aoti/private:targets.bzl", "is_amds")
load("//aoti/private/actions:benchmark.bzl", "write_benchmark")
load(":simulator.bzl", "AotiSimulatorInfo")

def _numbers(label, values):
    for value in values:
        if not value.isdigit():
            fail("%s: sizes: \"%s\" is no size" % (label, value))
    return [int(value) for value in values]

def _aoti_benchmark_impl(ctx):
    model = ctx.attr.library[AotiModelInfo]
    if is_amds(model.targets[0]):
        fail("%s: %s is for AMD's GPUs: the benchmark runs models on NVIDIA's" % (ctx.label, ctx.attr.library.label))
    simulator = ctx.attr._simulator[AotiSimulatorInfo]
    report = ctx.attr.report[AotiReportInfo]
    driver = ctx.attr._driver[DefaultInfo]
    settings_file = ctx.actions.declare_file(ctx.label.name + ".settings.json")
    script = ctx.actions.declare_file(ctx.label.name)
    simulated = [
        file
        for program in model.programs
        for file in program.shards + program.kernels
    ] if simulator.driver else []
    write_benchmark(
        ctx.actions,
        settings = {
            "device": ctx.attr._device[BuildSettingInfo].value,
            "executor": simulator.executor.short_path if simulator.driver else "",
            "input_ranges": ctx.attr.input_ranges,
            "kernels": {
                program.target: [
                    directory.short_path
                    for directory in program.shards + program.kernels
                ]
                for program in model.programs
            } if simulator.driver else {},
            "library": ctx.file.shared_library.short_path,
            "name": "//%s:%s" % (ctx.label.package, ctx.label.name),
            "report": report.json.short_path,
            "simulator": simulator.driver.short_path if simulator.driver else "",
            "sizes": {
                name: _numbers(ctx.label, values)
                for name, values in ctx.attr.sizes.items()
            },
            "targets": model.targets,
            "timing_driver": ctx.file._timing_driver.short_path,
            "weights": model.weights.short_path,
        },
        driver = driver.files_to_run.executable,
        workspace = ctx.workspace_name,
        settings_file = settings_file,
        script = script,
    )
    runfiles = ctx.runfiles([
        settings_file,
        ctx.file.shared_library,
        ctx.file._timing_driver,
        model.weights,
        report.json,
    ] + simulated).merge(driver.default_runfiles)
    if simulator.driver:
        runfiles = runfiles.merge(simulator.runfiles)
    return [DefaultInfo(executable = script, runfiles = runfiles)]

aoti_benchmark = rule(
    implementation = _aoti_benchmark_impl,
    doc = """Times a model's shared library on the GPU of the machine that it is run on.

To be run with `bazel run`; see docs/benchmark.md.""",
    attrs = {
        "input_ranges": attr.string_dict(
            doc = "Where inputs' values are drawn from, by the input's name: `{\"input_ids\": \"0:30522\"}` " +
                  "is from 0 to 30521. By default integers are 0 and 1.",
        ),
        "library": attr.label(
            doc = "The `aoti_library`.",
            mandatory = True,
            providers = [AotiModelInfo],
        ),
        "report": attr.label(
            doc = "Its report.",
            mandatory = True,
            providers = [AotiReportInfo],
        ),
        "shared_library": attr.label(
            doc = "Its shared library.",
            allow_single_file = [".so"],
            mandatory = True,
        ),
        "sizes": attr.string_list_dict(
            doc = "The sizes to measure, by the name of the symbol: `{\"batch\": [\"1\", \"8\"]}`. By default " +
                  "its least, 37 and 64 where these are in its range.",
        ),
        "_device": attr.label(
            doc = "The flag.",
            default = Label("//aoti:test_device"),
            providers = [BuildSettingInfo],
        ),
        "_driver": attr.label(
            doc = "What loads and times the library.",
            default = Label("//aoti/benchmark:main"),
            cfg = "target",
            executable = True,
        ),
        "_simulator": attr.label(
            doc = "The simulator, where `--//aoti:test_device=simulator` asks for it.",
            default = Label("//simulator:for_benchmarks"),
            providers = [AotiSimulatorInfo],
        ),
        "_timing_driver": attr.label(
            doc = "What hands calls on to the machine's driver and times launches.",
            default = Label("//aoti/benchmark:libcuda.so.1"),
            allow_single_file = True,
        ),
    },
    executable = True,
)
