// What generated code of a debug build (--//aoti:debug) calls around each step: it prints launches,
// writes tensors to files, looks for NaN and waits, so that an error is that of the step.
//
// Other builds have none of it, neither the calls nor this library.

#ifndef AOTI_RUNTIME_DEBUG_DEBUG_H_
#define AOTI_RUNTIME_DEBUG_DEBUG_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "runtime/launcher.h"
#include "runtime/status.h"

namespace aoti::debug {

// What is asked for. All modes issue each step to the stream.
enum Mode : uint32_t {
  kLaunches = 1,  // print each step, and the arguments of launches, to standard error
  kValues = 2,    // write what each step writes to safetensors files
  kNan = 4,       // fail at the first step that writes NaN
  kSync = 8,      // wait for each step
  kNvtx = 16,     // an NVTX range a step
};

// The modes whose steps are waited for.
constexpr uint32_t kWaiting = kValues | kNan | kSync;

// A parameter of a kernel. `dtype` as safetensors spells it, of the pointee with a "*" before it;
// `value` points to what the kernel gets.
struct Argument {
  const char* name;
  const char* dtype;
  const void* value;
};

// What a step reads or writes: memory, and its values as dtype, shape and strides (in elements)
// arrange them.
struct Tensor {
  const char* name;   // "arena buf0"
  const char* dtype;  // as safetensors spells it
  DeviceAddress address;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
  bool read;
  bool written;
};

// Where a step stands.
struct Site {
  const char* model;
  const char* step;  // "main step 3, kernel conv_1f0c9a3b7d52"
  // "model.py, in forward, module conv: y = self.conv(x)"; "" where that is not known.
  const char* source;
};

// Prints a launch.
void PrintLaunch(const char* kernel, Grid grid, std::initializer_list<Argument> arguments);
void PrintCopy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes);
void PrintFill(DeviceAddress dst, uint8_t byte, uint64_t nbytes);

// Around one step.
class Step {
 public:
  // Everything outlives the step.
  Step(Launcher& launcher, uint32_t modes, const Site& site);
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  // Sets memory to zero that the step is the first to use, so that what no step writes is not taken
  // for a value.
  Status Clear(DeviceAddress address, uint64_t nbytes);

  // Waits for the step and looks at what it wrote. Fails with the step's name if the device reports
  // an error, if there is NaN in a written tensor, or if a file cannot be written.
  Status Finish(std::initializer_list<Tensor> tensors);

 private:
  Status CheckNan(const std::vector<Tensor>& tensors);
  Status Write(const std::vector<Tensor>& tensors);

  Launcher& launcher_;
  const uint32_t modes_;
  const Site site_;
};

// An NVTX range for the lifetime of the object; in a library of its own, which needs NVTX's
// headers.
class Range {
 public:
  explicit Range(const Site& site);
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

}  // namespace aoti::debug

#endif  // AOTI_RUNTIME_DEBUG_DEBUG_H_
