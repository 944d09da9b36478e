#include "runtime/aotinductor/container.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/aotinductor/model_info.h"
#include "runtime/tensor.h"

namespace aoti::aotinductor {
namespace {

constexpr DLDeviceType kCpu = static_cast<DLDeviceType>(1);
constexpr DLDeviceType kCuda = static_cast<DLDeviceType>(2);

Status Invalid(std::string message) { return Status(Code::kInvalidArgument, std::move(message)); }

std::string Label(const char* side, size_t index, const AotiTensorInfo& info) {
  return std::string(side) + " " + std::to_string(index) + " (" + info.name + ")";
}

Status CheckIndex(const char* sort, size_t index, size_t count) {
  if (index < count) return Status();
  return Invalid(std::string("there is no ") + sort + " " + std::to_string(index) +
                 ": the model has " + std::to_string(count));
}

// Where the library that has this function is: in the directory of the package, too.
std::string LibraryDirectory() {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<const void*>(&LibraryDirectory), &info) == 0) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

bool IsContiguous(const DLTensor& tensor) {
  int64_t expected = 1;
  for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
    if (tensor.shape[i] == 0) return true;
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

// What libtorch allocates, and the stream its allocator counts on, while a run is enqueued.
class CudaScope {
 public:
  explicit CudaScope(const Torch& torch) : torch_(torch) {}
  ~CudaScope() {
    if (stream_ != nullptr) torch_.delete_cuda_stream_guard(stream_);
    if (device_ != nullptr) torch_.delete_cuda_guard(device_);
  }
  CudaScope(const CudaScope&) = delete;
  CudaScope& operator=(const CudaScope&) = delete;

  Status Enter(int32_t device, void* stream) {
    AOTI_SHIM_RETURN_IF_ERROR(torch_, "entering the model's device", create_cuda_guard, device,
                              &device_);
    AOTI_SHIM_RETURN_IF_ERROR(torch_, "entering the caller's stream", create_cuda_stream_guard,
                              stream, device, &stream_);
    return Status();
  }

 private:
  const Torch& torch_;
  CUDAGuardHandle device_ = nullptr;
  CUDAStreamGuardHandle stream_ = nullptr;
};

}  // namespace

// The slot used the longest ago, for one run.
class Container::Lease {
 public:
  explicit Lease(Container* container) : container_(container) {
    std::unique_lock<std::mutex> lock(container_->mutex_);
    container_->returned_.wait(lock, [this] { return !container_->free_.empty(); });
    slot_ = container_->free_.front();
    container_->free_.pop_front();
  }
  ~Lease() {
    {
      const std::lock_guard<std::mutex> lock(container_->mutex_);
      container_->free_.push_back(slot_);
    }
    container_->returned_.notify_one();
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  Slot& slot() const { return *slot_; }

 private:
  Container* container_;
  Slot* slot_;
};

Status Container::Create(size_t num_sessions, const char* device, const char* directory,
                         std::unique_ptr<Container>* container) {
  if (device == nullptr) return Invalid("device_str is a null pointer");
  if (num_sessions == 0) return Invalid("num_models is 0: a container runs one model or more");
  const Torch* torch = nullptr;
  AOTI_RETURN_IF_ERROR(Torch::Get(&torch));
  std::unique_ptr<Container> created(new Container(*torch));
  AOTI_RETURN_IF_ERROR(created->ParseDevice(device));
  AOTI_RETURN_IF_ERROR(created->Load(directory));
  AOTI_RETURN_IF_ERROR(created->CreateSessions(num_sessions));
  *container = std::move(created);
  return Status();
}

Status Container::ParseDevice(const char* device) {
  const std::string text = device;
  if (text == "cpu") {
    on_host_ = true;
    return Status();
  }
  constexpr char kPrefix[] = "cuda";
  constexpr size_t kLength = sizeof kPrefix - 1;
  const std::string index = text.size() > kLength ? text.substr(kLength + 1) : "";
  const bool digits = index.find_first_not_of("0123456789") == std::string::npos;
  const bool has_index = !index.empty() && index.size() <= 3 && digits && text[kLength] == ':';
  if (text.compare(0, kLength, kPrefix) != 0 || (text.size() != kLength && !has_index)) {
    return Invalid("device " + text + ": expected cuda, cuda:N, or cpu");
  }
  if (!torch_.has_cuda()) {
    return Status(Code::kUnavailable,
                  "device " + text + ": the libtorch of this process was built without CUDA");
  }
  if (has_index) {
    device_ = std::stoi(index);
    return Status();
  }
  AOTI_SHIM_RETURN_IF_ERROR(torch_, "asking for the current device", get_current_device_index,
                            &device_);
  return Status();
}

Status Container::Load(const char* directory) {
  description_ = aoti_model_description();
  AotiDescriptionInfo model;
  AotiStatus status;
  AOTI_RETURN_IF_ERROR(ToStatus(aoti_description_info(description_, &model, &status), status));
  inputs_.resize(model.num_inputs);
  outputs_.resize(model.num_outputs);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const int32_t code = aoti_description_input(description_, i, &inputs_[i], &status);
    AOTI_RETURN_IF_ERROR(ToStatus(code, status));
  }
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const int32_t code = aoti_description_output(description_, i, &outputs_[i], &status);
    AOTI_RETURN_IF_ERROR(ToStatus(code, status));
  }
  weights_.resize(model.num_weights);
  for (size_t i = 0; i < weights_.size(); ++i) {
    const int32_t code = aoti_description_weight(description_, i, &weights_[i], &status);
    AOTI_RETURN_IF_ERROR(ToStatus(code, status));
  }
  std::sort(weights_.begin(), weights_.end(), [](const AotiWeightInfo& a, const AotiWeightInfo& b) {
    return std::strcmp(a.name, b.name) < 0;
  });

