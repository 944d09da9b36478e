// Weights through the C ABI: loading them from files and tensors, sharing them, and swapping them
// while a model runs.

#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/aoti.h"
#include "runtime/cpp.h"
#include "runtime/description.h"
#include "tests/runtime/runtime_fixture.h"
#include "tests/runtime/simulator.h"
#include "tests/runtime/toy_arguments.h"
#include "tests/runtime/toy_model.h"

namespace aoti {
namespace {

using testing::Arguments;
using testing::CurrentContext;
using testing::FloatTensor;
using testing::GetDriver;
using testing::GetSimulator;
using testing::kBias;
using testing::kScale;
using testing::RuntimeTest;
using testing::Stream;
using testing::ToyModel;
using testing::ToyWeights;
using Floats = std::vector<float>;

const Floats kOtherScale = {5, 6, 7, 8};
const Floats kOtherBias = {50, 60, 70, 80};

class WeightsTest : public RuntimeTest {
 protected:
  static AotiWeightsOptions WeightsOptions() {
    AotiWeightsOptions options = {};
    options.struct_size = sizeof options;
    return options;
  }

  WeightsHandle LoadWeights(const ModelHandle& model, const AotiWeightsOptions& options) {
    AotiWeights* weights = nullptr;
    const int32_t code = aoti_weights_load(model.get(), &options, &weights, &status_);
    EXPECT_EQ(code, status_.code);
    EXPECT_EQ(code == AOTI_OK, weights != nullptr);
    return WeightsHandle(weights);
  }

  WeightsHandle LoadFile(const ModelHandle& model, const std::string& file) {
    AotiWeightsOptions options = WeightsOptions();
    options.data = file.data();
    options.size = file.size();
    WeightsHandle weights = LoadWeights(model, options);
    EXPECT_EQ(status_.code, AOTI_OK) << status_.message;
    return weights;
  }

  WeightsHandle LoadOther(const ModelHandle& model) {
    return LoadFile(model, ToyWeights(kOtherScale, kOtherBias));
  }

  // A hold of what the model runs with.
  WeightsHandle Current(const ModelHandle& model) {
    WeightsHandle weights;
    const Status status = GetWeights(model, &weights);
    EXPECT_TRUE(status.ok()) << status.message();
    return weights;
  }

  void Swap(const ModelHandle& model, const WeightsHandle& weights,
            WeightsHandle* previous = nullptr) {
    const Status status = SwapWeights(model, weights, previous);
    EXPECT_TRUE(status.ok()) << status.message();
  }

  uint64_t DeviceBytes() const { return GetSimulator().live().device_bytes - before_.device_bytes; }

  static AotiWeightsInfo Info(const WeightsHandle& weights) {
    AotiWeightsInfo info = {};
    EXPECT_EQ(aoti_weights_info(weights.get(), &info, nullptr), AOTI_OK);
    return info;
  }
};

// Both ways to run.
class WeightsModeTest : public WeightsTest, public ::testing::WithParamInterface<uint64_t> {};

INSTANTIATE_TEST_SUITE_P(Modes, WeightsModeTest, ::testing::Values(0, AOTI_SESSION_NO_GRAPH),
                         [](const auto& info) { return info.param == 0 ? "Graph" : "Stream"; });

// Enqueued together: a run keeps the weights of its time, and nothing waits.
TEST_P(WeightsModeTest, RunsUseTheWeightsOfTheirTime) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get(), GetParam());
  const WeightsHandle first = Current(model);
  const WeightsHandle other = LoadOther(model);
  const Stream stream;
  const Arguments a(1);
  const Arguments b(100);
  const Arguments c(1000);
  ASSERT_EQ(Run(session.get(), a, stream.handle()), AOTI_OK) << status_.message;
  Swap(model, other);
  ASSERT_EQ(Run(session.get(), b, stream.handle()), AOTI_OK) << status_.message;
  Swap(model, first);
  ASSERT_EQ(Run(session.get(), c, stream.handle()), AOTI_OK) << status_.message;
  EXPECT_FALSE(a.Correct()) << "something waited";
  Synchronize(stream.handle());
  EXPECT_TRUE(a.Correct());
  EXPECT_TRUE(b.Correct(kOtherScale, kOtherBias));
  EXPECT_TRUE(c.Correct());
}

