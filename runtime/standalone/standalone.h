// A model in one file: what stands beside its launch code there. `wrapgen wrap --standalone` copies
// this header, what it includes and the .cc files of all that into the model's file, without what
// is within `#ifndef AOTI_STANDALONE`.

#ifndef AOTI_RUNTIME_STANDALONE_STANDALONE_H_
#define AOTI_RUNTIME_STANDALONE_STANDALONE_H_

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/context.h"
#include "runtime/description.h"
#include "runtime/kernels.h"
#include "runtime/memory.h"
#include "runtime/status.h"
#include "runtime/stream.h"

namespace aoti {

// What messages call a model's tensors and sizes.
struct StandaloneNames {
  Table<const char*> inputs;
  Table<const char*> outputs;
  Table<const char*> sizes;  // "dimension 0 of x", one a symbol
};

// A model on a device, with memory for one run at a time.
class Standalone {
 public:
  // `kernels_dir` has TARGET/KERNEL.cubin, .ptx or .hsaco; `weights` is a packed file,
  // wrapgen/pack.py.
  static Status Load(const ModelDescription& model, const StandaloneNames& names,
                     const char* kernels_dir, const void* weights, uint64_t weights_size,
                     int device, std::unique_ptr<Standalone>* loaded);
  // Waits for the last run.
  ~Standalone();
  Standalone(const Standalone&) = delete;
  Standalone& operator=(const Standalone&) = delete;

  // Enqueues a run, behind the one before in whatever stream that is. Any thread may call.
  Status Run(void* const* inputs, void* const* outputs, const int64_t* sizes, cuda::Stream stream);

 private:
  Standalone(const ModelDescription& model, const StandaloneNames& names,
             const TargetDescription& target, std::shared_ptr<const Context> context);

  Status Prepare(const std::string& kernels_dir, const void* weights);
  Status LoadKernels(const std::string& kernels_dir);
  Status Upload(const void* weights, DeviceAddress staging, cuda::Stream stream);
  Status ReadSizes(const int64_t* sizes);
  std::string Where(const std::string& expression) const;
  Status Reserve(bool capturing);
  Status Issue(cuda::Stream stream);

  const ModelDescription& model_;
  const StandaloneNames& names_;
  const TargetDescription& target_;
  const std::shared_ptr<const Context> context_;
  std::mutex mutex_;
  KernelSet kernels_;
  DeviceMemory memory_;  // weights, then constants
  std::unique_ptr<DeviceMemory> arena_;
  uint64_t arena_size_ = 0;
  bool arena_is_captured_ = false;  // whether a graph of the caller's holds its address
  std::vector<std::unique_ptr<DeviceMemory>> captured_arenas_;  // earlier ones that some hold
  Event finished_;                                              // recorded after each run
  std::vector<DeviceAddress> inputs_;
  std::vector<DeviceAddress> outputs_;
  std::vector<DeviceAddress> weights_;  // in the order of the table; of those that are read
  std::vector<int64_t> values_;
};

// Puts a message where the caller wants it, if anywhere, and returns the code.
int Report(Code code, const char* message, char* error, size_t error_size);

// Runs a body that returns a Status; no exception leaves.
template <typename Body>
int Guard(char* error, size_t error_size, Body body) noexcept {
  try {
    const Status status = body();
    return Report(status.code(), status.message(), error, error_size);
  } catch (const std::exception& exception) {
    return Report(Code::kInternal, exception.what(), error, error_size);
  }
}

}  // namespace aoti

#endif  // AOTI_RUNTIME_STANDALONE_STANDALONE_H_
