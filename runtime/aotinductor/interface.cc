#include "runtime/aotinductor/interface.h"

#include <exception>
#include <memory>
#include <new>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/aotinductor/container.h"
#include "runtime/aotinductor/model_info.h"

struct AOTInductorConstantMapEntry {
  const char* name;
  AtenTensorHandle handle;
};

namespace {

using aoti::Code;
using aoti::Status;
using aoti::aotinductor::Container;
using aoti::aotinductor::NamedTensor;
using aoti::aotinductor::Torch;
using aoti::aotinductor::UpdateOptions;

constexpr AOTIRuntimeError kSuccess = 0;
constexpr AOTIRuntimeError kFailure = 1;

// The first version of PyTorch that calls AOTInductorGetLastError, after runs alone.
constexpr uint64_t kAsks = aoti::aotinductor::TorchVersion(2, 13);

std::string& LastError() {
  thread_local std::string message;
  return message;
}

// Runs `body`, which returns a Status; keeps its message, or that of its exception.
template <typename Body>
bool Succeeds(Body body) noexcept {
  try {
    LastError().clear();
    const Status status = body();
    if (status.ok()) return true;
    LastError() = status.message();
  } catch (const std::bad_alloc&) {
    LastError() = "out of host memory";  // short enough to need none
  } catch (const std::exception& error) {
    try {
      LastError() = error.what();
    } catch (...) {
      LastError().clear();
    }
  } catch (...) {
    LastError() = "unknown error";
  }
  return false;
}

// Throws what LastError says, as an exception of libtorch's; returns in a process without libtorch.
AOTIRuntimeError Throw(const char* function) {
  const Torch* torch = nullptr;
  if (Torch::Get(&torch).ok()) torch->check(false, function, "rules_aoti", 0, LastError().c_str());
  return kFailure;
}

template <typename Body>
AOTIRuntimeError Guard(const char* function, Body body) {
  return Succeeds(body) ? kSuccess : Throw(function);
}

Status IsNull(const char* what) {
  return Status(Code::kInvalidArgument, std::string(what) + " is a null pointer");
}

// Of a function that only tells something of a container.
template <typename Result, typename Body>
AOTIRuntimeError Tell(const char* function, AOTInductorModelContainerHandle handle, Result* result,
                      Body body) {
  return Guard(function, [&]() -> Status {
    if (handle == nullptr) return IsNull("container_handle");
    if (result == nullptr) return IsNull("the result");
    return body(*reinterpret_cast<Container*>(handle), result);
  });
}

// Of a function that changes the weights of a container.
template <typename Body>
AOTIRuntimeError Change(const char* function, AOTInductorModelContainerHandle handle, Body body) {
  return Guard(function, [&]() -> Status {
    if (handle == nullptr) return IsNull("container_handle");
    return body(*reinterpret_cast<Container*>(handle));
  });
}

using ConstantMap = std::unordered_map<std::string, AtenTensorHandle>;

std::vector<NamedTensor> FromMap(AOTInductorConstantMapHandle handle) {
  std::vector<NamedTensor> tensors;
  for (const auto& [name, tensor] : *reinterpret_cast<const ConstantMap*>(handle)) {
    tensors.push_back({name.c_str(), tensor});
  }
  return tensors;
}

AOTIRuntimeError UpdateFromMap(const char* function, AOTInductorModelContainerHandle container,
                               AOTInductorConstantMapHandle map, const UpdateOptions& options) {
  return Change(function, container, [&](Container& changed) -> Status {
    if (map == nullptr) return IsNull("constant_map_handle");
    return changed.UpdateWeights(FromMap(map), options);
  });
}

AOTIRuntimeError UpdateFromPairs(const char* function, AOTInductorModelContainerHandle container,
                                 const AOTInductorConstantMapEntry* pairs, size_t count,
                                 const UpdateOptions& options) {
  return Change(function, container, [&](Container& changed) -> Status {
    if (pairs == nullptr && count != 0) return IsNull("pairs");
    std::vector<NamedTensor> tensors;
    for (size_t i = 0; i < count; ++i) {
      if (pairs[i].name == nullptr) return IsNull("the name of a pair");
      tensors.push_back({pairs[i].name, pairs[i].handle});
    }
    return changed.UpdateWeights(tensors, options);
  });
}

AOTIRuntimeError Refuse(const char* function, const char* why) {
  return Guard(function, [why] { return Status(Code::kInvalidArgument, why); });
}

constexpr char kNotHandedOut[] =
    "a model of rules_aoti does not hand out its weights, which it may keep in a layout of its "
    "own: read them from the safetensors file of the package";
constexpr char kNoBlob[] =
    "a model of rules_aoti takes its weights from a safetensors file or from tensors, not from a "
    "blob";

}  // namespace

