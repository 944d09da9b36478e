"""What the rules tell each other, and rules of yours that build on them."""

load("//aoti/private:targets.bzl", "capability", "is_amds")

def _require(condition, message):
    if not condition:
        fail(message)

def _init_aoti_program_info(*, target, program, shards, sources, kernels, sites = None):
    machine_code = is_amds(target) or (capability(target) != None and target.startswith("sm_"))
    _require(machine_code, "target: \"%s\" is no sm_* and no gfx*" % target)
    _require(shards, "shards: there is at least one")
    _require(len(kernels) == len(shards), "kernels: %d directories for %d shards" % (len(kernels), len(shards)))
    _require(program.basename == "program.json", "program: %s is no program.json" % program.path)
    return {
        "kernels": kernels,
        "program": program,
        "shards": shards,
        "sites": sites,
        "sources": sources,
        "target": target,
    }

AotiProgramInfo, _new_aoti_program_info = provider(
    doc = "A model lowered for one compute capability or architecture of AMD's, and its compiled kernels.",
    fields = {
        "kernels": "list of `File`: a directory a shard, of compiled kernels, in the shards' order.",
        "program": "`File`: the program, as docs/program.md describes it.",
        "shards": "list of `File`: a directory a shard, of kernels as TTIR.",
        "sites": "`File`: which configuration each site has, and why; see docs/tuning.md.",
        "sources": "`File`: a directory with the kernels' readable sources.",
        "target": "`string`: what it was lowered for, such as `sm_90` or `gfx942`.",
    },
    init = _init_aoti_program_info,
)

WEIGHTS = ["external"]

def _init_aoti_model_info(*, name, targets, model, graph, weights, weights_kind, programs, header, sources, images, options = [], tuning = None):
    _require(targets, "targets: there is at least one")
    _require(programs, "programs: there is at least one")
    _require(weights_kind in WEIGHTS, "weights_kind: \"%s\" is none of %s" % (weights_kind, WEIGHTS))
    return {
        "graph": graph,
        "header": header,
        "images": images,
        "model": model,
        "name": name,
        "options": options,
        "programs": programs,
        "sources": sources,
        "targets": targets,
        "tuning": tuning,
        "weights": weights,
        "weights_kind": weights_kind,
    }

AotiModelInfo, _new_aoti_model_info = provider(
    doc = "A model, from its graph to the generated C++.",
    fields = {
        "graph": "`File`: the exported graph without weight values.",
        "header": "`File`: the generated C++ header.",
        "images": "`File`: a directory of the kernels' images, as the sources embed them.",
        "model": "`File`: the `.pt2` that it is made from.",
        "name": "`string`: what the generated code calls the model.",
        "options": "list of `string`: what was asked for of lowering, by name.",
        "programs": "list of `AotiProgramInfo`, one a compute capability, sorted by target.",
        "sources": "list of `File`: the generated C++ and assembly.",
        "targets": "list of `string`: what the library carries code for, sorted.",
        "tuning": "`File`: the tuning lock, or `None`.",
        "weights": "`File`: the weights, in safetensors' format.",
        "weights_kind": "`string`: where the library finds them; `external` is a file beside it.",
    },
    init = _init_aoti_model_info,
)

AotiReportInfo = provider(
    doc = "What a model's library does on a device; docs/report.md describes both files.",
    fields = {
        "json": "`File`: for programs.",
        "text": "`File`: for a reader, Markdown.",
    },
)

def _init_aoti_toolchain_info(*, export, split, lower, compile, wrap, package, report, ptxas, march, shards, capabilities, architectures = [], locks = []):
    _require(shards >= 1, "shards: %d is less than 1" % shards)
    _require(capabilities, "capabilities: there is at least one")
    _require(march, "march: name an instruction set, or the library depends on the machine that builds it")
    _require(march != "native", "march: \"native\" makes the library depend on the machine that builds it")
    for architecture in architectures:
        _require(is_amds(architecture), "architectures: \"%s\" is no gfx*" % architecture)
    return {
        "architectures": architectures,
        "capabilities": capabilities,
        "compile": compile,
        "export": export,
        "locks": locks,
        "lower": lower,
        "march": march,
        "package": package,
        "ptxas": ptxas,
        "report": report,
        "shards": shards,
        "split": split,
        "wrap": wrap,
    }

AotiToolchainInfo, _new_aoti_toolchain_info = provider(
    doc = "What the actions run. Each tool is wrapgen with no more Python packages than its step needs.",
    fields = {
        "architectures": "list of `string`: the architectures of AMD's it builds for, such as `gfx942`.",
        "capabilities": "list of `string`: the compute capabilities it builds for, such as `90`.",
        "compile": "`FilesToRunProvider`: TTIR to machine code; has Triton, no PyTorch.",
        "export": "`FilesToRunProvider`: model to `.pt2`; has PyTorch.",
        "locks": "list of `File`: the lock files of the tools' Python packages.",
        "lower": "`FilesToRunProvider`: graph to program and TTIR; has PyTorch and Triton.",
        "march": "`string`: the host instruction set generated C++ is compiled for, as gcc's `-march`.",
        "package": "`FilesToRunProvider`: library, weights and headers to an archive.",
        "ptxas": "`File`: NVIDIA's assembler.",
        "report": "`FilesToRunProvider`: programs and compiled kernels to a report for a reader.",
        "shards": "`int`: into how many actions the kernels of a program are dealt.",
        "split": "`FilesToRunProvider`: `.pt2` to graph and weights.",
        "wrap": "`FilesToRunProvider`: programs and compiled kernels to C++.",
    },
    init = _init_aoti_toolchain_info,
)
