// NVIDIA's driver: libcuda.so.1, its functions by cuGetProcAddress.

#include <dlfcn.h>

#include <cstdint>
#include <string>

#include "runtime/description.h"
#include "runtime/driver.h"
#include "runtime/platform.h"
#include "runtime/status.h"

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

const Platform kPlatform = {"CUDA", kDescriptionVersion, "cubin", 2 /* kDLCUDA */};

std::string DriverFunctionName(const char* function) { return function; }

Status ReadArchitecture(const Driver&, cuda::Device, std::string* architecture) {
  architecture->clear();
  return Status();
}

std::string DriverVersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
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

}  // namespace aoti
