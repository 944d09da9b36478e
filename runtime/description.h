// What a generated model tells the runtime about itself: constant tables and one function per
// procedure and target. Generated code defines one ModelDescription; it holds no other state.
//
// Everything here is plain data in read-only memory; sizes and offsets are in bytes unless said
// otherwise.

#ifndef AOTI_RUNTIME_DESCRIPTION_H_
#define AOTI_RUNTIME_DESCRIPTION_H_

#include <cstddef>
#include <cstdint>

#include "dlpack/dlpack.h"
#include "runtime/aoti.h"
#include "runtime/launcher.h"
#include "runtime/status.h"

namespace aoti {

// Raised by one whenever generated code of the previous version could not be read correctly.
constexpr uint32_t kDescriptionVersion = 1;

// A constant array of the generated code.
template <typename T>
struct Table {
  const T* data;
  size_t size;

  const T* begin() const { return data; }
  const T* end() const { return data + size; }
  const T& operator[](size_t i) const { return data[i]; }
};

// An input or output; shape and strides in elements.
struct TensorDescription {
  const char* name;
  DLDataType dtype;
  Table<int64_t> shape;
  Table<int64_t> strides;
};

// A tensor of the weights file and where the runtime puts it. Weights that only folding reads go
// to staging memory, which is freed once the constants are computed.
struct WeightDescription {
  const char* name;  // key in the safetensors file
  DLDataType dtype;
  Table<int64_t> shape;
  uint64_t nbytes;
  uint64_t offset;  // in weights memory, or in staging memory if folding_only
  bool folding_only;
};

// A compiled kernel as the assembler embedded it: a cubin or zero-terminated PTX.
struct KernelDescription {
  const char* name;  // entry point in the image
  const unsigned char* image;
  const unsigned char* image_end;
  uint32_t threads;        // of a block
  uint32_t shared_memory;  // dynamic, of a block
  uint32_t cluster;        // blocks in a cluster, along x; 1 for none
  uint32_t num_params;     // including the two scratch pointers Triton appends
};

// How the memory of one procedure run is divided. Every offset is a multiple of 256.
struct MemoryDescription {
  uint64_t weights;
  uint64_t staging;
  uint64_t constants;
  uint64_t folding_arena;
  uint64_t main_arena;
};

// The model as built for one target. A device takes the image whose capability equals its own
// major number and does not exceed its minor number (the greatest such), else the PTX image of the
// greatest capability that does not exceed its own.
struct TargetDescription {
  const char* name;  // "sm_90" or "compute_90"
  int32_t major;
  int32_t minor;
  bool ptx;
  int32_t driver;  // the least CUDA version of a driver, as cuDriverGetVersion: 12080 is 12.8
  MemoryDescription memory;
  Table<WeightDescription> weights;
  Table<KernelDescription> kernels;
  // Issue the launches of a procedure, in order. Kernels are named by their index in `kernels`.
  Status (*fold)(Launcher& launcher);
  Status (*run)(Launcher& launcher);
};

struct ModelDescription {
  uint32_t version;  // kDescriptionVersion
  const char* name;
  // Of the weights' names, dtypes and shapes, not their values: the SHA-256, in lowercase
  // hexadecimal, of one line "name dtype d0,d1,...\n" a weight, sorted by name, dtypes as
  // safetensors spells them.
  const char* weights_digest;
  Table<TensorDescription> inputs;
  Table<TensorDescription> outputs;
  Table<TargetDescription> targets;
};

}  // namespace aoti

// The opaque type of the C ABI. Generated code defines one constant of it and returns its address
// from the model's description function.
struct AotiDescription {
  aoti::ModelDescription model;
};

#endif  // AOTI_RUNTIME_DESCRIPTION_H_
