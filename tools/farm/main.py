"""Brings up a farm by hand: ``bazel run //tools/farm:run -- small`` or ``large``, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tools.farm.large import LargeFarm
from tools.farm.processes import FarmError
from tools.farm.small import SmallFarm


def main() -> int:
    """Prints the farm's address once it is there; it ends with this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("small", "large"))
    parser.add_argument("--directory", type=Path, help="what keeps its blobs, results and logs")
    arguments = parser.parse_args()
    kind = {"small": SmallFarm, "large": LargeFarm}[arguments.kind]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="farm-") as scratch:
        try:
            with kind(arguments.directory or Path(scratch)) as farm:
                print(f"--remote_executor=grpc://{farm.address}", end=" ")
                print(f"--remote_cache=grpc://{farm.storage}", flush=True)
                signal.pause()
        except FarmError as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
