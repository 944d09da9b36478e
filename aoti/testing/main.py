"""``aoti_test``'s program: ``main.py SETTINGS.json``.

Prints a line for each check and ends with ``N passed, N failed``; the exit status says whether all
passed. Under Bazel it writes a JUnit report to ``XML_OUTPUT_FILE``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import traceback
from pathlib import Path

# Before PyTorch is imported: a fork of a small process, and an early end where there is no GPU.
from aoti.testing import device as devices
from aoti.testing.report import Report
from aoti.testing.settings import Settings, read
from aoti.testing.sizes import InputsError


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("settings", type=Path)
    parser.add_argument("--device", choices=devices.KINDS, help="instead of the settings'")
    parser.add_argument("--check-kernels", choices=("auto", "always", "never"))
    options = parser.parse_args()
    settings = read(options.settings)
    report = Report(settings.name)
    try:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TEST_TMPDIR")) as scratch:
            _run(
                settings,
                options.device or settings.device,
                options.check_kernels or settings.check_kernels,
                report,
                Path(scratch),
            )
    except Exception as error:
        expected = isinstance(error, (devices.DeviceError, InputsError))
        text = str(error) if expected else traceback.format_exc()
        report.check("the test could be run", fault=text)
    if "XML_OUTPUT_FILE" in os.environ:
        report.write(Path(os.environ["XML_OUTPUT_FILE"]))
    report.say(report.summary())
    return 0 if report.passed else 1


def _run(settings: Settings, kind: str, check_kernels: str, report: Report, scratch: Path) -> None:
    kernels = {
        capability: _directories(settings, capability) for capability in settings.capabilities
    }
    chosen, note = devices.choose(kind, settings.targets, settings.simulator, kernels)
    for device in chosen:
        report.say(f"device: {device.text}")
    if note:
        report.say(note)

    from aoti.testing import run

    target = devices.best_target(settings.targets, chosen[0].capability)
    _, program = run.load_program(settings, target)
    cases = run.prepare(settings, program, report)
    for i, device in enumerate(chosen):
        right = run.check(settings, device, program, cases, report, scratch / str(i))
        if check_kernels == "never" or (right and check_kernels == "auto"):
            continue
        from aoti.testing.kernels import check as check_each

        target = devices.best_target(settings.targets, device.capability)
        files, program = run.load_program(settings, target)
        check_each(settings, files, program, cases[0], report)


def _directories(settings: Settings, capability: int) -> list[Path]:
    """Where the kernels are that a device of a capability may be given."""
    target = devices.best_target(settings.targets, capability)
    number = target.partition("_")[2]
    files = next(files for files in settings.programs if files.target == f"sm_{number}")
    directories = [files.program.parent / "shards", *files.kernels]
    # A shard without kernels is an empty directory, which a sandbox of Bazel's has not.
    return [path.resolve() for path in directories if path.is_dir()]


if __name__ == "__main__":
    sys.exit(main())
