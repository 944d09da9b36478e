#include "runtime/aotinductor/torch.h"

#include <dlfcn.h>

#include <atomic>
#include <iterator>
#include <mutex>

namespace aoti::aotinductor {
namespace {

// By soname. Python loads extension modules, and with them libtorch, with RTLD_LOCAL, so that the
// global scope does not have their symbols; a process linked with libtorch may have it there only.
constexpr const char* kLibraries[] = {"libtorch_cpu.so", "libtorch_cuda.so", "libtorch.so"};

constexpr char kVersionFunction[] = "aoti_torch_abi_version";

class Libraries {
 public:
  Libraries() {
    for (size_t i = 0; i < std::size(kLibraries); ++i) {
      handles_[i] = dlopen(kLibraries[i], RTLD_LAZY | RTLD_NOLOAD);
    }
  }
  ~Libraries() {
    for (void* handle : handles_) {
      if (handle != nullptr) dlclose(handle);
    }
  }
  Libraries(const Libraries&) = delete;
  Libraries& operator=(const Libraries&) = delete;

  void* Find(const char* symbol) const {
    if (void* found = dlsym(RTLD_DEFAULT, symbol)) return found;
    for (void* handle : handles_) {
      if (handle == nullptr) continue;
      if (void* found = dlsym(handle, symbol)) return found;
    }
    return nullptr;
  }

 private:
  void* handles_[std::size(kLibraries)];
};

std::string VersionText(uint64_t version) {
  return std::to_string(version >> 56) + "." + std::to_string(version >> 48 & 0xFF);
}

struct DTypeRow {
  DLDataType dtype;
  int32_t (*shim::Functions::*number)();
};

// DLPack's codes by value: older headers do not name them all.
constexpr DTypeRow kDTypes[] = {
    {{6, 8, 1}, &shim::Functions::dtype_bool},
    {{1, 8, 1}, &shim::Functions::dtype_uint8},
    {{1, 16, 1}, &shim::Functions::dtype_uint16},
    {{1, 32, 1}, &shim::Functions::dtype_uint32},
    {{1, 64, 1}, &shim::Functions::dtype_uint64},
    {{0, 8, 1}, &shim::Functions::dtype_int8},
    {{0, 16, 1}, &shim::Functions::dtype_int16},
    {{0, 32, 1}, &shim::Functions::dtype_int32},
    {{0, 64, 1}, &shim::Functions::dtype_int64},
    {{10, 8, 1}, &shim::Functions::dtype_float8_e4m3fn},
    {{12, 8, 1}, &shim::Functions::dtype_float8_e5m2},
    {{2, 16, 1}, &shim::Functions::dtype_float16},
    {{4, 16, 1}, &shim::Functions::dtype_bfloat16},
    {{2, 32, 1}, &shim::Functions::dtype_float32},
    {{2, 64, 1}, &shim::Functions::dtype_float64},
    {{5, 64, 1}, &shim::Functions::dtype_complex64},
};

}  // namespace

Status Torch::Get(const Torch** torch) {
  static Torch instance;
  static std::mutex mutex;
  static std::atomic<bool> ready{false};
  if (!ready.load(std::memory_order_acquire)) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!ready.load(std::memory_order_relaxed)) {
      AOTI_RETURN_IF_ERROR(instance.Load());
      ready.store(true, std::memory_order_release);
    }
  }
  *torch = &instance;
  return Status();
}

Status Torch::Load() {
  const Libraries libraries;
  if (libraries.Find(kVersionFunction) == nullptr) {
    std::string names;
    for (const char* name : kLibraries) names += std::string(names.empty() ? "" : ", ") + name;
    return Status(Code::kUnavailable,
                  std::string("AOTInductor's interface works in a process that has PyTorch loaded, "
                              "2.11 or newer, and this one has not: there is no ") +
                      kVersionFunction + " in it, nor in " + names +
                      ". Without PyTorch, use the functions of runtime/aoti.h");
  }
#define AOTI_SHIM_RESOLVE(name, result, parameters) \
  name = reinterpret_cast<result(*) parameters>(libraries.Find("aoti_torch_" #name));
  AOTI_SHIM_FUNCTIONS(AOTI_SHIM_RESOLVE)
  AOTI_SHIM_CUDA_FUNCTIONS(AOTI_SHIM_RESOLVE)
#undef AOTI_SHIM_RESOLVE
  reason_ = reinterpret_cast<const char* (*)()>(
      libraries.Find("torch_exception_get_what_without_backtrace"));
  const uint64_t version = abi_version();
  if (version < kOldestTorch) {
    return Status(Code::kUnavailable,
                  "AOTInductor's interface works with PyTorch " + VersionText(kOldestTorch) +
                      " or newer, and this process has " + VersionText(version));
  }
  const char* missing = nullptr;
#define AOTI_SHIM_CHECK(name, result, parameters) \
  if (name == nullptr) missing = "aoti_torch_" #name;
  AOTI_SHIM_FUNCTIONS(AOTI_SHIM_CHECK)
  if (create_cuda_guard != nullptr) {
    AOTI_SHIM_CUDA_FUNCTIONS(AOTI_SHIM_CHECK)
  }
#undef AOTI_SHIM_CHECK
  if (missing == nullptr) return Status();
  return Status(Code::kUnavailable, std::string("the libtorch of this process, ") +
                                        VersionText(version) + ", lacks " + missing);
}

Status Torch::Failure(const char* function, const std::string& doing) const {
  const char* reason = reason_ == nullptr ? nullptr : reason_();
  const std::string failed = doing + ": libtorch's " + function + " failed";
  if (reason == nullptr || *reason == '\0') {
    return Status(Code::kInternal, failed + ", and wrote why to standard error");
  }
  return Status(Code::kInternal, failed + ": " + reason);
}

int32_t Torch::DType(const DLDataType& dtype) const {
  for (const DTypeRow& row : kDTypes) {
    const bool same = row.dtype.code == dtype.code && row.dtype.bits == dtype.bits;
    if (same && dtype.lanes == 1) return (this->*row.number)();
  }
  return -1;
}

DLDataType Torch::DType(int32_t dtype) const {
  for (const DTypeRow& row : kDTypes) {
    if ((this->*row.number)() == dtype) return row.dtype;
  }
  return {0, 0, 0};
}

}  // namespace aoti::aotinductor
