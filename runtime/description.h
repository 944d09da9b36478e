// What a generated model tells the runtime about itself: constant tables and one function per
// procedure and target. Generated code defines one ModelDescription; it holds no other state.
//
// Everything here is plain data in read-only memory; sizes and offsets are in bytes unless said
// otherwise. A model in one file (runtime/standalone/standalone.h) does without what is within
// `#ifndef AOTI_STANDALONE`: DLPack and the C ABI.

#ifndef AOTI_RUNTIME_DESCRIPTION_H_
#define AOTI_RUNTIME_DESCRIPTION_H_

#include <cstddef>
#include <cstdint>

#ifndef AOTI_STANDALONE
#include "dlpack/dlpack.h"
#include "runtime/aoti.h"
#endif  // AOTI_STANDALONE
#include "runtime/launcher.h"
#include "runtime/status.h"

namespace aoti {

// Raised by one whenever generated code of the previous version could not be read correctly.
constexpr uint32_t kDescriptionVersion = 3;

// Added to the version of a model for AMD's GPUs, so that a runtime that speaks CUDA refuses it,
// and the other way round, before it reads anything else.
constexpr uint32_t kHip = 1u << 16;

// A constant array of the generated code.
template <typename T>
struct Table {
  const T* data;
  size_t size;

  const T* begin() const { return data; }
  const T* end() const { return data + size; }
  const T& operator[](size_t i) const { return data[i]; }
};

// The index of what is no value but a constant.
constexpr int32_t kFixed = -1;

#ifndef AOTI_STANDALONE
// The dimensions of a tensor of which some depend on the inputs: what is told of each, and its
// index in the values of a call, or kFixed.
struct DynamicLayout {
  const AotiDimInfo* shape;
  const int32_t* shape_values;
  const AotiDimInfo* strides;
  const int32_t* stride_values;
  uint64_t max_nbytes;
};

// An input or output; shape and strides in elements.
struct TensorDescription {
  const char* name;
  DLDataType dtype;
  Table<int64_t> shape;  // -1 for what depends on the inputs; here and below
  Table<int64_t> strides;
  const char* path = "";                   // where it stands in the Python call
  uint32_t flags = 0;                      // AOTI_TENSOR_*
  const DynamicLayout* dynamic = nullptr;  // null where nothing depends on the inputs
  int32_t symbol = kFixed;                 // of a scalar
};
#endif  // AOTI_STANDALONE

// A number that only a call's inputs tell.
struct SymbolDescription {
  const char* name;
  int64_t minimum;
  int64_t maximum;
  uint32_t input;     // whose dimension it is
  int32_t dimension;  // kFixed where the input is a scalar
  // Whether a CUDA graph is made for one value of it. Not for a scalar that is but passed on to
  // kernels: those are updated.
  bool shapes;
};

struct ConstraintDescription {
  const char* text;       // in terms of the inputs
  const char* condition;  // in terms of the symbols
  int32_t left;           // indices of values
  int32_t right;
  const char* comparison;  // "==", "!=", "<", "<=", ">" or ">="
};

// A value that must be within bounds, and a multiple of something, where this does not follow from
// the ranges of the symbols.
struct LimitDescription {
  int32_t value;
  int64_t minimum;
  int64_t maximum;
  int64_t multiple_of;
  const char* what;        // "main step 3, kernel conv: the grid in direction y"
  const char* expression;  // of the value
};

// A tensor that a model is loaded with, and which procedures read it. What folding alone reads goes
// to staging memory, which is freed once the constants are computed; what none reads goes nowhere.
struct WeightDescription {
  const char* name;  // key in the safetensors file
#ifndef AOTI_STANDALONE
  DLDataType dtype;
  Table<int64_t> shape;
#endif  // AOTI_STANDALONE
  uint64_t nbytes;
  bool folding;
  bool main;
};

// How a tensor map among a kernel's parameters is to be encoded: cuTensorMapEncodeTiled. Sizes are
// in elements, outermost dimension first.
struct TensorMapDescription {
  uint32_t param;
  int32_t element;        // CUtensorMapDataType
  uint32_t element_size;  // in bytes
  int32_t swizzle;        // CUtensorMapSwizzle
  Table<uint32_t> box;    // what is copied at a time
};

// How a kernel is launched beyond its grid, as bits.
enum KernelFlags : uint32_t {
  // Programs wait for each other, so that all of a grid must fit the device at once.
  kCooperative = 1,
  // It may be started before the kernel ahead of it has ended, for which it waits itself
  // (programmatic dependent launch).
  kDependent = 2,
  // It tells conditional nodes of a CUDA graph what to do: the model has branches or loops.
  kSetsCondition = 4,
};

// A compiled kernel as the assembler embedded it: a cubin, zero-terminated PTX, or an hsaco.
struct KernelDescription {
  const char* name;  // entry point in the image
  const unsigned char* image;
  const unsigned char* image_end;
  uint32_t threads;        // of a block
  uint32_t shared_memory;  // dynamic, of a block
  uint32_t cluster;        // blocks in a cluster, along x; 1 for none
  uint32_t num_params;     // including the two scratch pointers Triton appends
  uint32_t flags = 0;      // KernelFlags
  // Of a cooperative kernel: the most blocks among its launches whose grid depends on no input.
  uint64_t blocks = 0;
  uint64_t scratch = 0;  // bytes of global scratch memory that launch code provides for each block
  Table<TensorMapDescription> tensor_maps = {nullptr, 0};
};

// How much memory there is of each kind: of weights that main reads, and of those that folding
// alone reads (staging), where all come from a file, each rounded up to a multiple of 256. Every
// offset is such a multiple.
struct MemoryDescription {
  uint64_t weights;
  uint64_t staging;
  uint64_t constants;
  uint64_t folding_arena;
  uint64_t main_arena;
};

// The model as built for one target. A device takes the image whose capability equals its own
// major number and does not exceed its minor number (the greatest such), else the PTX image of the
// greatest capability that does not exceed its own. One of AMD's takes the image of its name.
struct TargetDescription {
  const char* name;  // "sm_90", "compute_90" or "gfx942"
  int32_t major;
  int32_t minor;
  bool ptx;
  // The least CUDA version of a driver, as cuDriverGetVersion: 12080 is 12.8; or HIP version, as
  // hipRuntimeGetVersion: 60000000 is 6.0.
  int32_t driver;
  MemoryDescription memory;
  Table<WeightDescription> weights;
  Table<KernelDescription> kernels;
  // Issue the launches of a procedure, in order. Kernels are named by their index in `kernels`.
  Status (*fold)(Launcher& launcher);
  Status (*run)(Launcher& launcher);
  // Of a model with symbols. Computes further values, behind those of ModelDescription::compute;
  // returns null, or the expression that has no value of 64 bits. Null where there is none.
  const char* (*plan)(int64_t* values) = nullptr;
  uint32_t num_values = 0;  // all of them, symbols included
  Table<LimitDescription> limits = {nullptr, 0};
  // The value that is the size of main's arena, which is then at most memory.main_arena; or kFixed.
  int32_t arena = kFixed;
};

struct ModelDescription {
  uint32_t version;  // kDescriptionVersion, of a model for AMD's GPUs with kHip
  const char* name;
  // Of the weights' names, dtypes and shapes, not their values: the SHA-256, in lowercase
  // hexadecimal, of one line "name dtype d0,d1,...\n" a weight, sorted by name, dtypes as
  // safetensors spells them.
  const char* weights_digest;
#ifndef AOTI_STANDALONE
  Table<TensorDescription> inputs;
  Table<TensorDescription> outputs;
#endif  // AOTI_STANDALONE
  Table<TargetDescription> targets;
  // Of a model with symbols: the first values of a call are those of the symbols.
  Table<SymbolDescription> symbols = {nullptr, 0};
  Table<ConstraintDescription> constraints = {nullptr, 0};
  // Computes what shapes, strides and constraints need from the symbols; as
  // TargetDescription::plan.
  const char* (*compute)(int64_t* values) = nullptr;
  uint32_t num_values = 0;  // the symbols, and what `compute` computes
  // Of a debug build: what its steps do besides, debug::Mode of runtime/debug/debug.h. They are
  // issued to the stream then, and cannot be captured.
  uint32_t debug = 0;
};

}  // namespace aoti

#ifndef AOTI_STANDALONE
// The opaque type of the C ABI. Generated code defines one constant of it and returns its address
// from the model's description function.
struct AotiDescription {
  aoti::ModelDescription model;
};
#endif  // AOTI_STANDALONE

#endif  // AOTI_RUNTIME_DESCRIPTION_H_
