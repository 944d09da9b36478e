// A model's weights on a device, with the constants that are made of them, and how they get there.

#ifndef AOTI_RUNTIME_WEIGHT_SET_H_
#define AOTI_RUNTIME_WEIGHT_SET_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/aoti.h"
#include "runtime/context.h"
#include "runtime/description.h"
#include "runtime/kernels.h"
#include "runtime/launcher.h"
#include "runtime/memory.h"
#include "runtime/status.h"
#include "runtime/weights.h"

namespace aoti {

// Immutable once loaded. Whoever launches work that reads it holds it until that has finished.
class WeightSet {
 public:
  // Where a weight lies, and what keeps it there: null where that is the caller.
  struct Place {
    DeviceAddress address = 0;
    std::shared_ptr<const DeviceMemory> memory;
    bool kept = false;  // else it was gone when the constants were computed
  };

  WeightSet(const TargetDescription& target, std::shared_ptr<const Context> context);
  WeightSet(const WeightSet&) = delete;
  WeightSet& operator=(const WeightSet&) = delete;

  // No other set of the process ever has the same; never 0.
  uint64_t id() const { return id_; }
  const TargetDescription& target() const { return target_; }
  const std::shared_ptr<const Context>& context() const { return context_; }
  const Place& place(size_t index) const { return places_[index]; }
  const AotiWeightsInfo& info() const { return info_; }

  // Of a run of the main procedure, but for the arena, inputs and outputs.
  Addresses addresses() const;

 private:
  friend class WeightLoader;

  const uint64_t id_;
  const TargetDescription& target_;
  const std::shared_ptr<const Context> context_;
  std::vector<Place> places_;             // one a weight of the target, in its order
  std::vector<DeviceAddress> addresses_;  // of these
  std::shared_ptr<const DeviceMemory> constants_;
  AotiWeightsInfo info_ = {};
};

// Where the weights of a set come from, as AotiWeightsOptions has it. What is pointed to outlives
// the loading.
struct WeightSources {
  Table<AotiNamedTensor> tensors = {nullptr, 0};
  std::vector<std::shared_ptr<const WeightSet>> from;
  // The weights file: a path, or else memory, or neither.
  const char* path = nullptr;
  const void* data = nullptr;
  uint64_t size = 0;
  cuda::Stream stream = nullptr;
  bool keep_all = false;
};

// Loads a set in two steps, so that all that can be checked is checked before anything is
// allocated.
class WeightLoader {
 public:
  // All outlives the loader.
  WeightLoader(const ModelDescription& model, const TargetDescription& target,
               const WeightSources& sources);

  // Finds each weight for device `ordinal`, and reads no data.
  Status Find(int ordinal);

  // To be called once, after Find. The context must be current. Returns when the set is ready.
  Status Load(const std::shared_ptr<const Context>& context, const KernelSet& kernels,
              std::shared_ptr<const WeightSet>* set);

 private:
  enum class Origin { kNone, kFile, kHost, kDevice, kInPlace, kShared, kNotNeeded };

  struct Source {
    Origin origin = Origin::kNone;
    uint64_t offset = 0;                      // in the file
    DeviceAddress address = 0;                // of the caller's tensor
    const WeightSet::Place* place = nullptr;  // in another set
    bool forgotten = false;                   // whether another set had it once
  };

  Status FindTensors(int ordinal);
  void FindShared();
  Status FindInFile();
  Status Missing(size_t index) const;
  // Whether the set can have the constants of the first one that it shares with.
  bool SharesConstants() const;
  bool IsCopied(size_t index) const;
  bool IsKept(size_t index) const;
  bool ReadsCallersDeviceMemory() const;

  Status CheckContexts(const Context& context) const;
  Status Allocate(WeightSet* set);
  // Says where each weight lies, those to be copied one behind the other in `memory`.
  void Place(const std::shared_ptr<const DeviceMemory>& memory, WeightSet* set) const;
  Status Copy(WeightSet* set, cuda::Stream stream);
  Status Fold(const WeightSet& set, const KernelSet& kernels, cuda::Stream stream) const;

  const ModelDescription& model_;
  const TargetDescription& target_;
  const WeightSources& sources_;
  std::vector<Source> found_;  // one a weight
  std::unique_ptr<SafetensorsFile> file_;
  const WeightSet* base_ = nullptr;  // whose constants the set has; null to compute them
  DeviceMemory temporary_;           // staging, then the folding procedure's arena
  uint64_t staging_ = 0;             // bytes of the former
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_WEIGHT_SET_H_
