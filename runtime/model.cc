#include "runtime/model.h"

#include <string>
#include <utility>

#include "runtime/kernels_directory.h"
#include "runtime/shared_kernels.h"
#include "runtime/stream.h"
#include "runtime/stream_launcher.h"
#include "runtime/target.h"

namespace aoti {
namespace {

// Opens the weights file; leaves `file` null where the options name none.
Status OpenWeights(const Model::Options& options, std::unique_ptr<SafetensorsFile>* file) {
  std::unique_ptr<ByteSource> source;
  std::string label = "weights in memory";
  if (options.weights_path != nullptr && options.weights_data != nullptr) {
    return Status(Code::kInvalidArgument,
                  "both weights_path and weights_data are given; give one of them");
  }
  if (options.weights_path != nullptr) {
    label = options.weights_path;
    AOTI_RETURN_IF_ERROR(OpenFile(label, &source));
  } else if (options.weights_data != nullptr) {
    source = WrapMemory(options.weights_data, options.weights_size);
  } else {
    return Status();
  }
  return SafetensorsFile::Open(std::move(source), std::move(label), file);
}

Status CheckWeights(const ModelDescription& description, const TargetDescription& target,
                    const SafetensorsFile* file) {
  if (file != nullptr) return file->Check(target.weights);
  if (target.weights.size == 0) return Status();
  return Status(Code::kInvalidArgument,
                std::string("model ") + description.name + " needs " +
                    std::to_string(target.weights.size) +
                    " weights: set weights_path or weights_data to a safetensors file");
}

}  // namespace

uint64_t ModelMemory(const TargetDescription& target) {
  return Align(target.memory.weights) + Align(target.memory.constants);
}

uint64_t LoadMemory(const TargetDescription& target) {
  return Align(target.memory.staging) + Align(target.memory.folding_arena);
}

uint64_t SessionMemory(const TargetDescription& target) { return Align(target.memory.main_arena); }

Status Model::Load(const ModelDescription& description, const Options& options,
                   std::shared_ptr<const Model>* model) {
  AOTI_RETURN_IF_ERROR(CheckDescription(description));
  const Driver* driver = nullptr;
  AOTI_RETURN_IF_ERROR(Driver::Get(&driver));
  DeviceProperties device;
  AOTI_RETURN_IF_ERROR(ReadDevice(*driver, options.device, &device));
  const TargetDescription* target = nullptr;
  AOTI_RETURN_IF_ERROR(ChooseTarget(description, device, driver->version(), &target));
  std::unique_ptr<SafetensorsFile> weights;
  AOTI_RETURN_IF_ERROR(OpenWeights(options, &weights));
  AOTI_RETURN_IF_ERROR(CheckWeights(description, *target, weights.get()));
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
  AOTI_RETURN_IF_ERROR(loaded->Prepare(weights.get(), replacements));
  *model = loaded;
  return Status();
}

Status Model::Prepare(const SafetensorsFile* weights, const KernelReplacements& replacements) {
  AOTI_RETURN_IF_ERROR(ShareKernels(context_, target_, replacements, &kernels_));
  AOTI_RETURN_IF_ERROR(memory_.Allocate(context_, ModelMemory(target_), "weights and constants"));
  DeviceMemory temporary;  // staging, then the folding procedure's arena
  AOTI_RETURN_IF_ERROR(temporary.Allocate(context_, LoadMemory(target_), "loading weights"));
  if (weights != nullptr) {
    AOTI_RETURN_IF_ERROR(
        UploadWeights(context_, *weights, target_.weights, memory_.address(), temporary.address()));
  }
  Addresses folding = addresses();
  folding.staging = temporary.address();
  folding.arena = temporary.address() + Align(target_.memory.staging);
  Stream stream;  // after `temporary`, so that it is drained before that is freed
  AOTI_RETURN_IF_ERROR(stream.Create(context_));
  StreamLauncher launcher(folding, context_->driver(), *kernels_, stream.handle());
  AOTI_RETURN_IF_ERROR(target_.fold(launcher));
  return stream.Synchronize("computing constants from the weights");
}

Addresses Model::addresses() const {
  Addresses addresses = {};
  addresses.weights = memory_.address();
  addresses.constants = memory_.address() + Align(target_.memory.weights);
  return addresses;
}

}  // namespace aoti