AOTIRuntimeError AOTInductorModelContainerCreate(AOTInductorModelContainerHandle* container_handle,
                                                 size_t num_models, bool is_cpu,
                                                 const char* cubin_dir) {
  return AOTInductorModelContainerCreateWithDevice(container_handle, num_models,
                                                   is_cpu ? "cpu" : "cuda", cubin_dir);
}

AOTIRuntimeError AOTInductorModelContainerCreateWithDevice(
    AOTInductorModelContainerHandle* container_handle, size_t num_models, const char* device_str,
    const char* cubin_dir) {
  return Guard(__func__, [&]() -> Status {
    if (container_handle == nullptr) return IsNull("container_handle");
    *container_handle = nullptr;
    std::unique_ptr<Container> container;
    AOTI_RETURN_IF_ERROR(Container::Create(num_models, device_str, cubin_dir, &container));
    *container_handle = reinterpret_cast<AOTInductorModelContainerHandle>(container.release());
    return Status();
  });
}

AOTIRuntimeError AOTInductorModelContainerDelete(AOTInductorModelContainerHandle container_handle) {
  delete reinterpret_cast<Container*>(container_handle);
  LastError().clear();
  return kSuccess;
}

AOTIRuntimeError AOTInductorModelContainerRun(AOTInductorModelContainerHandle container_handle,
                                              AtenTensorHandle* input_handles, size_t num_inputs,
                                              AtenTensorHandle* output_handles, size_t num_outputs,
                                              AOTInductorStreamHandle stream_handle,
                                              AOTIProxyExecutorHandle) {
  const bool succeeds = Succeeds([&]() -> Status {
    if (container_handle == nullptr) return IsNull("container_handle");
    if (input_handles == nullptr && num_inputs != 0) return IsNull("input_handles");
    if (output_handles == nullptr && num_outputs != 0) return IsNull("output_handles");
    auto* container = reinterpret_cast<Container*>(container_handle);
    return container->Run(input_handles, num_inputs, output_handles, num_outputs, stream_handle);
  });
  if (succeeds) return kSuccess;
  const Torch* torch = nullptr;
  const bool asks = Torch::Get(&torch).ok() && torch->abi_version() >= kAsks;
  return asks ? kFailure : Throw(__func__);
}

AOTIRuntimeError AOTInductorModelContainerRunSingleThreaded(
    AOTInductorModelContainerHandle container_handle, AtenTensorHandle* input_handles,
    size_t num_inputs, AtenTensorHandle* output_handles, size_t num_outputs,
    AOTInductorStreamHandle stream_handle, AOTIProxyExecutorHandle proxy_executor_handle) {
  // An uncontended lock is all that it could leave out.
  return AOTInductorModelContainerRun(container_handle, input_handles, num_inputs, output_handles,
                                      num_outputs, stream_handle, proxy_executor_handle);
}

AOTIRuntimeError AOTInductorModelContainerGetNumInputs(
    AOTInductorModelContainerHandle container_handle, size_t* ret_num_inputs) {
  return Tell(__func__, container_handle, ret_num_inputs,
              [](const Container& container, size_t* count) {
                *count = container.num_inputs();
                return Status();
              });
}

AOTIRuntimeError AOTInductorModelContainerGetInputName(
    AOTInductorModelContainerHandle container_handle, size_t input_idx,
    const char** ret_input_names) {
  return Tell(__func__, container_handle, ret_input_names,
              [input_idx](const Container& container, const char** name) {
                return container.InputName(input_idx, name);
              });
}

AOTIRuntimeError AOTInductorModelContainerGetNumOutputs(
    AOTInductorModelContainerHandle container_handle, size_t* ret_num_outputs) {
  return Tell(__func__, container_handle, ret_num_outputs, [](const Container&, size_t* count) {
    *count = Container::num_results();
    return Status();
  });
}

