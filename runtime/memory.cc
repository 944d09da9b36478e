#include "runtime/memory.h"

#include <utility>

namespace aoti {

Status DeviceMemory::Allocate(std::shared_ptr<const Context> context, uint64_t nbytes,
                              const std::string& what) {
  Free();
  if (nbytes == 0) return Status();
  AOTI_CUDA_RETURN_IF_ERROR(
      context->driver(),
      "allocating " + std::to_string(nbytes) + " bytes of device memory for " + what, MemAlloc,
      &address_, nbytes);
  context_ = std::move(context);
  return Status();
}

void DeviceMemory::Free() {
  if (context_ == nullptr) return;
  {
    const ScopedContext scope(*context_);
    if (scope.ok()) context_->driver().MemFree(address_);
  }
  address_ = 0;
  context_.reset();
}

Status PinnedMemory::Allocate(std::shared_ptr<const Context> context, uint64_t nbytes) {
  AOTI_CUDA_RETURN_IF_ERROR(
      context->driver(),
      "allocating " + std::to_string(nbytes) + " bytes of page-locked host memory", MemHostAlloc,
      &data_, nbytes, 0);
  context_ = std::move(context);
  return Status();
}

PinnedMemory::~PinnedMemory() {
  if (context_ == nullptr) return;
  const ScopedContext scope(*context_);
  if (scope.ok()) context_->driver().MemFreeHost(data_);
}

}  // namespace aoti