TEST_P(WeightsModeTest, DestroyWaitsForTheLastRun) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get(), GetParam());
  const SessionHandle idle = Create(model.get(), GetParam());
  const Stream stream;
  const Arguments a;
  const Arguments b;
  ASSERT_EQ(Run(idle.get(), b), AOTI_OK) << status_.message;
  Synchronize();
  const uint64_t once = DeviceBytes();
  const WeightsHandle other = LoadOther(model);
  EXPECT_EQ(DeviceBytes(), once + 512);
  ASSERT_EQ(Run(session.get(), a, stream.handle()), AOTI_OK) << status_.message;
  WeightsHandle previous;
  Swap(model, other, &previous);
  EXPECT_FALSE(a.Correct()) << "swapping waited";
  EXPECT_EQ(DeviceBytes(), once + 512);
  previous.reset();
  EXPECT_TRUE(a.Correct());
  EXPECT_EQ(DeviceBytes(), once);
  ASSERT_EQ(Run(session.get(), a, stream.handle()), AOTI_OK) << status_.message;
  Synchronize(stream.handle());
  EXPECT_TRUE(a.Correct(kOtherScale, kOtherBias));
}

TEST_P(WeightsModeTest, LaterCallsFreeWhatNobodyHolds) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get(), GetParam());
  const Stream stream;
  const Arguments a;
  const uint64_t once = DeviceBytes();
  ASSERT_EQ(Run(session.get(), a, stream.handle()), AOTI_OK) << status_.message;
  Swap(model, LoadOther(model));
  // The run has not finished.
  EXPECT_EQ(DeviceBytes(), once + 512);
  Synchronize(stream.handle());
  EXPECT_TRUE(a.Correct());
  const WeightsHandle third = LoadOther(model);
  EXPECT_EQ(DeviceBytes(), once + 512);
  // Idle by now: no run has to come for the weights to go.
  Swap(model, third);
  EXPECT_EQ(DeviceBytes(), once);
}

TEST_P(WeightsModeTest, ACaptureKeepsTheWeightsOfItsTime) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  SessionHandle session = Create(model.get(), GetParam());
  const Stream stream;
  const Arguments captured;
  const uint64_t once = DeviceBytes();
  GetSimulator().set_capturing(stream.handle(), 1);
  ASSERT_EQ(Run(session.get(), captured, stream.handle()), AOTI_OK) << status_.message;
  GetSimulator().set_capturing(stream.handle(), 0);
  WeightsHandle previous;
  Swap(model, LoadOther(model), &previous);
  previous.reset();
  Synchronize(stream.handle());
  EXPECT_TRUE(captured.Correct());
  // The caller may launch his graph again, for as long as the session is there.
  EXPECT_EQ(DeviceBytes(), once + 512);
  session.reset();
  EXPECT_EQ(DeviceBytes(), once - 512);  // without the session's memory
}

