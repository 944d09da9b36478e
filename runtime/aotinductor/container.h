// The model of this library as AOTInductor's container: a model, its weights, and sessions for as
// many runs at a time as the container was made for. Tensors are libtorch's.

#ifndef AOTI_RUNTIME_AOTINDUCTOR_CONTAINER_H_
#define AOTI_RUNTIME_AOTINDUCTOR_CONTAINER_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/aoti.h"
#include "runtime/aotinductor/host_tensors.h"
#include "runtime/aotinductor/torch.h"
#include "runtime/cpp.h"
#include "runtime/status.h"

namespace aoti::aotinductor {

// A weight, by its name, as a tensor of libtorch's.
struct NamedTensor {
  const char* name;
  AtenTensorHandle tensor;
};

struct UpdateOptions {
  bool inactive;  // the set to update
  bool full;      // every parameter must be among the tensors
  bool in_place;  // read the tensors where they lie
};

class Container {
 public:
  // `device` is PyTorch's text for one: "cuda:1"; "cuda" is the current device. With "cpu", callers
  // have their tensors on the host, and each run copies them to CUDA device 0 and back. The weights
  // are NAME.safetensors in `directory`, or, if that is null or empty, beside the library.
  static Status Create(size_t num_sessions, const char* device, const char* directory,
                       std::unique_ptr<Container>* container);
  Container(const Container&) = delete;
  Container& operator=(const Container&) = delete;

  // Enqueues a run on `stream`, or, with tensors on the host, finishes it. Waits while all sessions
  // are in use by other threads. Takes the inputs, also when it fails; fills `outputs` with tensors
  // that are the caller's, or leaves them alone.
  Status Run(AtenTensorHandle* inputs, size_t num_inputs, AtenTensorHandle* outputs,
             size_t num_outputs, void* stream);

  size_t num_inputs() const { return inputs_.size(); }
  static size_t num_results();
  Status InputName(size_t index, const char** name) const;
  Status ResultName(size_t index, const char** name) const;

  size_t num_weights() const;
  // Of weight `index`, in the order of their names.
  Status Weight(size_t index, const AotiWeightInfo** weight) const;
  Status WeightRole(size_t index, int32_t* role) const;
  Status WeightDType(size_t index, int32_t* dtype) const;

  // Loads another set of weights, and computes its constants. What is not among `tensors` stays as
  // it is in the set, or, as long as the inactive one is empty, in the active one. Runs go on.
  Status UpdateWeights(const std::vector<NamedTensor>& tensors, const UpdateOptions& options);
  // Makes the inactive weights the active ones, and the other way round.
  Status SwapWeights();
  // Waits for runs that were issued with them.
  void FreeInactiveWeights();
  // Fails if there is no such set. The constants of one that is there have been computed.
  Status CheckFolded(bool inactive);

 private:
  struct Slot {
    SessionHandle session;
    HostTensors host;  // used with tensors on the host
  };

  class Lease;

  // Fails if there is no inactive set; weights_mutex_ is held.
  Status CheckInactive() const;

  explicit Container(const Torch& torch) : torch_(torch) {}

  Status ParseDevice(const char* device);
  Status Load(const char* directory);
  Status CreateSessions(size_t count);
  Status CheckCounts(size_t num_inputs, size_t num_outputs) const;
  Status RunGuarded(std::vector<Tensor>* inputs, AtenTensorHandle* outputs, void* stream);
  // Describes a dense tensor on the CPU or a CUDA device, whose shape and strides it remains to
  // own. `dtype` is the expected one, for the message if PyTorch's is none that models have.
  Status Describe(const std::string& label, DLDataType dtype, AtenTensorHandle tensor,
                  DLTensor* view) const;
  Status ReadInput(const AotiTensorInfo& info, size_t index, AtenTensorHandle tensor,
                   DLTensor* view) const;
  Status CheckFull(const std::vector<NamedTensor>& tensors) const;
  // `copy` becomes a contiguous one of the tensor if that is not, and if it need not be.
  Status ReadWeight(const NamedTensor& weight, bool in_place, Tensor* copy, DLTensor* view) const;
  Status MakeContiguous(const std::string& label, const DLTensor& view, AtenTensorHandle tensor,
                        Tensor* copy) const;
  // Replaces `tensor` by a copy if it begins where kernels cannot read it.
  Status AlignInput(const AotiTensorInfo& info, size_t index, Tensor* tensor, DLTensor* view) const;
  Status ReadInputs(std::vector<Tensor>* tensors, std::vector<DLTensor>* views) const;
  // Makes the tensors of a run's outputs, whose sizes may depend on its inputs.
  Status Allocate(const std::vector<DLTensor>& inputs, std::vector<Tensor>* tensors,
                  std::vector<DLTensor>* views) const;
  Status RunSession(const std::vector<DLTensor>& inputs, const std::vector<DLTensor>& outputs,
                    void* stream);

  const Torch& torch_;
  const AotiDescription* description_ = nullptr;
  bool on_host_ = false;
  int32_t device_ = 0;
  std::vector<AotiTensorInfo> inputs_;
  std::vector<AotiTensorInfo> outputs_;
  std::vector<AotiWeightInfo> weights_;  // sorted by name, as kModelInfo has them
  std::string weights_path_;
  ModelHandle model_;

  std::mutex weights_mutex_;
  WeightsHandle inactive_;
  // Whether a set is the file's, of which weights that only constants are made of are not kept.
  bool active_is_files_ = true;
  bool inactive_is_files_ = false;

  std::vector<std::unique_ptr<Slot>> slots_;

  std::mutex mutex_;
  std::condition_variable returned_;
  std::deque<Slot*> free_;  // the one used the longest ago first
};

}  // namespace aoti::aotinductor

#endif  // AOTI_RUNTIME_AOTINDUCTOR_CONTAINER_H_
