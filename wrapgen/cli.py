"""The command line. One sub-command a build step: files in, files out.

    python -m wrapgen build MODEL.pt2 --name resnet --target sm_90 -o OUT     all steps
    python -m wrapgen check MODEL.pt2 --target sm_90 --json   what cannot be lowered, and where
    python -m wrapgen export models/resnet.py --entry-point export -o MODEL.pt2
    python -m wrapgen split MODEL.pt2 --graph graph.json --weights weights.safetensors
    python -m wrapgen lower graph.json --target sm_90 [--tuning LOCK.json] -o DIR
    python -m wrapgen candidates graph.json --target sm_90 -o DIR
    python -m wrapgen compile SHARD_DIR --target sm_90 --target compute_90 -o DIR
    python -m wrapgen compile SHARD_DIR --kernel NAME --ttir EDITED --target sm_90 -o DIR
    python -m wrapgen trace sources/KERNEL.py --program program.json -o KERNEL.ttir
    python -m wrapgen wrap --name resnet --target sm_90 --program sm_90=P --kernels DIR -o DIR
    python -m wrapgen pack --weights W --program P -o resnet.weights
    python -m wrapgen report --name resnet --target sm_90 ... --text FILE.md --json FILE.json
    python -m wrapgen package --name resnet --library L --weights W --header H ... -o FILE
    python -m wrapgen verify resnet.tar                       whether a package is what it says
    python -m wrapgen torch-package --name resnet --library L --weights W --source S ... -o FILE.pt2

A step's module is imported when the step runs and not before: ``compile`` and ``wrap`` have no
torch to import, ``wrap`` no Triton either.

Exit codes: 0 done; 1 the step failed, and standard error says why; 2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import ast
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wrapgen.options import DEBUG_MODES, OPTIONS, OptionError
from wrapgen.options import check as check_options
from wrapgen.target import Target, TargetError, parse

SHARDS = 8
"""In how many shards kernels are compiled unless told otherwise."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sub-command; returns the exit code.

    Faults that a user can mend are one message without a traceback, unless ``--debug`` is given.
    Any other exception is a bug and passes through.
    """
    parser = _parser()
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:  # --help, or a usage error that argparse has printed
        return stop.code if isinstance(stop.code, int) else 2
    run: Callable[[argparse.Namespace], None] = args.run
    try:
        run(args)
    except KeyboardInterrupt:
        print(f"wrapgen {args.step}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not _expected(error):
            raise
        if args.debug:
            traceback.print_exc()
        print(f"wrapgen {args.step}: {_describe(error)}", file=sys.stderr)
        return 1
    return 0


def _expected(error: Exception) -> bool:
    """Whether an exception tells the user something: ours do, and those of the file system."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] == "wrapgen"


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


# Arguments.


def target(text: str) -> Target:
    """Parses a target for argparse."""
    try:
        return parse(text)
    except TargetError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def keyword(text: str) -> tuple[str, Any]:
    """Parses ``name=value``; the value is a Python literal, or else a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return name, value


def program(text: str) -> tuple[Target, Path]:
    """Parses ``sm_90=path/to/program.json``."""
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"expected TARGET=FILE, got {text!r}")
    return target(name), Path(path)


def component(text: str) -> tuple[str, Path]:
    """Parses ``dlpack=path/to/dlpack/dlpack.h``."""
    name, equals, path = text.partition("=")
    if not equals or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, got {text!r}")
    return name, Path(path)


def option(text: str) -> str:
    """Parses the name of an option of lowering."""
    try:
        return check_options([text])[0]
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def shards(text: str) -> int:
    """Parses a number of shards."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 100, got {text!r}")
    return number


