// A target's kernels, loaded into a context.

#ifndef AOTI_RUNTIME_KERNELS_H_
#define AOTI_RUNTIME_KERNELS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/context.h"
#include "runtime/description.h"
#include "runtime/launcher.h"
#include "runtime/status.h"

namespace aoti {

// A loaded kernel with the launch parameters that do not change.
struct Kernel {
  const char* name;
  cuda::Function function;
  uint32_t threads;
  uint32_t shared_memory;
  uint32_t cluster;

  // In blocks. Fails if the grid is more than any can be.
  Status Blocks(Grid grid, Grid* blocks) const;
  cuda::LaunchAttributeValue ClusterDimension() const;
};

class KernelSet {
 public:
  KernelSet() = default;
  ~KernelSet();
  KernelSet(const KernelSet&) = delete;
  KernelSet& operator=(const KernelSet&) = delete;

  // Loads every kernel completely, whatever CUDA_MODULE_LOADING says: no run pays for it later. The
  // context must be current.
  Status Load(std::shared_ptr<const Context> context, const TargetDescription& target);

  // Fails if there is no kernel `index`.
  Status Get(uint32_t index, const Kernel** kernel) const;

 private:
  Status CheckParams(const KernelDescription& description, cuda::Function function,
                     const std::string& doing) const;
  Status LoadOne(const KernelDescription& description, const TargetDescription& target);

  std::shared_ptr<const Context> context_;
  std::vector<cuda::Module> modules_;
  std::vector<Kernel> kernels_;
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_KERNELS_H_
