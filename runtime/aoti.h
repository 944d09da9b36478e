// The C ABI of a compiled model: load it, describe it, run it.
//
//   const AotiDescription* description = resnet_description();   // one function a model; see below
//   AotiModelOptions options = {sizeof options};
//   options.weights_path = "resnet.safetensors";
//   AotiModel* model = NULL;
//   AotiSession* session = NULL;
//   AotiStatus status;
//   if (aoti_model_load(description, &options, &model, &status) != AOTI_OK ||
//       aoti_session_create(model, NULL, &session, &status) != AOTI_OK ||
//       aoti_session_run(session, inputs, 1, outputs, 1, stream, &status) != AOTI_OK) {
//     fprintf(stderr, "%s\n", status.message);
//   }
//   aoti_session_destroy(session);
//   aoti_model_destroy(model);
//
// A model called `resnet` defines `const AotiDescription* resnet_description(void)`, so that
// several models can be linked into one binary. The shared library of a model exports the same
// pointer as `aoti_model_description` too, for callers of dlopen.
//
// No function throws, prints, exits, writes a file or changes the calling thread's current CUDA
// context. docs/runtime.md says more about threads, memory, CUDA graphs and errors.

#ifndef AOTI_RUNTIME_AOTI_H_
#define AOTI_RUNTIME_AOTI_H_

#include <stddef.h>
#include <stdint.h>

#include "dlpack/dlpack.h"

#define AOTI_EXPORT __attribute__((visibility("default")))

// Raised by one whenever a caller compiled against the previous version could misbehave. Structs
// that may grow begin with `struct_size`, which the caller sets to the sizeof it was compiled with.
#define AOTI_ABI_VERSION 3

