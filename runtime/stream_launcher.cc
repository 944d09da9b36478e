#include "runtime/stream_launcher.h"

#include <string>

namespace aoti {

Status StreamLauncher::Launch(uint32_t index, Grid grid, void** params, Pointers) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return Status();
  const Kernel* kernel = nullptr;
  AOTI_RETURN_IF_ERROR(kernels_.Get(index, &kernel));
  Grid blocks = {};
  AOTI_RETURN_IF_ERROR(kernel->Blocks(grid, &blocks));
  LaunchAttributes attributes = kernel->Attributes();
  // Ahead may be the caller's work, and what is no kernel ends before a kernel starts anyway.
  if (kernel->dependent() && after_kernel_) {
    cuda::LaunchAttribute& attribute = attributes.all[attributes.size++];
    attribute = {};
    attribute.id = cuda::kLaunchAttributeProgrammaticStreamSerialization;
    attribute.value.programmatic = 1;
  }
  after_kernel_ = true;
  if (attributes.size == 0) {
    AOTI_CUDA_RETURN_IF_ERROR(driver_, std::string("launching kernel ") + kernel->name,
                              LaunchKernel, kernel->function, blocks.x, blocks.y, blocks.z,
                              kernel->threads, 1, 1, kernel->shared_memory, stream_, params,
                              nullptr);
    return Status();
  }
  const cuda::LaunchConfig config = {
      blocks.x, blocks.y,       blocks.z,       kernel->threads, 1, 1, kernel->shared_memory,
      stream_,  attributes.all, attributes.size};
  AOTI_CUDA_RETURN_IF_ERROR(driver_, std::string("launching kernel ") + kernel->name,
                            LaunchKernelEx, &config, kernel->function, params, nullptr);
  return Status();
}

Status StreamLauncher::Encode(uint32_t index, uint32_t param, const MappedTensor& tensor,
                              TensorMap* map) {
  const Kernel* kernel = nullptr;
  AOTI_RETURN_IF_ERROR(kernels_.Get(index, &kernel));
  return kernel->Encode(driver_, param, tensor, map);
}

Status StreamLauncher::Copy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes, Pointers) {
  if (nbytes == 0) return Status();
  after_kernel_ = false;
  AOTI_CUDA_RETURN_IF_ERROR(driver_, "copying " + std::to_string(nbytes) + " bytes on the device",
                            MemcpyDtoDAsync, dst, src, nbytes, stream_);
  return Status();
}

Status StreamLauncher::Fill(DeviceAddress dst, uint8_t byte, uint64_t nbytes, Pointers) {
  if (nbytes == 0) return Status();
  after_kernel_ = false;
  AOTI_CUDA_RETURN_IF_ERROR(driver_, "filling " + std::to_string(nbytes) + " bytes on the device",
                            MemsetD8Async, dst, byte, nbytes, stream_);
  return Status();
}

Status StreamLauncher::If(uint32_t, DeviceAddress predicate, uint32_t nbytes, Steps then,
                          Steps otherwise) {
  bool holds = false;
  AOTI_RETURN_IF_ERROR(Read(predicate, nbytes, &holds));
  after_kernel_ = false;
  const Steps steps = holds ? then : otherwise;
  return steps == nullptr ? Status() : steps(*this);
}

Status StreamLauncher::While(uint32_t, DeviceAddress predicate, uint32_t nbytes, Steps condition,
                             Steps body) {
  for (;;) {
    if (condition != nullptr) AOTI_RETURN_IF_ERROR(condition(*this));
    bool holds = false;
    AOTI_RETURN_IF_ERROR(Read(predicate, nbytes, &holds));
    after_kernel_ = false;
    if (!holds) return Status();
    if (body != nullptr) AOTI_RETURN_IF_ERROR(body(*this));
  }
}

// Whether the number at an address is not 0.
Status StreamLauncher::Read(DeviceAddress predicate, uint32_t nbytes, bool* holds) const {
  const std::string doing = "reading a condition";
  uint64_t number = 0;
  if (nbytes > sizeof number) {
    return Status(Code::kInternal,
                  doing + ": it has " + std::to_string(nbytes) + " bytes, more than a number has");
  }
  AOTI_RETURN_IF_ERROR(ToHost(doing, &number, predicate, nbytes));
  *holds = number != 0;
  return Status();
}

Status StreamLauncher::ToHost(const std::string& doing, void* to, DeviceAddress from,
                              uint64_t nbytes) const {
  AOTI_CUDA_RETURN_IF_ERROR(driver_, doing, MemcpyDtoHAsync, to, from, nbytes, stream_);
  // The copy into memory that is not pinned may or may not be done when the call returns.
  AOTI_CUDA_RETURN_IF_ERROR(driver_, doing, StreamSynchronize, stream_);
  return Status();
}

Status StreamLauncher::Synchronize(const std::string& doing) {
  AOTI_CUDA_RETURN_IF_ERROR(driver_, doing, StreamSynchronize, stream_);
  return Status();
}

Status StreamLauncher::Fetch(void* to, DeviceAddress from, uint64_t nbytes) {
  return ToHost("reading " + std::to_string(nbytes) + " bytes of the device", to, from, nbytes);
}

}  // namespace aoti
