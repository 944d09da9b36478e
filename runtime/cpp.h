// C++ over the C ABI of runtime/aoti.h: what the header of every generated model shares. Nothing
// here needs more of the library than its C functions.

#ifndef AOTI_RUNTIME_CPP_H_
#define AOTI_RUNTIME_CPP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "dlpack/dlpack.h"
#include "runtime/aoti.h"
#include "runtime/status.h"

namespace aoti {

struct DestroyModel {
  void operator()(AotiModel* model) const { aoti_model_destroy(model); }
};
struct DestroySession {
  void operator()(AotiSession* session) const { aoti_session_destroy(session); }
};
// Waits as aoti_weights_destroy does.
struct DestroyWeights {
  void operator()(AotiWeights* weights) const { aoti_weights_destroy(weights); }
};
using ModelHandle = std::unique_ptr<AotiModel, DestroyModel>;
using SessionHandle = std::unique_ptr<AotiSession, DestroySession>;
using WeightsHandle = std::unique_ptr<AotiWeights, DestroyWeights>;

// What a function of the C ABI returned and said.
inline Status ToStatus(int32_t code, const AotiStatus& status) {
  return code == AOTI_OK ? Status() : Status(static_cast<Code>(code), status.message);
}

inline Status Load(const AotiDescription* description, const AotiModelOptions& options,
                   ModelHandle* model) {
  AotiStatus status;
  AotiModel* loaded = nullptr;
  const int32_t code = aoti_model_load(description, &options, &loaded, &status);
  model->reset(loaded);
  return ToStatus(code, status);
}

inline Status LoadWeights(const ModelHandle& model, const AotiWeightsOptions& options,
                          WeightsHandle* weights) {
  AotiStatus status;
  AotiWeights* loaded = nullptr;
  const int32_t code = aoti_weights_load(model.get(), &options, &loaded, &status);
  weights->reset(loaded);
  return ToStatus(code, status);
}

// `previous` may be null.
inline Status SwapWeights(const ModelHandle& model, const WeightsHandle& weights,
                          WeightsHandle* previous) {
  AotiStatus status;
  AotiWeights* before = nullptr;
  const int32_t code = aoti_model_swap_weights(model.get(), weights.get(),
                                               previous == nullptr ? nullptr : &before, &status);
  if (previous != nullptr) previous->reset(before);
  return ToStatus(code, status);
}

inline Status GetWeights(const ModelHandle& model, WeightsHandle* weights) {
  AotiStatus status;
  AotiWeights* current = nullptr;
  const int32_t code = aoti_model_weights(model.get(), &current, &status);
  weights->reset(current);
  return ToStatus(code, status);
}

// `options` may be null.
inline Status CreateSession(const ModelHandle& model, const AotiSessionOptions* options,
                            SessionHandle* session) {
  AotiStatus status;
  AotiSession* created = nullptr;
  const int32_t code = aoti_session_create(model.get(), options, &created, &status);
  session->reset(created);
  return ToStatus(code, status);
}

inline Status Run(const SessionHandle& session, const DLTensor* const* inputs, uint64_t num_inputs,
                  const DLTensor* const* outputs, uint64_t num_outputs, void* stream) {
  AotiStatus status;
  const int32_t code =
      aoti_session_run(session.get(), inputs, num_inputs, outputs, num_outputs, stream, &status);
  return ToStatus(code, status);
}

// The shape and strides, in elements, of a tensor of N dimensions, and its bytes.
template <size_t N>
struct Layout {
  std::array<int64_t, N> shape;
  std::array<int64_t, N> strides;
  uint64_t nbytes;
};

// That of a contiguous row-major tensor. `Tensor` is one of a model's tensor types whose sizes
// depend on the inputs. Sizes are not negative.
template <typename Tensor>
Layout<Tensor::kRank> RowMajor(const std::array<int64_t, Tensor::kRank>& shape) {
  Layout<Tensor::kRank> layout = {shape, {}, sizeof(typename Tensor::Element)};
  int64_t step = 1;
  for (size_t i = Tensor::kRank; i-- > 0;) {
    layout.strides[i] = step;
    step *= shape[i] > 1 ? shape[i] : 1;
    layout.nbytes *= static_cast<uint64_t>(shape[i]);
  }
  return layout;
}

template <size_t N>
Status OutputLayout(const AotiDescription* description, const DLTensor* const* inputs,
                    uint64_t num_inputs, uint64_t index, Layout<N>* layout) {
  AotiStatus status;
  const int32_t code =
      aoti_description_output_layout(description, inputs, num_inputs, index, layout->shape.data(),
                                     layout->strides.data(), &layout->nbytes, &status);
  return ToStatus(code, status);
}

// A scalar input, as a view of a number that must outlive it.
inline DLTensor Scalar(const int64_t* value) {
  DLTensor view = {};
  view.data = const_cast<int64_t*>(value);
  view.device = DLDevice{kDLCPU, 0};
  view.dtype = DLDataType{kDLInt, 64, 1};
  return view;
}

// A view of memory of CUDA device `ordinal` with a layout that must outlive it.
template <typename Tensor>
DLTensor View(void* data, int32_t ordinal, const Layout<Tensor::kRank>& layout) {
  DLTensor view = {};
  view.data = data;
  view.device = DLDevice{kDLCUDA, ordinal};
  view.ndim = static_cast<int32_t>(Tensor::kRank);
  view.dtype = Tensor::kDtype;
  view.shape = const_cast<int64_t*>(layout.shape.data());
  view.strides = const_cast<int64_t*>(layout.strides.data());
  return view;
}

// A view of `Tensor::kBytes` bytes of memory of CUDA device `ordinal`. `Tensor` is one of a model's
// tensor types, which hold its dtype, shape and strides.
template <typename Tensor>
DLTensor View(void* data, int32_t ordinal) {
  DLTensor view = {};
  view.data = data;
  view.device = DLDevice{kDLCUDA, ordinal};
  view.ndim = static_cast<int32_t>(Tensor::kShape.size());
  view.dtype = Tensor::kDtype;
  // DLPack's fields are not const; nothing that takes a tensor writes them.
  view.shape = const_cast<int64_t*>(Tensor::kShape.data());
  view.strides = const_cast<int64_t*>(Tensor::kStrides.data());
  return view;
}

}  // namespace aoti

#endif  // AOTI_RUNTIME_CPP_H_
