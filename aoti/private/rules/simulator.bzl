"""What `aoti_library` adds where `--//aoti:simulator` is set."""

load("@rules_cc//cc:find_cc_toolchain.bzl", "find_cc_toolchain", "use_cc_toolchain")
load("@rules_cc//cc/common:cc_common.bzl", "cc_common")
load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")
load("//aoti:providers.bzl", "AotiModelInfo")
load("//aoti/private:runfiles.bzl", "runfiles_path")
load("//aoti/private:targets.bzl", "is_amds")
load("//aoti/private/actions:cc.bzl", "cc_archive", "cc_compile", "cc_features")
load("//aoti/private/actions:simulator.bzl", "write_simulator_link")

AotiSimulatorInfo = provider(
    doc = "The simulator, or nothing where it is not wanted.",
    fields = {
        "driver": "`File`: its `libcuda.so.1`; `None` where it is not wanted.",
        "executor": "`File`: the executable that runs kernels for it.",
        "link": "`CcInfo`: what a program links to use it.",
        "runfiles": "`runfiles` of both.",
    },
)

def link_simulator(ctx, *, simulator, name, model, march, programs):
    """Declares what makes a program that links a model run on the simulator.

    Args:
      ctx: the context of a rule with a C++ toolchain.
      simulator: `AotiSimulatorInfo`.
      name: what the outputs' names begin with.
      model: what the generated code calls the model.
      march: the instruction set, as gcc's `-march`.
      programs: list of `AotiProgramInfo`, of which it can run none if there is none.

    Returns:
      A list of linking contexts and the runfiles, both empty where no simulator is wanted.
    """
    if not simulator.driver or not programs:
        return [], ctx.runfiles()
    cc_toolchain = find_cc_toolchain(ctx)
    features = cc_features(ctx, cc_toolchain)
    directories = [directory for program in programs for directory in program.shards + program.kernels]

    # What holds them: a shard without kernels is an empty directory, which a sandbox leaves out.
    parents = {runfiles_path(ctx.workspace_name, directory).rpartition("/")[0]: None for directory in directories}
    source = ctx.actions.declare_file(name + ".simulator.cc")
    write_simulator_link(
        ctx.actions,
        name = model,
        driver = runfiles_path(ctx.workspace_name, simulator.driver),
        executor = runfiles_path(ctx.workspace_name, simulator.executor),
        directories = parents.keys(),
        out = source,
    )
    _, objects = cc_compile(
        ctx.actions,
        cc_toolchain = cc_toolchain,
        features = features,
        name = name + ".simulator",
        march = march,
        srcs = [source],
        hdrs = [],
        deps = [simulator.link],
    )
    linking_context, _ = cc_archive(
        ctx.actions,
        cc_toolchain = cc_toolchain,
        features = features,
        name = name + ".simulator",
        compilation_outputs = [objects],
        deps = [simulator.link],
        alwayslink = True,
    )
    return [linking_context], ctx.runfiles(directories).merge(simulator.runfiles)

def _aoti_simulator_impl(ctx):
    if not ctx.attr.driver:
        return [AotiSimulatorInfo(driver = None, executor = None, link = None, runfiles = None)]
    return [AotiSimulatorInfo(
        driver = ctx.file.driver,
        executor = ctx.executable.executor,
        link = ctx.attr.link[CcInfo],
        runfiles = ctx.runfiles([ctx.file.driver]).merge(ctx.attr.executor[DefaultInfo].default_runfiles),
    )]

aoti_simulator = rule(
    implementation = _aoti_simulator_impl,
    doc = "The simulator; without attributes, none.",
    attrs = {
        "driver": attr.label(
            doc = "A `libcuda.so.1`.",
            allow_single_file = True,
        ),
        "executor": attr.label(
            doc = "The process that it starts.",
            cfg = "target",
            executable = True,
        ),
        "link": attr.label(
            doc = "The library with `simulator::LinkedModel`.",
            providers = [CcInfo],
        ),
    },
    provides = [AotiSimulatorInfo],
)

def _aoti_simulator_link_impl(ctx):
    model = ctx.attr.library[AotiModelInfo]
    if is_amds(model.targets[0]):
        fail("%s: %s is for AMD's GPUs, of which there is no simulated one" % (ctx.label, ctx.attr.library.label))
    contexts, runfiles = link_simulator(
        ctx,
        simulator = ctx.attr._simulator[AotiSimulatorInfo],
        name = ctx.label.name,
        model = model.name,
        march = ctx.toolchains["//aoti:toolchain_type"].aoti.march,
        programs = model.programs,
    )
    return [
        CcInfo(linking_context = cc_common.merge_linking_contexts(linking_contexts = contexts)),
        DefaultInfo(runfiles = runfiles),
    ]

aoti_simulator_link = rule(
    implementation = _aoti_simulator_link_impl,
    doc = "To be linked beside an `aoti_library`: the program then runs on the simulator, whatever " +
          "`--//aoti:simulator` says.",
    attrs = {
        "library": attr.label(
            doc = "The `aoti_library`.",
            mandatory = True,
            providers = [AotiModelInfo],
        ),
        "_simulator": attr.label(
            doc = "The simulator.",
            default = Label("//simulator:enabled"),
            providers = [AotiSimulatorInfo],
        ),
    },
    fragments = ["cpp"],
    provides = [CcInfo],
    toolchains = ["//aoti:toolchain_type"] + use_cc_toolchain(),
)
