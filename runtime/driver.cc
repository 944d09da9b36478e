#include "runtime/driver.h"

#include <dlfcn.h>

#include <atomic>
#include <mutex>

namespace aoti {
namespace {

constexpr char kLibrary[] = "libcuda.so.1";

// cuGetProcAddress_v2, the first whose result says why a function was not found.
using GetProcAddress = cuda::Result (*)(const char* symbol, void** function, int version,
                                        uint64_t flags, int* status);

const char* TextOrEmpty(const char* text) { return text == nullptr ? "" : text; }

Status NoDriver(const std::string& reason) {
  return Status(Code::kUnavailable, "no usable CUDA driver: " + reason);
}

Status Resolve(GetProcAddress get, const char* name, int version, bool optional, void** function) {
  int found = cuda::kProcAddressFound;
  const cuda::Result result = get(name, function, version, 0, &found);
  if (result == cuda::kSuccess && *function != nullptr) return Status();
  *function = nullptr;
  if (optional) return Status();
  std::string message = kLibrary;
  message += found == cuda::kProcAddressVersionNotSufficient ? " is too old: it lacks " : " lacks ";
  message += name;
  message += " of CUDA " + DriverVersionText(version);
  return Status(Code::kUnavailable, "no usable CUDA driver: " + message);
}

}  // namespace

std::string DriverVersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Status Driver::Get(const Driver** driver) {
  // Constant-initialized and never destroyed: usable before and after other static objects.
  static Driver instance;
  static std::mutex mutex;
  static std::atomic<bool> ready{false};
  if (!ready.load(std::memory_order_acquire)) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!ready.load(std::memory_order_relaxed)) {
      AOTI_RETURN_IF_ERROR(instance.Load());
      ready.store(true, std::memory_order_release);
    }
  }
  *driver = &instance;
  return Status();
}

Status Driver::Load() {
  // Not closed, not even on failure: a driver that has started threads cannot be unloaded.
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return NoDriver(TextOrEmpty(dlerror()));
  const auto get = reinterpret_cast<GetProcAddress>(dlsym(library, "cuGetProcAddress_v2"));
  if (get == nullptr) {
    return NoDriver(std::string(kLibrary) + " is older than CUDA " +
                    DriverVersionText(AOTI_CUDA_MINIMUM_DRIVER));
  }
#define AOTI_CUDA_RESOLVE(name, version, parameters) \
  AOTI_RETURN_IF_ERROR(Resolve(get, "cu" #name, version, false, reinterpret_cast<void**>(&name)));
  AOTI_CUDA_FUNCTIONS(AOTI_CUDA_RESOLVE)
#undef AOTI_CUDA_RESOLVE
#define AOTI_CUDA_RESOLVE(name, version, parameters) \
  AOTI_RETURN_IF_ERROR(Resolve(get, "cu" #name, version, true, reinterpret_cast<void**>(&name)));
  AOTI_CUDA_OPTIONAL_FUNCTIONS(AOTI_CUDA_RESOLVE)
#undef AOTI_CUDA_RESOLVE
  AOTI_CUDA_RETURN_IF_ERROR(*this, "initializing the CUDA driver", Init, 0);
  AOTI_CUDA_RETURN_IF_ERROR(*this, "reading the driver's version", DriverGetVersion, &version_);
  if (version_ < AOTI_CUDA_MINIMUM_DRIVER) {
    return NoDriver("it supports CUDA " + DriverVersionText(version_) + ", and CUDA " +
                    DriverVersionText(AOTI_CUDA_MINIMUM_DRIVER) + " or newer is needed");
  }
  // A driver that is older has a function of that name with fewer parameters.
  if (version_ < 12030) GraphAddDependencies = nullptr;
  return Status();
}

Status Driver::Failure(cuda::Result result, const char* function, const std::string& doing) const {
  const char* name = nullptr;
  const char* text = nullptr;
  if (GetErrorName(result, &name) != cuda::kSuccess) name = nullptr;
  if (GetErrorString(result, &text) != cuda::kSuccess) text = nullptr;
  std::string message = doing + ": " + function + " failed: ";
  message += name != nullptr ? std::string(name) : "error " + std::to_string(result);
  if (text != nullptr) message += std::string(" (") + text + ")";
  switch (result) {
    case cuda::kErrorOutOfMemory:
      return Status(Code::kOutOfMemory, std::move(message));
    case cuda::kErrorStubLibrary:
    case cuda::kErrorNoDevice:
    case cuda::kErrorInvalidDevice:
    case cuda::kErrorSystemNotReady:
    case cuda::kErrorSystemDriverMismatch:
    case cuda::kErrorCompatNotSupported:
      return Status(Code::kUnavailable, std::move(message));
    default:
      return Status(Code::kDriver, std::move(message));
  }
}

}  // namespace aoti