// Threads run while another one swaps: every result is of the one or of the other weights, and of
// those that the model had when the run was issued at the earliest.
TEST_P(WeightsModeTest, NoRunSeesSomeOfBoth) {
  const ModelHandle model = LoadToy();
  std::atomic<bool> stop{false};
  std::atomic<int> first{0};
  std::atomic<int> other{0};
  std::atomic<int> neither{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&, i] {
      const CurrentContext current;
      AotiSessionOptions options = {sizeof options, GetParam(), 0};
      AotiSession* created = nullptr;
      AotiStatus status;
      aoti_session_create(model.get(), &options, &created, &status);
      const SessionHandle session(created);
      const Stream stream;
      for (int run = 0; !stop || run < 20; ++run) {
        const Arguments a(static_cast<float>(1000 * i + run));
        aoti_session_run(created, a.inputs, 2, a.outputs, 3, stream.handle(), &status);
        Synchronize(stream.handle());
        const bool good = status.code == AOTI_OK;
        (good && a.Correct()                          ? first
         : good && a.Correct(kOtherScale, kOtherBias) ? other
                                                      : neither) += 1;
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    // Loaded beside the runs, each time anew, and the ones before freed.
    const WeightsHandle next =
        i % 2 == 0 ? LoadOther(model) : LoadFile(model, ToyWeights(kScale, kBias));
    WeightsHandle previous;
    Swap(model, next, i % 3 == 0 ? nullptr : &previous);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(neither, 0);
  EXPECT_GT(first + other, 0);
  EXPECT_EQ(DeviceBytes(), 512u);
}

TEST_F(WeightsTest, AreTheSameAsThoseOfAFreshLoad) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  weights_ = ToyWeights(kOtherScale, kOtherBias);
  const ModelHandle fresh = LoadToy();
  Swap(model, LoadFile(model, weights_));
  const Arguments a;
  const Arguments b;
  const SessionHandle session = Create(model.get());
  const SessionHandle fresh_session = Create(fresh.get());
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  ASSERT_EQ(Run(fresh_session.get(), b), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(a.Correct(kOtherScale, kOtherBias));
  EXPECT_EQ(a.result.values(), b.result.values());
}

TEST_F(WeightsTest, AFailureLeavesTheModelAsItWas) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get());
  const uint64_t once = DeviceBytes();
  AotiWeightsOptions options = WeightsOptions();
  const std::string wrong = ToyWeights({1, 2}, kOtherBias);
  options.data = wrong.data();
  options.size = wrong.size();
  EXPECT_EQ(LoadWeights(model, options), nullptr);
  EXPECT_STREQ(status_.message, "weights in memory: tensor scale: expected F32[4], got F32[2]");
  const std::string right = ToyWeights(kOtherScale, kOtherBias);
  options.data = right.data();
  options.size = right.size();
  GetSimulator().fail("cuMemAlloc", 2, 2);
  EXPECT_EQ(LoadWeights(model, options), nullptr);
  EXPECT_EQ(status_.code, AOTI_OUT_OF_MEMORY);
  EXPECT_STREQ(status_.message,
               "allocating 256 bytes of device memory for constants: cuMemAlloc failed: "
               "CUDA_ERROR_OUT_OF_MEMORY (out of memory)");
  GetSimulator().fail(nullptr, 0, 0);
  EXPECT_EQ(DeviceBytes(), once);
  const Arguments a;
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(a.Correct());
}

// What folding does not read may be replaced without folding anything.
TEST_F(WeightsTest, OfWhichSomeAreReplacedShareTheRest) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get());
  WeightsHandle before = Current(model);
  float host[] = {50, 60, 70, 80};
  int64_t shape[] = {4};
  DLTensor bias = {host, {kDLCPU, 0}, 1, {kDLFloat, 32, 1}, shape, nullptr, 0};
  AotiNamedTensor tensor = {"bias", &bias, 0};
  const AotiWeights* from[] = {before.get()};
  AotiWeightsOptions options = WeightsOptions();
  options.tensors = &tensor;
  options.num_tensors = 1;
  options.from = from;
  options.num_from = 1;
  const uint64_t launches = GetSimulator().calls("cuLaunchKernel");
  WeightsHandle weights = LoadWeights(model, options);
  ASSERT_NE(weights, nullptr) << status_.message;
  EXPECT_EQ(GetSimulator().calls("cuLaunchKernel"), launches);
  EXPECT_EQ(Info(weights).own_memory, 256u);
  EXPECT_EQ(Info(weights).shared_memory, 256u);  // the constants
  Swap(model, weights);
  before.reset();
  const Arguments a;
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(a.Correct(kScale, kOtherBias));

  // And what it does read, with folding.
  DLTensor scale = bias;
  const Floats other = kOtherScale;
  scale.data = const_cast<float*>(other.data());
  tensor = {"scale", &scale, 0};
  from[0] = weights.get();
  weights = LoadWeights(model, options);
  ASSERT_NE(weights, nullptr) << status_.message;
  EXPECT_EQ(GetSimulator().calls("cuLaunchKernel"), launches + 1);
  EXPECT_EQ(Info(weights).own_memory, 256u);
  EXPECT_EQ(Info(weights).shared_memory, 256u);  // the bias
  Swap(model, weights);
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(a.Correct(kOtherScale, kOtherBias));
}

