// A target's kernels, loaded into a context.

#ifndef AOTI_RUNTIME_KERNELS_H_
#define AOTI_RUNTIME_KERNELS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "runtime/context.h"
#include "runtime/description.h"
#include "runtime/launcher.h"
#include "runtime/status.h"

namespace aoti {

// The attributes of a launch.
struct LaunchAttributes {
  cuda::LaunchAttribute all[3];
  uint32_t size = 0;

  const cuda::LaunchAttribute* begin() const { return all; }
  const cuda::LaunchAttribute* end() const { return all + size; }
};

// A loaded kernel with the launch parameters that do not change.
struct Kernel {
  const char* name;
  cuda::Function function;
  uint32_t threads;
  uint32_t shared_memory;
  uint32_t cluster;
  uint32_t flags;
  uint64_t resident;  // of a cooperative kernel: the blocks that the device runs at a time
  Table<TensorMapDescription> tensor_maps;

  bool cooperative() const { return (flags & kCooperative) != 0; }
  bool dependent() const { return (flags & kDependent) != 0; }

  // In blocks. Fails if the grid is more than any can be, or than a cooperative one can.
  Status Blocks(Grid grid, Grid* blocks) const;
  // Those that hold wherever the launch stands: a dependent one needs more than these.
  LaunchAttributes Attributes() const;
  // As Launcher::Encode.
  Status Encode(const Driver& driver, uint32_t param, const MappedTensor& tensor,
                TensorMap* map) const;
};

#ifndef AOTI_STANDALONE
// An image that is loaded in the place of a kernel's embedded one, and what its launches need.
struct KernelReplacement {
  std::string path;   // of the image, for messages
  std::string image;  // a cubin or PTX
  uint32_t threads = 0;
  uint32_t shared_memory = 0;
  uint32_t cluster = 0;

  friend bool operator<(const KernelReplacement& a, const KernelReplacement& b) {
    return a.Fields() < b.Fields();
  }

 private:
  std::tuple<const std::string&, const std::string&, uint32_t, uint32_t, uint32_t> Fields() const {
    return {path, image, threads, shared_memory, cluster};
  }
};

// By the kernel's name.
using KernelReplacements = std::map<std::string, KernelReplacement>;
#endif  // AOTI_STANDALONE

class KernelSet {
 public:
  KernelSet() = default;
  ~KernelSet();
  KernelSet(const KernelSet&) = delete;
  KernelSet& operator=(const KernelSet&) = delete;

  // Loads every kernel completely, whatever CUDA_MODULE_LOADING says: no run pays for it later. The
  // context must be current.
  Status Load(std::shared_ptr<const Context> context, const TargetDescription& target);
#ifndef AOTI_STANDALONE
  // The same with other images for some kernels of the target.
  Status Load(std::shared_ptr<const Context> context, const TargetDescription& target,
              const KernelReplacements& replacements);
#endif  // AOTI_STANDALONE

  // Fails if there is no kernel `index`.
  Status Get(uint32_t index, const Kernel** kernel) const;

 private:
  Status CheckParams(const KernelDescription& description, cuda::Function function,
                     const std::string& doing) const;
  Status CheckCooperative(const KernelDescription& description, cuda::Function function,
                          const std::string& doing, uint64_t* resident) const;
  Status LoadOne(const KernelDescription& description, const TargetDescription& target);
#ifndef AOTI_STANDALONE
  Status LoadReplacement(const KernelDescription& embedded, const KernelReplacement& replacement,
                         const TargetDescription& target);
  // Fails unless the kernel loaded last takes its parameters where the embedded one does.
  Status CompareParams(const KernelDescription& embedded);
#endif  // AOTI_STANDALONE

  std::shared_ptr<const Context> context_;
  std::vector<cuda::Module> modules_;
  std::vector<Kernel> kernels_;
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_KERNELS_H_