AOTIRuntimeError AOTInductorModelContainerGetOutputName(
    AOTInductorModelContainerHandle container_handle, size_t output_idx,
    const char** ret_output_names) {
  return Tell(__func__, container_handle, ret_output_names,
              [output_idx](const Container& container, const char** name) {
                return container.ResultName(output_idx, name);
              });
}

AOTIRuntimeError AOTInductorModelContainerGetCallSpec(
    AOTInductorModelContainerHandle container_handle, const char** in_spec, const char** out_spec) {
  return Tell(__func__, container_handle, in_spec,
              [out_spec](const Container&, const char** in) -> Status {
                if (out_spec == nullptr) return IsNull("out_spec");
                *in = aoti::aotinductor::kModelInfo.in_spec;
                *out_spec = aoti::aotinductor::kModelInfo.out_spec;
                return Status();
              });
}

AOTIRuntimeError AOTInductorModelContainerGetNumConstants(
    AOTInductorModelContainerHandle container_handle, size_t* num_constants) {
  return Tell(__func__, container_handle, num_constants,
              [](const Container& container, size_t* count) {
                *count = container.num_weights();
                return Status();
              });
}

AOTIRuntimeError AOTInductorModelContainerGetConstantName(
    AOTInductorModelContainerHandle container_handle, size_t idx, const char** name) {
  return Tell(__func__, container_handle, name,
              [idx](const Container& container, const char** result) {
                const AotiWeightInfo* weight = nullptr;
                AOTI_RETURN_IF_ERROR(container.Weight(idx, &weight));
                *result = weight->name;
                return Status();
              });
}

AOTIRuntimeError AOTInductorModelContainerGetConstantOriginalFQN(
    AOTInductorModelContainerHandle container_handle, size_t idx, const char** original_fqn) {
  return AOTInductorModelContainerGetConstantName(container_handle, idx, original_fqn);
}

AOTIRuntimeError AOTInductorModelContainerGetConstantFromFolded(
    AOTInductorModelContainerHandle container_handle, size_t idx, bool* from_folded) {
  return Tell(__func__, container_handle, from_folded,
              [idx](const Container& container, bool* result) {
                const AotiWeightInfo* weight = nullptr;
                AOTI_RETURN_IF_ERROR(container.Weight(idx, &weight));
                *result = false;  // what is computed from weights is not counted among them
                return Status();
              });
}

AOTIRuntimeError AOTInductorModelContainerGetConstantType(
    AOTInductorModelContainerHandle container_handle, size_t idx, int32_t* type) {
  return Tell(__func__, container_handle, type, [idx](const Container& container, int32_t* result) {
    return container.WeightRole(idx, result);
  });
}

AOTIRuntimeError AOTInductorModelContainerGetConstantDtype(
    AOTInductorModelContainerHandle container_handle, size_t idx, int32_t* dtype) {
  return Tell(__func__, container_handle, dtype,
              [idx](const Container& container, int32_t* result) {
                return container.WeightDType(idx, result);
              });
}

AOTIRuntimeError AOTInductorModelContainerGetConstantDataSize(
    AOTInductorModelContainerHandle container_handle, size_t idx, size_t* data_size) {
  return Tell(__func__, container_handle, data_size,
              [idx](const Container& container, size_t* result) {
                const AotiWeightInfo* weight = nullptr;
                AOTI_RETURN_IF_ERROR(container.Weight(idx, &weight));
                *result = weight->nbytes;
                return Status();
              });
}

AOTIRuntimeError AOTInductorModelContainerUpdateConstantBuffer(
    AOTInductorModelContainerHandle container_handle,
    AOTInductorConstantMapHandle constant_map_handle, bool use_inactive,
    bool validate_full_update) {
  return UpdateFromMap(__func__, container_handle, constant_map_handle,
                       {use_inactive, validate_full_update, false});
}

AOTIRuntimeError AOTInductorModelContainerUpdateConstantBufferPairs(
    AOTInductorModelContainerHandle container_handle, const AOTInductorConstantMapEntry* pairs,
    size_t num_pairs, bool use_inactive, bool validate_full_update) {
  return UpdateFromPairs(__func__, container_handle, pairs, num_pairs,
                         {use_inactive, validate_full_update, false});
}

