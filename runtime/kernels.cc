#include "runtime/kernels.h"

#include <limits>
#include <string>
#include <utility>

namespace aoti {
namespace {

// What a kernel may use without asking: CUDA C++ programming guide, "Shared Memory".
constexpr uint32_t kSharedMemoryByDefault = 48 * 1024;

// Generated code keeps within it: CUDA C++ programming guide, "Compute Capabilities".
constexpr uint32_t kMaxBlocksYZ = 65535;

// What every device with clusters allows: CUDA C++ programming guide, "Thread Block Clusters".
constexpr uint32_t kPortableCluster = 8;

// Drivers up to this one take the range of a small tensor for a large one's.
constexpr int kSmallTensorMapDriver = 13010;
constexpr int64_t kSmallTensorMap = int64_t{128} * 1024;
constexpr uint64_t kLargeTensorMapBit = uint64_t{1} << 21;

std::string TooManyBlocks(uint64_t blocks, uint64_t resident) {
  return "a cooperative grid of " + std::to_string(blocks) + " blocks, of which this device runs " +
         std::to_string(resident) + " at a time; they would wait for each other for ever";
}

std::string Text(const int64_t* sizes, size_t rank) {
  std::string text = "[";
  for (size_t i = 0; i < rank; ++i) text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
  return text + "]";
}

}  // namespace

Status Kernel::Blocks(Grid grid, Grid* blocks) const {
  const uint64_t x = uint64_t{grid.x} * cluster;
  if (x > static_cast<uint64_t>(std::numeric_limits<int32_t>::max()) || grid.y > kMaxBlocksYZ ||
      grid.z > kMaxBlocksYZ) {
    return Status(Code::kInternal, std::string("kernel ") + name + ": a grid of " +
                                       std::to_string(x) + " x " + std::to_string(grid.y) + " x " +
                                       std::to_string(grid.z) + " blocks is too large");
  }
  const uint64_t all = x * grid.y * grid.z;
  if (cooperative() && all > resident) {
    return Status(Code::kUnavailable,
                  std::string("kernel ") + name + ": " + TooManyBlocks(all, resident));
  }
  *blocks = {static_cast<uint32_t>(x), grid.y, grid.z};
  return Status();
}

LaunchAttributes Kernel::Attributes() const {
  LaunchAttributes attributes;
  if (cluster != 1) {
    cuda::LaunchAttribute& attribute = attributes.all[attributes.size++];
    attribute = {};
    attribute.id = cuda::kLaunchAttributeClusterDimension;
    attribute.value.cluster = {cluster, 1, 1};
  }
  if (cooperative()) {
    cuda::LaunchAttribute& attribute = attributes.all[attributes.size++];
    attribute = {};
    attribute.id = cuda::kLaunchAttributeCooperative;
    attribute.value.cooperative = 1;
  }
  return attributes;
}

Status Kernel::Encode(const Driver& driver, uint32_t param, const MappedTensor& tensor,
                      TensorMap* map) const {
  static_assert(sizeof(TensorMap) == sizeof(cuda::TensorMap) &&
                alignof(TensorMap) == alignof(cuda::TensorMap));
  *map = {};
  const TensorMapDescription* found = nullptr;
  for (const TensorMapDescription& each : tensor_maps) {
    if (each.param == param) found = &each;
  }
  const std::string doing = std::string("describing parameter ") + std::to_string(param) +
                            " of kernel " + name + " to TMA";
  if (found == nullptr || found->box.size > kMaxTensorMapRank) {
    return Status(Code::kInternal, doing + ": the kernel has no tensor map there");
  }
  if (driver.TensorMapEncodeTiled == nullptr) {
    return Status(Code::kUnavailable, doing + ": the driver has no cuTensorMapEncodeTiled");
  }
  const size_t rank = found->box.size;
  uint64_t shape[kMaxTensorMapRank] = {};
  uint64_t strides[kMaxTensorMapRank] = {};  // in bytes, of all dimensions but the innermost
  uint32_t box[kMaxTensorMapRank] = {};
  constexpr uint32_t kElementStrides[kMaxTensorMapRank] = {1, 1, 1, 1, 1};
  int64_t last = 0;                    // byte of the tensor
  for (size_t i = 0; i < rank; ++i) {  // the driver takes the innermost first
    const size_t from = rank - 1 - i;
    const int64_t stride = tensor.strides[from] * found->element_size;
    shape[i] = static_cast<uint64_t>(tensor.shape[from]);
    box[i] = found->box[from];
    if (i != 0) strides[i - 1] = static_cast<uint64_t>(stride);
    if (shape[i] == 0) return Status();
    last += (tensor.shape[from] - 1) * stride;
  }
  auto* encoded = reinterpret_cast<cuda::TensorMap*>(map);
  const cuda::Result result = driver.TensorMapEncodeTiled(
      encoded, tensor.tf32 ? cuda::kTensorMapTfloat32 : found->element, static_cast<uint32_t>(rank),
      reinterpret_cast<void*>(tensor.address), shape, strides, box, kElementStrides,
      cuda::kTensorMapInterleaveNone, found->swizzle, cuda::kTensorMapL2Promotion128B,
      tensor.nan ? cuda::kTensorMapFillNan : cuda::kTensorMapFillZero);
  if (result != cuda::kSuccess) {
    return driver.Failure(result, "cuTensorMapEncodeTiled",
                          doing + " (sizes " + Text(tensor.shape, rank) + ", strides " +
                              Text(tensor.strides, rank) + ")");
  }
  if (driver.version() <= kSmallTensorMapDriver && last + 1 < kSmallTensorMap) {
    encoded->opaque[1] &= ~kLargeTensorMapBit;
  }
  return Status();
}

KernelSet::~KernelSet() {
  if (modules_.empty()) return;
  const ScopedContext scope(*context_);
  if (!scope.ok()) return;
  for (const cuda::Module module : modules_) context_->driver().ModuleUnload(module);
}

Status KernelSet::Load(std::shared_ptr<const Context> context, const TargetDescription& target) {
  context_ = std::move(context);
  // No push_back may throw between getting a handle and storing it.
  modules_.reserve(target.kernels.size);
  kernels_.reserve(target.kernels.size);
  for (const KernelDescription& description : target.kernels) {
    AOTI_RETURN_IF_ERROR(LoadOne(description, target));
  }
  return Status();
}

#ifndef AOTI_STANDALONE
Status KernelSet::Load(std::shared_ptr<const Context> context, const TargetDescription& target,
                       const KernelReplacements& replacements) {
  if (replacements.empty()) return Load(std::move(context), target);
  context_ = std::move(context);
  modules_.reserve(target.kernels.size);
  kernels_.reserve(target.kernels.size);
  for (const KernelDescription& description : target.kernels) {
    const auto found = replacements.find(description.name);
    AOTI_RETURN_IF_ERROR(found == replacements.end()
                             ? LoadOne(description, target)
                             : LoadReplacement(description, found->second, target));
  }
  return Status();
}

Status KernelSet::LoadReplacement(const KernelDescription& embedded,
                                  const KernelReplacement& replacement,
                                  const TargetDescription& target) {
  KernelDescription description = embedded;
  // A string's zero byte is behind it: it ends PTX.
  description.image = reinterpret_cast<const unsigned char*>(replacement.image.c_str());
  description.image_end = description.image + replacement.image.size();
  description.threads = replacement.threads;
  description.shared_memory = replacement.shared_memory;
  description.cluster = replacement.cluster;
  Status status = LoadOne(description, target);
  if (status.ok()) status = CompareParams(embedded);
  if (status.ok()) return status;
  return Status(status.code(), replacement.path + ": " + status.message());
}

Status KernelSet::CompareParams(const KernelDescription& embedded) {
  const Driver& driver = context_->driver();
  if (driver.FuncGetParamInfo == nullptr) return Status();
  const std::string doing = std::string("loading kernel ") + embedded.name + " as it was built";
  cuda::Module module = nullptr;
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, ModuleLoadDataEx, &module, embedded.image, 0, nullptr,
                            nullptr);
  // Unloaded on every way out.
  struct Unload {
    const Driver& driver;
    cuda::Module module;
    ~Unload() { driver.ModuleUnload(module); }
  } unload{driver, module};
  cuda::Function before = nullptr;
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, ModuleGetFunction, &before, module, embedded.name);
  for (uint32_t i = 0; i < embedded.num_params; ++i) {
    size_t expected[2] = {0, 0};  // offset and size
    size_t got[2] = {0, 0};
    AOTI_CUDA_RETURN_IF_ERROR(driver, doing, FuncGetParamInfo, before, i, &expected[0],
                              &expected[1]);
    AOTI_CUDA_RETURN_IF_ERROR(driver, doing, FuncGetParamInfo, kernels_.back().function, i, &got[0],
                              &got[1]);
    if (expected[0] == got[0] && expected[1] == got[1]) continue;
    const auto text = [](const size_t* param) {
      return std::to_string(param[1]) + " bytes at offset " + std::to_string(param[0]);
    };
    return Status(Code::kInvalidArgument,
                  std::string("kernel ") + embedded.name + ", parameter " + std::to_string(i) +
                      ": launch code passes " + text(expected) + ", the kernel takes " + text(got) +
                      "; a kernel whose parameters changed needs the model to be built again");
  }
  return Status();
}
#endif  // AOTI_STANDALONE

