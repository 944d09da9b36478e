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

}  // namespace

Status Kernel::Blocks(Grid grid, Grid* blocks) const {
  const uint64_t x = uint64_t{grid.x} * cluster;
  if (x > static_cast<uint64_t>(std::numeric_limits<int32_t>::max()) || grid.y > kMaxBlocksYZ ||
      grid.z > kMaxBlocksYZ) {
    return Status(Code::kInternal, std::string("kernel ") + name + ": a grid of " +
                                       std::to_string(x) + " x " + std::to_string(grid.y) + " x " +
                                       std::to_string(grid.z) + " blocks is too large");
  }
  *blocks = {static_cast<uint32_t>(x), grid.y, grid.z};
  return Status();
}

cuda::LaunchAttributeValue Kernel::ClusterDimension() const {
  cuda::LaunchAttributeValue value = {};
  value.cluster = {cluster, 1, 1};
  return value;
}

KernelSet::~KernelSet() {
  if (modules_.empty()) return;
  const ScopedContext scope(*context_);
  if (!scope.ok()) return;
  for (const cuda::Module module : modules_) context_->driver().ModuleUnload(module);
}

Status KernelSet::Load(std::shared_ptr<const Context> context, const TargetDescription& target,
                       const KernelReplacements& replacements) {
  context_ = std::move(context);
  // No push_back may throw between getting a handle and storing it.
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
  kernels_.push_back({description.name, function, description.threads, description.shared_memory,
                      description.cluster});
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