  AotiModelOptions options = {};
  options.struct_size = sizeof options;
  options.device = device_;
  if (!weights_.empty()) {
    // PyTorch does not tell a model for the CPU where it has unpacked the package.
    const bool given = directory != nullptr && *directory != '\0';
    weights_path_ = given ? directory : LibraryDirectory();
    weights_path_ += std::string("/") + model.name + ".safetensors";
    options.weights_path = weights_path_.c_str();
  }
  return aoti::Load(description_, options, &model_);
}

Status Container::CreateSessions(size_t count) {
  for (size_t i = 0; i < count; ++i) {
    slots_.push_back(std::make_unique<Slot>());
    AOTI_RETURN_IF_ERROR(CreateSession(model_, nullptr, &slots_.back()->session));
    if (on_host_) AOTI_RETURN_IF_ERROR(slots_.back()->host.Create(device_));
    free_.push_back(slots_.back().get());
  }
  return Status();
}

size_t Container::num_results() { return kModelInfo.results.size; }

Status Container::InputName(size_t index, const char** name) const {
  AOTI_RETURN_IF_ERROR(CheckIndex("input", index, inputs_.size()));
  *name = inputs_[index].name;
  return Status();
}

Status Container::ResultName(size_t index, const char** name) const {
  AOTI_RETURN_IF_ERROR(CheckIndex("output", index, num_results()));
  const int32_t output = kModelInfo.results[index];
  *name = output == kNone ? "None" : outputs_[static_cast<size_t>(output)].name;
  return Status();
}

size_t Container::num_weights() const { return weights_.size(); }

Status Container::Weight(size_t index, const AotiWeightInfo** weight) const {
  AOTI_RETURN_IF_ERROR(CheckIndex("constant", index, weights_.size()));
  *weight = &weights_[index];
  return Status();
}

Status Container::WeightRole(size_t index, int32_t* role) const {
  AOTI_RETURN_IF_ERROR(CheckIndex("constant", index, weights_.size()));
  *role = static_cast<int32_t>(kModelInfo.weights[index].role);
  return Status();
}

Status Container::WeightDType(size_t index, int32_t* dtype) const {
  AOTI_RETURN_IF_ERROR(CheckIndex("constant", index, weights_.size()));
  *dtype = torch_.DType(weights_[index].dtype);
  return Status();
}

