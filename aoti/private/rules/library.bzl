"""The rule behind the macro `aoti_library`."""

load("@bazel_skylib//lib:paths.bzl", "paths")
load("@bazel_skylib//rules:common_settings.bzl", "BuildSettingInfo")
load("@rules_cc//cc:find_cc_toolchain.bzl", "find_cc_toolchain", "use_cc_toolchain")
load("@rules_cc//cc/common:cc_common.bzl", "cc_common")
load("@rules_cc//cc/common:cc_info.bzl", "CcInfo")
load("//aoti:providers.bzl", "AotiModelInfo", "AotiProgramInfo")
load("//aoti/private:targets.bzl", "check_targets", "group_by_lowering", "is_amds")
load("//aoti/private/actions:cc.bzl", "cc_archive", "cc_compile", "cc_features")
load("//aoti/private/actions:compile.bzl", "compile")
load("//aoti/private/actions:lower.bzl", "lower")
load("//aoti/private/actions:split.bzl", "split")
load("//aoti/private/actions:wrap.bzl", "wrap")
load(":asked_targets.bzl", "ASKED_TARGETS_ATTRIBUTE", "AotiAskedTargetsInfo", "choose_targets")
load(":debug.bzl", "check_debug_modes")
load(":simulator.bzl", "AotiSimulatorInfo", "link_simulator")

AotiObjectsInfo = provider(
    doc = "Of `aoti_library` to `aoti_shared_library`: what a shared library links.",
    fields = {
        "compilation_outputs": "The model's objects.",
        "aotinductor": "`File`: C++ for AOTInductor's interface, or `None`.",
        "entry": "`File`: C++ that a shared library has and a static one has not.",
    },
)

_FOR_GPU = str(Label("//aoti/private:targets_for_gpu"))

# A model is exported once for all GPUs that aoti_for_gpu names.
_for_no_gpu = transition(
    implementation = lambda _settings, _attr: {_FOR_GPU: []},
    inputs = [],
    outputs = [_FOR_GPU],
)

def _check(ctx, toolchain, asked):
    # The generator refuses the same names, and some more, but only once everything is compiled.
    words = ctx.label.name.split("_")
    lowercase = all([word.isalnum() and word == word.lower() for word in words])
    if not lowercase or words[0][0].isdigit() or words[0] == "aoti":
        fail("%s: the generated code bears the name: it must be lowercase words joined by single " % ctx.label +
             "underscores, such as resnet_b32, and must not begin with a digit or aoti")
    message = check_targets(asked.targets, toolchain.capabilities, toolchain.architectures)
    if message:
        fail("%s: %s: %s" % (ctx.label, asked.source, message))
    message = check_debug_modes(ctx.attr._debug[BuildSettingInfo].value)
    if message:
        fail("%s: %s" % (ctx.label, message))
    if ctx.attr.aotinductor and is_amds(asked.targets[0]):
        fail("%s: aotinductor: the interface is there for NVIDIA's GPUs alone" % ctx.label)
    if ctx.attr.weights == "embedded":
        fail("%s: weights = \"embedded\" is not there yet; use \"external\"" % ctx.label)

def _program(ctx, toolchain, graph, target, targets):
    """Lowers and compiles for one compute capability, or architecture of AMD's."""
    lowered = lower(
        ctx.actions,
        toolchain = toolchain,
        graph = graph,
        target = target,
        options = ctx.attr.options,
        directory = "%s.programs/%s" % (ctx.label.name, target),
        tuning = ctx.file.tuning,
    )
    kernels = []
    for shard in lowered.shards:
        out = ctx.actions.declare_directory("%s.kernels/%s/%s" % (ctx.label.name, target, shard.basename))
        compile(
            ctx.actions,
            toolchain = toolchain,
            shard = shard,
            targets = targets,
            out = out,
        )
        kernels.append(out)
    return AotiProgramInfo(
        target = target,
        program = lowered.program,
        shards = lowered.shards,
        sources = lowered.sources,
        sites = lowered.sites,
        kernels = kernels,
    )

