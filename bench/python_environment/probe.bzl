"""Actions that do next to nothing with a Python environment among their inputs.

What they cost is what the form of the environment costs: see measure.py.
"""

FORMS = ["directory", "image", "tree"]

def _directory(_ctx, directories):
    return directories, " && ".join(["test -d " + directory.path for directory in directories])

def _image(ctx, directories):
    image = ctx.actions.declare_file(ctx.label.name + ".tar")
    ctx.actions.run_shell(
        outputs = [image],
        inputs = directories,
        command = "tar -chf %s %s" % (image.path, " ".join([directory.path for directory in directories])),
        mnemonic = "ProbeImage",
    )
    return [image], "mkdir unpacked && tar -xf %s -C unpacked" % image.path

def _tree(ctx, directories):
    tree = ctx.actions.declare_directory(ctx.label.name + ".tree")
    ctx.actions.run_shell(
        outputs = [tree],
        inputs = directories,
        command = " && ".join([
            "mkdir %s/%d && cp -rL %s/. %s/%d" % (tree.path, i, directory.path, tree.path, i)
            for i, directory in enumerate(directories)
        ]),
        mnemonic = "ProbeTree",
    )
    return [tree], "test -d %s/0" % tree.path

_MAKE = {
    "directory": _directory,
    "image": _image,
    "tree": _tree,
}

def _probe_impl(ctx):
    directories = [
        file
        for packages in ctx.attr.packages
        for file in packages[DefaultInfo].default_runfiles.files.to_list()
        if file.basename == "site"
    ]
    if not directories:
        fail("packages: none of them has a directory site")
    environment, command = _MAKE[ctx.attr.form](ctx, directories)
    outputs = []
    for i in range(ctx.attr.actions):
        output = ctx.actions.declare_file("%s.%d" % (ctx.label.name, i))
        ctx.actions.run_shell(
            outputs = [output],
            inputs = environment,
            command = "%s && touch %s" % (command, output.path),
            # Another value makes other actions of them, to measure again.
            env = {"RUN": ctx.var.get("run", "")},
            mnemonic = "Probe",
        )
        outputs.append(output)
    return [DefaultInfo(files = depset(outputs))]

probe = rule(
    implementation = _probe_impl,
    doc = "Actions with packages among their inputs, in one of several forms.",
    attrs = {
        "actions": attr.int(
            doc = "How many.",
            default = 6,
        ),
        "form": attr.string(
            doc = "`directory`, as the rules have it; `tree`, a tree artifact; `image`, an archive that each unpacks.",
            mandatory = True,
            values = FORMS,
        ),
        "packages": attr.label_list(
            doc = "Groups of packages.",
            mandatory = True,
        ),
    },
)