TEST_F(WeightsTest, OfTheCallerAreReadInPlace) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get());
  FloatTensor scale({4});
  FloatTensor bias({4});
  const uint64_t loaded = DeviceBytes();
  std::memcpy(scale.data(), kOtherScale.data(), 16);
  std::memcpy(bias.data(), kOtherBias.data(), 16);
  const AotiNamedTensor tensors[] = {{"bias", &bias.tensor(), AOTI_WEIGHT_IN_PLACE},
                                     {"scale", &scale.tensor(), AOTI_WEIGHT_IN_PLACE}};
  AotiWeightsOptions options = WeightsOptions();
  options.tensors = tensors;
  options.num_tensors = 2;
  WeightsHandle weights = LoadWeights(model, options);
  ASSERT_NE(weights, nullptr) << status_.message;
  // Only the constant is the library's.
  EXPECT_EQ(DeviceBytes(), loaded + 256);
  EXPECT_EQ(Info(weights).own_memory, 256u);
  EXPECT_EQ(Info(weights).shared_memory, 0u);
  EXPECT_EQ(Info(weights).callers_memory, 16u);
  WeightsHandle previous;
  Swap(model, weights, &previous);
  const Arguments a;
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(a.Correct(kOtherScale, kOtherBias));
  // Not something a caller may do; it shows whose memory is read.
  std::memcpy(bias.data(), kBias.data(), 16);
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(a.Correct(kOtherScale, kBias));
}

// Their values are those that the stream's earlier work leaves.
TEST_F(WeightsTest, OnTheDeviceAreReadInTheOrderOfTheStream) {
  const CurrentContext current;
  for (const uint64_t flags : {uint64_t{0}, uint64_t{AOTI_WEIGHT_IN_PLACE}}) {
    const ModelHandle model = LoadToy();
    const SessionHandle session = Create(model.get());
    FloatTensor scale({4});
    FloatTensor bias({4});
    const Stream stream;
    const Floats host = kOtherScale;
    ASSERT_EQ(GetDriver().MemcpyHtoDAsync(reinterpret_cast<uint64_t>(scale.data()), host.data(), 16,
                                          stream.handle()),
              0);
    std::memcpy(bias.data(), kOtherBias.data(), 16);
    const AotiNamedTensor tensors[] = {{"bias", &bias.tensor(), flags},
                                       {"scale", &scale.tensor(), flags}};
    AotiWeightsOptions options = WeightsOptions();
    options.tensors = tensors;
    options.num_tensors = 2;
    options.stream = stream.handle();
    const WeightsHandle weights = LoadWeights(model, options);
    ASSERT_NE(weights, nullptr) << status_.message;
    Swap(model, weights);
    const Arguments a;
    ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
    Synchronize();
    EXPECT_TRUE(a.Correct(kOtherScale, kOtherBias));
    GetSimulator().set_capturing(stream.handle(), 1);
    EXPECT_EQ(LoadWeights(model, options), nullptr);
    EXPECT_STREQ(status_.message,
                 "the stream that weights are ordered after is being captured: load them outside "
                 "of the capture");
    GetSimulator().set_capturing(stream.handle(), 0);
  }
}

// Two models in one program, as a prefill and a decode step are.
TEST_F(WeightsTest, OfSeveralModelsAreInMemoryOnce) {
  const CurrentContext current;
  const AotiDescription second_description = ToyModel();
  TargetDescription target = second_description.model.targets[3];
  AotiDescription description = second_description;
  description.model.targets = {&target, 1};
  ModelHandle first = LoadToy();
  WeightsHandle shared = Current(first);
  const uint64_t one = DeviceBytes();

  const AotiWeights* from[] = {shared.get()};
  AotiWeightsOptions weights = WeightsOptions();
  weights.from = from;
  weights.num_from = 1;
  AotiModelOptions options = {};
  options.struct_size = sizeof options;
  options.weights = &weights;
  EXPECT_EQ(Load(description, options), nullptr);
  EXPECT_EQ(status_.code, AOTI_NOT_FOUND);
  EXPECT_STREQ(status_.message,
               "weight scale (F32[4]): only constants are made of it, and the weights to share "
               "with no longer have it: give it as a tensor or in a file, or load those with "
               "AOTI_WEIGHTS_KEEP_ALL");
  // The rest from the file.
  weights.data = weights_.data();
  weights.size = weights_.size();
  const ModelHandle second = Load(description, options);
  ASSERT_NE(second, nullptr) << status_.message;
  EXPECT_EQ(DeviceBytes(), one + 256);
  EXPECT_EQ(Info(Current(second)).own_memory, 256u);  // its constants
  EXPECT_EQ(Info(Current(second)).shared_memory, 256u);

  // Whoever goes first.
  shared.reset();
  first.reset();
  EXPECT_EQ(DeviceBytes(), 2 * 256u);
  const SessionHandle session = Create(second.get());
  const Arguments a;
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(a.Correct());

  // Of the same program: the constants as well.
  const WeightsHandle whole = Current(second);
  from[0] = whole.get();
  weights.data = nullptr;
  const ModelHandle third = Load(description, options);
  ASSERT_NE(third, nullptr) << status_.message;
  EXPECT_EQ(Info(Current(third)).own_memory, 0u);
  EXPECT_EQ(Info(Current(third)).shared_memory, 512u);
}

