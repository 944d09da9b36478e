"""Compiles and links generated C++ with the C++ toolchain."""

load("@rules_cc//cc/common:cc_common.bzl", "cc_common")

# What a debugger needs of the paths of a build is none of a deployed library's business.
_REPRODUCIBLE = [
    "-ffile-prefix-map=/proc/self/cwd=.",
    "-no-canonical-prefixes",
]

def cc_features(ctx, cc_toolchain):
    """Returns the feature configuration for generated code."""
    return cc_common.configure_features(
        ctx = ctx,
        cc_toolchain = cc_toolchain,
        # Generated headers are included through their package's path, not through modules.
        requested_features = ctx.features,
        unsupported_features = ctx.disabled_features + ["layering_check", "parse_headers"],
    )

def cc_compile(actions, *, cc_toolchain, features, name, march, srcs, hdrs, deps, includes = [], inputs = []):
    """Compiles sources for use in libraries and shared libraries.

    Args:
      actions: `ctx.actions`.
      cc_toolchain: the C++ toolchain.
      features: of `cc_features`.
      name: of the directory of object files.
      march: the instruction set, as gcc's `-march`.
      srcs: list of `File`, C++ or assembly.
      hdrs: list of `File`, what users of the library include.
      deps: list of `CcInfo`.
      includes: directories that assembly finds other files in.
      inputs: list of `File`, those files.

    Returns:
      The compilation context and the compilation outputs.
    """
    return cc_common.compile(
        name = name,
        actions = actions,
        cc_toolchain = cc_toolchain,
        feature_configuration = features,
        srcs = srcs,
        public_hdrs = hdrs,
        additional_inputs = inputs,
        compilation_contexts = [dep.compilation_context for dep in deps],
        # As directories and not as flags: path mapping sees those.
        includes = includes,
        user_compile_flags = ["-march=" + march, "-O2", "-fvisibility=hidden"] + _REPRODUCIBLE,
        cxx_flags = ["-std=c++17"],
    )

def cc_archive(actions, *, cc_toolchain, features, name, compilation_outputs, deps, alwayslink = False):
    """Archives objects.

    Args:
      actions: `ctx.actions`.
      cc_toolchain: the C++ toolchain.
      features: of `cc_features`.
      name: of the library.
      compilation_outputs: list of what `cc_compile` returned.
      deps: list of `CcInfo`.
      alwayslink: whether a program links all of it, needed or not.

    Returns:
      The linking context, and the archive as a `File`.
    """
    context, outputs = cc_common.create_linking_context_from_compilation_outputs(
        name = name,
        actions = actions,
        cc_toolchain = cc_toolchain,
        feature_configuration = features,
        compilation_outputs = cc_common.merge_compilation_outputs(compilation_outputs = compilation_outputs),
        linking_contexts = [dep.linking_context for dep in deps],
        disallow_dynamic_library = True,
        alwayslink = alwayslink,
    )
    library = outputs.library_to_link
    return context, library.pic_static_library or library.static_library

def cc_shared_library(actions, *, cc_toolchain, features, name, compilation_outputs, deps, exports):
    """Links `libNAME.so`.

    Args:
      actions: `ctx.actions`.
      cc_toolchain: the C++ toolchain.
      features: of `cc_features`.
      name: of the library.
      compilation_outputs: list of what `cc_compile` returned.
      deps: list of `CcInfo`.
      exports: `File`, a version script that lists what the library exports.

    Returns:
      The library, a `File`.
    """
    outputs = cc_common.link(
        name = name,
        actions = actions,
        cc_toolchain = cc_toolchain,
        feature_configuration = features,
        compilation_outputs = cc_common.merge_compilation_outputs(compilation_outputs = compilation_outputs),
        linking_contexts = [dep.linking_context for dep in deps],
        output_type = "dynamic_library",
        link_deps_statically = True,
        additional_inputs = [exports],
        user_link_flags = [
            "-Wl,--version-script=" + exports.path,
            "-Wl,-soname=lib%s.so" % name,
            "-Wl,--no-undefined",
            "-Wl,--as-needed",
            "-Wl,--gc-sections",
            # Of the content, so equal content has equal ids.
            "-Wl,--build-id=sha1",
        ],
    )
    library = outputs.library_to_link
    return library.resolved_symlink_dynamic_library or library.dynamic_library
