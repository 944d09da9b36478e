// What generated launch code calls. One interface serves the ways to run a procedure: issue it to a
// stream, build a CUDA graph of it, or update the nodes of an instantiated graph that hold the
// caller's pointers.

#ifndef AOTI_RUNTIME_LAUNCHER_H_
#define AOTI_RUNTIME_LAUNCHER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "runtime/status.h"

namespace aoti {

// A device address, as CUdeviceptr.
using DeviceAddress = uint64_t;

// Where the memory of a run begins, and what the sizes of its inputs come to. A procedure adds
// constant or computed offsets.
struct Addresses {
  DeviceAddress arena;
  DeviceAddress constants;
  // One a weight, in the order of the target's table: weights may be the caller's, or another
  // model's, and lie anywhere. Those that the procedure does not read may be 0.
  const DeviceAddress* weights;
  const DeviceAddress* inputs;
  const DeviceAddress* outputs;
  // Sizes, scalars and what is computed from them; null where a model has none. Generated code
  // names the indices.
  const int64_t* values;

  // A value that counts bytes.
  uint64_t bytes(size_t index) const { return static_cast<uint64_t>(values[index]); }
  // A value that counts Triton programs.
  uint32_t programs(size_t index) const { return static_cast<uint32_t>(values[index]); }
};

// In Triton programs. A program is a block, or a cluster of blocks where the kernel has clusters.
struct Grid {
  uint32_t x;
  uint32_t y;
  uint32_t z;
};

// Whether a step holds what may change from run to run without a change of shapes: addresses the
// caller owns, or values of scalar inputs.
enum class Pointers { kOwned, kCaller };

// Of a tensor map: CUDA driver API, cuTensorMapEncodeTiled.
constexpr int kMaxTensorMapRank = 5;

// A tensor in memory that a kernel copies blocks of by TMA. Sizes and strides are in elements,
// outermost first; those behind the parameter's rank are not looked at.
struct MappedTensor {
  DeviceAddress address;
  int64_t shape[kMaxTensorMapRank];
  int64_t strides[kMaxTensorMapRank];
  bool nan = false;   // what elements outside of it read as, where that is not 0
  bool tf32 = false;  // whether float32 is rounded to tf32 as it is read
};

// Such a tensor as the hardware has it described: CUtensorMap, a parameter of the kernel.
struct alignas(128) TensorMap {
  unsigned char bytes[128];
};

// Looks at the device between the steps of a run: for debug builds (runtime/debug/debug.h).
class Inspector {
 public:
  Inspector(const Inspector&) = delete;
  Inspector& operator=(const Inspector&) = delete;

  // Waits for the steps issued so far. `doing` is for the message of an error.
  virtual Status Synchronize(const std::string& doing) = 0;
  // Copies memory that no step is at work on to the host.
  virtual Status Fetch(void* to, DeviceAddress from, uint64_t nbytes) = 0;

 protected:
  Inspector() = default;
  ~Inspector() = default;
};

class Launcher {
 public:
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  const Addresses& at() const { return addresses_; }

  // `params` points to one pointer per kernel parameter, as cuLaunchKernel takes them, scratch
  // pointers included. An empty grid does nothing.
  virtual Status Launch(uint32_t kernel, Grid grid, void** params, Pointers pointers) = 0;
  // Describes a tensor for a parameter of a kernel. One without elements is described by zeros,
  // with which the hardware copies nothing.
  virtual Status Encode(uint32_t kernel, uint32_t param, const MappedTensor& tensor,
                        TensorMap* map) = 0;
  virtual Status Copy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes, Pointers pointers) = 0;
  virtual Status Fill(DeviceAddress dst, uint8_t byte, uint64_t nbytes, Pointers pointers) = 0;

  // A function of generated code that issues steps; null for none.
  using Steps = Status (*)(Launcher& launcher);

  // Steps that are executed if the `nbytes` bytes at `predicate` are not all 0, and others if they
  // are. `kernel` is the one that lets a CUDA graph decide (wrapgen/set_condition.py). The steps
  // hold nothing that is the caller's.
  virtual Status If(uint32_t kernel, DeviceAddress predicate, uint32_t nbytes, Steps then,
                    Steps otherwise) = 0;
  // `condition`, then `body` and again `condition` as long as the bytes are not all 0.
  virtual Status While(uint32_t kernel, DeviceAddress predicate, uint32_t nbytes, Steps condition,
                       Steps body) = 0;

  // Null where steps are not executed as they are issued.
  virtual Inspector* inspector() { return nullptr; }

 protected:
  explicit Launcher(const Addresses& addresses) : addresses_(addresses) {}
  ~Launcher() = default;

  Addresses addresses_;
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_LAUNCHER_H_
