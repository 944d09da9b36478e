// A model on a device: its code, weights and constants. Immutable once loaded.

#ifndef AOTI_RUNTIME_MODEL_H_
#define AOTI_RUNTIME_MODEL_H_

#include <cstdint>
#include <memory>

#include "runtime/context.h"
#include "runtime/description.h"
#include "runtime/kernels.h"
#include "runtime/launcher.h"
#include "runtime/memory.h"
#include "runtime/status.h"
#include "runtime/weights.h"

namespace aoti {

// Device memory in bytes, as it is allocated.
uint64_t ModelMemory(const TargetDescription& target);
uint64_t LoadMemory(const TargetDescription& target);
uint64_t SessionMemory(const TargetDescription& target);

class Model {
 public:
  struct Options {
    int device = 0;                   // ordinal
    cuda::Context context = nullptr;  // null for the device's primary context
    // The weights file: a path, or else memory, or neither where the model has no weights.
    const char* weights_path = nullptr;
    const void* weights_data = nullptr;
    uint64_t weights_size = 0;
    // Kernels that replace embedded ones: a directory, or null; runtime/kernels_directory.h.
    const char* kernels_directory = nullptr;
  };

  // Checks the description, the device and the weights' header, in this order, before it allocates
  // anything; then loads the code, uploads the weights and computes the constants from them.
  static Status Load(const ModelDescription& description, const Options& options,
                     std::shared_ptr<const Model>* model);

  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelDescription& description() const { return description_; }
  const TargetDescription& target() const { return target_; }
  const std::shared_ptr<const Context>& context() const { return context_; }
  const KernelSet& kernels() const { return *kernels_; }

  // Of a run of the main procedure, but for the arena, inputs and outputs.
  Addresses addresses() const;

 private:
  Model(const ModelDescription& description, const TargetDescription& target,
        std::shared_ptr<const Context> context)
      : description_(description), target_(target), context_(std::move(context)) {}

  Status Prepare(const SafetensorsFile* weights, const KernelReplacements& replacements);

  const ModelDescription& description_;
  const TargetDescription& target_;
  const std::shared_ptr<const Context> context_;
  std::shared_ptr<const KernelSet> kernels_;
  DeviceMemory memory_;  // weights, then constants
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_MODEL_H_
