#include "tests/runtime/simulator.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace aoti::testing {
namespace {

[[noreturn]] void Die(const char* what, const char* why) {
  std::fprintf(stderr, "%s: %s\n", what, why);
  std::abort();
}

template <typename Function>
void Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function == nullptr) Die(name, "not in the simulator");
}

Simulator Load() {
  const char* path = std::getenv("AOTI_SIMULATOR");
  if (path == nullptr) path = "simulator/libcuda.so.1";
  // Its soname is libcuda.so.1, so the runtime's dlopen of that name finds it already there.
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) Die(path, dlerror());
  if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD) != library) Die(path, "wrong soname");
  Simulator simulator;
  Find(library, "simulator_reset", &simulator.reset);
  Find(library, "simulator_set_executor", &simulator.set_executor);
  Find(library, "simulator_fail", &simulator.fail);
  Find(library, "simulator_calls", &simulator.calls);
  Find(library, "simulator_failed", &simulator.failed);
  Find(library, "simulator_live", &simulator.live);
  Find(library, "simulator_misuse", &simulator.misuse);
  Find(library, "simulator_check_range", &simulator.check_range);
  Find(library, "simulator_set_capturing", &simulator.set_capturing);
  Find(library, "cuCtxCreate_v2", &simulator.create_context);
  Find(library, "cuCtxDestroy_v2", &simulator.destroy_context);
  Find(library, "cuCtxGetCurrent", &simulator.current_context);
  return simulator;
}

void Check(int result, const char* what) {
  if (result != cuda::kSuccess) Die(what, "failed");
}

}  // namespace

const Simulator& GetSimulator() {
  static const Simulator simulator = Load();
  return simulator;
}

const Driver& GetDriver() {
  GetSimulator();
  const Driver* driver = nullptr;
  const Status status = Driver::Get(&driver);
  if (!status.ok()) Die("Driver::Get", status.message());
  return *driver;
}

CurrentContext::CurrentContext(int device) : device_(device) {
  const Driver& driver = GetDriver();
  Check(driver.DevicePrimaryCtxRetain(&handle_, device), "cuDevicePrimaryCtxRetain");
  Check(driver.CtxPushCurrent(handle_), "cuCtxPushCurrent");
}

CurrentContext::~CurrentContext() {
  cuda::Context popped = nullptr;
  Check(GetDriver().CtxPopCurrent(&popped), "cuCtxPopCurrent");
  Check(GetDriver().DevicePrimaryCtxRelease(device_), "cuDevicePrimaryCtxRelease");
}

FloatTensor::FloatTensor(std::vector<int64_t> shape) : shape_(std::move(shape)) {
  for (const int64_t extent : shape_) size_ *= static_cast<size_t>(extent);
  cuda::DevicePointer address = 0;
  Check(GetDriver().MemAlloc(&address, size_ * sizeof(float)), "cuMemAlloc");
  tensor_.data = reinterpret_cast<void*>(address);
  cuda::Device device = 0;
  Check(GetDriver().CtxGetDevice(&device), "cuCtxGetDevice");
  tensor_.device = {kDLCUDA, device};
  tensor_.ndim = static_cast<int>(shape_.size());
  tensor_.dtype = {kDLFloat, 32, 1};
  tensor_.shape = shape_.data();
}

FloatTensor::~FloatTensor() {
  Check(GetDriver().MemFree(reinterpret_cast<cuda::DevicePointer>(tensor_.data)), "cuMemFree");
}

std::vector<float> FloatTensor::values() const {
  const auto* first = static_cast<const float*>(tensor_.data);
  return std::vector<float>(first, first + size_);
}

}  // namespace aoti::testing
