"""The rule behind `:NAME.report`."""

load("//aoti:providers.bzl", "AotiModelInfo", "AotiReportInfo")
load("//aoti/private/actions:report.bzl", "report")

def _aoti_report_impl(ctx):
    model = ctx.attr.library[AotiModelInfo]
    text = ctx.actions.declare_file(ctx.label.name + ".md")
    json = ctx.actions.declare_file(ctx.label.name + ".json")
    report(
        ctx.actions,
        toolchain = ctx.toolchains["//aoti:toolchain_type"].aoti,
        name = model.name,
        targets = model.targets,
        programs = model.programs,
        text = text,
        json = json,
    )
    return [
        DefaultInfo(files = depset([text, json])),
        AotiReportInfo(json = json, text = text),
    ]

aoti_report = rule(
    implementation = _aoti_report_impl,
    doc = "What the library of an `aoti_library` does on a device, as Markdown and as JSON.",
    attrs = {
        "library": attr.label(
            doc = "The `aoti_library`.",
            mandatory = True,
            providers = [AotiModelInfo],
        ),
    },
    provides = [AotiReportInfo],
    toolchains = ["//aoti:toolchain_type"],
)
