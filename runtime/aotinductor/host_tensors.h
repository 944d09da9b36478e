// Runs a session on tensors in host memory: device memory for copies of them, and the copying.

#ifndef AOTI_RUNTIME_AOTINDUCTOR_HOST_TENSORS_H_
#define AOTI_RUNTIME_AOTINDUCTOR_HOST_TENSORS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "runtime/aoti.h"
#include "runtime/context.h"
#include "runtime/memory.h"
#include "runtime/status.h"
#include "runtime/stream.h"

namespace aoti::aotinductor {

// Of as many tensors, as the C ABI takes them.
std::vector<const DLTensor*> Pointers(const std::vector<DLTensor>& tensors);

class HostTensors {
 public:
  // The primary context of CUDA device `ordinal`.
  Status Create(int ordinal);

  // Copies the inputs to the device, runs, and copies the outputs and what the model has written to
  // inputs back; returns when that is done. `infos` describe the inputs; scalars stay on the host.
  Status Run(AotiSession* session, const std::vector<AotiTensorInfo>& infos,
             const std::vector<DLTensor>& inputs, const std::vector<DLTensor>& outputs);

 private:
  Status Reserve(uint64_t nbytes);
  Status Enqueue(AotiSession* session, const std::vector<AotiTensorInfo>& infos,
                 const std::vector<DLTensor>& inputs, const std::vector<DLTensor>& outputs);
  Status Fetch(const DLTensor& device, const DLTensor& host);

  std::shared_ptr<const Context> context_;
  std::unique_ptr<DeviceMemory> memory_;
  uint64_t size_ = 0;
  Stream stream_;  // last, so that it is drained before the memory is freed
};

}  // namespace aoti::aotinductor

#endif  // AOTI_RUNTIME_AOTINDUCTOR_HOST_TENSORS_H_
