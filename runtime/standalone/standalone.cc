#include "runtime/standalone/standalone.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <utility>

#include "runtime/driver.h"
#include "runtime/platform.h"
#include "runtime/stream_launcher.h"
#include "runtime/target.h"
#include "runtime/values.h"

namespace aoti {
namespace {

// Of every pointer: kernels rely on it.
constexpr uint64_t kPointerAlignment = 16;

// A packed file begins with this, the digest of the weights' names, dtypes and shapes, and zeros.
constexpr char kPackedMagic[] = "rules_aoti weights 1\n";
constexpr uint64_t kPackedHeader = 256;

Status ReadFile(const std::string& path, std::string* bytes) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             std::fclose);
  if (file == nullptr) {
    return Status(Code::kNotFound,
                  path + ": cannot be opened: " + std::generic_category().message(errno));
  }
  char part[65536];
  size_t got = 0;
  do {
    got = std::fread(part, 1, sizeof part, file.get());
    bytes->append(part, got);
  } while (got == sizeof part);  // else the file has ended, or cannot be read
  if (std::ferror(file.get()) != 0) return Status(Code::kDataLoss, path + ": cannot be read");
  return Status();
}

// Where each weight, in the order of the table, is in a packed file: there they are sorted by name,
// each at a multiple of kAlignment. Returns the file's size.
uint64_t FindPacked(const Table<WeightDescription>& weights, std::vector<uint64_t>* offsets) {
  std::vector<size_t> order(weights.size);
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&weights](size_t a, size_t b) {
    return std::strcmp(weights[a].name, weights[b].name) < 0;
  });
  uint64_t end = kPackedHeader;
  offsets->resize(weights.size);
  for (const size_t i : order) {
    (*offsets)[i] = end;
    end += Align(weights[i].nbytes);
  }
  return end;
}

Status CheckWeights(const ModelDescription& model, const TargetDescription& target,
                    const void* weights, uint64_t weights_size) {
  if (target.weights.size == 0) return Status();
  std::vector<uint64_t> offsets;
  const uint64_t expected = FindPacked(target.weights, &offsets);
  const std::string head = std::string(kPackedMagic) + model.weights_digest;
  if (weights == nullptr || weights_size != expected ||
      std::memcmp(weights, head.data(), head.size()) != 0) {
    return Status(Code::kInvalidArgument, std::string("the weights are not those of model ") +
                                              model.name + ": expected a file of " +
                                              std::to_string(expected) +
                                              " bytes that wrapgen pack wrote for it, got " +
                                              std::to_string(weights_size) + " bytes");
  }
  return Status();
}

}  // namespace

Standalone::Standalone(const ModelDescription& model, const StandaloneNames& names,
                       const TargetDescription& target, std::shared_ptr<const Context> context)
    : model_(model),
      names_(names),
      target_(target),
      context_(std::move(context)),
      inputs_(names.inputs.size),
      outputs_(names.outputs.size),
      weights_(target.weights.size),
      values_(target.num_values) {}

Status Standalone::Load(const ModelDescription& model, const StandaloneNames& names,
                        const char* kernels_dir, const void* weights, uint64_t weights_size,
                        int device, std::unique_ptr<Standalone>* loaded) {
  const Driver* driver = nullptr;
  AOTI_RETURN_IF_ERROR(Driver::Get(&driver));
  DeviceProperties properties;
  AOTI_RETURN_IF_ERROR(ReadDevice(*driver, device, &properties));
  const TargetDescription* target = nullptr;
  AOTI_RETURN_IF_ERROR(ChooseTarget(model, properties, driver->version(), &target));
  AOTI_RETURN_IF_ERROR(CheckWeights(model, *target, weights, weights_size));
  std::shared_ptr<const Context> context;
  AOTI_RETURN_IF_ERROR(Context::Create(*driver, properties, nullptr, &context));
  std::unique_ptr<Standalone> created(new Standalone(model, names, *target, context));
  const ScopedContext scope(*context);
  AOTI_RETURN_IF_ERROR(scope.status());
  AOTI_RETURN_IF_ERROR(created->Prepare(kernels_dir, weights));
  *loaded = std::move(created);
  return Status();
}