TEST_F(WeightsTest, CanBeKeptForOthersToShare) {
  const CurrentContext current;
  AotiDescription description = ToyModel();
  TargetDescription target = description.model.targets[3];
  description.model.targets = {&target, 1};
  AotiWeightsOptions weights = WeightsOptions();
  weights.flags = AOTI_WEIGHTS_KEEP_ALL;
  weights.data = weights_.data();
  weights.size = weights_.size();
  AotiModelOptions options = {};
  options.struct_size = sizeof options;
  options.weights = &weights;
  const ModelHandle first = Load(ToyModel(), options);
  ASSERT_NE(first, nullptr) << status_.message;
  const WeightsHandle shared = Current(first);
  EXPECT_EQ(Info(shared).own_memory, 3 * 256u);
  const AotiWeights* from[] = {shared.get()};
  weights = WeightsOptions();
  weights.from = from;
  weights.num_from = 1;
  const ModelHandle second = Load(description, options);
  ASSERT_NE(second, nullptr) << status_.message;
  EXPECT_EQ(Info(Current(second)).own_memory, 256u);
  const SessionHandle session = Create(second.get());
  const Arguments a;
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(a.Correct());
}

TEST_F(WeightsTest, MayComeLater) {
  const CurrentContext current;
  AotiModelOptions options = {};
  options.struct_size = sizeof options;
  options.flags = AOTI_MODEL_DEFER_WEIGHTS;
  const ModelHandle model = Load(ToyModel(), options);
  ASSERT_NE(model, nullptr) << status_.message;
  EXPECT_EQ(DeviceBytes(), 0u);
  EXPECT_EQ(Current(model), nullptr);
  const SessionHandle session = Create(model.get());
  const Arguments a;
  EXPECT_EQ(Run(session.get(), a), AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message,
               "model toy has no weights yet: load some and give them to aoti_model_swap_weights");
  WeightsHandle previous;
  Swap(model, LoadOther(model), &previous);
  EXPECT_EQ(previous, nullptr);
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(a.Correct(kOtherScale, kOtherBias));
}

TEST_F(WeightsTest, OutliveTheirModel) {
  ModelHandle model = LoadToy();
  const WeightsHandle weights = Current(model);
  model.reset();
  EXPECT_EQ(DeviceBytes(), 512u);
}

TEST_F(WeightsTest, AreDescribed) {
  AotiDescriptionInfo description = {};
  ASSERT_EQ(aoti_description_info(&ToyModel(), &description, &status_), AOTI_OK);
  EXPECT_EQ(description.num_weights, 2u);
  AotiWeightInfo weight = {};
  ASSERT_EQ(aoti_description_weight(&ToyModel(), 1, &weight, &status_), AOTI_OK);
  EXPECT_STREQ(weight.name, "scale");
  EXPECT_EQ(weight.dtype.bits, 32);
  EXPECT_EQ(weight.ndim, 1);
  EXPECT_EQ(weight.shape[0], 4);
  EXPECT_EQ(weight.nbytes, 16u);
  EXPECT_EQ(aoti_description_weight(&ToyModel(), 2, &weight, &status_), AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message, "there is no weight 2: the model has 2");
}

