// The C ABI, but for weights: those are in aoti_weights.cc.

#include "runtime/aoti.h"

#include <algorithm>
#include <memory>
#include <string>

#include "runtime/abi.h"
#include "runtime/description.h"
#include "runtime/model.h"
#include "runtime/session.h"
#include "runtime/sizes.h"
#include "runtime/target.h"
#include "runtime/tensor.h"

namespace aoti {
namespace {

static_assert(sizeof(void*) == 8, "the ABI is defined for 64-bit machines");
static_assert(sizeof(DLTensor) == 48, "DLPack's layout");
static_assert(sizeof(AotiStatus) == 2048, "ABI");
static_assert(sizeof(AotiDimInfo) == 24, "ABI");
static_assert(sizeof(AotiTensorInfo) == 96, "ABI");
static_assert(sizeof(AotiDescriptionInfo) == 48, "ABI");
static_assert(sizeof(AotiTargetInfo) == 48, "ABI");
static_assert(sizeof(AotiModelOptions) == 64, "ABI; add fields at the end");
static_assert(sizeof(AotiSessionOptions) == 24, "ABI; add fields at the end");
static_assert(AOTI_OK == static_cast<int>(Code::kOk), "ABI");
static_assert(AOTI_INVALID_ARGUMENT == static_cast<int>(Code::kInvalidArgument), "ABI");
static_assert(AOTI_NOT_FOUND == static_cast<int>(Code::kNotFound), "ABI");
static_assert(AOTI_DATA_LOSS == static_cast<int>(Code::kDataLoss), "ABI");
static_assert(AOTI_UNAVAILABLE == static_cast<int>(Code::kUnavailable), "ABI");
static_assert(AOTI_OUT_OF_MEMORY == static_cast<int>(Code::kOutOfMemory), "ABI");
static_assert(AOTI_DRIVER == static_cast<int>(Code::kDriver), "ABI");
static_assert(AOTI_INTERNAL == static_cast<int>(Code::kInternal), "ABI");

// The sizes of the first release's structs.
constexpr uint64_t kOldestModelOptions = 48;
constexpr uint64_t kOldestSessionOptions = 16;

Status DescribeTensor(const AotiDescription* description, bool input, uint64_t index,
                      AotiTensorInfo* info) {
  if (description == nullptr) return IsNull("description");
  if (info == nullptr) return IsNull("info");
  AOTI_RETURN_IF_ERROR(CheckDescription(description->model));
  const ModelDescription& model = description->model;
  const Table<TensorDescription>& tensors = input ? model.inputs : model.outputs;
  AOTI_RETURN_IF_ERROR(CheckIndex(input ? "input" : "output", index, tensors.size));
  const TensorDescription& tensor = tensors[index];
  *info = {};
  info->name = tensor.name;
  info->dtype = tensor.dtype;
  info->ndim = static_cast<int32_t>(tensor.shape.size);
  info->shape = tensor.shape.data;
  info->strides = tensor.strides.data;
  info->path = tensor.path;
  info->flags = tensor.flags;
  if (tensor.dynamic == nullptr) {
    info->nbytes = Extent(tensor);
  } else {
    info->nbytes = tensor.dynamic->max_nbytes;
    info->flags |= AOTI_TENSOR_DYNAMIC;
    info->shape_info = tensor.dynamic->shape;
    info->stride_info = tensor.dynamic->strides;
  }
  if (tensor.symbol != kFixed) {
    const SymbolDescription& symbol = model.symbols[static_cast<size_t>(tensor.symbol)];
    info->value = {symbol.name, symbol.minimum, symbol.maximum};
  }
  return Status();
}

Status OutputLayout(const AotiDescription* description, const DLTensor* const* inputs,
                    uint64_t num_inputs, uint64_t index, int64_t* shape, int64_t* strides,
                    uint64_t* nbytes) {
  if (description == nullptr) return IsNull("description");
  AOTI_RETURN_IF_ERROR(CheckDescription(description->model));
  const ModelDescription& model = description->model;
  AOTI_RETURN_IF_ERROR(CheckIndex("output", index, model.outputs.size));
  std::unique_ptr<Sizes> sizes;
  Table<TensorDescription> input_descriptions = model.inputs;
  TensorDescription output = model.outputs[index];
  if (model.symbols.size != 0) {
    sizes = std::make_unique<Sizes>(model, nullptr);
    AOTI_RETURN_IF_ERROR(sizes->Read(inputs, num_inputs));
    input_descriptions = sizes->inputs();
    output = sizes->outputs()[index];
  }
  AOTI_RETURN_IF_ERROR(CheckCount(Side::kInput, input_descriptions, inputs, num_inputs));
  for (size_t i = 0; i < input_descriptions.size; ++i) {
    AOTI_RETURN_IF_ERROR(
        CheckShape(Side::kInput, i, input_descriptions[i], *inputs[i], sizes.get()));
  }
  if (shape != nullptr) std::copy(output.shape.begin(), output.shape.end(), shape);
  if (strides != nullptr) std::copy(output.strides.begin(), output.strides.end(), strides);
  if (nbytes != nullptr) *nbytes = Extent(output);
  return Status();
}

AotiTargetInfo DescribeTarget(const TargetDescription& target) {
  return {target.name,         target.major,       target.minor,         target.kernels.size,
          ModelMemory(target), LoadMemory(target), SessionMemory(target)};
}

// The model's first weights, which have a short way and a long one to be named.
Status ReadModelWeights(const AotiModelOptions& options, WeightSources* sources) {
  const bool path = options.weights_path != nullptr;
  const bool data = options.weights_data != nullptr;
  if (path && data) {
    return Status(Code::kInvalidArgument,
                  "both weights_path and weights_data are given; give one of them");
  }
  if ((options.flags & AOTI_MODEL_DEFER_WEIGHTS) != 0) {
    if (!path && !data && options.weights == nullptr) return Status();
    return Status(Code::kInvalidArgument,
                  "weights are given, and AOTI_MODEL_DEFER_WEIGHTS says to load none");
  }
  if (options.weights != nullptr) {
    if (!path && !data) return ReadWeightSources(options.weights, sources);
    return Status(Code::kInvalidArgument,
                  "both AotiModelOptions.weights and weights_path or weights_data are given; give "
                  "one of them");
  }
  sources->path = options.weights_path;
  sources->data = options.weights_data;
  sources->size = options.weights_size;
  return Status();
}

Status LoadModel(const AotiDescription* description, const AotiModelOptions* given,
                 AotiModel** model) {
  if (model == nullptr) return IsNull("model");
  *model = nullptr;
  if (description == nullptr) return IsNull("description");
  if (given == nullptr) return IsNull("options");
  AotiModelOptions options;
  AOTI_RETURN_IF_ERROR(ReadOptions(given, "AotiModelOptions", kOldestModelOptions, &options));
  if ((options.flags & ~uint32_t{AOTI_MODEL_DEFER_WEIGHTS}) != 0) {
    return Status(Code::kInvalidArgument, "AotiModelOptions.flags has an unknown bit set");
  }
  Model::Options load;
  load.device = options.device;
  load.context = static_cast<cuda::Context>(options.context);
  load.kernels_directory = options.kernels_dir;
  load.defer_weights = (options.flags & AOTI_MODEL_DEFER_WEIGHTS) != 0;
  AOTI_RETURN_IF_ERROR(ReadModelWeights(options, &load.weights));
  auto loaded = std::make_unique<AotiModel>();
  AOTI_RETURN_IF_ERROR(Model::Load(description->model, load, &loaded->model));
  *model = loaded.release();
  return Status();
}

Status CreateSession(AotiModel* model, const AotiSessionOptions* given, AotiSession** session) {
  if (session == nullptr) return IsNull("session");
  *session = nullptr;
  if (model == nullptr) return IsNull("model");
  AotiSessionOptions options = {};
  if (given != nullptr) {
    AOTI_RETURN_IF_ERROR(ReadOptions(given, "AotiSessionOptions", kOldestSessionOptions, &options));
  }
  constexpr uint64_t kKnown = AOTI_SESSION_NO_GRAPH | AOTI_SESSION_NO_CHECKS;
  if ((options.flags & ~kKnown) != 0) {
    return Status(Code::kInvalidArgument, "AotiSessionOptions.flags has an unknown bit set");
  }
  Session::Options create;
  create.use_graph = (options.flags & AOTI_SESSION_NO_GRAPH) == 0;
  create.check_tensors = (options.flags & AOTI_SESSION_NO_CHECKS) == 0;
  if (options.max_graphs != 0) create.max_graphs = options.max_graphs;
  auto created = std::make_unique<AotiSession>();
  AOTI_RETURN_IF_ERROR(Session::Create(model->model, create, &created->session));
  *session = created.release();
  return Status();
}

}  // namespace
}  // namespace aoti

