// Symbols and what follows from them, beyond what dynamic_test has.

#include "runtime/sizes.h"

#include <cstdint>
#include <string>

#include "gtest/gtest.h"
#include "runtime/integer.h"
#include "runtime/target.h"

namespace aoti {
namespace {

constexpr DLDataType kFloat32 = {2, 32, 1};
constexpr DLDataType kInt64 = {0, 64, 1};
constexpr int64_t kUnknown[] = {-1};
constexpr int64_t kUnit[] = {1};
constexpr AotiDimInfo kSize[] = {{"s0", 0, 1000}};
constexpr AotiDimInfo kStride[] = {{"1", 1, 1}};
constexpr AotiDimInfo kHuge[] = {{"s0 * s0 - 4", 0, INT64_MAX}};
constexpr int32_t kFirst[] = {0};
constexpr int32_t kSecond[] = {1};
constexpr int32_t kNone[] = {kFixed};
constexpr DynamicLayout kLayout = {kSize, kFirst, kStride, kNone, 4000};
constexpr DynamicLayout kHugeLayout = {kHuge, kSecond, kStride, kNone, INT64_MAX};

// `count` is a scalar with the value of x's dimension.
constexpr TensorDescription kInputs[] = {
    {"x", kFloat32, {kUnknown, 1}, {kUnit, 1}, "args[0]", 0, &kLayout},
    {"count", kInt64, {nullptr, 0}, {nullptr, 0}, "args[1]", AOTI_TENSOR_SCALAR, nullptr, 0},
};
constexpr TensorDescription kOutputs[] = {
    {"y", kFloat32, {kUnknown, 1}, {kUnit, 1}, "outputs", 0, &kHugeLayout}};
constexpr SymbolDescription kSymbols[] = {{"s0", 0, INT64_MAX, 0, 0, true}};

const char* Compute(int64_t* value) {
  const Checked result = Checked(value[0]) * value[0] - 4;
  value[1] = result.value();
  return result.ok() ? nullptr : "s0 * s0 - 4";
}

constexpr ModelDescription kModel = {
    kDescriptionVersion, "sizes",       "digest",     {kInputs, 2}, {kOutputs, 1},
    {nullptr, 0},        {kSymbols, 1}, {nullptr, 0}, Compute,      2};

std::string Read(Sizes* sizes, int64_t dimension, int64_t count) {
  DLTensor x = {};
  x.ndim = 1;
  x.shape = &dimension;
  DLTensor scalar = {};
  scalar.data = &count;
  scalar.device = {kDLCPU, 0};
  scalar.dtype = kInt64;
  const DLTensor* inputs[] = {&x, &scalar};
  const Status status = sizes->Read(inputs, 2);
  return status.message();
}

TEST(Sizes, AScalarIsWhatADimensionOfAnEarlierInputSays) {
  Sizes sizes(kModel, nullptr);
  EXPECT_EQ(Read(&sizes, 7, 7), "");
  EXPECT_EQ(sizes.outputs()[0].shape[0], 45);
  EXPECT_EQ(Read(&sizes, 7, 8),
            "input 1 (count): expected 7 (s0, which is dimension 0 of input 0 (x)), got 8");
  EXPECT_EQ(Read(&sizes, 7, 7), "");
  EXPECT_EQ(Read(&sizes, 9, 7),
            "input 1 (count): expected 9 (s0, which is dimension 0 of input 0 (x)), got 7");
}

TEST(Sizes, OutputsThatCannotBeAreRefused) {
  Sizes sizes(kModel, nullptr);
  EXPECT_EQ(Read(&sizes, 1, 1),
            "output 0 (y): dimension 0 would have size -3 (s0 * s0 - 4, where s0 = 1 is dimension "
            "0 of input 0 (x))");
  EXPECT_EQ(Read(&sizes, int64_t{1} << 32, int64_t{1} << 32),
            "the model cannot run at these sizes: s0 * s0 - 4 divides by zero or does not fit 64 "
            "bits, where s0 = 4294967296 is dimension 0 of input 0 (x)");
  EXPECT_EQ(Read(&sizes, 3037000499, 3037000499),
            "output 0 (y): its bytes do not fit 64 bits for the shape [9223372030926248997]");
  EXPECT_EQ(Read(&sizes, 2, 2), "");
  EXPECT_EQ(sizes.outputs()[0].shape[0], 0);
}

TEST(Sizes, ContradictoryDescriptionsAreRefused) {
  const auto fault = [](const ModelDescription& model) {
    const Status status = CheckDescription(model);
    return std::string(status.message());
  };
  EXPECT_EQ(fault(kModel), "");
  ModelDescription model = kModel;
  model.num_values = 1;
  EXPECT_EQ(fault(model), "the description of model sizes is wrong: y has a negative size");
  SymbolDescription symbol = kSymbols[0];
  model = kModel;
  model.symbols = {&symbol, 1};
  symbol.dimension = 1;
  EXPECT_EQ(fault(model),
            "the description of model sizes is wrong: symbol s0 is nothing of an input");
  symbol.dimension = kFixed;
  EXPECT_EQ(fault(model),
            "the description of model sizes is wrong: symbol s0 is nothing of an input");
  symbol.input = 1;
  EXPECT_EQ(fault(model), "");
  const ConstraintDescription constraint = {"x > 2", "s0 > 2", 0, 2, ">"};
  model = kModel;
  model.constraints = {&constraint, 1};
  EXPECT_EQ(fault(model), "the description of model sizes is wrong: constraint x > 2 has no value");
}

}  // namespace
}  // namespace aoti
