"""Writes what a program tells the simulator about a model."""

_SOURCE = """\
// Generated: where the simulator finds what model {name} was compiled from.

#include "simulator/link.h"

namespace {{

const char* const kDirectories[] = {{
{directories}
}};

const simulator::LinkedModel kModel("{name}",
                                    "{driver}",
                                    "{executor}",
                                    kDirectories, sizeof kDirectories / sizeof *kDirectories);

}}  // namespace
"""

def write_simulator_link(actions, *, name, driver, executor, directories, out):
    """Declares an action that writes C++ with one static object, a `simulator::LinkedModel`.

    Args:
      actions: `ctx.actions`.
      name: what the generated code calls the model.
      driver: path of the simulator's `libcuda.so.1`, relative to the runfiles' root, as all of these.
      executor: path of its executor.
      directories: paths of the directories with TTIR and compiled kernels.
      out: `File` to write.
    """
    actions.write(out, _SOURCE.format(
        name = name,
        driver = driver,
        executor = executor,
        directories = "\n".join(['    "%s",' % directory for directory in directories]),
    ))