def _unique(pairs: Sequence[tuple[Any, Any]], option: str, step: str) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [str(name) for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{option} {twice} is given twice; see wrapgen {step} --help")
    return result


class UsageError(ValueError):
    """Arguments that contradict one another."""


def _parser() -> argparse.ArgumentParser:
    from wrapgen import __version__

    parser = argparse.ArgumentParser(
        prog="wrapgen",
        description="Builds exported PyTorch models into C++ libraries for declared GPUs.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wrapgen {__version__}")
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")

    def step(name: str, run: Callable[[argparse.Namespace], None], text: str) -> Any:
        sub = steps.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.add_argument("--debug", action="store_true", help="show tracebacks")
        sub.set_defaults(run=run)
        return sub

    _add_build(step("build", _build, "Run all steps: a .pt2 file in, a library out."))
    _add_check(step("check", _check, "Say whether a model can be lowered, and what hinders it."))
    _add_export(step("export", _export, "Run a model file's entry point and write a .pt2 file."))
    _add_split(step("split", _split, "Part a .pt2 file into graph and weights."))
    _add_lower(step("lower", _lower, "Lower a graph to Triton kernels for one target."))
    _add_candidates(
        step("candidates", _candidates, "Make each kernel in several configurations, to be tuned.")
    )
    _add_compile(step("compile", _compile, "Compile one shard of kernels."))
    _add_trace(step("trace", _trace, "Make the TTIR of one kernel from its source, edited."))
    _add_wrap(step("wrap", _wrap, "Generate the model's C++."))
    _add_pack(step("pack", _pack, "Write the weights of a model that is one file."))
    _add_report(step("report", _report, "Say what a model's library does on a device."))
    _add_package(step("package", _package, "Pack what is deployed into one archive."))
    _add_verify(step("verify", _verify, "Recompute what a package says of itself, and compare."))
    _add_torch_package(
        step("torch-package", _torch_package, "Pack a library for PyTorch's aoti_load_package.")
    )
    return parser


def _add_target(parser: Any, text: str) -> None:
    parser.add_argument(
        "--target",
        type=target,
        action="append",
        required=True,
        metavar="TARGET",
        dest="targets",
        help=f"{text}; sm_90 is machine code, compute_90 PTX, gfx942 AMD's; repeatable",
    )


def _add_option(parser: Any) -> None:
    parser.add_argument(
        "--option",
        type=option,
        action="append",
        default=[],
        metavar="NAME",
        dest="options",
        help="; ".join(f"{name}: {text}" for name, text in OPTIONS.items()) + "; repeatable",
    )


def _add_tuning(parser: Any) -> None:
    parser.add_argument(
        "--tuning",
        type=Path,
        metavar="LOCK.json",
        help="the tuning lock: configurations that were measured (docs/tuning.md)",
    )


def _add_build(parser: Any) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.pt2")
    parser.add_argument("--name", help="what C++ calls the model; default: the file's name")
    _add_target(parser, "what to build for")
    parser.add_argument("--shards", type=shards, default=SHARDS, help="default: %(default)s")
    parser.add_argument("--jobs", type=shards, default=1, help="kernels compiled at a time")
    _add_option(parser)
    _add_tuning(parser)
    _add_instrument(parser)
    parser.add_argument("--no-link", action="store_true", help="stop at the generated sources")
    parser.add_argument(
        "--aotinductor",
        action="store_true",
        help="give the library AOTInductor's interface, and pack it for PyTorch",
    )
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="OUT")


def _build(args: argparse.Namespace) -> None:
    from wrapgen import build

    build.build(
        args.model,
        args.name or build.default_name(args.model),
        args.targets,
        args.out,
        num_shards=args.shards,
        jobs=args.jobs,
        options=args.options,
        tuning=args.tuning,
        link=not args.no_link,
        debug_modes=args.instrument,
        aotinductor=args.aotinductor,
    )


def _add_check(parser: Any) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.pt2")
    _add_target(parser, "what to lower for")
    parser.add_argument("--json", action="store_true", help="write JSON: a list of reports")


def _check(args: argparse.Namespace) -> None:
    from wrapgen.check import check

    results = check(args.model, args.targets)
    if args.json:
        import json

        print(json.dumps([result.report for result in results], indent=2, sort_keys=True))
    else:
        print("\n".join(result.text for result in results))
    failed = [str(result.target) for result in results if not result.lowered]
    if failed:
        raise UnsupportedError(f"{args.model}: cannot be lowered for {', '.join(failed)}")


