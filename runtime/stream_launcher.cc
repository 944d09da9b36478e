#include "runtime/stream_launcher.h"

#include <string>

namespace aoti {

Status StreamLauncher::Launch(uint32_t index, Grid grid, void** params, Pointers) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return Status();
  const Kernel* kernel = nullptr;
  AOTI_RETURN_IF_ERROR(kernels_.Get(index, &kernel));
  Grid blocks;
  AOTI_RETURN_IF_ERROR(kernel->Blocks(grid, &blocks));
  if (kernel->cluster == 1) {
    AOTI_CUDA_RETURN_IF_ERROR(driver_, std::string("launching kernel ") + kernel->name,
                              LaunchKernel, kernel->function, blocks.x, blocks.y, blocks.z,
                              kernel->threads, 1, 1, kernel->shared_memory, stream_, params,
                              nullptr);
    return Status();
  }
  cuda::LaunchAttribute attribute = {};
  attribute.id = cuda::kLaunchAttributeClusterDimension;
  attribute.value = kernel->ClusterDimension();
  const cuda::LaunchConfig config = {
      blocks.x, blocks.y,   blocks.z, kernel->threads, 1, 1, kernel->shared_memory,
      stream_,  &attribute, 1};
  AOTI_CUDA_RETURN_IF_ERROR(driver_, std::string("launching kernel ") + kernel->name,
                            LaunchKernelEx, &config, kernel->function, params, nullptr);
  return Status();
}

Status StreamLauncher::Copy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes, Pointers) {
  if (nbytes == 0) return Status();
  AOTI_CUDA_RETURN_IF_ERROR(driver_, "copying " + std::to_string(nbytes) + " bytes on the device",
                            MemcpyDtoDAsync, dst, src, nbytes, stream_);
  return Status();
}

Status StreamLauncher::Fill(DeviceAddress dst, uint8_t byte, uint64_t nbytes, Pointers) {
  if (nbytes == 0) return Status();
  AOTI_CUDA_RETURN_IF_ERROR(driver_, "filling " + std::to_string(nbytes) + " bytes on the device",
                            MemsetD8Async, dst, byte, nbytes, stream_);
  return Status();
}

}  // namespace aoti
