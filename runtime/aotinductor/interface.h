// AOTInductor's interface to a model (torch/csrc/inductor/aoti_runtime/interface.h), which
// libtorch's AOTIModelContainerRunner finds in a model's library by dlsym. Declared as there; a
// test compares the two. PyTorch 2.11 to 2.13 have it.
//
// Functions return 0, or 1 after a failure that AOTInductorGetLastError tells of. PyTorch asks it
// after a run only, and only from 2.13 on. All other failures are thrown, by libtorch's
// aoti_torch_check, so that they reach Python with their message.

#ifndef AOTI_RUNTIME_AOTINDUCTOR_INTERFACE_H_
#define AOTI_RUNTIME_AOTINDUCTOR_INTERFACE_H_

#include <cstddef>
#include <cstdint>

#include "runtime/aotinductor/torch.h"

#define AOTI_AOTINDUCTOR_EXPORT __attribute__((__visibility__("default")))

using AOTIRuntimeError = int32_t;

extern "C" {

struct AOTInductorModelContainerOpaque;
using AOTInductorModelContainerHandle = AOTInductorModelContainerOpaque*;

struct AOTInductorStreamOpaque;
using AOTInductorStreamHandle = AOTInductorStreamOpaque*;

// A std::unordered_map<std::string, AtenTensorHandle>, of libstdc++ on both sides.
struct AOTInductorConstantMap;
using AOTInductorConstantMapHandle = AOTInductorConstantMap*;

// A name and a handle; defined by interface.cc, so that PyTorch's header can be included besides.
struct AOTInductorConstantMapEntry;

// A container. `device_str` is "cuda", "cuda:N" or "cpu"; `cubin_dir` is where the package was
// unpacked, and has the weights.

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError
AOTInductorModelContainerCreate(AOTInductorModelContainerHandle* container_handle,
                                size_t num_models, bool is_cpu, const char* cubin_dir);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerCreateWithDevice(
    AOTInductorModelContainerHandle* container_handle, size_t num_models, const char* device_str,
    const char* cubin_dir);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError
AOTInductorModelContainerDelete(AOTInductorModelContainerHandle container_handle);

// Runs. Input handles are taken, output handles are the caller's; the arrays are his.

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerRun(
    AOTInductorModelContainerHandle container_handle, AtenTensorHandle* input_handles,
    size_t num_inputs, AtenTensorHandle* output_handles, size_t num_outputs,
    AOTInductorStreamHandle stream_handle, AOTIProxyExecutorHandle proxy_executor_handle);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerRunSingleThreaded(
    AOTInductorModelContainerHandle container_handle, AtenTensorHandle* input_handles,
    size_t num_inputs, AtenTensorHandle* output_handles, size_t num_outputs,
    AOTInductorStreamHandle stream_handle, AOTIProxyExecutorHandle proxy_executor_handle);

// What the model is.

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetNumInputs(
    AOTInductorModelContainerHandle container_handle, size_t* ret_num_inputs);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError
AOTInductorModelContainerGetInputName(AOTInductorModelContainerHandle container_handle,
                                      size_t input_idx, const char** ret_input_names);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetNumOutputs(
    AOTInductorModelContainerHandle container_handle, size_t* ret_num_outputs);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError
AOTInductorModelContainerGetOutputName(AOTInductorModelContainerHandle container_handle,
                                       size_t output_idx, const char** ret_output_names);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetCallSpec(
    AOTInductorModelContainerHandle container_handle, const char** in_spec, const char** out_spec);

// Its weights, which AOTInductor calls constants. A weight's name is its qualified name.

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetNumConstants(
    AOTInductorModelContainerHandle container_handle, size_t* num_constants);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetConstantName(
    AOTInductorModelContainerHandle container_handle, size_t idx, const char** name);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetConstantOriginalFQN(
    AOTInductorModelContainerHandle container_handle, size_t idx, const char** original_fqn);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetConstantFromFolded(
    AOTInductorModelContainerHandle container_handle, size_t idx, bool* from_folded);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetConstantType(
    AOTInductorModelContainerHandle container_handle, size_t idx, int32_t* type);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetConstantDtype(
    AOTInductorModelContainerHandle container_handle, size_t idx, int32_t* dtype);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetConstantDataSize(
    AOTInductorModelContainerHandle container_handle, size_t idx, size_t* data_size);

// Other weights. There are two sets: the active one, which runs use, and the inactive one, which
// swapping makes active. Handles remain the caller's. Each function that takes a map has a variant
// that takes pairs, from PyTorch 2.13 on.

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerUpdateConstantBuffer(
    AOTInductorModelContainerHandle container_handle,
    AOTInductorConstantMapHandle constant_map_handle, bool use_inactive, bool validate_full_update);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerUpdateConstantBufferPairs(
    AOTInductorModelContainerHandle container_handle, const AOTInductorConstantMapEntry* pairs,
    size_t num_pairs, bool use_inactive, bool validate_full_update);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerUpdateConstantBufferFromCpu(
    AOTInductorModelContainerHandle container_handle,
    AOTInductorConstantMapHandle constant_map_handle, bool use_inactive, bool validate_full_update);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerUpdateConstantBufferFromCpuPairs(
    AOTInductorModelContainerHandle container_handle, const AOTInductorConstantMapEntry* pairs,
    size_t num_pairs, bool use_inactive, bool validate_full_update);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerUpdateInactiveConstantBuffer(
    AOTInductorModelContainerHandle container_handle,
    AOTInductorConstantMapHandle constant_map_handle);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerUpdateInactiveConstantBufferPairs(
    AOTInductorModelContainerHandle container_handle, const AOTInductorConstantMapEntry* pairs,
    size_t num_pairs);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerUpdateUserManagedConstantBuffer(
    AOTInductorModelContainerHandle container_handle,
    AOTInductorConstantMapHandle constant_map_handle, bool use_inactive, bool validate_full_update);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError
AOTInductorModelContainerUpdateUserManagedConstantBufferPairs(
    AOTInductorModelContainerHandle container_handle, const AOTInductorConstantMapEntry* pairs,
    size_t num_pairs, bool use_inactive, bool validate_full_update);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerRunConstantFolding(
    AOTInductorModelContainerHandle container_handle, bool use_inactive,
    AOTInductorStreamHandle stream_handle, AOTIProxyExecutorHandle proxy_executor_handle);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError
AOTInductorModelContainerSwapConstantBuffer(AOTInductorModelContainerHandle container_handle);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerFreeInactiveConstantBuffer(
    AOTInductorModelContainerHandle container_handle);

// These fail: weights are not handed out, and come from no blob.

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerExtractConstantsMap(
    AOTInductorModelContainerHandle container_handle,
    AOTInductorConstantMapHandle constant_map_handle, bool use_inactive);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerExtractConstantsMapEntries(
    AOTInductorModelContainerHandle container_handle, const AOTInductorConstantMapEntry** entries,
    size_t* num_entries, bool use_inactive);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelContainerGetConstantsBlobSize(
    AOTInductorModelContainerHandle container_handle, uint64_t* ret_size);

AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorModelUpdateConstantsFromBlob(
    AOTInductorModelContainerHandle container_handle, const uint8_t* weight_blob_ptr);

// "", or why the last of these functions that this thread has called failed; until its next call.
AOTI_AOTINDUCTOR_EXPORT AOTIRuntimeError AOTInductorGetLastError(const char** error_msg);

}  // extern "C"

#endif  // AOTI_RUNTIME_AOTINDUCTOR_INTERFACE_H_
