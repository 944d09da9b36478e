// What differs between NVIDIA's driver and AMD's. A library speaks to one of them, whichever of
// cuda.cc and hip.cc it is linked from; the rest of the runtime is the same.

#ifndef AOTI_RUNTIME_PLATFORM_H_
#define AOTI_RUNTIME_PLATFORM_H_

#include <cstdint>
#include <string>

#include "runtime/driver.h"
#include "runtime/status.h"

namespace aoti {

struct Platform {
  const char* name;              // "CUDA" or "HIP"
  uint32_t description_version;  // of the models it runs: kDescriptionVersion or that with kHip
  const char* machine_code;      // "cubin" or "hsaco"
  int32_t memory;                // DLPack's type of its devices
};

extern const Platform kPlatform;

// What the driver calls a function of cuda_driver.h: "cuMemAlloc" is "hipMalloc" for AMD's.
std::string DriverFunctionName(const char* function);

// "gfx942" of a device of AMD's; empty for NVIDIA's, which are told by compute capability.
Status ReadArchitecture(const Driver& driver, cuda::Device device, std::string* architecture);

}  // namespace aoti

#endif  // AOTI_RUNTIME_PLATFORM_H_