class UnsupportedError(ValueError):
    """What ``wrapgen check`` ends with when a model cannot be lowered."""


def _add_export(parser: Any) -> None:
    parser.add_argument("src", type=Path, metavar="MODEL.py")
    parser.add_argument("--entry-point", default="export", help="default: %(default)s")
    parser.add_argument(
        "--arg",
        type=keyword,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="arguments",
        help="a keyword argument of the entry point, a Python literal or a string; repeatable",
    )
    parser.add_argument("--weights", type=Path, help="a file whose path becomes weights=...")
    parser.add_argument(
        "--import-from",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        dest="imports",
        help="where else to look for modules; repeatable",
    )
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="MODEL.pt2")


def _export(args: argparse.Namespace) -> None:
    arguments = _unique(args.arguments, "--arg", "export")
    from wrapgen.export import export

    export(args.src, args.entry_point, arguments, args.weights, args.out, imports=args.imports)


def _add_split(parser: Any) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.pt2")
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)


def _split(args: argparse.Namespace) -> None:
    from wrapgen.intake import split

    split(args.model, args.graph, args.weights)


def _add_lower(parser: Any) -> None:
    parser.add_argument("graph", type=Path, metavar="graph.json")
    parser.add_argument("--target", type=target, required=True)
    parser.add_argument("--shards", type=shards, default=SHARDS, help="default: %(default)s")
    _add_option(parser)
    _add_tuning(parser)
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="DIR")


def _lower(args: argparse.Namespace) -> None:
    from wrapgen.lowering import lower

    lower(
        args.graph,
        args.target,
        args.out,
        num_shards=args.shards,
        options=args.options,
        tuning=args.tuning,
    )


def _add_candidates(parser: Any) -> None:
    parser.add_argument("graph", type=Path, metavar="graph.json")
    parser.add_argument("--target", type=target, required=True)
    parser.add_argument(
        "--count", type=shards, default=8, help="configurations a kernel; default: %(default)s"
    )
    parser.add_argument("--shards", type=shards, default=SHARDS, help="default: %(default)s")
    _add_option(parser)
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="DIR")


def _candidates(args: argparse.Namespace) -> None:
    from wrapgen.lowering import candidates

    candidates.make(
        args.graph,
        args.target,
        args.out,
        count=args.count,
        num_shards=args.shards,
        options=args.options,
    )


def _add_compile(parser: Any) -> None:
    parser.add_argument("shard", type=Path, metavar="SHARD_DIR")
    _add_target(parser, "what to compile for, all of one compute capability")
    parser.add_argument("--ptxas", type=Path, help="default: the one in Triton's wheel")
    parser.add_argument("--jobs", type=shards, default=1, help="kernels compiled at a time")
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="leave out kernels that the device cannot run, and write refused.json, which says why",
    )
    parser.add_argument(
        "--kernel",
        metavar="NAME",
        help="compile this one alone, which somebody edited; adds to DIR, which a program then "
        "gives as kernels_dir",
    )
    parser.add_argument("--ttir", type=Path, help="with --kernel: the edited file")
    parser.add_argument("--num-warps", type=int, help="with --kernel: other than the shard says")
    parser.add_argument("--num-stages", type=int, help="with --kernel: other than the shard says")
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="DIR")


def _compile(args: argparse.Namespace) -> None:
    if args.kernel is not None:
        from wrapgen.kernels import compile_kernel

        compile_kernel(
            args.shard,
            args.kernel,
            args.targets,
            args.out,
            ttir=args.ttir,
            num_warps=args.num_warps,
            num_stages=args.num_stages,
            ptxas_path=args.ptxas,
        )
        return
    for option in ("ttir", "num_warps", "num_stages"):
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise UsageError(f"--{name} needs --kernel; see wrapgen compile --help")
    from wrapgen.kernels import compile_shard

    compile_shard(
        args.shard,
        args.targets,
        args.out,
        ptxas_path=args.ptxas,
        jobs=args.jobs,
        keep_going=args.keep_going,
    )


