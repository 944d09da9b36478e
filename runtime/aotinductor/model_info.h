// What a generated model tells AOTInductor's interface besides its description. Constant data.

#ifndef AOTI_RUNTIME_AOTINDUCTOR_MODEL_INFO_H_
#define AOTI_RUNTIME_AOTINDUCTOR_MODEL_INFO_H_

#include <cstdint>

#include "runtime/description.h"

namespace aoti::aotinductor {

// The numbers of PyTorch's ConstantType (torch/csrc/inductor/aoti_runtime/constant_type.h).
enum class Role : int32_t { kParameter = 1, kBuffer = 2, kConstant = 3 };

struct WeightInfo {
  const char* name;
  Role role;
};

// A result that is None.
constexpr int32_t kNone = -1;

struct ModelInfo {
  // How arguments and results nest, as torch.utils._pytree serializes it.
  const char* in_spec;
  const char* out_spec;
  // Of the weights, sorted by name.
  Table<WeightInfo> weights;
  // For each leaf of out_spec the index of the output, or kNone.
  Table<int32_t> results;
};

// Defined by the generated aotinductor.cc: a library with this interface has one model.
extern const ModelInfo kModelInfo;

}  // namespace aoti::aotinductor

#endif  // AOTI_RUNTIME_AOTINDUCTOR_MODEL_INFO_H_