AOTIRuntimeError AOTInductorModelContainerUpdateConstantBufferFromCpu(
    AOTInductorModelContainerHandle container_handle,
    AOTInductorConstantMapHandle constant_map_handle, bool use_inactive,
    bool validate_full_update) {
  return UpdateFromMap(__func__, container_handle, constant_map_handle,
                       {use_inactive, validate_full_update, false});
}

AOTIRuntimeError AOTInductorModelContainerUpdateConstantBufferFromCpuPairs(
    AOTInductorModelContainerHandle container_handle, const AOTInductorConstantMapEntry* pairs,
    size_t num_pairs, bool use_inactive, bool validate_full_update) {
  return UpdateFromPairs(__func__, container_handle, pairs, num_pairs,
                         {use_inactive, validate_full_update, false});
}

AOTIRuntimeError AOTInductorModelContainerUpdateInactiveConstantBuffer(
    AOTInductorModelContainerHandle container_handle,
    AOTInductorConstantMapHandle constant_map_handle) {
  return UpdateFromMap(__func__, container_handle, constant_map_handle, {true, true, false});
}

AOTIRuntimeError AOTInductorModelContainerUpdateInactiveConstantBufferPairs(
    AOTInductorModelContainerHandle container_handle, const AOTInductorConstantMapEntry* pairs,
    size_t num_pairs) {
  return UpdateFromPairs(__func__, container_handle, pairs, num_pairs, {true, true, false});
}

AOTIRuntimeError AOTInductorModelContainerUpdateUserManagedConstantBuffer(
    AOTInductorModelContainerHandle container_handle,
    AOTInductorConstantMapHandle constant_map_handle, bool use_inactive,
    bool validate_full_update) {
  return UpdateFromMap(__func__, container_handle, constant_map_handle,
                       {use_inactive, validate_full_update, true});
}

AOTIRuntimeError AOTInductorModelContainerUpdateUserManagedConstantBufferPairs(
    AOTInductorModelContainerHandle container_handle, const AOTInductorConstantMapEntry* pairs,
    size_t num_pairs, bool use_inactive, bool validate_full_update) {
  return UpdateFromPairs(__func__, container_handle, pairs, num_pairs,
                         {use_inactive, validate_full_update, true});
}

AOTIRuntimeError AOTInductorModelContainerRunConstantFolding(
    AOTInductorModelContainerHandle container_handle, bool use_inactive, AOTInductorStreamHandle,
    AOTIProxyExecutorHandle) {
  return Change(__func__, container_handle, [use_inactive](Container& container) {
    return container.CheckFolded(use_inactive);
  });
}

AOTIRuntimeError AOTInductorModelContainerSwapConstantBuffer(
    AOTInductorModelContainerHandle container_handle) {
  return Change(__func__, container_handle,
                [](Container& container) { return container.SwapWeights(); });
}

AOTIRuntimeError AOTInductorModelContainerFreeInactiveConstantBuffer(
    AOTInductorModelContainerHandle container_handle) {
  return Change(__func__, container_handle, [](Container& container) {
    container.FreeInactiveWeights();
    return Status();
  });
}

AOTIRuntimeError AOTInductorModelContainerExtractConstantsMap(AOTInductorModelContainerHandle,
                                                              AOTInductorConstantMapHandle, bool) {
  return Refuse(__func__, kNotHandedOut);
}

AOTIRuntimeError AOTInductorModelContainerExtractConstantsMapEntries(
    AOTInductorModelContainerHandle, const AOTInductorConstantMapEntry**, size_t*, bool) {
  return Refuse(__func__, kNotHandedOut);
}

AOTIRuntimeError AOTInductorModelContainerGetConstantsBlobSize(AOTInductorModelContainerHandle,
                                                               uint64_t*) {
  return Refuse(__func__, kNoBlob);
}

AOTIRuntimeError AOTInductorModelUpdateConstantsFromBlob(AOTInductorModelContainerHandle,
                                                         const uint8_t*) {
  return Refuse(__func__, kNoBlob);
}

AOTIRuntimeError AOTInductorGetLastError(const char** error_msg) {
  if (error_msg == nullptr) return kFailure;
  *error_msg = LastError().c_str();
  return kSuccess;
}
