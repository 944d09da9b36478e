// A model with branches and a loop: the C++ that the generator makes of tests/codegen/samples.py,
// control(), run on the simulated driver.
//
//   input    x [4]; weight w [4]
//   outputs  y: 3 * x if sum(x) > 0, else -2 * x; then three times y = 2 * y, the first time with w
//            added; i: 3

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model.h"
#include "runtime/aoti.h"
#include "runtime/cpp.h"
#include "runtime/description.h"
#include "tests/runtime/simulator_fixture.h"

// The images that the generated tables name. Each is text, as the simulator reads it.
#define CONTROL_IMAGE(name, facts)                                                  \
  asm(".pushsection .rodata\n"                                                      \
      ".global aoti_control_sm_90_" name                                            \
      "\n"                                                                          \
      ".global aoti_control_sm_90_" name                                            \
      "_end\n"                                                                      \
      "aoti_control_sm_90_" name                                                    \
      ":\n"                                                                         \
      ".asciz \"simulator module\\nkernel " name " target=sm_90 threads=128 " facts \
      "\\n"                                                                         \
      "\"\n"                                                                        \
      "aoti_control_sm_90_" name                                                    \
      "_end:\n"                                                                     \
      ".popsection\n")
CONTROL_IMAGE("add__65f5e033fa52", "params=8,8,8,8");
CONTROL_IMAGE("count_6c35493a2b93", "params=8,8,8,8");
CONTROL_IMAGE("less_4fdd3b6201a2", "params=8,8,4,8,8");
CONTROL_IMAGE("positive_afa6e9ab3ac6", "params=8,8,8,8");
CONTROL_IMAGE("scale_f469802a3144", "params=8,8,4,8,8");
CONTROL_IMAGE("set_condition_32b4733e2731", "params=8,4,8,8,4,8,8 sets_condition=1");

namespace aoti {
namespace {

using control::Control;
using testing::CurrentContext;
using testing::FloatTensor;
using testing::GetDriver;
using testing::GetSimulator;
using Floats = std::vector<float>;

constexpr size_t kSize = 4;
constexpr float kWeight[kSize] = {10, 20, 30, 40};

template <typename T>
T Param(const SimulatorLaunch& launch, size_t index) {
  T value;
  std::memcpy(&value, launch.params[index], sizeof value);
  return value;
}

template <typename T>
T* Memory(const SimulatorLaunch& launch, size_t index, size_t count) {
  const auto address = Param<uint64_t>(launch, index);
  EXPECT_NE(GetSimulator().check_range(address, count * sizeof(T), launch.kernel), 0);
  return reinterpret_cast<T*>(address);
}

// The kernels that have run, by the beginnings of their names.
std::string& Trace() {
  static std::string trace;
  return trace;
}

int RunKernel(const SimulatorLaunch* launch, void*) {
  const std::string name = launch->kernel;
  const std::string stem = name.substr(0, name.rfind('_'));
  Trace() += stem.substr(0, 1);
  if (stem == "positive") {
    float sum = 0;
    for (size_t i = 0; i < kSize; ++i) sum += Memory<float>(*launch, 0, kSize)[i];
    *Memory<uint8_t>(*launch, 1, 1) = sum > 0;
  } else if (stem == "less") {
    *Memory<uint8_t>(*launch, 1, 1) = *Memory<int64_t>(*launch, 0, 1) < Param<int32_t>(*launch, 2);
  } else if (stem == "count") {
    *Memory<int64_t>(*launch, 1, 1) = *Memory<int64_t>(*launch, 0, 1) + 1;
  } else if (stem == "scale") {
    const float* x = Memory<float>(*launch, 0, kSize);
    float* out = Memory<float>(*launch, 1, kSize);
    for (size_t i = 0; i < kSize; ++i) out[i] = x[i] * Param<float>(*launch, 2);
  } else if (stem == "add_") {
    float* sum = Memory<float>(*launch, 0, kSize);
    for (size_t i = 0; i < kSize; ++i) sum[i] += Memory<float>(*launch, 1, kSize)[i];
  } else {
    ADD_FAILURE() << "kernel " << name;
  }
  return 0;
}

// p, s for the longer branch, and three times: l; s l, once a; c.
constexpr char kPositive[] =
    "ps"
    "lsla"
    "c"
    "lslc"
    "lslc"
    "l";
constexpr char kNegative[] =
    "pss"
    "lsla"
    "c"
    "lslc"
    "lslc"
    "l";

// An argument of each kind.
struct Arguments {
  explicit Arguments(const Floats& values) : x({kSize}), y({kSize}) {
    std::memcpy(x.data(), values.data(), sizeof(float) * kSize);
    EXPECT_EQ(GetDriver().MemAlloc(&address, sizeof(int64_t)), cuda::kSuccess);
    count.data = reinterpret_cast<void*>(address);
    count.device = {kDLCUDA, 0};
    count.dtype = control::outputs::I::kDtype;
  }
  ~Arguments() { EXPECT_EQ(GetDriver().MemFree(address), cuda::kSuccess); }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  Status Run(const Control::Session& session, cuda::Stream stream = nullptr) {
    const Control::Inputs inputs = {&x.tensor()};
    const Control::Outputs outputs = {&y.tensor(), &count};
    return session.Run(inputs, outputs, stream);
  }

