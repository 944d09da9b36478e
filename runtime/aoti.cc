// The C ABI: argument checks, and the border that no exception crosses.

#include "runtime/aoti.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "runtime/description.h"
#include "runtime/model.h"
#include "runtime/session.h"
#include "runtime/sizes.h"
#include "runtime/target.h"
#include "runtime/tensor.h"

struct AotiModel {
  std::shared_ptr<const aoti::Model> model;
};

struct AotiSession {
  std::unique_ptr<aoti::Session> session;
};

namespace aoti {
namespace {

static_assert(sizeof(void*) == 8, "the ABI is defined for 64-bit machines");
static_assert(sizeof(DLTensor) == 48, "DLPack's layout");
static_assert(sizeof(AotiStatus) == 2048, "ABI");
static_assert(sizeof(AotiDimInfo) == 24, "ABI");
static_assert(sizeof(AotiTensorInfo) == 96, "ABI");
static_assert(sizeof(AotiDescriptionInfo) == 40, "ABI");
static_assert(sizeof(AotiTargetInfo) == 48, "ABI");
static_assert(sizeof(AotiModelOptions) == 56, "ABI; add fields at the end");
static_assert(sizeof(AotiSessionOptions) == 24, "ABI; add fields at the end");
static_assert(AOTI_OK == static_cast<int>(Code::kOk), "ABI");
static_assert(AOTI_INVALID_ARGUMENT == static_cast<int>(Code::kInvalidArgument), "ABI");
static_assert(AOTI_NOT_FOUND == static_cast<int>(Code::kNotFound), "ABI");
static_assert(AOTI_DATA_LOSS == static_cast<int>(Code::kDataLoss), "ABI");
static_assert(AOTI_UNAVAILABLE == static_cast<int>(Code::kUnavailable), "ABI");
static_assert(AOTI_OUT_OF_MEMORY == static_cast<int>(Code::kOutOfMemory), "ABI");
static_assert(AOTI_DRIVER == static_cast<int>(Code::kDriver), "ABI");
static_assert(AOTI_INTERNAL == static_cast<int>(Code::kInternal), "ABI");

int32_t Report(Code code, const char* message, AotiStatus* status) noexcept {
  if (status == nullptr) return static_cast<int32_t>(code);
  constexpr char kCut[] = "...";
  constexpr size_t kRoom = sizeof status->message - 1;
  size_t length = std::strlen(message);
  const bool cut = length > kRoom;
  if (cut) {
    length = kRoom - (sizeof kCut - 1);
    // Not within a UTF-8 sequence.
    while (length > 0 && (static_cast<unsigned char>(message[length]) & 0xC0) == 0x80) --length;
  }
  status->code = static_cast<int32_t>(code);
  std::memcpy(status->message, message, length);
  std::memcpy(status->message + length, kCut, cut ? sizeof kCut : 0);
  if (!cut) status->message[length] = '\0';
  return status->code;
}

// Runs `body`, which returns a Status, and reports its result or its exception.
template <typename Body>
int32_t Guard(AotiStatus* status, Body body) noexcept {
  try {
    const Status result = body();
    return Report(result.code(), result.message(), status);
  } catch (const std::bad_alloc&) {
    return Report(Code::kOutOfMemory, "out of host memory", status);
  } catch (const std::exception& error) {
    return Report(Code::kInternal, error.what(), status);
  } catch (...) {
    return Report(Code::kInternal, "unknown exception", status);
  }
}

Status IsNull(const char* argument) {
  return Status(Code::kInvalidArgument, std::string(argument) + " is a null pointer");
}

// The sizes of the first release's structs.
constexpr uint64_t kOldestModelOptions = 48;
constexpr uint64_t kOldestSessionOptions = 16;

// Copies the caller's struct, which may be shorter (of an older release: the rest is zero) or
// longer (of a newer one: then what this release does not know must be zero).
template <typename Struct>
Status ReadOptions(const Struct* given, const char* name, uint64_t oldest, Struct* options) {
  *options = {};
  if (given->struct_size < oldest) {
    return Status(Code::kInvalidArgument,
                  std::string(name) + ".struct_size is " + std::to_string(given->struct_size) +
                      ", expected sizeof(" + name + "), " + std::to_string(sizeof(Struct)));
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (uint64_t i = sizeof(Struct); i < given->struct_size; ++i) {
    if (bytes[i] == 0) continue;
    return Status(Code::kInvalidArgument,
                  std::string(name) + " uses an option that this runtime is too old to know");
  }
  std::memcpy(options, given, std::min<uint64_t>(given->struct_size, sizeof(Struct)));
  return Status();
}

Status CheckIndex(const char* sort, uint64_t index, size_t count) {
  if (index < count) return Status();
  return Status(Code::kInvalidArgument, std::string("there is no ") + sort + " " +
                                            std::to_string(index) + ": the model has " +
                                            std::to_string(count));
}

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

Status LoadModel(const AotiDescription* description, const AotiModelOptions* given,
                 AotiModel** model) {
  if (model == nullptr) return IsNull("model");
  *model = nullptr;
  if (description == nullptr) return IsNull("description");
  if (given == nullptr) return IsNull("options");
  AotiModelOptions options;
  AOTI_RETURN_IF_ERROR(ReadOptions(given, "AotiModelOptions", kOldestModelOptions, &options));
  if (options.reserved != 0) {
    return Status(Code::kInvalidArgument, "AotiModelOptions.reserved is not zero");
  }
  Model::Options load;
  load.device = options.device;
  load.context = static_cast<cuda::Context>(options.context);
  load.weights_path = options.weights_path;
  load.weights_data = options.weights_data;
  load.weights_size = options.weights_size;
  load.kernels_directory = options.kernels_dir;
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
    *info = {model.name, model.weights_digest, model.inputs.size, model.outputs.size,
             model.targets.size};
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
