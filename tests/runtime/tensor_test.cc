// The check of the caller's tensors, message by message.

#include "runtime/tensor.h"

#include <cstdint>
#include <functional>
#include <string>

#include "gtest/gtest.h"
#include "tests/runtime/toy_model.h"

namespace aoti {
namespace {

alignas(256) unsigned char memory[4096];

// Arguments that fit the toy model's inputs, for a test to spoil.
struct Arguments {
  int64_t shape[2][2] = {{2, 4}, {2, 4}};
  int64_t strides[2][2] = {{4, 1}, {1, 2}};
  DLTensor tensors[2] = {};
  const DLTensor* pointers[2] = {&tensors[0], &tensors[1]};
  DeviceAddress addresses[2] = {};

  Arguments() {
    for (int i = 0; i < 2; ++i) {
      tensors[i].data = memory + 256 * i;
      tensors[i].device = {kDLCUDA, 3};
      tensors[i].ndim = 2;
      tensors[i].dtype = {kDLFloat, 32, 1};
      tensors[i].shape = shape[i];
      tensors[i].strides = strides[i];
    }
  }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  Status Read(Check check = Check::kFull, size_t count = 2) {
    return ReadTensors(Side::kInput, testing::ToyModel().model.inputs, pointers, count, 3, check,
                       addresses);
  }
};

void Expect(const std::function<void(Arguments&)>& spoil, const std::string& message) {
  Arguments arguments;
  spoil(arguments);
  const Status status = arguments.Read();
  EXPECT_EQ(status.message(), message);
  EXPECT_EQ(status.code(), message.empty() ? Code::kOk : Code::kInvalidArgument);
}

TEST(ReadTensors, StoresAddresses) {
  Arguments arguments;
  arguments.tensors[1].byte_offset = 32;
  ASSERT_TRUE(arguments.Read().ok());
  EXPECT_EQ(arguments.addresses[0], reinterpret_cast<DeviceAddress>(memory));
  EXPECT_EQ(arguments.addresses[1], reinterpret_cast<DeviceAddress>(memory + 256 + 32));
}

TEST(ReadTensors, NullStridesMeanRowMajor) {
  Expect([](Arguments& a) { a.tensors[0].strides = nullptr; }, "");
  Expect([](Arguments& a) { a.tensors[1].strides = nullptr; },
         "input 1 (y): dimension 1: expected stride 2, got 1 (expected strides [1, 2], got none, "
         "which means contiguous row-major)");
}

TEST(ReadTensors, AcceptsManagedMemoryOfAnyDevice) {
  Expect([](Arguments& a) { a.tensors[0].device = {static_cast<DLDeviceType>(13), 0}; }, "");
}

TEST(ReadTensors, NamesTheFault) {
  Expect([](Arguments& a) { a.tensors[0].dtype = {kDLFloat, 16, 1}; },
         "input 0 (x): expected dtype float32, got float16");
  Expect([](Arguments& a) { a.tensors[0].dtype = {kDLBfloat, 16, 1}; },
         "input 0 (x): expected dtype float32, got bfloat16");
  Expect([](Arguments& a) { a.tensors[0].dtype.lanes = 2; },
         "input 0 (x): expected dtype float32, got (code 2, bits 32, lanes 2)");
  Expect([](Arguments& a) { a.tensors[1].ndim = 3; },
         "input 1 (y): expected 2 dimensions [2, 4], got 3");
  Expect([](Arguments& a) { a.tensors[1].ndim = -1; },
         "input 1 (y): expected 2 dimensions [2, 4], got -1");
  Expect([](Arguments& a) { a.tensors[1].shape = nullptr; },
         "input 1 (y): its shape is a null pointer");
  Expect([](Arguments& a) { a.shape[1][1] = 5; },
         "input 1 (y): dimension 1: expected size 4, got 5 (expected shape [2, 4], got [2, 5])");
  Expect([](Arguments& a) { a.strides[0][0] = 8; },
         "input 0 (x): dimension 0: expected stride 4, got 8 (expected strides [4, 1], got [8, "
         "1])");
  Expect([](Arguments& a) { a.tensors[0].device = {kDLCPU, 0}; },
         "input 0 (x): expected memory of CUDA device 3, got host (CPU) memory (DLPack device type "
         "1)");
  Expect([](Arguments& a) { a.tensors[0].device.device_id = 2; },
         "input 0 (x): expected memory of CUDA device 3, got that of device 2");
  Expect([](Arguments& a) { a.tensors[0].data = nullptr; },
         "input 0 (x): its data is a null pointer");
  Expect([](Arguments& a) { a.tensors[0].byte_offset = 4; },
         "input 0 (x): expected memory that begins at a multiple of 16 bytes, got 4 bytes past one "
         "(byte_offset is 4)");
  Expect([](Arguments& a) { a.pointers[1] = nullptr; }, "input 1 (y): is a null pointer");
}

TEST(ReadTensors, ChecksTheCountEvenWhereTensorsAreTrusted) {
  Arguments arguments;
  EXPECT_STREQ(arguments.Read(Check::kTrust, 1).message(), "expected 2 inputs (x, y), got 1");
  EXPECT_STREQ(arguments.Read(Check::kFull, 3).message(), "expected 2 inputs (x, y), got 3");
  const Status status = ReadTensors(Side::kOutput, testing::ToyModel().model.outputs, nullptr, 3, 0,
                                    Check::kFull, arguments.addresses);
  EXPECT_STREQ(status.message(), "the array of outputs is a null pointer");
}

TEST(ReadTensors, TrustsWhereAskedTo) {
  Arguments arguments;
  arguments.shape[0][0] = 99;
  EXPECT_TRUE(arguments.Read(Check::kTrust).ok());
}

TEST(ReadTensors, SizeOneMakesAStrideIrrelevantAndSizeZeroTheMemory) {
  const int64_t shape[] = {1, 4};
  const int64_t empty[] = {0, 4};
  const int64_t strides[] = {4, 1};
  TensorDescription description = {"t", {kDLFloat, 32, 1}, {shape, 2}, {strides, 2}};
  const Table<TensorDescription> table = {&description, 1};
  Arguments a;
  a.shape[0][0] = 1;
  a.strides[0][0] = 77;
  EXPECT_TRUE(ReadTensors(Side::kInput, table, a.pointers, 1, 3, Check::kFull, a.addresses).ok());
  description.shape = {empty, 2};
  a.shape[0][0] = 0;
  a.tensors[0].data = nullptr;
  EXPECT_TRUE(ReadTensors(Side::kInput, table, a.pointers, 1, 3, Check::kFull, a.addresses).ok());
}

TEST(CheckOverlap, FindsOutputsThatShareMemory) {
  const ModelDescription& model = testing::ToyModel().model;
  const DeviceAddress inputs[] = {1024, 2048};
  const auto check = [&](DeviceAddress a, DeviceAddress b, DeviceAddress c) {
    const DeviceAddress outputs[] = {a, b, c};
    const Status status = CheckOverlap(model.inputs, inputs, model.outputs, outputs);
    return std::string(status.message());
  };
  EXPECT_EQ(check(4096, 4128, 4160), "");
  EXPECT_EQ(check(1056, 992, 4160), "");
  EXPECT_EQ(check(1040, 4128, 4160), "output 0 (result): shares memory with input 0 (x)");
  EXPECT_EQ(check(4096, 4128, 2064), "output 2 (sevens): shares memory with input 1 (y)");
  EXPECT_EQ(check(4096, 4112, 4160), "output 1 (copy): shares memory with output 0 (result)");
}

TEST(Tensor, Extent) {
  const int64_t shape[] = {2, 3};
  const int64_t strides[] = {8, 1};
  const int64_t expanded[] = {0, 1};
  EXPECT_EQ(Extent({"t", {kDLFloat, 16, 1}, {shape, 2}, {strides, 2}}), 22u);
  EXPECT_EQ(Extent({"t", {kDLFloat, 16, 1}, {shape, 2}, {expanded, 2}}), 6u);
  EXPECT_EQ(Extent({"scalar", {kDLFloat, 16, 1}, {nullptr, 0}, {nullptr, 0}}), 2u);
}

TEST(Tensor, ContiguousSizeFindsOverflow) {
  uint64_t nbytes = 0;
  const int64_t huge[] = {int64_t{1} << 40, int64_t{1} << 40};
  EXPECT_FALSE(ContiguousSize(huge, 2, 4, &nbytes));
  const int64_t empty[] = {int64_t{1} << 40, int64_t{1} << 40, 0};
  EXPECT_TRUE(ContiguousSize(empty, 3, 4, &nbytes));
  EXPECT_EQ(nbytes, 0u);
}

}  // namespace
}  // namespace aoti
