// What the simulator takes as a module: a text that declares kernels.
//
//   simulator module
//   kernel NAME target=sm_90 threads=128 shared=0 cluster=1 params=8,8,4
//
// `target` is an sm_* or compute_* name, compared with the device as a driver compares machine code
// and PTX; `threads` the most threads a block may have; `cluster` what a launch must ask for;
// `params` the size of each parameter in bytes.

#ifndef AOTI_SIMULATOR_IMAGE_H_
#define AOTI_SIMULATOR_IMAGE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace simulator {

struct KernelImage {
  std::string name;
  bool ptx = false;
  int major = 0;
  int minor = 0;
  uint32_t threads = 0;
  uint32_t shared = 0;
  uint32_t cluster = 1;
  std::vector<size_t> params;
};

// Reads a zero-terminated image. Returns false, with a text for the JIT's error log, if it is none.
bool ParseImage(const char* image, std::vector<KernelImage>* kernels, std::string* fault);

// Whether a device of this compute capability runs the kernel.
bool Runs(const KernelImage& kernel, int major, int minor);

}  // namespace simulator

#endif  // AOTI_SIMULATOR_IMAGE_H_
