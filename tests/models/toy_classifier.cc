// A classifier of two images of 2 x 2 pixels, for the test of models/classify: its output is the
// beginning of its input, so that it needs no kernel.

#include "runtime/description.h"

namespace aoti {
namespace {

constexpr DLDataType kFloat16 = {kDLFloat, 16, 1};
constexpr DLDataType kFloat32 = {kDLFloat, 32, 1};

constexpr int64_t kImages[] = {2, 3, 2, 2};
constexpr int64_t kImageStrides[] = {12, 4, 2, 1};
constexpr int64_t kLogits[] = {2, 10};
constexpr int64_t kLogitStrides[] = {10, 1};
constexpr int64_t kOne[] = {1};

constexpr TensorDescription kInput = {"x", kFloat16, {kImages, 4}, {kImageStrides, 4}};
constexpr TensorDescription kOutput = {"logits", kFloat16, {kLogits, 2}, {kLogitStrides, 2}};
constexpr WeightDescription kWeight = {"w", kFloat32, {kOne, 1}, 4, false, true};

Status Fold(Launcher&) { return Status(); }

Status RunMain(Launcher& launcher) {
  const Addresses& at = launcher.at();
  return launcher.Copy(at.outputs[0], at.inputs[0], 2 * 2 * 10, Pointers::kCaller);
}

constexpr TargetDescription kTarget = {"sm_90",
                                       9,
                                       0,
                                       false,
                                       12000,  //
                                       {256, 0, 0, 0, 0},
                                       {&kWeight, 1},
                                       {nullptr, 0},
                                       Fold,
                                       RunMain};

constexpr AotiDescription kModel = {
    {kDescriptionVersion, "toy_classifier", "digest", {&kInput, 1}, {&kOutput, 1}, {&kTarget, 1}}};

}  // namespace
}  // namespace aoti

extern "C" const AotiDescription* toy_classifier_description(void) { return &aoti::kModel; }