using aoti::Guard;
using aoti::Status;

uint32_t aoti_abi_version(void) { return AOTI_ABI_VERSION; }

int32_t aoti_description_info(const AotiDescription* description, AotiDescriptionInfo* info,
                              AotiStatus* status) {
  return Guard(status, [&]() -> Status {
    if (description == nullptr) return aoti::IsNull("description");
    if (info == nullptr) return aoti::IsNull("info");
    const aoti::ModelDescription& model = description->model;
    AOTI_RETURN_IF_ERROR(aoti::CheckDescription(model));
    // All targets have the same weights, if in another order.
    const size_t weights = model.targets.size == 0 ? 0 : model.targets[0].weights.size;
    *info = {model.name,         model.weights_digest, model.inputs.size,
             model.outputs.size, model.targets.size,   weights};
    return Status();
  });
}

int32_t aoti_description_input(const AotiDescription* description, uint64_t index,
                               AotiTensorInfo* info, AotiStatus* status) {
  return Guard(status, [&] { return aoti::DescribeTensor(description, true, index, info); });
}

int32_t aoti_description_output(const AotiDescription* description, uint64_t index,
                                AotiTensorInfo* info, AotiStatus* status) {
  return Guard(status, [&] { return aoti::DescribeTensor(description, false, index, info); });
}

