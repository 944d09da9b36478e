"""Layers and images: `layer` and `image`, which write the files that the OCI's specification says.

They stand here so that the example needs nothing but rules_aoti. `pkg_tar` of rules_pkg and
`oci_image` of rules_oci do the same, and more; the README shows the same image with them.
"""

LayerInfo = provider(
    doc = "A layer of an image.",
    fields = {"archive": "`File`: the layer, a tar archive compressed by gzip."},
)

def _layer_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".tar.gz")
    arguments = ctx.actions.args()
    arguments.add("layer")
    inputs = []
    for target, path in ctx.attr.files.items():
        files = target[DefaultInfo].files.to_list()
        if len(files) != 1:
            fail("%s: files: expected one file of %s, which has %d" % (ctx.label, target.label, len(files)))
        arguments.add("--file", files[0], format = path + "=%s")
        inputs.append(files[0])
    arguments.add_all(ctx.files.debs, before_each = "--deb")
    arguments.add_all(ctx.attr.only, before_each = "--only")
    arguments.add("-o", out)
    ctx.actions.run(
        executable = ctx.executable._write,
        arguments = [arguments],
        inputs = inputs + ctx.files.debs,
        outputs = [out],
        mnemonic = "OciLayer",
        progress_message = "Writing layer %{label}",
    )
    return [DefaultInfo(files = depset([out])), LayerInfo(archive = out)]

_WRITE = attr.label(
    doc = "The program that writes both.",
    default = Label("//oci:write"),
    cfg = "exec",
    executable = True,
)

layer = rule(
    implementation = _layer_impl,
    doc = """Files at places of an image's root, the same bytes for the same files.

All belong to root and have the time 0; what is executable stays so.""",
    attrs = {
        "debs": attr.label_list(
            doc = "Debian packages, whose files are unpacked. Their scripts are not run.",
            allow_files = [".deb"],
        ),
        "files": attr.label_keyed_string_dict(
            doc = "Targets of one file each, and their paths in the image.",
            allow_files = True,
        ),
        "only": attr.string_list(
            doc = "Regular expressions: of the packages, the paths that are wanted. All if there is none.",
        ),
        "_write": _WRITE,
    },
)

def _image_impl(ctx):
    out = ctx.actions.declare_directory(ctx.label.name)
    layers = [target[LayerInfo].archive for target in ctx.attr.layers]
    arguments = ctx.actions.args()
    arguments.add("image")
    arguments.add_all(layers, before_each = "--layer")
    arguments.add_all(ctx.attr.entrypoint, before_each = "--entrypoint")
    arguments.add("--user", ctx.attr.user)
    arguments.add("--tag", ctx.attr.tag)
    arguments.add("-o", out.path)
    ctx.actions.run(
        executable = ctx.executable._write,
        arguments = [arguments],
        inputs = layers,
        outputs = [out],
        mnemonic = "OciImage",
        progress_message = "Writing image %{label}",
    )
    return [DefaultInfo(files = depset([out]))]

image = rule(
    implementation = _image_impl,
    doc = "An image for x86-64 Linux as an OCI image layout, a directory.",
    attrs = {
        "entrypoint": attr.string_list(
            doc = "The program that a container runs, and its arguments.",
            mandatory = True,
        ),
        "layers": attr.label_list(
            doc = "From the lowest on.",
            mandatory = True,
            providers = [LayerInfo],
        ),
        "tag": attr.string(
            doc = "What the layout calls the image.",
            default = "latest",
        ),
        "user": attr.string(
            doc = "Who runs the program: a user's number, as there is no /etc/passwd. By default " +
                  "distroless's nonroot.",
            default = "65532",
        ),
        "_write": _WRITE,
    },
)
