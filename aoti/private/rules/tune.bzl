"""The rule behind `:NAME.tune`."""

load("//aoti:providers.bzl", "AotiModelInfo")
load("//aoti/private:targets.bzl", "is_amds")
load("//aoti/private/actions:candidates.bzl", "candidates")
load("//aoti/private/actions:compile.bzl", "compile")
load("//aoti/private/actions:test.bzl", "write_test")

def _program(ctx, model, target):
    """Makes and compiles the candidates for one compute capability."""
    toolchain = ctx.toolchains["//aoti:toolchain_type"].aoti
    made = candidates(
        ctx.actions,
        toolchain = toolchain,
        graph = model.graph,
        target = target,
        options = ctx.attr.options,
        count = ctx.attr.candidates,
        directory = "%s.candidates/%s" % (ctx.label.name, target),
    )
    kernels = []
    for shard in made.shards:
        out = ctx.actions.declare_directory("%s.kernels/%s/%s" % (ctx.label.name, target, shard.basename))
        compile(
            ctx.actions,
            toolchain = toolchain,
            shard = shard,
            targets = [target],
            out = out,
            keep_going = True,
        )
        kernels.append(out)
    return struct(target = target, candidates = made.candidates, shards = made.shards, kernels = kernels)

def _aoti_tune_impl(ctx):
    model = ctx.attr.library[AotiModelInfo]
    if is_amds(model.targets[0]):
        fail("%s: %s is for AMD's GPUs: the tuner measures on NVIDIA's; write the lock by hand (docs/tuning.md)" %
             (ctx.label, ctx.attr.library.label))
    lock = ctx.file.tuning
    if lock:
        output = lock.short_path if lock.is_source and not lock.short_path.startswith("../") else ""
    elif ctx.label.workspace_name:
        output = ""
    else:
        output = "/".join([part for part in [ctx.label.package, model.name + ".tuning.json"] if part])
    programs = [_program(ctx, model, program.target) for program in model.programs]
    settings_file = ctx.actions.declare_file(ctx.label.name + ".settings.json")
    script = ctx.actions.declare_file(ctx.label.name)
    driver = ctx.attr._driver[DefaultInfo]
    write_test(
        ctx.actions,
        settings = {
            "name": "//%s:%s" % (ctx.label.package, ctx.label.name),
            "output": output,
            "programs": [
                {
                    "candidates": program.candidates.short_path,
                    "kernels": [directory.short_path for directory in program.kernels],
                    "target": program.target,
                }
                for program in programs
            ],
            "tuning": bool(lock),
        },
        driver = driver.files_to_run.executable,
        workspace = ctx.workspace_name,
        settings_file = settings_file,
        script = script,
    )
    files = [settings_file] + [program.candidates for program in programs]
    kernels = [directory for program in programs for directory in program.kernels]
    shards = [shard for program in programs for shard in program.shards]
    return [
        DefaultInfo(
            executable = script,
            runfiles = ctx.runfiles(files + kernels).merge(driver.default_runfiles),
        ),
        OutputGroupInfo(
            candidates = depset([program.candidates for program in programs]),
            kernels = depset(kernels),
            shards = depset(shards),
        ),
    ]

aoti_tune = rule(
    implementation = _aoti_tune_impl,
    doc = """Measures a library's kernels in several configurations on the machine's GPU.

To be run: `bazel run :NAME.tune` writes the tuning lock into the source tree. Building it needs no GPU.
See docs/tuning.md. `aoti_library` declares one for each model.""",
    attrs = {
        "candidates": attr.int(
            doc = "How many configurations of each kernel are measured, the default among them.",
            default = 8,
        ),
        "library": attr.label(
            doc = "The `aoti_library`.",
            mandatory = True,
            providers = [AotiModelInfo],
        ),
        "options": attr.string_list(
            doc = "The library's options of lowering.",
        ),
        "tuning": attr.label(
            doc = "The library's tuning lock, which is written; by default `NAME.tuning.json` in its package.",
            allow_single_file = [".json"],
        ),
        "_driver": attr.label(
            doc = "What measures; Python and no package.",
            default = Label("//wrapgen:tune"),
            cfg = "target",
            executable = True,
        ),
    },
    executable = True,
    toolchains = ["//aoti:toolchain_type"],
)
