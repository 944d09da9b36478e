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
  uint32_t cluster_optin = 0;           // the same, once a kernel has asked for it
  // Of a multiprocessor.
  uint32_t resident_threads = 0;
  uint32_t resident_blocks = 0;
  uint32_t resident_registers = 65536;
  uint32_t resident_shared = 0;
  // Of the device: those of the data sheets' A100 and H100, as there is none to ask.
  uint32_t multiprocessors = 0;
};

Limits LimitsOf(int major, int minor);

struct Shape {
  uint32_t grid[3];   // in blocks
  uint32_t block[3];  // in threads
  uint32_t cluster;
  uint32_t shared;  // dynamic
  bool cooperative = false;
  bool dependent = false;  // programmatic stream serialization, or a programmatic edge
};

struct Excess {
  aoti::cuda::Result result = aoti::cuda::kSuccess;
  std::string what;
};

// Compares a launch with the kernel and the device. `max_shared` is what the kernel has asked for,
// `any_cluster` whether it has asked for more than each device can do.
Excess CheckShape(const Limits& limits, const KernelImage& kernel, const Shape& shape,
                  uint32_t max_shared, bool any_cluster);

// Blocks of a kernel that a multiprocessor runs at a time.
uint32_t ResidentBlocks(const Limits& limits, const KernelImage& kernel, uint64_t threads,
                        uint64_t dynamic_shared);

}  // namespace simulator

#endif  // AOTI_SIMULATOR_LIMITS_H_