// Launch code hands over an array without its length: the kernel must take as many parameters as it
// was generated for. Older drivers do not tell.
Status KernelSet::CheckParams(const KernelDescription& description, cuda::Function function,
                              const std::string& doing) const {
  const Driver& driver = context_->driver();
  if (driver.FuncGetParamInfo == nullptr) return Status();
  const std::string mismatch = doing + ": launch code passes " +
                               std::to_string(description.num_params) + " parameters, the kernel ";
  for (uint32_t i = 0; i <= description.num_params; ++i) {
    size_t offset = 0;
    size_t size = 0;
    const cuda::Result result = driver.FuncGetParamInfo(function, i, &offset, &size);
    const bool beyond = result == cuda::kErrorInvalidValue;
    if (result != cuda::kSuccess && !beyond) {
      return driver.Failure(result, "cuFuncGetParamInfo", doing);
    }
    if (beyond && i < description.num_params) {
      return Status(Code::kInternal, mismatch + "takes " + std::to_string(i));
    }
    if (!beyond && i == description.num_params) {
      return Status(Code::kInternal, mismatch + "takes more");
    }
  }
  return Status();
}

// The blocks of a cooperative kernel that the device runs at a time, and whether they are enough
// for what is known of its grids.
Status KernelSet::CheckCooperative(const KernelDescription& description, cuda::Function function,
                                   const std::string& doing, uint64_t* resident) const {
  const Driver& driver = context_->driver();
  const cuda::Device device = context_->device().device;
  int supported = 0;
  int multiprocessors = 0;
  int blocks = 0;
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, DeviceGetAttribute, &supported,
                            cuda::kDeviceAttributeCooperativeLaunch, device);
  if (supported == 0) {
    return Status(Code::kUnavailable, doing +
                                          ": its blocks wait for each other (a cooperative "
                                          "launch), which this device does not support");
  }
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, DeviceGetAttribute, &multiprocessors,
                            cuda::kDeviceAttributeMultiprocessors, device);
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, OccupancyMaxActiveBlocksPerMultiprocessor, &blocks,
                            function, static_cast<int>(description.threads),
                            description.shared_memory);
  *resident = static_cast<uint64_t>(blocks) * static_cast<uint64_t>(multiprocessors);
  if (description.blocks <= *resident) return Status();
  return Status(Code::kUnavailable, doing + ": " + TooManyBlocks(description.blocks, *resident));
}