TEST_F(WeightsTest, RefusesUnusableArguments) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  FloatTensor bias({4});
  float host[8] = {};
  AotiWeightsOptions options = WeightsOptions();
  AotiNamedTensor tensors[2] = {{"bias", &bias.tensor(), 0}, {"bias", &bias.tensor(), 0}};
  const auto expect = [&](const char* message) {
    EXPECT_EQ(LoadWeights(model, options), nullptr);
    EXPECT_STREQ(status_.message, message);
    options = WeightsOptions();
    options.tensors = tensors;
    options.num_tensors = 1;
    tensors[0] = {"bias", &bias.tensor(), 0};
  };
  options.struct_size = 8;
  expect("AotiWeightsOptions.struct_size is 8, expected sizeof(AotiWeightsOptions), 80");
  options.flags = 2;
  expect("AotiWeightsOptions.flags has an unknown bit set");
  options.path = "a";
  options.data = host;
  expect("both path and data are given; give one of them");
  options.tensors = nullptr;
  expect("tensors is a null pointer");
  options.from = nullptr;
  options.num_from = 1;
  expect("from is a null pointer");
  const AotiWeights* none = nullptr;
  options.from = &none;
  options.num_from = 1;
  expect("from[0] is a null pointer");
  expect(
      "weight scale (F32[4]) is neither among the tensors nor in the weights to share with, "
      "and no file is named");
  options.num_tensors = 0;
  expect("model toy needs 2 weights: name a safetensors file, or give them as tensors");
  tensors[0].name = nullptr;
  expect("tensor 0 has no name");
  tensors[0].name = "biass";
  expect("weight biass: model toy has no such weight");
  options.num_tensors = 2;
  expect("weight bias: is given twice");
  tensors[0].tensor = nullptr;
  expect("weight bias: its tensor is a null pointer");
  tensors[0].flags = 2;
  expect("weight bias: AotiNamedTensor.flags has an unknown bit set");

  DLTensor tensor = bias.tensor();
  const auto expect_of_tensor = [&](const char* message) {
    tensors[0].tensor = &tensor;
    expect(message);
    tensor = bias.tensor();
  };
  tensor.dtype.bits = 16;
  expect_of_tensor("weight bias: expected dtype float32, got float16");
  int64_t shape[] = {3};
  tensor.shape = shape;
  expect_of_tensor(
      "weight bias: dimension 0: expected size 4, got 3 (expected shape [4], got [3])");
  int64_t strides[] = {2};
  tensor.strides = strides;
  expect_of_tensor(
      "weight bias: dimension 0: expected stride 1, got 2 (expected strides [1], got [2])");
  tensor.device.device_id = 1;
  expect_of_tensor("weight bias: expected memory of CUDA device 0, got that of device 1");
  tensor.data = nullptr;
  expect_of_tensor("weight bias: its data is a null pointer");
  tensors[0].flags = AOTI_WEIGHT_IN_PLACE;
  tensor.byte_offset = 4;
  expect_of_tensor(
      "weight bias: expected memory that begins at a multiple of 16 bytes, got 4 bytes past one "
      "(byte_offset is 4)");
  tensors[0].flags = AOTI_WEIGHT_IN_PLACE;
  tensor.data = host;
  tensor.device = {kDLCPU, 0};
  expect_of_tensor(
      "weight bias: it is to be read in place, and is in host memory: let it be copied");

  const ModelHandle another = LoadToy();
  const WeightsHandle theirs = LoadOther(another);
  EXPECT_EQ(aoti_model_swap_weights(model.get(), theirs.get(), nullptr, &status_),
            AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message,
               "the weights were loaded for another model than this toy: load them for this one, "
               "with those in `from` to share their memory");
  AotiModelOptions both = Options();
  both.weights = &options;
  EXPECT_EQ(Load(ToyModel(), both), nullptr);
  EXPECT_STREQ(status_.message,
               "both AotiModelOptions.weights and weights_path or weights_data are given; give "
               "one of them");
  both = Options();
  both.flags = AOTI_MODEL_DEFER_WEIGHTS;
  EXPECT_EQ(Load(ToyModel(), both), nullptr);
  EXPECT_STREQ(status_.message,
               "weights are given, and AOTI_MODEL_DEFER_WEIGHTS says to load none");
  EXPECT_EQ(aoti_weights_load(nullptr, &options, nullptr, nullptr), AOTI_INVALID_ARGUMENT);
  EXPECT_EQ(aoti_model_swap_weights(model.get(), nullptr, nullptr, nullptr), AOTI_INVALID_ARGUMENT);
  EXPECT_EQ(aoti_model_weights(model.get(), nullptr, nullptr), AOTI_INVALID_ARGUMENT);
  EXPECT_EQ(aoti_weights_info(nullptr, nullptr, nullptr), AOTI_INVALID_ARGUMENT);
  aoti_weights_destroy(nullptr);
}

