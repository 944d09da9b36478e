// The C ABI of weights.

#include <memory>
#include <string>
#include <utility>

#include "runtime/abi.h"
#include "runtime/description.h"
#include "runtime/target.h"

namespace aoti {
namespace {

static_assert(sizeof(AotiWeightInfo) == 32, "ABI");
static_assert(sizeof(AotiNamedTensor) == 24, "ABI");
static_assert(sizeof(AotiWeightsOptions) == 80, "ABI; add fields at the end");
static_assert(sizeof(AotiWeightsInfo) == 24, "ABI");

// The size of the first release's struct.
constexpr uint64_t kOldestWeightsOptions = 80;

Status DescribeWeight(const AotiDescription* description, uint64_t index, AotiWeightInfo* info) {
  if (description == nullptr) return IsNull("description");
  if (info == nullptr) return IsNull("info");
  const ModelDescription& model = description->model;
  AOTI_RETURN_IF_ERROR(CheckDescription(model));
  const Table<WeightDescription> none = {nullptr, 0};
  const Table<WeightDescription>& weights =
      model.targets.size == 0 ? none : model.targets[0].weights;
  AOTI_RETURN_IF_ERROR(CheckIndex("weight", index, weights.size));
  const WeightDescription& weight = weights[index];
  *info = {weight.name, weight.dtype, static_cast<int32_t>(weight.shape.size), weight.shape.data,
           weight.nbytes};
  return Status();
}

AotiWeights* Hold(std::shared_ptr<const WeightSet> set, const AotiModel& model) {
  return new AotiWeights{std::move(set), model.model};
}

Status LoadWeights(AotiModel* model, const AotiWeightsOptions* options, AotiWeights** weights) {
  if (weights == nullptr) return IsNull("weights");
  *weights = nullptr;
  if (model == nullptr) return IsNull("model");
  if (options == nullptr) return IsNull("options");
  WeightSources sources;
  AOTI_RETURN_IF_ERROR(ReadWeightSources(options, &sources));
  std::shared_ptr<const WeightSet> set;
  AOTI_RETURN_IF_ERROR(model->model->LoadWeights(sources, &set));
  *weights = Hold(std::move(set), *model);
  return Status();
}

Status CurrentWeights(const AotiModel* model, AotiWeights** weights) {
  if (weights == nullptr) return IsNull("weights");
  *weights = nullptr;
  if (model == nullptr) return IsNull("model");
  std::shared_ptr<const WeightSet> set = model->model->weights();
  if (set != nullptr) *weights = Hold(std::move(set), *model);
  return Status();
}

Status SwapWeights(const AotiModel* model, const AotiWeights* weights, AotiWeights** previous) {
  if (previous != nullptr) *previous = nullptr;
  if (model == nullptr) return IsNull("model");
  if (weights == nullptr) return IsNull("weights");
  // Its sessions are those that aoti_weights_destroy waits for.
  if (weights->model.lock() != model->model) {
    return Status(Code::kInvalidArgument,
                  std::string("the weights were loaded for another model than this ") +
                      model->model->description().name +
                      ": load them for this one, with those in `from` to share their memory");
  }
  // Allocated before anything changes.
  auto held = std::make_unique<AotiWeights>();
  held->model = model->model;
  held->set = model->model->SwapWeights(weights->set);
  if (previous != nullptr) {
    // Nothing is freed, which takes time.
    if (held->set != nullptr) *previous = held.release();
    return Status();
  }
  held.reset();
  model->model->ReleaseWeights();
  return Status();
}

}  // namespace

Status ReadWeightSources(const AotiWeightsOptions* given, WeightSources* sources) {
  AotiWeightsOptions options;
  AOTI_RETURN_IF_ERROR(ReadOptions(given, "AotiWeightsOptions", kOldestWeightsOptions, &options));
  if ((options.flags & ~uint64_t{AOTI_WEIGHTS_KEEP_ALL}) != 0) {
    return Status(Code::kInvalidArgument, "AotiWeightsOptions.flags has an unknown bit set");
  }
  if (options.path != nullptr && options.data != nullptr) {
    return Status(Code::kInvalidArgument, "both path and data are given; give one of them");
  }
  if (options.num_tensors != 0 && options.tensors == nullptr) return IsNull("tensors");
  if (options.num_from != 0 && options.from == nullptr) return IsNull("from");
  for (uint64_t i = 0; i < options.num_from; ++i) {
    if (options.from[i] == nullptr) return IsNull(("from[" + std::to_string(i) + "]").c_str());
    sources->from.push_back(options.from[i]->set);
  }
  sources->tensors = {options.tensors, options.num_tensors};
  sources->path = options.path;
  sources->data = options.data;
  sources->size = options.size;
  sources->stream = static_cast<cuda::Stream>(options.stream);
  sources->keep_all = (options.flags & AOTI_WEIGHTS_KEEP_ALL) != 0;
  return Status();
}

}  // namespace aoti

using aoti::Guard;
using aoti::Status;

int32_t aoti_description_weight(const AotiDescription* description, uint64_t index,
                                AotiWeightInfo* info, AotiStatus* status) {
  return Guard(status, [&] { return aoti::DescribeWeight(description, index, info); });
}

int32_t aoti_weights_load(AotiModel* model, const AotiWeightsOptions* options,
                          AotiWeights** weights, AotiStatus* status) {
  return Guard(status, [&] { return aoti::LoadWeights(model, options, weights); });
}

void aoti_weights_destroy(AotiWeights* weights) {
  if (weights == nullptr) return;
  // What a session cannot let go of now it lets go of later.
  Guard(nullptr, [&]() -> Status {
    const std::shared_ptr<aoti::Model> model = weights->model.lock();
    if (model != nullptr) model->AwaitWeights(*weights->set);
    return Status();
  });
  delete weights;
}

int32_t aoti_weights_info(const AotiWeights* weights, AotiWeightsInfo* info, AotiStatus* status) {
  return Guard(status, [&]() -> Status {
    if (weights == nullptr) return aoti::IsNull("weights");
    if (info == nullptr) return aoti::IsNull("info");
    *info = weights->set->info();
    return Status();
  });
}

int32_t aoti_model_weights(AotiModel* model, AotiWeights** weights, AotiStatus* status) {
  return Guard(status, [&] { return aoti::CurrentWeights(model, weights); });
}

int32_t aoti_model_swap_weights(AotiModel* model, const AotiWeights* weights,
                                AotiWeights** previous, AotiStatus* status) {
  return Guard(status, [&] { return aoti::SwapWeights(model, weights, previous); });
}