Status KernelSet::LoadOne(const KernelDescription& description, const TargetDescription& target) {
  const Driver& driver = context_->driver();
  const std::string doing =
      std::string("loading kernel ") + description.name + " for " + target.name;
  char log[1024] = "";
  int options[] = {cuda::kJitErrorLogBuffer, cuda::kJitErrorLogBufferSize};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log - 1)};
  cuda::Module module = nullptr;
  const cuda::Result result =
      driver.ModuleLoadDataEx(&module, description.image, 2, options, values);
  if (result != cuda::kSuccess) {
    // The log is empty but where the driver had PTX to compile.
    return driver.Failure(result, "cuModuleLoadDataEx",
                          log[0] == '\0' ? doing : doing + " (" + log + ")");
  }
  modules_.push_back(module);
  cuda::Function function = nullptr;
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, ModuleGetFunction, &function, module, description.name);
  if (driver.FuncLoad != nullptr) AOTI_CUDA_RETURN_IF_ERROR(driver, doing, FuncLoad, function);
  AOTI_RETURN_IF_ERROR(CheckParams(description, function, doing));
  int max_threads = 0;
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, FuncGetAttribute, &max_threads,
                            cuda::kFunctionAttributeMaxThreads, function);
  if (static_cast<uint32_t>(max_threads) < description.threads) {
    return Status(Code::kInternal,
                  doing + ": it needs blocks of " + std::to_string(description.threads) +
                      " threads, the device allows " + std::to_string(max_threads));
  }
  if (description.shared_memory > kSharedMemoryByDefault) {
    AOTI_CUDA_RETURN_IF_ERROR(driver,
                              doing + ", which needs " + std::to_string(description.shared_memory) +
                                  " bytes of shared memory",
                              FuncSetAttribute, function,
                              cuda::kFunctionAttributeMaxDynamicSharedMemory,
                              static_cast<int>(description.shared_memory));
  }
  if (description.cluster > kPortableCluster) {
    AOTI_CUDA_RETURN_IF_ERROR(
        driver,
        doing + ", which has clusters of " + std::to_string(description.cluster) + " blocks",
        FuncSetAttribute, function, cuda::kFunctionAttributeNonPortableClusters, 1);
  }
  uint64_t resident = 0;
  if ((description.flags & kCooperative) != 0) {
    AOTI_RETURN_IF_ERROR(CheckCooperative(description, function, doing, &resident));
  }
  kernels_.push_back({description.name, function, description.threads, description.shared_memory,
                      description.cluster, description.flags, resident, description.tensor_maps});
  return Status();
}

Status KernelSet::Get(uint32_t index, const Kernel** kernel) const {
  if (index >= kernels_.size()) {
    return Status(Code::kInternal, "launch code names kernel " + std::to_string(index) + " of " +
                                       std::to_string(kernels_.size()));
  }
  *kernel = &kernels_[index];
  return Status();
}

}  // namespace aoti