TEST_F(WeightsTest, AreNotSharedAcrossContexts) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const WeightsHandle weights = Current(model);
  CUctx_st* mine = nullptr;
  ASSERT_EQ(GetSimulator().create_context(&mine, 0, 0), 0);
  const AotiWeights* from[] = {weights.get()};
  AotiWeightsOptions share = WeightsOptions();
  share.from = from;
  share.num_from = 1;
  AotiModelOptions options = {};
  options.struct_size = sizeof options;
  options.context = mine;
  options.weights = &share;
  EXPECT_EQ(Load(ToyModel(), options), nullptr);
  EXPECT_STREQ(status_.message,
               "the weights to share with are in another context, of device 0: weights are shared "
               "within one context");
  ASSERT_EQ(GetSimulator().destroy_context(mine), 0);
}

// An update that fails half-way leaves nodes with addresses of either weights; swapping back must
// not take them for right.
TEST_F(WeightsTest, RecoverFromAFailedUpdate) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get());
  const Arguments a;
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  const WeightsHandle first = Current(model);
  Swap(model, LoadOther(model));
  GetSimulator().fail("cuGraphExecKernelNodeSetParams", 2, 999);
  EXPECT_EQ(Run(session.get(), a), AOTI_DRIVER);
  GetSimulator().fail(nullptr, 0, 0);
  Swap(model, first);
  ASSERT_EQ(Run(session.get(), a), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(a.Correct());
}

// Lets each driver call fail in turn: there is an error and a message, the model runs on with the
// weights it has, and nothing lives on.
TEST_P(WeightsModeTest, ReleasesEverythingWhicheverCallFails) {
  const SimulatorLive nothing = before_;
  {
    const CurrentContext current;
    const Arguments a(1);
    const Arguments b(7);
    FloatTensor bias({4});
    const AotiNamedTensor tensor = {"bias", &bias.tensor(), 0};
    const Stream stream;
    before_ = GetSimulator().live();
    const auto live_once = [&]() -> bool {
      const ModelHandle model = Load(ToyModel(), Options());
      if (model == nullptr) return false;
      AotiSession* created = nullptr;
      const AotiSessionOptions flags = {sizeof flags, GetParam(), 0};
      if (aoti_session_create(model.get(), &flags, &created, &status_) != AOTI_OK) return false;
      const SessionHandle session(created);
      bool good = Run(created, a, stream.handle()) == AOTI_OK;
      AotiWeightsOptions options = WeightsOptions();
      options.data = weights_.data();
      options.size = weights_.size();
      options.tensors = &tensor;
      options.num_tensors = 1;
      options.stream = stream.handle();
      const WeightsHandle weights = LoadWeights(model, options);
      WeightsHandle previous;
      good = weights != nullptr && SwapWeights(model, weights, &previous).ok() && good;
      good = Run(created, b, stream.handle()) == AOTI_OK && good;
      previous.reset();
      good = Run(created, a, stream.handle()) == AOTI_OK && good;
      return good;
    };
    for (uint64_t nth = 1;; ++nth) {
      ASSERT_LT(nth, 1000u);
      GetSimulator().reset();
      GetSimulator().set_executor(testing::RunToyKernel, nullptr);
      GetSimulator().fail(nullptr, nth, 2);
      const bool good = live_once();
      const char* function = GetSimulator().failed();
      const std::string failed = function == nullptr ? "" : function;
      GetSimulator().fail(nullptr, 0, 0);
      Synchronize(stream.handle());
      EXPECT_STREQ(GetSimulator().misuse(), "") << "call " << nth << ", " << failed;
      // What cannot be entered cannot be cleaned up; a context fails so only when it is gone.
      if (failed == "cuCtxPushCurrent") before_ = GetSimulator().live();
      ExpectNothingNewLives();
      if (failed.empty()) {
        EXPECT_TRUE(good);
        break;
      }
      if (good) MayFailSilently(failed);
    }
  }
  // Now the context and what was left in it are gone.
  GetSimulator().reset();
  before_ = nothing;
}

}  // namespace
}  // namespace aoti
