// A model on a device: its code, and the weights it runs with.

#ifndef AOTI_RUNTIME_MODEL_H_
#define AOTI_RUNTIME_MODEL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>

#include "runtime/context.h"
#include "runtime/description.h"
#include "runtime/kernels.h"
#include "runtime/status.h"
#include "runtime/weight_set.h"

namespace aoti {

class Session;

// Device memory in bytes, as it is allocated.
uint64_t ModelMemory(const TargetDescription& target);
uint64_t LoadMemory(const TargetDescription& target);
uint64_t SessionMemory(const TargetDescription& target);

// Nothing but the weights ever changes, and those as a whole. Any number of threads.
class Model {
 public:
  struct Options {
    int device = 0;                   // ordinal
    cuda::Context context = nullptr;  // null for the device's primary context
    // Kernels that replace embedded ones: a directory, or null; runtime/kernels_directory.h.
    const char* kernels_directory = nullptr;
    bool defer_weights = false;  // else they are loaded from these:
    WeightSources weights;
  };

  // Checks the description, the device and where the weights come from, in this order, before it
  // allocates anything; then loads the code, and the weights as LoadWeights does.
  static Status Load(const ModelDescription& description, const Options& options,
                     std::shared_ptr<Model>* model);

  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelDescription& description() const { return description_; }
  const TargetDescription& target() const { return target_; }
  const std::shared_ptr<const Context>& context() const { return context_; }
  const KernelSet& kernels() const { return *kernels_; }

  // Uploads weights and computes the constants from them. Runs go on with those they have.
  Status LoadWeights(const WeightSources& sources, std::shared_ptr<const WeightSet>* weights);

  // What runs use that begin now; null if there are none yet. The id, 0 for none, needs no lock.
  std::shared_ptr<const WeightSet> weights() const;
  uint64_t weights_id() const { return weights_id_.load(std::memory_order_acquire); }

  // Makes runs that begin from now on use `weights`, which were loaded for this model. Waits for
  // nothing. Returns what they used before, null if nothing.
  std::shared_ptr<const WeightSet> SwapWeights(std::shared_ptr<const WeightSet> weights);

  // Waits until no run uses `weights` any more, unless runs that begin now would; sessions then no
  // longer hold them.
  void AwaitWeights(const WeightSet& weights);

  // Has sessions let go of sets whose runs have finished, as far as that is so now.
  void ReleaseWeights();

  // Sessions say when they come and go.
  void Add(Session* session);
  void Remove(Session* session);

 private:
  Model(const ModelDescription& description, const TargetDescription& target,
        std::shared_ptr<const Context> context)
      : description_(description), target_(target), context_(std::move(context)) {}

  const ModelDescription& description_;
  const TargetDescription& target_;
  const std::shared_ptr<const Context> context_;
  std::shared_ptr<const KernelSet> kernels_;

  mutable std::mutex weights_mutex_;  // within it no other is locked
  std::shared_ptr<const WeightSet> weights_;
  std::atomic<uint64_t> weights_id_{0};  // of weights_

  std::mutex sessions_mutex_;  // within it a session's may be locked, not the other way round
  std::set<Session*> sessions_;
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_MODEL_H_
