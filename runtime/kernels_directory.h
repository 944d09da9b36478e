// Kernels that are loaded from a directory instead of those in the library, so that one can be
// edited, compiled and run without linking anything anew.

#ifndef AOTI_RUNTIME_KERNELS_DIRECTORY_H_
#define AOTI_RUNTIME_KERNELS_DIRECTORY_H_

#include <string>

#include "runtime/description.h"
#include "runtime/kernels.h"
#include "runtime/status.h"

namespace aoti {

// Reads `<directory>/<target>/<kernel>.json` and the image beside it, .cubin or .ptx, of every
// kernel that is there; what the compile step writes (wrapgen/kernels/metadata.py). Fails unless
// each is of a kernel of the target and could be launched in its place. Other files are left alone.
Status ReadKernelsDirectory(const std::string& directory, const char* model,
                            const TargetDescription& target, int driver_version,
                            KernelReplacements* replacements);

}  // namespace aoti

#endif  // AOTI_RUNTIME_KERNELS_DIRECTORY_H_