def _add_trace(parser: Any) -> None:
    parser.add_argument("source", type=Path, metavar="sources/KERNEL.py")
    parser.add_argument("--program", type=Path, required=True, metavar="program.json")
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="KERNEL.ttir")


def _trace(args: argparse.Namespace) -> None:
    from wrapgen.lowering.trace import trace

    trace(args.source, args.program, args.out)


def _add_wrap(parser: Any) -> None:
    parser.add_argument("--name", required=True, help="what C++ calls the model")
    _add_target(parser, "what the library carries code for")
    _add_program(parser)
    _add_kernels(parser)
    _add_instrument(parser)
    parser.add_argument(
        "--standalone",
        action="store_true",
        help="write the model as one file, NAME.cc, with NAME.h and kernels/",
    )
    parser.add_argument(
        "--runtime",
        type=Path,
        metavar="DIR",
        help="with --standalone: the runtime's sources; default: those of this installation",
    )
    parser.add_argument(
        "--aotinductor", action="store_true", help="also what AOTInductor's interface needs"
    )
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="DIR")


def _add_instrument(parser: Any) -> None:
    parser.add_argument(
        "--instrument",
        action="append",
        default=[],
        choices=DEBUG_MODES,
        metavar="MODE",
        help=f"make a debug build: {', '.join(DEBUG_MODES)}; repeatable",
    )


def _wrap(args: argparse.Namespace) -> None:
    programs = _unique(args.programs, "--program", "wrap")
    if args.standalone:
        if args.aotinductor:
            raise UsageError("--aotinductor is of a shared library, which --standalone is not")
        if args.instrument:
            raise UsageError("--instrument is of a library, which --standalone is not")
        from wrapgen import sources
        from wrapgen.codegen import standalone

        runtime = args.runtime or sources.runtime()
        if runtime is None:
            raise UsageError(
                "the runtime's sources are not part of this installation: name their directory "
                "with --runtime"
            )
        standalone.wrap_files(args.name, programs, args.kernels, args.targets, runtime, args.out)
        return
    if args.runtime is not None:
        raise UsageError("--runtime needs --standalone; see wrapgen wrap --help")
    from wrapgen.codegen import wrap_files

    wrap_files(
        args.name,
        programs,
        args.kernels,
        args.targets,
        args.out,
        debug_modes=args.instrument,
        aotinductor=args.aotinductor,
    )


def _add_pack(parser: Any) -> None:
    parser.add_argument("--weights", type=Path, required=True, metavar="weights.safetensors")
    parser.add_argument("--program", type=Path, required=True, metavar="program.json")
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="NAME.weights")


def _pack(args: argparse.Namespace) -> None:
    from wrapgen.codegen import packed_weights

    packed_weights.pack(args.weights, args.program, args.out)


def _add_program(parser: Any) -> None:
    parser.add_argument(
        "--program",
        type=program,
        action="append",
        required=True,
        metavar="TARGET=program.json",
        dest="programs",
        help="the model as lowered for a target; repeatable",
    )


def _add_kernels(parser: Any) -> None:
    parser.add_argument(
        "--kernels",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="an output of compile; repeatable",
    )


def _add_report(parser: Any) -> None:
    parser.add_argument("--name", required=True, help="what C++ calls the model")
    _add_target(parser, "what the library carries code for")
    _add_program(parser)
    _add_kernels(parser)
    parser.add_argument("--text", type=Path, required=True, metavar="FILE.md")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE.json")


def _report(args: argparse.Namespace) -> None:
    programs = _unique(args.programs, "--program", "report")
    from wrapgen import reporting

    reporting.write(
        args.name,
        programs,
        args.kernels,
        args.targets,
        text_file=args.text,
        json_file=args.json,
    )


def _add_package(parser: Any) -> None:
    parser.add_argument("--name", required=True, help="what C++ calls the model")
    parser.add_argument("--library", type=Path, required=True, metavar="libNAME.so")
    parser.add_argument("--weights", type=Path, required=True, metavar="weights.safetensors")
    parser.add_argument("--header", type=Path, required=True, metavar="model.h")
    parser.add_argument(
        "--runtime-header",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        dest="runtime_headers",
        help="a header that model.h includes; repeatable",
    )
    _add_target(parser, "what the library carries code for")
    _add_program(parser)
    _add_kernels(parser)
    _add_build_of_package(parser)
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="FILE.tar")


