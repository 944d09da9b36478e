#include "runtime/aotinductor/host_tensors.h"

#include "runtime/cpp.h"
#include "runtime/driver.h"

namespace aoti::aotinductor {
namespace {

constexpr DLDeviceType kCuda = static_cast<DLDeviceType>(2);

// Bytes from the first element to one past the last.
uint64_t SpanOf(const DLTensor& tensor) {
  uint64_t last = 0;
  for (int32_t i = 0; i < tensor.ndim; ++i) {
    if (tensor.shape[i] == 0) return 0;
    last += static_cast<uint64_t>(tensor.shape[i] - 1) * static_cast<uint64_t>(tensor.strides[i]);
  }
  return (last + 1) * (tensor.dtype.bits / 8U);
}

bool IsScalar(const AotiTensorInfo& info) { return (info.flags & AOTI_TENSOR_SCALAR) != 0; }

bool IsMutated(const AotiTensorInfo& info) { return (info.flags & AOTI_TENSOR_MUTATED) != 0; }

}  // namespace

std::vector<const DLTensor*> Pointers(const std::vector<DLTensor>& tensors) {
  std::vector<const DLTensor*> pointers;
  pointers.reserve(tensors.size());
  for (const DLTensor& tensor : tensors) pointers.push_back(&tensor);
  return pointers;
}

Status HostTensors::Create(int ordinal) {
  const Driver* driver = nullptr;
  AOTI_RETURN_IF_ERROR(Driver::Get(&driver));
  DeviceProperties device;
  AOTI_RETURN_IF_ERROR(ReadDevice(*driver, ordinal, &device));
  AOTI_RETURN_IF_ERROR(Context::Create(*driver, device, nullptr, &context_));
  const ScopedContext scope(*context_);
  AOTI_RETURN_IF_ERROR(scope.status());
  return stream_.Create(context_);
}

Status HostTensors::Reserve(uint64_t nbytes) {
  if (nbytes <= size_) return Status();
  size_ = 0;
  // Freed before the new memory is there, so that both need not fit.
  memory_ = std::make_unique<DeviceMemory>();
  AOTI_RETURN_IF_ERROR(memory_->Allocate(context_, nbytes, "copies of tensors on the host"));
  size_ = nbytes;
  return Status();
}

Status HostTensors::Run(AotiSession* session, const std::vector<AotiTensorInfo>& infos,
                        const std::vector<DLTensor>& inputs, const std::vector<DLTensor>& outputs) {
  const ScopedContext scope(*context_);
  AOTI_RETURN_IF_ERROR(scope.status());
  Status status = Enqueue(session, infos, inputs, outputs);
  // Waited for in any case: copies that are under way read and write the caller's memory.
  Status finished = stream_.Synchronize("running the model on tensors of the host");
  if (!status.ok()) return status;
  return finished;
}

Status HostTensors::Enqueue(AotiSession* session, const std::vector<AotiTensorInfo>& infos,
                            const std::vector<DLTensor>& inputs,
                            const std::vector<DLTensor>& outputs) {
  uint64_t needed = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!IsScalar(infos[i])) needed += Align(SpanOf(inputs[i]));
  }
  for (const DLTensor& output : outputs) needed += Align(SpanOf(output));
  AOTI_RETURN_IF_ERROR(Reserve(needed));

  DeviceAddress next = memory_ == nullptr ? 0 : memory_->address();
  const auto place = [this, &next](const DLTensor& tensor) {
    DLTensor copy = tensor;
    copy.data = reinterpret_cast<void*>(next);
    copy.device = DLDevice{kCuda, context_->device().ordinal};
    next += Align(SpanOf(tensor));
    return copy;
  };
  std::vector<DLTensor> placed_inputs;
  std::vector<DLTensor> placed_outputs;
  placed_outputs.reserve(outputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    placed_inputs.push_back(IsScalar(infos[i]) ? inputs[i] : place(inputs[i]));
    if (IsScalar(infos[i]) || SpanOf(inputs[i]) == 0) continue;
    AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), "copying inputs to the device", MemcpyHtoDAsync,
                              reinterpret_cast<DeviceAddress>(placed_inputs[i].data),
                              inputs[i].data, SpanOf(inputs[i]), stream_.handle());
  }
  for (const DLTensor& output : outputs) placed_outputs.push_back(place(output));

  AotiStatus status;
  const int32_t code = aoti_session_run(session, Pointers(placed_inputs).data(),
                                        placed_inputs.size(), Pointers(placed_outputs).data(),
                                        placed_outputs.size(), stream_.handle(), &status);
  AOTI_RETURN_IF_ERROR(ToStatus(code, status));

  for (size_t i = 0; i < outputs.size(); ++i) {
    AOTI_RETURN_IF_ERROR(Fetch(placed_outputs[i], outputs[i]));
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (IsMutated(infos[i])) AOTI_RETURN_IF_ERROR(Fetch(placed_inputs[i], inputs[i]));
  }
  return Status();
}

Status HostTensors::Fetch(const DLTensor& device, const DLTensor& host) {
  if (SpanOf(host) == 0) return Status();
  AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), "copying results to the host", MemcpyDtoHAsync,
                            host.data, reinterpret_cast<DeviceAddress>(device.data), SpanOf(host),
                            stream_.handle());
  return Status();
}

}  // namespace aoti::aotinductor
