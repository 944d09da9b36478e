// A model written by hand, as the generator would have written it, with every kind of step.
//
//   inputs   x [2, 4], y [2, 4] transposed (strides 1, 2)
//   weights  scale [4] (only folding reads it), bias [4]
//   constant doubled = 2 * scale
//   outputs  result = x * doubled + bias, copy = x, sevens: bytes of 7

#ifndef AOTI_TESTS_RUNTIME_TOY_MODEL_H_
#define AOTI_TESTS_RUNTIME_TOY_MODEL_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime/description.h"
#include "simulator/control.h"

namespace aoti::testing {

// The description, of which a test may change its copy. The targets are sm_80, sm_86, sm_90 and
// compute_80, and need CUDA 12.0.
const AotiDescription& ToyModel();

// Runs the toy model's kernels. Each checks that what it touches is in device memory.
int RunToyKernel(const SimulatorLaunch* launch, void* user);

// A safetensors file of float32 tensors in the given order.
std::string Safetensors(const std::vector<std::pair<std::string, std::vector<float>>>& tensors);

// A safetensors file with this header and data.
std::string SafetensorsOf(const std::string& header, const std::string& data);

// Weights for the toy model, with a tensor that it does not use.
std::string ToyWeights(const std::vector<float>& scale, const std::vector<float>& bias);

}  // namespace aoti::testing

#endif  // AOTI_TESTS_RUNTIME_TOY_MODEL_H_