#ifdef __cplusplus
extern "C" {
#endif

// What a model is: inputs, outputs, kernels. Constant data of the model's library, never freed.
typedef struct AotiDescription AotiDescription;

// A model on a device: modules, and which weights it runs with. Any number of threads may use it.
typedef struct AotiModel AotiModel;

// Weights on a model's device, and the constants that the model computes from them. Immutable; any
// number of threads may use them.
typedef struct AotiWeights AotiWeights;

// What one thread needs to run a model: temporary memory and a CUDA graph.
typedef struct AotiSession AotiSession;

// What functions return, and AotiStatus::code.
enum {
  AOTI_OK = 0,
  AOTI_INVALID_ARGUMENT = 1,  // an argument the caller can correct
  AOTI_NOT_FOUND = 2,         // a file, tensor, driver function or matching target is missing
  AOTI_DATA_LOSS = 3,         // a file is truncated or contradicts itself
  AOTI_UNAVAILABLE = 4,       // no driver, or no device
  AOTI_OUT_OF_MEMORY = 5,     // of the host or of the device
  AOTI_DRIVER = 6,            // the driver reported an error; the message holds its name and text
  AOTI_INTERNAL = 7           // a fault of this library
};

// The caller's; every function that takes one fills it in, on success with AOTI_OK and "". It may
// be null where the returned code is enough.
typedef struct AotiStatus {
  int32_t code;
  char message[2044];  // UTF-8, zero-terminated; "..." at the end if it had to be cut
} AotiStatus;

// A size or stride: an expression over sizes of the inputs, or a number, and its least and greatest
// value.
typedef struct AotiDimInfo {
  const char* expression;  // "s0 * 2", "64"
  int64_t minimum;
  int64_t maximum;
} AotiDimInfo;

enum {
  // An input that is an integer: in a run, a tensor of no dimensions, of dtype int64, on kDLCPU.
  AOTI_TENSOR_SCALAR = 1,
  // An input that the model writes to.
  AOTI_TENSOR_MUTATED = 2,
  // Some of its shape or strides depend on the inputs of a run.
  AOTI_TENSOR_DYNAMIC = 4
};

// An input or output. Shape and strides are in elements. Pointers live as long as the description.
typedef struct AotiTensorInfo {
  const char* name;
  DLDataType dtype;
  int32_t ndim;
  const int64_t* shape;    // -1 for what depends on the inputs
  const int64_t* strides;  // -1 likewise
  uint64_t nbytes;         // from the first to one past the last element; the most, if dynamic
  const char* path;        // where it stands in the Python call: "args[0]"
  uint32_t flags;          // AOTI_TENSOR_*
  uint32_t reserved;
  const AotiDimInfo* shape_info;   // one a dimension; null unless dynamic
  const AotiDimInfo* stride_info;  // one a dimension; null unless dynamic
  AotiDimInfo value;               // of a scalar, else empty: its name in expressions, its range
} AotiTensorInfo;

typedef struct AotiDescriptionInfo {
  const char* name;
  const char* weights_digest;  // of the weights' names, dtypes and shapes; see docs/runtime.md
  uint64_t num_inputs;
  uint64_t num_outputs;
  uint64_t num_targets;
  uint64_t num_weights;
} AotiDescriptionInfo;

// A weight, contiguous and row-major. Pointers live as long as the description.
typedef struct AotiWeightInfo {
  const char* name;  // in the weights file, and of AotiNamedTensor
  DLDataType dtype;
  int32_t ndim;
  const int64_t* shape;
  uint64_t nbytes;
} AotiWeightInfo;

// A target the model was built for. Sizes are in bytes of device memory.
typedef struct AotiTargetInfo {
  const char* name;  // "sm_90" for code of one architecture, "compute_90" for portable PTX
  int32_t major;     // compute capability
  int32_t minor;
  uint64_t num_kernels;
  uint64_t model_memory;    // kept by weights from a file, constants included; code not counted
  uint64_t load_memory;     // needed in addition while they are loaded
  uint64_t session_memory;  // kept by an AotiSession; with dynamic shapes, the most there can be
} AotiTargetInfo;

enum {
  // The tensor is on the model's device, and is read where it lies, by every run with the weights:
  // its memory must stay valid and unchanged until the weights are gone. Else it is copied.
  AOTI_WEIGHT_IN_PLACE = 1
};

// A weight that the caller has as a tensor: of the described dtype and shape, contiguous and
// row-major. To be copied: on the host (kDLCPU, kDLCUDAHost, kDLROCMHost) or the model's device.
typedef struct AotiNamedTensor {
  const char* name;
  const DLTensor* tensor;
  uint64_t flags;  // AOTI_WEIGHT_*
} AotiNamedTensor;

enum {
  // Keep on the device also the weights that only constants are made of, so that weights loaded
  // `from` these find them there.
  AOTI_WEIGHTS_KEEP_ALL = 1
};

// Where weights come from. Each is taken from the first of these that has it: the tensors; the
// weights in `from`, in their order, with whom it then shares memory; the file.
typedef struct AotiWeightsOptions {
  uint64_t struct_size;            // sizeof(AotiWeightsOptions)
  uint64_t flags;                  // AOTI_WEIGHTS_*
  const AotiNamedTensor* tensors;  // each is one of the model's weights, and named once
  uint64_t num_tensors;
  // Weights of this model or of another one in the same context. A weight is in them if one of the
  // same name, dtype and shape is.
  const AotiWeights* const* from;
  uint64_t num_from;
  const char* path;  // a safetensors file; or
  const void* data;  // one in memory, read only during the call
  uint64_t size;     // bytes at data
  // A CUstream: tensors on the device are read once the work that is in it now has finished. Null
  // is the legacy default stream. Not used where there are no such tensors.
  void* stream;
} AotiWeightsOptions;

// Of an AotiWeights. In bytes of device memory.
typedef struct AotiWeightsInfo {
  uint64_t own_memory;      // allocated for it, and by now perhaps shared with others
  uint64_t shared_memory;   // of weights, and constants, in memory that was allocated for others
  uint64_t callers_memory;  // of weights that are read in place
} AotiWeightsInfo;

enum {
  // Load no weights. The model cannot run before aoti_model_swap_weights has given it some.
  AOTI_MODEL_DEFER_WEIGHTS = 1
};

typedef struct AotiModelOptions {
  uint64_t struct_size;      // sizeof(AotiModelOptions)
  const char* weights_path;  // a safetensors file; or
  const void* weights_data;  // one in memory, read only during the call
  uint64_t weights_size;     // bytes at weights_data
  void* context;             // a CUcontext that outlives the model; null: the primary context
  int32_t device;            // ordinal; must be the context's device where a context is given
  uint32_t flags;            // AOTI_MODEL_*
  // For development: a directory TARGET/KERNEL.cubin or .ptx, each with KERNEL.json beside it, as
  // `wrapgen compile` writes it. Kernels that are there are loaded instead of the library's. Null:
  // none is. See docs/runtime.md.
  const char* kernels_dir;
  // Instead of weights_path and weights_data: all that aoti_weights_load can do.
  const AotiWeightsOptions* weights;
} AotiModelOptions;

enum {
  // Issue each kernel to the stream instead of launching a CUDA graph.
  AOTI_SESSION_NO_GRAPH = 1,
  // Trust the caller's tensors. A wrong one is undefined behaviour.
  AOTI_SESSION_NO_CHECKS = 2
};

typedef struct AotiSessionOptions {
  uint64_t struct_size;  // sizeof(AotiSessionOptions)
  uint64_t flags;        // AOTI_SESSION_*
  // The number of combinations of sizes whose CUDA graphs are kept, the latest used; 0 means 8.
  uint64_t max_graphs;
} AotiSessionOptions;

// AOTI_ABI_VERSION of the library, for callers of dlopen.
AOTI_EXPORT uint32_t aoti_abi_version(void);

// The description of the model in a shared library. Defined by the generated library, not by the
// runtime.
AOTI_EXPORT const AotiDescription* aoti_model_description(void);

// Descriptions. These need no device and no driver. Indices count from 0.
AOTI_EXPORT int32_t aoti_description_info(const AotiDescription* description,
                                          AotiDescriptionInfo* info, AotiStatus* status);
AOTI_EXPORT int32_t aoti_description_input(const AotiDescription* description, uint64_t index,
                                           AotiTensorInfo* info, AotiStatus* status);
AOTI_EXPORT int32_t aoti_description_output(const AotiDescription* description, uint64_t index,
                                            AotiTensorInfo* info, AotiStatus* status);
AOTI_EXPORT int32_t aoti_description_target(const AotiDescription* description, uint64_t index,
                                            AotiTargetInfo* info, AotiStatus* status);
AOTI_EXPORT int32_t aoti_description_weight(const AotiDescription* description, uint64_t index,
                                            AotiWeightInfo* info, AotiStatus* status);

// The shape and strides, in elements, and the bytes of output `index` in a run with these inputs:
// for models with dynamic shapes. Reads only the shapes of tensors, and scalars. `shape` and
// `strides` have room for the output's ndim; each pointer may be null.
AOTI_EXPORT int32_t aoti_description_output_layout(const AotiDescription* description,
                                                   const DLTensor* const* inputs,
                                                   uint64_t num_inputs, uint64_t index,
                                                   int64_t* shape, int64_t* strides,
                                                   uint64_t* nbytes, AotiStatus* status);

// Loads a model to a device: chooses the target, loads its code, reads the weights and computes
// what is derived from them. Returns when the model is ready. `*model` is null on failure, when
// everything the call acquired is released again.
AOTI_EXPORT int32_t aoti_model_load(const AotiDescription* description,
                                    const AotiModelOptions* options, AotiModel** model,
                                    AotiStatus* status);

// Releases the caller's hold; the model goes when its last session has gone. Null does nothing.
AOTI_EXPORT void aoti_model_destroy(AotiModel* model);

// The target that was chosen for the model's device.
AOTI_EXPORT int32_t aoti_model_target(const AotiModel* model, AotiTargetInfo* info,
                                      AotiStatus* status);

// Loads weights for a model and computes the constants from them, beside whatever the model runs;
// returns when they are ready. The model goes on with the weights it has. `*weights` is null on
// failure, when everything the call acquired is released again.
AOTI_EXPORT int32_t aoti_weights_load(AotiModel* model, const AotiWeightsOptions* options,
                                      AotiWeights** weights, AotiStatus* status);

// Releases the caller's hold. Unless the model still runs with these weights, waits for the last
// run that was issued with them, and then frees the memory that no other weights share: what is
// the caller's may be freed next. Null does nothing.
AOTI_EXPORT void aoti_weights_destroy(AotiWeights* weights);

AOTI_EXPORT int32_t aoti_weights_info(const AotiWeights* weights, AotiWeightsInfo* info,
                                      AotiStatus* status);

// A hold of the weights that the model runs with; null if it has none yet.
AOTI_EXPORT int32_t aoti_model_weights(AotiModel* model, AotiWeights** weights, AotiStatus* status);

// From now on the model runs with `weights`, which were loaded for it; the caller keeps his hold.
// Runs that were issued before keep theirs; no run sees some of both. Waits for no run.
//
// `*previous` becomes a hold of the weights that the model ran with, or null; aoti_weights_destroy
// of it waits until they can be freed. `previous` may be null: then they are freed by this call, or
// by the first later one of this function or aoti_weights_load for this model that finds the last
// run with them finished, or with the model.
AOTI_EXPORT int32_t aoti_model_swap_weights(AotiModel* model, const AotiWeights* weights,
                                            AotiWeights** previous, AotiStatus* status);

// `options` may be null: a CUDA graph, and checks.
AOTI_EXPORT int32_t aoti_session_create(AotiModel* model, const AotiSessionOptions* options,
                                        AotiSession** session, AotiStatus* status);

// Waits for the session's last run and frees its memory. Null does nothing.
AOTI_EXPORT void aoti_session_destroy(AotiSession* session);

// Enqueues one run on `stream` (a CUstream of the model's context, CU_STREAM_LEGACY or
// CU_STREAM_PER_THREAD; null is the legacy default stream) and returns. The tensors' memory must
// stay valid until the run has finished; the DLTensor structs need not. Runs of one session on
// several streams are executed in the order they were issued. One thread at a time: a call while
// another thread is inside one fails.
//
// Tensors must have the described dtype, shape and strides (null strides mean contiguous
// row-major), lie on the model's device, and begin at a multiple of 16 bytes; scalars as
// AOTI_TENSOR_SCALAR says. Outputs, and inputs that the model writes to, overlap nothing.
AOTI_EXPORT int32_t aoti_session_run(AotiSession* session, const DLTensor* const* inputs,
                                     uint64_t num_inputs, const DLTensor* const* outputs,
                                     uint64_t num_outputs, void* stream, AotiStatus* status);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // AOTI_RUNTIME_AOTI_H_