  void ExpectCorrect(const float* weight = kWeight) const {
    const Floats given = x.values();
    float sum = 0;
    for (const float value : given) sum += value;
    Floats expected;
    for (size_t i = 0; i < kSize; ++i) {
      expected.push_back(8 * (sum > 0 ? 3 : -2) * given[i] + 4 * weight[i]);
    }
    EXPECT_EQ(y.values(), expected);
    EXPECT_EQ(*reinterpret_cast<int64_t*>(address), 3);
  }

  FloatTensor x;
  FloatTensor y;
  cuda::DevicePointer address = 0;
  DLTensor count = {};
};

class ControlTest : public testing::SimulatorTest {
 protected:
  ControlTest() : SimulatorTest(RunKernel) { Trace().clear(); }

  static std::string Weights(const float* weight) {
    std::string file = R"({"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})";
    file.resize((file.size() + 7) / 8 * 8, ' ');
    const auto size = static_cast<uint64_t>(file.size());
    file.insert(0, reinterpret_cast<const char*>(&size), sizeof size);
    file.append(reinterpret_cast<const char*>(weight), sizeof kWeight);
    return file;
  }

  static Status Load(Control* model) {
    const std::string file = Weights(kWeight);
    AotiModelOptions options = {};
    options.struct_size = sizeof options;
    options.weights_data = file.data();
    options.weights_size = file.size();
    return Control::Load(options, model);
  }

  static Status Create(const Control& model, Control::Session* session, uint64_t flags = 0) {
    const AotiSessionOptions options = {sizeof options, flags, 0};
    return model.CreateSession(&options, session);
  }

  static void Run(const Control::Session& session, Arguments* arguments) {
    const Status status = arguments->Run(session);
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(GetDriver().StreamSynchronize(nullptr), cuda::kSuccess);
    arguments->ExpectCorrect();
  }

  static uint64_t Calls(const char* function) { return GetSimulator().calls(function); }
};

// Both ways to run.
class ControlModeTest : public ControlTest, public ::testing::WithParamInterface<uint64_t> {};

INSTANTIATE_TEST_SUITE_P(Modes, ControlModeTest, ::testing::Values(0, AOTI_SESSION_NO_GRAPH),
                         [](const auto& info) { return info.param == 0 ? "Graph" : "Stream"; });

TEST_P(ControlModeTest, TakesTheBranchesTheDataSays) {
  const CurrentContext current;
  Control model;
  Control::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  Arguments positive({1, 2, 3, -4});
  Arguments negative({1, -2, 3, -4});
  Arguments third({0, 0, 0, 5});
  // Other data and other addresses, in one graph.
  for (Arguments* arguments : {&positive, &negative, &positive, &third, &negative}) {
    Trace().clear();
    Run(session, arguments);
    EXPECT_EQ(Trace(), arguments == &negative ? kNegative : kPositive);
  }
  positive.x.data()[0] = -10;  // the same addresses
  Run(session, &positive);
}