def _aoti_library_impl(ctx):
    toolchain = ctx.toolchains["//aoti:toolchain_type"].aoti
    asked = choose_targets(ctx.attr._asked[AotiAskedTargetsInfo], ctx.attr.targets)
    _check(ctx, toolchain, asked)
    name = ctx.label.name
    actions = ctx.actions

    graph = actions.declare_file(name + ".graph.json")
    weights = actions.declare_file(name + ".safetensors")
    split(
        actions,
        toolchain = toolchain,
        model = ctx.file.model,
        graph = graph,
        weights = weights,
    )
    programs = [
        _program(ctx, toolchain, graph, target, targets)
        for target, targets in group_by_lowering(asked.targets).items()
    ]
    targets = sorted(asked.targets)
    generated = wrap(
        actions,
        toolchain = toolchain,
        name = name,
        targets = targets,
        programs = programs,
        directory = name,
        debug = ctx.attr._debug[BuildSettingInfo].value,
        aotinductor = ctx.attr.aotinductor,
    )

    cc_toolchain = find_cc_toolchain(ctx)
    features = cc_features(ctx, cc_toolchain)
    amds = is_amds(targets[0])
    runtime = (ctx.attr._runtime_hip if amds else ctx.attr._runtime)[CcInfo]
    compilation_context, model_objects = cc_compile(
        actions,
        cc_toolchain = cc_toolchain,
        features = features,
        name = name,
        march = toolchain.march,
        srcs = [generated.model],
        hdrs = [generated.header],
        deps = [runtime],
    )
    _, kernel_objects = cc_compile(
        actions,
        cc_toolchain = cc_toolchain,
        features = features,
        name = name + ".kernels",
        march = toolchain.march,
        srcs = [generated.kernels],
        hdrs = [],
        deps = [],
        includes = [paths.dirname(generated.kernels.path)],
        inputs = [generated.images],
    )
    objects = [model_objects, kernel_objects]
    linking_context, archive = cc_archive(
        actions,
        cc_toolchain = cc_toolchain,
        features = features,
        name = name,
        compilation_outputs = objects,
        deps = [runtime],
    )
    simulator_linking, simulator_runfiles = link_simulator(
        ctx,
        simulator = ctx.attr._simulator[AotiSimulatorInfo],
        name = name,
        model = name,
        march = toolchain.march,
        # There is no simulated GPU of AMD's.
        programs = [] if amds else programs,
    )
    program_files = [program.program for program in programs]
    kernel_files = [directory for program in programs for directory in program.kernels]
    sources = [generated.header, generated.model, generated.entry, generated.kernels] + [
        program.sources
        for program in programs
    ]
    return [
        DefaultInfo(
            files = depset([archive, generated.header, weights]),
            runfiles = ctx.runfiles([weights]).merge(simulator_runfiles),
        ),
        CcInfo(
            compilation_context = cc_common.merge_compilation_contexts(
                compilation_contexts = [compilation_context, runtime.compilation_context],
            ),
            linking_context = cc_common.merge_linking_contexts(
                linking_contexts = [linking_context] + simulator_linking,
            ),
        ),
        AotiModelInfo(
            name = name,
            targets = targets,
            model = ctx.file.model,
            graph = graph,
            weights = weights,
            weights_kind = ctx.attr.weights,
            options = ctx.attr.options,
            tuning = ctx.file.tuning,
            programs = programs,
            header = generated.header,
            sources = [generated.model, generated.entry, generated.kernels],
            images = generated.images,
        ),
        AotiObjectsInfo(
            aotinductor = generated.aotinductor,
            compilation_outputs = objects,
            entry = generated.entry,
        ),
        OutputGroupInfo(
            kernels = depset(kernel_files),
            program = depset(program_files),
            shards = depset([shard for program in programs for shard in program.shards]),
            sites = depset([program.sites for program in programs]),
            sources = depset(sources),
            weights = depset([weights]),
        ),
    ]

aoti_library_rule = rule(
    implementation = _aoti_library_impl,
    doc = "See the macro `aoti_library` in //aoti:defs.bzl.",
    attrs = {
        "aotinductor": attr.bool(
            doc = "Whether the shared library has AOTInductor's interface too.",
        ),
        "model": attr.label(
            doc = "The `.pt2` file.",
            allow_single_file = [".pt2"],
            cfg = _for_no_gpu,
            mandatory = True,
        ),
        "options": attr.string_list(
            doc = "Options of lowering, such as `cooperative_reductions`.",
        ),
        "targets": attr.string_list(
            doc = "What to build for, such as `sm_90`, `compute_90` or `gfx942`; by default the GPU of " +
                  "the target platform.",
        ),
        "tuning": attr.label(
            doc = "The tuning lock: configurations of kernels that `:NAME.tune` measured.",
            allow_single_file = [".json"],
        ),
        "weights": attr.string(
            doc = "Where the library finds the weights: `external`, in a file named at run time.",
            default = "external",
            values = ["embedded", "external"],
        ),
        "_asked": ASKED_TARGETS_ATTRIBUTE,
        "_debug": attr.label(
            doc = "What the model does besides, for debugging.",
            default = Label("//aoti:debug"),
            providers = [BuildSettingInfo],
        ),
        "_runtime": attr.label(
            doc = "The C++ runtime.",
            default = Label("//runtime"),
            providers = [CcInfo],
        ),
        "_runtime_hip": attr.label(
            doc = "The same for AMD's GPUs.",
            default = Label("//runtime:hip"),
            providers = [CcInfo],
        ),
        "_simulator": attr.label(
            doc = "The simulator, where `--//aoti:simulator` asks for it.",
            default = Label("//simulator:for_models"),
            providers = [AotiSimulatorInfo],
        ),
    },
    fragments = ["cpp"],
    provides = [CcInfo, AotiModelInfo],
    toolchains = ["//aoti:toolchain_type"] + use_cc_toolchain(),
)
