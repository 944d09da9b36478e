// The driver, found at run time by dlopen: CUDA's or, behind the same functions, HIP's (hip.cc).

#ifndef AOTI_RUNTIME_DRIVER_H_
#define AOTI_RUNTIME_DRIVER_H_

#include <string>

#include "runtime/cuda_driver.h"
#include "runtime/status.h"

namespace aoti {

namespace cuda {

#define AOTI_CUDA_DECLARE(name, version, parameters) Result(*name) parameters;
struct Functions {
  AOTI_CUDA_FUNCTIONS(AOTI_CUDA_DECLARE)
  AOTI_CUDA_OPTIONAL_FUNCTIONS(AOTI_CUDA_DECLARE)
};
#undef AOTI_CUDA_DECLARE

}  // namespace cuda

class Driver : public cuda::Functions {
 public:
  // Loads and initializes the driver on the first call; later calls only return it. Any number of
  // threads may call. A failure is not remembered: the next call tries again. The driver stays
  // loaded until the process ends.
  static Status Get(const Driver** driver);

  // As cuDriverGetVersion: 12080 is CUDA 12.8; or hipRuntimeGetVersion: 60000000 is HIP 6.0.
  int version() const { return version_; }

  // The status for `result`, which `function` returned while `doing` (as in "allocating 5 bytes").
  Status Failure(cuda::Result result, const char* function, const std::string& doing) const;

 private:
  Status Load();

  int version_ = 0;
};

// "12.8" for 12080; of HIP's, "6.0" for 60000000.
std::string DriverVersionText(int version);

}  // namespace aoti

// Calls `driver.function(arguments)`; on an error, returns from the enclosing function. `doing` is
// evaluated only then.
#define AOTI_CUDA_RETURN_IF_ERROR(driver, doing, function, ...)              \
  do {                                                                       \
    const ::aoti::cuda::Result aoti_result = (driver).function(__VA_ARGS__); \
    if (aoti_result != ::aoti::cuda::kSuccess) {                             \
      return (driver).Failure(aoti_result, "cu" #function, (doing));         \
    }                                                                        \
  } while (false)

#endif  // AOTI_RUNTIME_DRIVER_H_
