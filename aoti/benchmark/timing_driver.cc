// A libcuda.so.1 that passes every call on to another one, and times the launches on the way.
//
// The runtime finds its driver by the name libcuda.so.1 and asks it for functions with
// cuGetProcAddress. A process that has loaded this library by then gets it in place of the
// machine's driver, whose functions it hands on; those that launch something are wrapped in a pair
// of events while timing is on. So the library that is timed is the deployed one, to the byte.
//
// The environment variable AOTI_TIMED_DRIVER has the path of the other driver: its name would find
// this library again.

#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/cuda_driver.h"
#include "runtime/driver.h"

namespace {

namespace cuda = aoti::cuda;
using cuda::DevicePointer;
using cuda::Event;
using cuda::Function;
using cuda::LaunchConfig;
using cuda::Module;
using cuda::Result;
using cuda::Stream;

constexpr char kVariable[] = "AOTI_TIMED_DRIVER";

using GetProcAddress = Result (*)(const char* symbol, void** function, int version, uint64_t flags,
                                  int* status);

// The other driver.
struct Real : cuda::Functions {
  GetProcAddress get = nullptr;
};

// A launch, copy or fill.
struct Entry {
  std::string what;  // the kernel's name, "copy" or "fill"
  Event begin;
  Event end;
};

struct State {
  std::mutex mutex;
  Real real = {};
  bool on = false;
  std::map<Function, std::string> names;
  std::vector<Entry> entries;
};

State& Get() {
  static State& state = *new State;  // never destroyed: the driver outlives static objects
  return state;
}

// Loads the other driver, once.
bool Load(State& state) {
  if (state.real.get != nullptr) return true;
  const char* path = std::getenv(kVariable);
  if (path == nullptr) return false;
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return false;
  state.real.get = reinterpret_cast<GetProcAddress>(dlsym(library, "cuGetProcAddress_v2"));
  if (state.real.get == nullptr) return false;
  int status = 0;
#define TIMING_RESOLVE(name, version, parameters) \
  state.real.get("cu" #name, reinterpret_cast<void**>(&state.real.name), version, 0, &status);
  AOTI_CUDA_FUNCTIONS(TIMING_RESOLVE)
#undef TIMING_RESOLVE
  return true;
}

// Calls `launch`, between two events if timing is on.
template <typename Launch>
Result Timed(Stream stream, const char* what, Function function, const Launch& launch) {
  State& state = Get();
  const std::lock_guard<std::mutex> lock(state.mutex);
  if (!state.on) return launch(state.real);
  Entry entry = {what == nullptr ? state.names[function] : what, nullptr, nullptr};
  Result result = state.real.EventCreate(&entry.begin, 0);
  if (result == cuda::kSuccess) result = state.real.EventCreate(&entry.end, 0);
  if (result == cuda::kSuccess) result = state.real.EventRecord(entry.begin, stream);
  if (result == cuda::kSuccess) result = launch(state.real);
  if (result == cuda::kSuccess) result = state.real.EventRecord(entry.end, stream);
  state.entries.push_back(entry);
  return result;
}

Result ModuleGetFunction(Function* function, Module module, const char* name) {
  State& state = Get();
  const std::lock_guard<std::mutex> lock(state.mutex);
  const Result result = state.real.ModuleGetFunction(function, module, name);
  if (result == cuda::kSuccess) state.names[*function] = name;
  return result;
}

Result LaunchKernel(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                    unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_memory,
                    Stream stream, void** params, void** extra) {
  return Timed(stream, nullptr, function, [&](const Real& real) {
    return real.LaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z,
                             shared_memory, stream, params, extra);
  });
}

Result LaunchKernelEx(const LaunchConfig* config, Function function, void** params, void** extra) {
  return Timed(config->stream, nullptr, function, [&](const Real& real) {
    return real.LaunchKernelEx(config, function, params, extra);
  });
}

Result MemcpyDtoDAsync(DevicePointer dst, DevicePointer src, size_t nbytes, Stream stream) {
  return Timed(stream, "copy", nullptr,
               [&](const Real& real) { return real.MemcpyDtoDAsync(dst, src, nbytes, stream); });
}

Result MemsetD8Async(DevicePointer dst, unsigned char byte, size_t nbytes, Stream stream) {
  return Timed(stream, "fill", nullptr,
               [&](const Real& real) { return real.MemsetD8Async(dst, byte, nbytes, stream); });
}

// What replaces the other driver's function of that name; null if nothing does.
void* Wrapper(const char* name) {
  static const std::map<std::string, void*> wrappers = {
      {"cuModuleGetFunction", reinterpret_cast<void*>(ModuleGetFunction)},
      {"cuLaunchKernel", reinterpret_cast<void*>(LaunchKernel)},
      {"cuLaunchKernelEx", reinterpret_cast<void*>(LaunchKernelEx)},
      {"cuMemcpyDtoDAsync", reinterpret_cast<void*>(MemcpyDtoDAsync)},
      {"cuMemsetD8Async", reinterpret_cast<void*>(MemsetD8Async)},
  };
  const auto found = wrappers.find(name);
  return found == wrappers.end() ? nullptr : found->second;
}

void Forget(State& state) {
  for (const Entry& entry : state.entries) {
    if (entry.begin != nullptr) state.real.EventDestroy(entry.begin);
    if (entry.end != nullptr) state.real.EventDestroy(entry.end);
  }
  state.entries.clear();
}

}  // namespace

#define TIMING_EXPORT __attribute__((visibility("default")))

extern "C" {

TIMING_EXPORT Result cuGetProcAddress_v2(const char* symbol, void** function, int version,
                                         uint64_t flags, int* status) {
  State& state = Get();
  const std::lock_guard<std::mutex> lock(state.mutex);
  if (!Load(state)) {
    *function = nullptr;
    *status = 1;  // CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
    return cuda::kErrorNotFound;
  }
  const Result result = state.real.get(symbol, function, version, flags, status);
  void* wrapper = Wrapper(symbol);
  if (result == cuda::kSuccess && *function != nullptr && wrapper != nullptr) *function = wrapper;
  return result;
}

// Forgets what was timed and times launches from now on.
TIMING_EXPORT void timing_begin() {
  State& state = Get();
  const std::lock_guard<std::mutex> lock(state.mutex);
  Forget(state);
  state.on = true;
}

// Times no more; returns how many launches were timed.
TIMING_EXPORT uint64_t timing_end() {
  State& state = Get();
  const std::lock_guard<std::mutex> lock(state.mutex);
  state.on = false;
  return state.entries.size();
}

// What the launch at `index` was and how long it took, once its stream has been waited for; the
// name is valid until timing_begin. Returns a CUresult.
TIMING_EXPORT Result timing_entry(uint64_t index, const char** what, float* milliseconds) {
  State& state = Get();
  const std::lock_guard<std::mutex> lock(state.mutex);
  if (index >= state.entries.size()) return cuda::kErrorInvalidValue;
  const Entry& entry = state.entries[index];
  *what = entry.what.c_str();
  return state.real.EventElapsedTime(milliseconds, entry.begin, entry.end);
}

}  // extern "C"