int32_t aoti_description_target(const AotiDescription* description, uint64_t index,
                                AotiTargetInfo* info, AotiStatus* status) {
  return Guard(status, [&]() -> Status {
    if (description == nullptr) return aoti::IsNull("description");
    if (info == nullptr) return aoti::IsNull("info");
    const aoti::ModelDescription& model = description->model;
    AOTI_RETURN_IF_ERROR(aoti::CheckDescription(model));
    AOTI_RETURN_IF_ERROR(aoti::CheckIndex("target", index, model.targets.size));
    *info = aoti::DescribeTarget(model.targets[index]);
    return Status();
  });
}

int32_t aoti_description_output_layout(const AotiDescription* description,
                                       const DLTensor* const* inputs, uint64_t num_inputs,
                                       uint64_t index, int64_t* shape, int64_t* strides,
                                       uint64_t* nbytes, AotiStatus* status) {
  return Guard(status, [&] {
    return aoti::OutputLayout(description, inputs, num_inputs, index, shape, strides, nbytes);
  });
}

int32_t aoti_model_load(const AotiDescription* description, const AotiModelOptions* options,
                        AotiModel** model, AotiStatus* status) {
  return Guard(status, [&] { return aoti::LoadModel(description, options, model); });
}

void aoti_model_destroy(AotiModel* model) { delete model; }

int32_t aoti_model_target(const AotiModel* model, AotiTargetInfo* info, AotiStatus* status) {
  return Guard(status, [&]() -> Status {
    if (model == nullptr) return aoti::IsNull("model");
    if (info == nullptr) return aoti::IsNull("info");
    *info = aoti::DescribeTarget(model->model->target());
    return Status();
  });
}

int32_t aoti_session_create(AotiModel* model, const AotiSessionOptions* options,
                            AotiSession** session, AotiStatus* status) {
  return Guard(status, [&] { return aoti::CreateSession(model, options, session); });
}

void aoti_session_destroy(AotiSession* session) { delete session; }

int32_t aoti_session_run(AotiSession* session, const DLTensor* const* inputs, uint64_t num_inputs,
                         const DLTensor* const* outputs, uint64_t num_outputs, void* stream,
                         AotiStatus* status) {
  return Guard(status, [&]() -> Status {
    if (session == nullptr) return aoti::IsNull("session");
    return session->session->Run(inputs, num_inputs, outputs, num_outputs,
                                 static_cast<aoti::cuda::Stream>(stream));
  });
}
