// Owned blocks of memory: on the device, and page-locked on the host.

#ifndef AOTI_RUNTIME_MEMORY_H_
#define AOTI_RUNTIME_MEMORY_H_

#include <cstdint>
#include <memory>
#include <string>

#include "runtime/context.h"
#include "runtime/launcher.h"
#include "runtime/status.h"

namespace aoti {

// Blocks within one allocation begin at multiples of this. cuMemAlloc gives at least as much.
constexpr uint64_t kAlignment = 256;

// The least multiple of kAlignment that is not below `nbytes`.
constexpr uint64_t Align(uint64_t nbytes) {
  return (nbytes + kAlignment - 1) / kAlignment * kAlignment;
}

class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() { Free(); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // The context must be current. `what` is for the error message: "weights". None for 0 bytes.
  Status Allocate(std::shared_ptr<const Context> context, uint64_t nbytes, const std::string& what);
  void Free();

  DeviceAddress address() const { return address_; }

 private:
  std::shared_ptr<const Context> context_;
  cuda::DevicePointer address_ = 0;
};

class PinnedMemory {
 public:
  PinnedMemory() = default;
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;

  Status Allocate(std::shared_ptr<const Context> context, uint64_t nbytes);

  void* data() const { return data_; }

 private:
  std::shared_ptr<const Context> context_;
  void* data_ = nullptr;
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_MEMORY_H_
