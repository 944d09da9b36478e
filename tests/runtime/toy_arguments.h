// The toy model's arguments, and what must come of them.

#ifndef AOTI_TESTS_RUNTIME_TOY_ARGUMENTS_H_
#define AOTI_TESTS_RUNTIME_TOY_ARGUMENTS_H_

#include <cstring>
#include <vector>

#include "dlpack/dlpack.h"
#include "tests/runtime/simulator.h"

namespace aoti::testing {

// Weights of the toy model.
inline const std::vector<float> kScale = {1, 2, 3, 4};
inline const std::vector<float> kBias = {10, 20, 30, 40};

// On the device of the current context. The expected results follow from x.
struct Arguments {
  FloatTensor x{{2, 4}};
  FloatTensor y{{2, 4}};
  FloatTensor result{{2, 4}};
  FloatTensor copy{{2, 4}};
  FloatTensor sevens{{4}};
  int64_t y_strides[2] = {1, 2};
  const DLTensor* inputs[2] = {&x.tensor(), &y.tensor()};
  const DLTensor* outputs[3] = {&result.tensor(), &copy.tensor(), &sevens.tensor()};

  explicit Arguments(float first = 1) {
    y.tensor().strides = y_strides;
    for (int i = 0; i < 8; ++i) x.data()[i] = first + static_cast<float>(i);
  }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  bool Correct(const std::vector<float>& scale = kScale,
               const std::vector<float>& bias = kBias) const {
    const std::vector<float> in = x.values();
    const std::vector<float> out = result.values();
    for (size_t i = 0; i < 8; ++i) {
      if (out[i] != in[i] * 2 * scale[i % 4] + bias[i % 4]) return false;
    }
    const std::vector<float> bytes = sevens.values();
    return copy.values() == in && std::memcmp(bytes.data(), "\7\7\7\7\7\7\7\7", 8) == 0;
  }
};

}  // namespace aoti::testing

#endif  // AOTI_TESTS_RUNTIME_TOY_ARGUMENTS_H_