Status Container::UpdateWeights(const std::vector<NamedTensor>& tensors,
                                const UpdateOptions& options) {
  if (options.full) AOTI_RETURN_IF_ERROR(CheckFull(tensors));
  std::vector<Tensor> copies;
  std::vector<DLTensor> views(tensors.size());
  std::vector<AotiNamedTensor> named;
  named.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    copies.emplace_back(torch_, nullptr);
    AOTI_RETURN_IF_ERROR(ReadWeight(tensors[i], options.in_place, &copies[i], &views[i]));
    const uint64_t flags = options.in_place ? AOTI_WEIGHT_IN_PLACE : 0;
    named.push_back({tensors[i].name, &views[i], flags});
  }

  const std::lock_guard<std::mutex> lock(weights_mutex_);
  WeightsHandle active;
  AOTI_RETURN_IF_ERROR(GetWeights(model_, &active));
  const bool onto_inactive = options.inactive && inactive_ != nullptr;
  const AotiWeights* from = onto_inactive ? inactive_.get() : active.get();
  AotiWeightsOptions load = {};
  load.struct_size = sizeof load;
  load.flags = AOTI_WEIGHTS_KEEP_ALL;  // for the next update
  load.tensors = named.data();
  load.num_tensors = named.size();
  load.from = &from;
  load.num_from = 1;
  if (onto_inactive ? inactive_is_files_ : active_is_files_) load.path = weights_path_.c_str();
  if (!on_host_) {
    AOTI_SHIM_RETURN_IF_ERROR(torch_, "asking for the current stream", get_current_cuda_stream,
                              device_, &load.stream);
  }
  WeightsHandle loaded;
  AOTI_RETURN_IF_ERROR(LoadWeights(model_, load, &loaded));
  if (options.inactive) {
    inactive_ = std::move(loaded);
    inactive_is_files_ = false;
    return Status();
  }
  // Held until here, so that tensors read in place may go once this has returned.
  WeightsHandle previous;
  AOTI_RETURN_IF_ERROR(aoti::SwapWeights(model_, loaded, &previous));
  active_is_files_ = false;
  return Status();
}

Status Container::CheckFull(const std::vector<NamedTensor>& tensors) const {
  for (size_t i = 0; i < weights_.size(); ++i) {
    const char* name = weights_[i].name;
    if (kModelInfo.weights[i].role != Role::kParameter || weights_[i].nbytes == 0) continue;
    const bool given = std::any_of(tensors.begin(), tensors.end(), [name](const NamedTensor& each) {
      return std::strcmp(each.name, name) == 0;
    });
    if (given) continue;
    return Invalid(std::string("parameter ") + name +
                   " is missing, and check_full_update asks for all of the model's");
  }
  return Status();
}

Status Container::ReadWeight(const NamedTensor& weight, bool in_place, Tensor* copy,
                             DLTensor* view) const {
  const std::string label = std::string("constant ") + weight.name;
  const auto found = std::lower_bound(weights_.begin(), weights_.end(), weight.name,
                                      [](const AotiWeightInfo& info, const char* name) {
                                        return std::strcmp(info.name, name) < 0;
                                      });
  if (found == weights_.end() || std::strcmp(found->name, weight.name) != 0) {
    return Invalid(label + " is none of the model's weights");
  }
  AOTI_RETURN_IF_ERROR(Describe(label, found->dtype, weight.tensor, view));
  if (in_place && view->device.device_type == kCpu) {
    return Invalid(label + ": user_managed tensors are read where they lie, on cuda:" +
                   std::to_string(device_) + "; this one is on the CPU");
  }
  // In place that is for the caller to see to, and said when the weights are loaded.
  if (in_place || IsContiguous(*view)) return Status();
  AOTI_RETURN_IF_ERROR(MakeContiguous(label, *view, weight.tensor, copy));
  return Describe(label, found->dtype, copy->get(), view);
}

Status Container::MakeContiguous(const std::string& label, const DLTensor& view,
                                 AtenTensorHandle tensor, Tensor* copy) const {
  std::vector<int64_t> strides(static_cast<size_t>(view.ndim), 1);
  for (int32_t i = view.ndim - 1; i > 0; --i) {
    strides[i - 1] = strides[i] * std::max<int64_t>(view.shape[i], 1);
  }
  const bool on_cpu = view.device.device_type == kCpu;
  AtenTensorHandle made = nullptr;
  AOTI_SHIM_RETURN_IF_ERROR(torch_, "copying " + label, empty_strided, view.ndim, view.shape,
                            strides.data(), torch_.DType(view.dtype),
                            on_cpu ? torch_.device_type_cpu() : torch_.device_type_cuda(),
                            view.device.device_id, &made);
  *copy = Tensor(torch_, made);
  AOTI_SHIM_RETURN_IF_ERROR(torch_, "copying " + label, copy_, made, tensor, 0);
  return Status();
}

Status Container::SwapWeights() {
  const std::lock_guard<std::mutex> lock(weights_mutex_);
  AOTI_RETURN_IF_ERROR(CheckInactive());
  WeightsHandle previous;
  AOTI_RETURN_IF_ERROR(aoti::SwapWeights(model_, inactive_, &previous));
  inactive_ = std::move(previous);
  std::swap(active_is_files_, inactive_is_files_);
  return Status();
}