Standalone::~Standalone() {
  const ScopedContext scope(*context_);
  // Its errors are for whoever waits for its stream.
  if (scope.ok()) static_cast<void>(finished_.Wait().ok());
}

Status Standalone::Prepare(const std::string& kernels_dir, const void* weights) {
  AOTI_RETURN_IF_ERROR(LoadKernels(kernels_dir));
  const MemoryDescription& sizes = target_.memory;
  AOTI_RETURN_IF_ERROR(memory_.Allocate(context_, Align(sizes.weights) + Align(sizes.constants),
                                        "weights and constants"));
  DeviceMemory temporary;  // staging, then the folding procedure's arena
  AOTI_RETURN_IF_ERROR(temporary.Allocate(
      context_, Align(sizes.staging) + Align(sizes.folding_arena), "loading weights"));
  Stream stream;  // after `temporary`, so that it is drained before that is freed
  AOTI_RETURN_IF_ERROR(stream.Create(context_));
  AOTI_RETURN_IF_ERROR(Upload(weights, temporary.address(), stream.handle()));
  Addresses folding = {};
  folding.weights = weights_.data();
  folding.constants = memory_.address() + Align(sizes.weights);
  folding.arena = temporary.address() + Align(sizes.staging);
  StreamLauncher launcher(folding, context_->driver(), kernels_, stream.handle());
  AOTI_RETURN_IF_ERROR(target_.fold(launcher));
  AOTI_RETURN_IF_ERROR(stream.Synchronize("computing constants from the weights"));
  // Where the sizes decide, the first run does.
  if (target_.arena == kFixed) AOTI_RETURN_IF_ERROR(Reserve(false));
  return finished_.Create(context_);
}

Status Standalone::LoadKernels(const std::string& kernels_dir) {
  std::vector<std::string> images(target_.kernels.size);
  std::vector<KernelDescription> kernels(target_.kernels.begin(), target_.kernels.end());
  for (size_t i = 0; i < kernels.size(); ++i) {
    AOTI_RETURN_IF_ERROR(
        ReadFile(kernels_dir + "/" + target_.name + "/" + kernels[i].name +
                     (target_.ptx ? ".ptx" : std::string(".") + kPlatform.machine_code),
                 &images[i]));
    // A string's zero byte is behind it: it ends PTX.
    kernels[i].image = reinterpret_cast<const unsigned char*>(images[i].c_str());
    kernels[i].image_end = kernels[i].image + images[i].size();
  }
  TargetDescription target = target_;
  target.kernels = {kernels.data(), kernels.size()};
  return kernels_.Load(context_, target);
}

Status Standalone::Upload(const void* weights, DeviceAddress staging, cuda::Stream stream) {
  std::vector<uint64_t> offsets;
  FindPacked(target_.weights, &offsets);
  DeviceAddress kept = memory_.address();
  for (size_t i = 0; i < weights_.size(); ++i) {
    const WeightDescription& weight = target_.weights[i];
    if (!weight.folding && !weight.main) continue;
    DeviceAddress& memory = weight.main ? kept : staging;
    weights_[i] = memory;
    memory += Align(weight.nbytes);
    if (weight.nbytes == 0) continue;
    AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), "copying weights to the device", MemcpyHtoDAsync,
                              weights_[i], static_cast<const unsigned char*>(weights) + offsets[i],
                              weight.nbytes, stream);
  }
  return Status();
}

