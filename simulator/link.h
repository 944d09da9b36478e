// What a program that is built with --//aoti:simulator links: it makes the simulator the program's
// libcuda.so.1 before main begins.

#ifndef AOTI_SIMULATOR_LINK_H_
#define AOTI_SIMULATOR_LINK_H_

#include <cstddef>

namespace simulator {

// A static object of generated code. Paths are relative to the runfiles' root.
class LinkedModel {
 public:
  // Loads the driver, and adds the model's directories to SIMULATOR_KERNELS and the executor as
  // SIMULATOR_EXECUTOR, unless those were set when the program started. Ends the program, with a
  // message, if it cannot: it is not to run on a GPU, should there be one.
  LinkedModel(const char* name, const char* driver, const char* executor,
              const char* const* directories, size_t num_directories);
};

}  // namespace simulator

#endif  // AOTI_SIMULATOR_LINK_H_