// Those of steps inside a branch, which no graph can be given anew, too.
TEST_P(ControlModeTest, SwapsWeights) {
  const CurrentContext current;
  Control model;
  Control::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  constexpr float kOther[kSize] = {100, 200, 300, 400};
  const std::string file = Weights(kOther);
  AotiWeightsOptions options = {};
  options.struct_size = sizeof options;
  options.data = file.data();
  options.size = file.size();
  WeightsHandle other;
  WeightsHandle first;
  ASSERT_TRUE(model.LoadWeights(options, &other).ok());
  Arguments before({1, 2, 3, -4});
  Arguments after({1, 2, 3, -4});
  ASSERT_TRUE(before.Run(session).ok());
  ASSERT_TRUE(model.SwapWeights(other, &first).ok());
  ASSERT_TRUE(after.Run(session).ok());
  first.reset();
  ASSERT_EQ(GetDriver().StreamSynchronize(nullptr), cuda::kSuccess);
  before.ExpectCorrect();
  after.ExpectCorrect(kOther);
}

TEST_F(ControlTest, OneGraphServesAllRuns) {
  const CurrentContext current;
  Control model;
  Control::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session).ok());
  Arguments positive({1, 2, 3, 4});
  Arguments negative({-1, -2, -3, -4});
  Run(session, &positive);
  const uint64_t nodes = Calls("cuGraphAddKernelNode");
  Run(session, &negative);
  Run(session, &positive);
  EXPECT_EQ(Calls("cuGraphInstantiateWithFlags"), 1u);
  EXPECT_EQ(Calls("cuGraphAddKernelNode"), nodes);
  // Two branches of the outer If, the loop, and the inner If.
  EXPECT_EQ(Calls("cuGraphAddNode"), 4u);
  EXPECT_EQ(Calls("cuGraphConditionalHandleCreate"), 4u);
  // The host never looks.
  EXPECT_EQ(Calls("cuMemcpyDtoHAsync"), 0u);
}

TEST_F(ControlTest, WithoutAGraphTheHostDecides) {
  const CurrentContext current;
  Control model;
  Control::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, AOTI_SESSION_NO_GRAPH).ok());
  Arguments arguments({1, 2, 3, 4});
  Run(session, &arguments);
  // The outer If, four times the loop's condition, three times the inner If.
  EXPECT_EQ(Calls("cuMemcpyDtoHAsync"), 8u);
  EXPECT_EQ(Calls("cuGraphCreate"), 0u);
}

TEST_F(ControlTest, EveryFailureIsReported) {
  const CurrentContext current;
  Control model;
  ASSERT_TRUE(Load(&model).ok());
  Arguments arguments({1, 2, 3, 4});
  for (const char* function : {"cuGraphConditionalHandleCreate", "cuGraphAddNode",
                               "cuGraphAddKernelNode", "cuGraphAddMemcpyNode"}) {
    for (uint64_t nth = 1;; ++nth) {
      Control::Session session;
      ASSERT_TRUE(Create(model, &session).ok());
      const uint64_t before = Calls(function);
      GetSimulator().fail(function, nth, 999);
      const Status status = arguments.Run(session);
      if (Calls(function) < before + nth) {
        EXPECT_TRUE(status.ok()) << status.message();
        EXPECT_GE(nth, 3u) << function;
        GetSimulator().fail(nullptr, 0, 0);
        break;
      }
      EXPECT_EQ(status.code(), Code::kDriver) << function << " " << nth;
      // What was built is thrown away, and the next run builds anew.
      Run(session, &arguments);
    }
  }
}

TEST_F(ControlTest, NamesTheDriverItNeeds) {
  // The driver is asked for once a process, so this looks at what the model says.
  const TargetDescription& target = control_description()->model.targets[0];
  EXPECT_EQ(target.driver, 12040);
}

TEST_F(ControlTest, ACaptureIsRefused) {
  const CurrentContext current;
  Control model;
  Control::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session).ok());
  Arguments arguments({1, 2, 3, 4});
  cuda::Stream stream = nullptr;
  ASSERT_EQ(GetDriver().StreamCreate(&stream, cuda::kStreamNonBlocking), cuda::kSuccess);
  GetSimulator().set_capturing(stream, 1);
  const Status status = arguments.Run(session, stream);
  GetSimulator().set_capturing(stream, 0);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("the stream is being captured"), std::string::npos);
  EXPECT_EQ(Calls("cuLaunchKernel"), 0u);  // before anything has become part of the caller's graph
  ASSERT_EQ(GetDriver().StreamDestroy(stream), cuda::kSuccess);
}

}  // namespace
}  // namespace aoti
