// What generated launch code calls. One interface serves the ways to run a procedure: issue it to a
// stream, build a CUDA graph of it, or update the nodes of an instantiated graph that hold the
// caller's pointers.

#ifndef AOTI_RUNTIME_LAUNCHER_H_
#define AOTI_RUNTIME_LAUNCHER_H_

#include <cstdint>

#include "runtime/status.h"

namespace aoti {

// A device address, as CUdeviceptr.
using DeviceAddress = uint64_t;

// Where the memory of a run begins. A procedure adds constant or computed offsets.
struct Addresses {
  DeviceAddress arena;
  DeviceAddress weights;
  DeviceAddress staging;
  DeviceAddress constants;
  const DeviceAddress* inputs;
  const DeviceAddress* outputs;
};

// In Triton programs. A program is a block, or a cluster of blocks where the kernel has clusters.
struct Grid {
  uint32_t x;
  uint32_t y;
  uint32_t z;
};

// Whether a step holds addresses the caller owns, which may change from run to run.
enum class Pointers { kOwned, kCaller };

class Launcher {
 public:
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  const Addresses& at() const { return addresses_; }

  // `params` points to one pointer per kernel parameter, as cuLaunchKernel takes them, scratch
  // pointers included. An empty grid does nothing.
  virtual Status Launch(uint32_t kernel, Grid grid, void** params, Pointers pointers) = 0;
  virtual Status Copy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes, Pointers pointers) = 0;
  virtual Status Fill(DeviceAddress dst, uint8_t byte, uint64_t nbytes, Pointers pointers) = 0;

 protected:
  explicit Launcher(const Addresses& addresses) : addresses_(addresses) {}
  ~Launcher() = default;

  Addresses addresses_;
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_LAUNCHER_H_