Status Standalone::Run(void* const* inputs, void* const* outputs, const int64_t* sizes,
                       cuda::Stream stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto read = [](const char* sort, const Table<const char*>& names, void* const* given,
                       std::vector<DeviceAddress>* addresses) {
    for (size_t i = 0; i < names.size; ++i) {
      (*addresses)[i] = reinterpret_cast<DeviceAddress>(given[i]);
      if ((*addresses)[i] % kPointerAlignment == 0) continue;
      return Status(Code::kInvalidArgument, std::string(sort) + " " + std::to_string(i) + " (" +
                                                names[i] +
                                                "): its address is not a multiple of 16 bytes");
    }
    return Status();
  };
  AOTI_RETURN_IF_ERROR(read("input", names_.inputs, inputs, &inputs_));
  AOTI_RETURN_IF_ERROR(read("output", names_.outputs, outputs, &outputs_));
  AOTI_RETURN_IF_ERROR(ReadSizes(sizes));
  const ScopedContext scope(*context_);
  AOTI_RETURN_IF_ERROR(scope.status());
  int capture = cuda::kCaptureStatusNone;
  AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), "examining the stream", StreamIsCapturing, stream,
                            &capture);
  const bool capturing = capture != cuda::kCaptureStatusNone;
  AOTI_RETURN_IF_ERROR(Reserve(capturing));
  // Its order among other runs is then the caller's.
  if (capturing) {
    arena_is_captured_ = true;
    return Issue(stream);
  }
  AOTI_RETURN_IF_ERROR(finished_.Wait(stream));
  Status status = Issue(stream);
  if (status.ok()) status = finished_.Record(stream);
  // Part of the run may be on its way with no event behind it to wait for.
  if (!status.ok()) context_->driver().StreamSynchronize(stream);
  return status;
}

Status Standalone::ReadSizes(const int64_t* sizes) {
  for (size_t i = 0; i < model_.symbols.size; ++i) {
    const SymbolDescription& symbol = model_.symbols[i];
    values_[i] = sizes[i];
    if (symbol.minimum <= sizes[i] && sizes[i] <= symbol.maximum) continue;
    return Status(Code::kInvalidArgument,
                  std::string("size ") + std::to_string(i) + " (" + names_.sizes[i] +
                      "): expected " + std::to_string(symbol.minimum) + " <= " + symbol.name +
                      " <= " + std::to_string(symbol.maximum) + ", got " +
                      std::to_string(sizes[i]));
  }
  const auto where = [this](const std::string& expression) { return Where(expression); };
  return ComputeValues(model_, &target_, where, values_.data());
}

std::string Standalone::Where(const std::string& expression) const {
  std::string text;
  for (size_t i = 0; i < model_.symbols.size; ++i) {
    const char* name = model_.symbols[i].name;
    if (!Mentions(expression, name)) continue;
    text += text.empty() ? ", where " : ", ";
    text += std::string(name) + " = " + std::to_string(values_[i]) + " is " + names_.sizes[i];
  }
  return text;
}

Status Standalone::Reserve(bool capturing) {
  const uint64_t needed = ArenaSize(target_, values_.data());
  if (needed <= arena_size_) return Status();
  if (capturing) {
    return Status(Code::kInvalidArgument,
                  "the stream is being captured, and memory must grow, which a capture does not "
                  "allow: run at these sizes once before");
  }
  AOTI_RETURN_IF_ERROR(finished_.Wait());
  arena_size_ = 0;
  if (arena_is_captured_) {
    captured_arenas_.push_back(std::move(arena_));
    arena_is_captured_ = false;
  }
  arena_ = std::make_unique<DeviceMemory>();
  AOTI_RETURN_IF_ERROR(arena_->Allocate(context_, needed, "temporaries"));
  arena_size_ = needed;
  return Status();
}

Status Standalone::Issue(cuda::Stream stream) {
  Addresses addresses = {};
  addresses.weights = weights_.data();
  addresses.constants = memory_.address() + Align(target_.memory.weights);
  addresses.arena = arena_ == nullptr ? 0 : arena_->address();
  addresses.inputs = inputs_.data();
  addresses.outputs = outputs_.data();
  addresses.values = values_.data();
  StreamLauncher launcher(addresses, context_->driver(), kernels_, stream);
  return target_.run(launcher);
}

int Report(Code code, const char* message, char* error, size_t error_size) {
  if (error != nullptr && error_size != 0) std::snprintf(error, error_size, "%s", message);
  return static_cast<int>(code);
}

}  // namespace aoti
