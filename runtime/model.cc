#include "runtime/model.h"

#include <string>
#include <utility>

#include "runtime/kernels_directory.h"
#include "runtime/session.h"
#include "runtime/shared_kernels.h"
#include "runtime/target.h"

namespace aoti {

uint64_t ModelMemory(const TargetDescription& target) {
  return Align(target.memory.weights) + Align(target.memory.constants);
}

uint64_t LoadMemory(const TargetDescription& target) {
  return Align(target.memory.staging) + Align(target.memory.folding_arena);
}

uint64_t SessionMemory(const TargetDescription& target) { return Align(target.memory.main_arena); }

Status Model::Load(const ModelDescription& description, const Options& options,
                   std::shared_ptr<Model>* model) {
  AOTI_RETURN_IF_ERROR(CheckDescription(description));
  const Driver* driver = nullptr;
  AOTI_RETURN_IF_ERROR(Driver::Get(&driver));
  DeviceProperties device;
  AOTI_RETURN_IF_ERROR(ReadDevice(*driver, options.device, &device));
  const TargetDescription* target = nullptr;
  AOTI_RETURN_IF_ERROR(ChooseTarget(description, device, driver->version(), &target));
  WeightLoader loader(description, *target, options.weights);
  if (!options.defer_weights) AOTI_RETURN_IF_ERROR(loader.Find(device.ordinal));
  KernelReplacements replacements;
  if (options.kernels_directory != nullptr) {
    AOTI_RETURN_IF_ERROR(ReadKernelsDirectory(options.kernels_directory, description.name, *target,
                                              driver->version(), &replacements));
  }

  std::shared_ptr<const Context> context;
  AOTI_RETURN_IF_ERROR(Context::Create(*driver, device, options.context, &context));
  const std::shared_ptr<Model> loaded(new Model(description, *target, context));
  const ScopedContext scope(*context);
  AOTI_RETURN_IF_ERROR(scope.status());
  AOTI_RETURN_IF_ERROR(ShareKernels(context, *target, replacements, &loaded->kernels_));
  if (!options.defer_weights) {
    std::shared_ptr<const WeightSet> weights;
    AOTI_RETURN_IF_ERROR(loader.Load(context, *loaded->kernels_, &weights));
    loaded->SwapWeights(std::move(weights));
  }
  *model = loaded;
  return Status();
}

Status Model::LoadWeights(const WeightSources& sources, std::shared_ptr<const WeightSet>* weights) {
  WeightLoader loader(description_, target_, sources);
  AOTI_RETURN_IF_ERROR(loader.Find(context_->device().ordinal));
  // Before more memory is needed.
  ReleaseWeights();
  const ScopedContext scope(*context_);
  AOTI_RETURN_IF_ERROR(scope.status());
  return loader.Load(context_, *kernels_, weights);
}

std::shared_ptr<const WeightSet> Model::weights() const {
  const std::lock_guard<std::mutex> lock(weights_mutex_);
  return weights_;
}

std::shared_ptr<const WeightSet> Model::SwapWeights(std::shared_ptr<const WeightSet> weights) {
  const std::lock_guard<std::mutex> lock(weights_mutex_);
  weights_.swap(weights);
  weights_id_.store(weights_->id(), std::memory_order_release);
  return weights;
}

void Model::AwaitWeights(const WeightSet& weights) {
  const ScopedContext scope(*context_);
  if (!scope.ok()) return;
  while (weights_id() != weights.id()) {
    std::shared_ptr<const Event> pending;
    {
      const std::lock_guard<std::mutex> lock(sessions_mutex_);
      for (Session* session : sessions_) {
        pending = session->ReleaseWeights(weights);
        if (pending != nullptr) break;
      }
    }
    // Without a lock: sessions go on. An error is one of the device, of which runs tell.
    if (pending == nullptr || !pending->Wait().ok()) return;
  }
}

void Model::ReleaseWeights() {
  const ScopedContext scope(*context_);
  if (!scope.ok()) return;
  const std::lock_guard<std::mutex> lock(sessions_mutex_);
  for (Session* session : sessions_) session->ReleaseFinishedWeights(weights_id());
}

void Model::Add(Session* session) {
  const std::lock_guard<std::mutex> lock(sessions_mutex_);
  sessions_.insert(session);
}

void Model::Remove(Session* session) {
  const std::lock_guard<std::mutex> lock(sessions_mutex_);
  sessions_.erase(session);
}

}  // namespace aoti
