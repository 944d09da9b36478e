// What a device of a compute capability can launch.

#ifndef AOTI_SIMULATOR_LIMITS_H_
#define AOTI_SIMULATOR_LIMITS_H_

#include <cstdint>
#include <string>

#include "runtime/cuda_driver.h"
#include "simulator/image.h"

namespace simulator {

// CUDA C++ programming guide, table "Technical Specifications per Compute Capability".
struct Limits {
  uint32_t threads = 1024;  // of a block
  uint32_t block[3] = {1024, 1024, 64};
  uint32_t grid[3] = {2147483647, 65535, 65535};
  uint32_t registers = 65536;           // of a block
  uint32_t shared_default = 48 * 1024;  // of a block, static and dynamic
  uint32_t shared_optin = 0;            // once a kernel has asked for it
  uint32_t cluster = 0;                 // blocks of a cluster; 1 where there are none
};

Limits LimitsOf(int major, int minor);

struct Shape {
  uint32_t grid[3];   // in blocks
  uint32_t block[3];  // in threads
  uint32_t cluster;
  uint32_t shared;  // dynamic
};

struct Excess {
  aoti::cuda::Result result = aoti::cuda::kSuccess;
  std::string what;
};

// Compares a launch with the kernel and the device. `max_shared` is what the kernel has asked for.
Excess CheckShape(const Limits& limits, const KernelImage& kernel, const Shape& shape,
                  uint32_t max_shared);

}  // namespace simulator

#endif  // AOTI_SIMULATOR_LIMITS_H_
