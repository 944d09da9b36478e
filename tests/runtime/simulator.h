// The simulated driver, as the tests use it.

#ifndef AOTI_TESTS_RUNTIME_SIMULATOR_H_
#define AOTI_TESTS_RUNTIME_SIMULATOR_H_

#include <cstdint>
#include <vector>

#include "dlpack/dlpack.h"
#include "runtime/driver.h"
#include "simulator/control.h"

namespace aoti::testing {

// The control functions, and those driver functions that only tests need.
struct Simulator {
  decltype(&simulator_reset) reset;
  decltype(&simulator_set_executor) set_executor;
  decltype(&simulator_fail) fail;
  decltype(&simulator_calls) calls;
  decltype(&simulator_failed) failed;
  decltype(&simulator_live) live;
  decltype(&simulator_misuse) misuse;
  decltype(&simulator_check_range) check_range;
  decltype(&simulator_set_capturing) set_capturing;
  int (*create_context)(CUctx_st** context, unsigned flags, int device);
  int (*destroy_context)(CUctx_st* context);
  int (*current_context)(CUctx_st** context);
};

// Makes the simulator the process's libcuda.so.1 on the first call. It is found at the path in the
// environment variable AOTI_SIMULATOR, or at simulator/libcuda.so.1. Ends the process if it is not.
const Simulator& GetSimulator();

// The driver as the runtime sees it. The simulator must have been loaded.
const Driver& GetDriver();

// The primary context of a device, current for the object's lifetime.
class CurrentContext {
 public:
  explicit CurrentContext(int device = 0);
  ~CurrentContext();
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

  cuda::Context handle() const { return handle_; }

 private:
  const int device_;
  cuda::Context handle_ = nullptr;
};

// A float tensor on the simulated device of the current context, whose memory is the host's.
class FloatTensor {
 public:
  // Contiguous row-major.
  explicit FloatTensor(std::vector<int64_t> shape);
  ~FloatTensor();
  FloatTensor(const FloatTensor&) = delete;
  FloatTensor& operator=(const FloatTensor&) = delete;

  float* data() { return static_cast<float*>(tensor_.data); }
  std::vector<float> values() const;
  DLTensor& tensor() { return tensor_; }

 private:
  std::vector<int64_t> shape_;
  size_t size_ = 1;
  DLTensor tensor_ = {};
};

}  // namespace aoti::testing

#endif  // AOTI_TESTS_RUNTIME_SIMULATOR_H_