def _add_build_of_package(parser: Any) -> None:
    """What the package's statement tells beyond what is packed."""

    def files(option: str, name: str, text: str) -> None:
        parser.add_argument(
            option,
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            dest=name,
            help=f"{text}; repeatable",
        )

    parser.add_argument(
        "--graph", type=Path, required=True, metavar="graph.json", help="what split wrote"
    )
    files("--generated", "generated", "a source that wrap wrote")
    parser.add_argument(
        "--component",
        type=component,
        action="append",
        default=[],
        metavar="NAME=FILE",
        dest="components",
        help="a file of C++ that is compiled in: of runtime, dlpack or nlohmann_json; repeatable",
    )
    files("--lock", "locks", "a lock file of the tools' Python packages")
    files("--tuning", "tuning", "a lock of tuning that lower read")
    parser.add_argument("--ptxas", type=Path, help="the assembler that compile ran")
    _add_option(parser)
    _add_instrument(parser)
    parser.add_argument("--aotinductor", action="store_true", help="as of wrap")
    parser.add_argument("--march", default="", help="what the C++ was compiled for")
    parser.add_argument("--shards", type=shards, default=0, help="as of lower")


def _package(args: argparse.Namespace) -> None:
    programs = _unique(args.programs, "--program", "package")
    from wrapgen.package import Build, Contents, write

    components: dict[str, tuple[Path, ...]] = {}
    for name, path in args.components:
        components[name] = (*components.get(name, ()), path)

    contents = Contents(
        name=args.name,
        library=args.library,
        weights=args.weights,
        header=args.header,
        runtime_headers=tuple(args.runtime_headers),
        targets=tuple(args.targets),
        programs=programs,
        kernels=tuple(args.kernels),
        build=Build(
            graph=args.graph,
            generated=tuple(args.generated),
            components=components,
            locks=tuple(args.locks),
            ptxas=args.ptxas,
            tuning=tuple(args.tuning),
            options=tuple(args.options),
            debug=tuple(args.instrument),
            aotinductor=args.aotinductor,
            march=args.march,
            shards=args.shards,
        ),
    )
    write(contents, args.out)


def _add_verify(parser: Any) -> None:
    parser.add_argument("package", type=Path, metavar="PACKAGE.tar")
    parser.add_argument("--json", action="store_true", help="write JSON: a report")


def _verify(args: argparse.Namespace) -> None:
    from wrapgen.provenance.verify import verify

    report = verify(args.package)
    if args.json:
        import json

        print(json.dumps(report.as_json(), indent=2, sort_keys=True))
    else:
        print(report)
    if not report.verified:
        raise UnverifiedError(f"{args.package}: not what its statement and its manifest say")


class UnverifiedError(ValueError):
    """What ``wrapgen verify`` ends with when something is not as expected."""


def _add_torch_package(parser: Any) -> None:
    parser.add_argument("--name", required=True, help="what C++ calls the model")
    parser.add_argument("--library", type=Path, required=True, metavar="libNAME.so")
    parser.add_argument("--weights", type=Path, required=True, metavar="weights.safetensors")
    parser.add_argument("--source", type=Path, required=True, metavar="model.cc")
    _add_target(parser, "what the library carries code for")
    parser.add_argument(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="where callers have their tensors; from the CPU each run copies them to CUDA device 0 "
        "and back; default: %(default)s",
    )
    parser.add_argument("-o", dest="out", type=Path, required=True, metavar="FILE.pt2")


def _torch_package(args: argparse.Namespace) -> None:
    from wrapgen.torch_package import Contents, write

    contents = Contents(
        name=args.name,
        library=args.library,
        weights=args.weights,
        source=args.source,
        targets=tuple(args.targets),
        device=args.device,
    )
    write(contents, args.out)