void Container::FreeInactiveWeights() {
  const std::lock_guard<std::mutex> lock(weights_mutex_);
  inactive_.reset();
  inactive_is_files_ = false;
}

Status Container::CheckFolded(bool inactive) {
  if (!inactive) return Status();
  const std::lock_guard<std::mutex> lock(weights_mutex_);
  return CheckInactive();
}

Status Container::CheckInactive() const {
  if (inactive_ != nullptr) return Status();
  return Invalid(std::string("model ") + description_->model.name +
                 " has no inactive weights: update them first");
}

Status Container::Run(AtenTensorHandle* inputs, size_t num_inputs, AtenTensorHandle* outputs,
                      size_t num_outputs, void* stream) {
  std::vector<Tensor> owned;
  owned.reserve(num_inputs);
  for (size_t i = 0; i < num_inputs; ++i) {
    owned.emplace_back(torch_, inputs[i]);
    inputs[i] = nullptr;
  }
  AOTI_RETURN_IF_ERROR(CheckCounts(num_inputs, num_outputs));
  if (on_host_) return RunGuarded(&owned, outputs, stream);
  CudaScope scope(torch_);
  AOTI_RETURN_IF_ERROR(scope.Enter(device_, stream));
  Status status = RunGuarded(&owned, outputs, stream);
  owned.clear();  // within the scope, as they were made
  return status;
}

Status Container::RunGuarded(std::vector<Tensor>* inputs, AtenTensorHandle* outputs, void* stream) {
  std::vector<DLTensor> input_views(inputs->size());
  AOTI_RETURN_IF_ERROR(ReadInputs(inputs, &input_views));
  std::vector<Tensor> results;
  std::vector<DLTensor> output_views(outputs_.size());
  AOTI_RETURN_IF_ERROR(Allocate(input_views, &results, &output_views));
  AOTI_RETURN_IF_ERROR(RunSession(input_views, output_views, stream));
  for (size_t i = 0; i < num_results(); ++i) {
    const int32_t output = kModelInfo.results[i];
    outputs[i] = output == kNone ? nullptr : results[static_cast<size_t>(output)].Release();
  }
  return Status();
}

Status Container::CheckCounts(size_t num_inputs, size_t num_outputs) const {
  if (num_outputs != num_results()) {
    return Invalid("expected room for " + std::to_string(num_results()) + " outputs, got " +
                   std::to_string(num_outputs));
  }
  if (num_inputs == inputs_.size()) return Status();
  std::string message =
      "expected " + std::to_string(inputs_.size()) + " inputs, got " + std::to_string(num_inputs);
  for (const AotiTensorInfo& input : inputs_) {
    if ((input.flags & AOTI_TENSOR_SCALAR) == 0) continue;
    message += std::string("; ") + input.path +
               " is an integer, and PyTorch passes on none: give a tensor, torch.tensor(" +
               input.name + ")";
  }
  return Invalid(std::move(message));
}

Status Container::ReadInputs(std::vector<Tensor>* tensors, std::vector<DLTensor>* views) const {
  for (size_t i = 0; i < tensors->size(); ++i) {
    AOTI_RETURN_IF_ERROR(ReadInput(inputs_[i], i, (*tensors)[i].get(), &(*views)[i]));
    AOTI_RETURN_IF_ERROR(AlignInput(inputs_[i], i, &(*tensors)[i], &(*views)[i]));
  }
  return Status();
}

Status Container::Describe(const std::string& label, DLDataType dtype, AtenTensorHandle tensor,
                           DLTensor* view) const {
  const std::string doing = "reading " + label;
  if (tensor == nullptr) return Invalid(label + " is a null pointer");
  int32_t layout = 0;
  int32_t number = 0;
  int32_t device = 0;
  int32_t device_index = 0;
  int64_t ndim = 0;
  AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_layout, tensor, &layout);
  if (layout != torch_.layout_strided()) return Invalid(label + ": expected a dense tensor");
  AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_dtype, tensor, &number);
  AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_device_type, tensor, &device);
  AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_device_index, tensor, &device_index);
  AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_dim, tensor, &ndim);
  *view = {};
  AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_sizes, tensor, &view->shape);
  AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_strides, tensor, &view->strides);
  AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_data_ptr, tensor, &view->data);
  view->ndim = static_cast<int32_t>(ndim);
  view->dtype = torch_.DType(number);
  if (view->dtype.bits == 0) {
    return Invalid(label + ": expected dtype " + DTypeText(dtype) + ", got PyTorch's number " +
                   std::to_string(number) + ", which no model takes");
  }
  if (device == torch_.device_type_cpu()) {
    view->device = DLDevice{kCpu, 0};
  } else if (device == torch_.device_type_cuda()) {
    view->device = DLDevice{kCuda, device_index};
  } else {
    return Invalid(label + ": expected a tensor on the CPU or on CUDA, got one on PyTorch's " +
                   "device type " + std::to_string(device));
  }
  return Status();
}

Status Container::ReadInput(const AotiTensorInfo& info, size_t index, AtenTensorHandle tensor,
                            DLTensor* view) const {
  const std::string label = Label("input", index, info);
  AOTI_RETURN_IF_ERROR(Describe(label, info.dtype, tensor, view));
  if ((info.flags & AOTI_TENSOR_SCALAR) != 0) return Status();
  const bool on_cpu = view->device.device_type == kCpu;
  if (on_cpu == on_host_) return Status();
  const std::string cuda = "cuda:" + std::to_string(on_cpu ? device_ : view->device.device_id);
  if (on_cpu) return Invalid(label + ": expected a tensor on " + cuda + ", got one on the CPU");
  return Invalid(label +
                 ": expected a tensor on the CPU, as the package was made for, got one on " + cuda);
}

Status Container::AlignInput(const AotiTensorInfo& info, size_t index, Tensor* tensor,
                             DLTensor* view) const {
  constexpr uint32_t kLeftAlone = AOTI_TENSOR_SCALAR | AOTI_TENSOR_MUTATED;
  const bool aligned = reinterpret_cast<uintptr_t>(view->data) % kTensorAlignment == 0;
  if (on_host_ || aligned || (info.flags & kLeftAlone) != 0) return Status();
  AtenTensorHandle copy = nullptr;
  AOTI_SHIM_RETURN_IF_ERROR(torch_, "aligning " + Label("input", index, info),
                            clone_preserve_strides, tensor->get(), &copy);
  *tensor = Tensor(torch_, copy);
  return ReadInput(info, index, copy, view);
}

Status Container::Allocate(const std::vector<DLTensor>& inputs, std::vector<Tensor>* tensors,
                           std::vector<DLTensor>* views) const {
  const std::vector<const DLTensor*> pointers = Pointers(inputs);
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const AotiTensorInfo& info = outputs_[i];
    const auto ndim = static_cast<size_t>(info.ndim);
    shape.assign(info.shape, info.shape + ndim);
    strides.assign(info.strides, info.strides + ndim);
    if ((info.flags & AOTI_TENSOR_DYNAMIC) != 0) {
      AotiStatus status;
      const int32_t code =
          aoti_description_output_layout(description_, pointers.data(), pointers.size(), i,
                                         shape.data(), strides.data(), nullptr, &status);
      AOTI_RETURN_IF_ERROR(ToStatus(code, status));
    }
    const std::string doing = "allocating " + Label("output", i, info);
    const int32_t device = on_host_ ? torch_.device_type_cpu() : torch_.device_type_cuda();
    AtenTensorHandle made = nullptr;
    AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, empty_strided, info.ndim, shape.data(), strides.data(),
                              torch_.DType(info.dtype), device, device_, &made);
    tensors->emplace_back(torch_, made);
    DLTensor& view = (*views)[i];
    view = {};
    view.device = on_host_ ? DLDevice{kCpu, 0} : DLDevice{kCuda, device_};
    view.ndim = info.ndim;
    view.dtype = info.dtype;
    AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_sizes, made, &view.shape);
    AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_strides, made, &view.strides);
    AOTI_SHIM_RETURN_IF_ERROR(torch_, doing, get_data_ptr, made, &view.data);
  }
  return Status();
}

Status Container::RunSession(const std::vector<DLTensor>& inputs,
                             const std::vector<DLTensor>& outputs, void* stream) {
  const Lease lease(this);
  Slot& slot = lease.slot();
  if (on_host_) return slot.host.Run(slot.session.get(), inputs_, inputs, outputs);
  const std::vector<const DLTensor*> in = Pointers(inputs);
  const std::vector<const DLTensor*> out = Pointers(outputs);
  return aoti::Run(slot.session, in.data(), in.size(), out.data(), out.size(), stream);
}

}  // namespace aoti::aotinductor
