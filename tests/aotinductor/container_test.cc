// AOTInductor's interface on CUDA tensors: the toy model, the simulated device, a fake libtorch.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/aotinductor/interface.h"
#include "runtime/aotinductor/model_info.h"
#include "tests/aotinductor/fake_torch.h"
#include "tests/runtime/runtime_fixture.h"

// What a shared library of the model has.

const AotiDescription* aoti_model_description(void) { return &aoti::testing::ToyModel(); }

namespace aoti::aotinductor {
namespace {

constexpr WeightInfo kWeights[] = {{"bias", Role::kBuffer}, {"scale", Role::kParameter}};
constexpr int32_t kResults[] = {0, kNone, 1, 2};

}  // namespace

const ModelInfo kModelInfo = {"in", "out", {kWeights, 2}, {kResults, 4}};

namespace {

using testing::CurrentContext;
using testing::DeleteTensor;
using testing::Fake;
using testing::kBias;
using testing::kScale;
using testing::MakeTensor;
using testing::RuntimeTest;
using testing::Stream;
using testing::ToyWeights;
using Floats = std::vector<float>;
using ConstantMap = std::unordered_map<std::string, AtenTensorHandle>;

AOTInductorConstantMapHandle Handle(ConstantMap& map) {
  return reinterpret_cast<AOTInductorConstantMapHandle>(&map);
}

const Floats kX = {1, 2, 3, 4, 5, 6, 7, 8};

Floats Result(const Floats& scale = kScale, const Floats& bias = kBias) {
  Floats result;
  for (size_t i = 0; i < kX.size(); ++i) result.push_back(kX[i] * 2 * scale[i % 4] + bias[i % 4]);
  return result;
}

// What the caller of a function that throws gets.
template <typename Call>
std::string Thrown(Call call) {
  try {
    EXPECT_EQ(call(), 0);
  } catch (const std::runtime_error& error) {
    const char* last = nullptr;
    EXPECT_EQ(AOTInductorGetLastError(&last), 0);
    EXPECT_STREQ(last, error.what());
    return error.what();
  }
  return "";
}

class ContainerTest : public RuntimeTest {
 protected:
  void SetUp() override {
    setenv("SIMULATOR_DEVICES", "2", 1);
    RuntimeTest::SetUp();
    // As PyTorch holds them.
    second_ = std::make_unique<CurrentContext>(1);
    first_ = std::make_unique<CurrentContext>(0);
    Fake() = {TorchVersion(2, 13), 0, nullptr, 0, 0, {}};
    char made[] = "/tmp/container_test.XXXXXX";
    ASSERT_NE(mkdtemp(made), nullptr);
    directory_ = made;
    std::ofstream(directory_ + "/toy.safetensors", std::ios::binary) << weights_;
  }

  void TearDown() override {
    EXPECT_EQ(AOTInductorModelContainerDelete(container_), 0);
    testing::EmptyCache();
    first_.reset();
    second_.reset();
    EXPECT_EQ(Fake().tensors, 0);
    EXPECT_EQ(Fake().guards, 0);
    std::remove((directory_ + "/toy.safetensors").c_str());
    rmdir(directory_.c_str());
    RuntimeTest::TearDown();
  }

  std::string Create(const char* device, size_t sessions = 1) {
    return Thrown([&] {
      return AOTInductorModelContainerCreateWithDevice(&container_, sessions, device,
                                                       directory_.c_str());
    });
  }

  // Runs with x as given and y, of which nothing is read; the outputs are the test's.
  int32_t Run(AtenTensorHandle x, void* stream = nullptr) {
    AtenTensorHandle inputs[] = {x, MakeTensor({2, 4}, {1, 2}, kX)};
    return AOTInductorModelContainerRun(container_, inputs, 2, outputs_, 4,
                                        static_cast<AOTInductorStreamHandle>(stream), nullptr);
  }

  static AtenTensorHandle X() { return MakeTensor({2, 4}, {4, 1}, kX); }

  // The first output, once the stream has finished; all are deleted.
  Floats Take(void* stream = nullptr) {
    Synchronize(static_cast<cuda::Stream>(stream));
    const Floats values(outputs_[0]->data(), outputs_[0]->data() + kX.size());
    EXPECT_EQ(outputs_[1], nullptr);
    for (AtenTensorHandle& output : outputs_) {
      if (output != nullptr) DeleteTensor(output);
      output = nullptr;
    }
    return values;
  }

  std::unique_ptr<CurrentContext> second_;
  std::unique_ptr<CurrentContext> first_;
  std::string directory_;
  AOTInductorModelContainerHandle container_ = nullptr;
  AtenTensorHandle outputs_[4] = {};
};

// First: libtorch is looked at once.
TEST_F(ContainerTest, AnOldPyTorchIsRefused) {
  Fake().version = TorchVersion(2, 10);
  AOTInductorModelContainerHandle none = nullptr;
  EXPECT_EQ(AOTInductorModelContainerCreateWithDevice(&none, 1, "cuda", "."), 1);
  const char* message = nullptr;
  ASSERT_EQ(AOTInductorGetLastError(&message), 0);
  EXPECT_STREQ(message,
               "AOTInductor's interface works with PyTorch 2.11 or newer, and this process "
               "has 2.10");
}

TEST_F(ContainerTest, RunsOnTheCallersStream) {
  ASSERT_EQ(Create("cuda:0"), "");
  const Stream stream;
  ASSERT_EQ(Run(X(), stream.handle()), 0);
  EXPECT_EQ(outputs_[0]->sizes, (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(outputs_[0]->stream, stream.handle());
  EXPECT_EQ(Take(stream.handle()), Result());
}

TEST_F(ContainerTest, TakesTheCurrentDevice) {
  Fake().current_device = 1;
  const CurrentContext current(1);
  ASSERT_EQ(Create("cuda"), "");
  ASSERT_EQ(Run(X()), 0);
  EXPECT_EQ(outputs_[2]->index, 1);
  EXPECT_EQ(Take(), Result());
}

TEST_F(ContainerTest, CopiesAnInputThatKernelsCannotRead) {
  ASSERT_EQ(Create("cuda"), "");
  ASSERT_EQ(Run(MakeTensor({2, 4}, {4, 1}, kX, 4)), 0);
  EXPECT_EQ(Take(), Result());
}

TEST_F(ContainerTest, SaysWhatIsWrongWithAnInput) {
  ASSERT_EQ(Create("cuda"), "");
  const char* message = nullptr;
  // PyTorch 2.13 asks for the message.
  EXPECT_EQ(Run(MakeTensor({2, 3}, {3, 1}, kX)), 1);
  ASSERT_EQ(AOTInductorGetLastError(&message), 0);
  EXPECT_EQ(std::string(message).find("input 0 (x): dimension 1: expected size 4, got 3"), 0u);
  // Versions before do not.
  Fake().version = TorchVersion(2, 12);
  AtenTensorHandle on_host = X();
  on_host->device = 0;
  on_host->host = kX;
  EXPECT_EQ(Thrown([&] { return Run(on_host); }),
            "input 0 (x): expected a tensor on cuda:0, got one on the CPU");
  AtenTensorHandle elsewhere = X();
  elsewhere->device = 13;
  EXPECT_EQ(Thrown([&] { return Run(elsewhere); }),
            "input 0 (x): expected a tensor on the CPU or on CUDA, got one on PyTorch's device "
            "type 13");
  for (AtenTensorHandle output : outputs_) EXPECT_EQ(output, nullptr);
}

TEST_F(ContainerTest, SaysWhatIsWrongWithADevice) {
  for (const char* bad : {"cuda:", "cuda:x", "cuda1", "xpu", "cuda:0:1", "cuda:-1"}) {
    EXPECT_EQ(Create(bad), std::string("device ") + bad + ": expected cuda, cuda:N, or cpu");
  }
  EXPECT_EQ(Create("cuda:7"), "device 7 does not exist: the devices are 0 to 1");
  EXPECT_EQ(Create("cuda", 0), "num_models is 0: a container runs one model or more");
  EXPECT_EQ(container_, nullptr);
}

TEST_F(ContainerTest, TellsOfTheModel) {
  ASSERT_EQ(Create("cuda"), "");
  size_t count = 0;
  ASSERT_EQ(AOTInductorModelContainerGetNumInputs(container_, &count), 0);
  EXPECT_EQ(count, 2u);
  ASSERT_EQ(AOTInductorModelContainerGetNumOutputs(container_, &count), 0);
  EXPECT_EQ(count, 4u);
  const char* name = nullptr;
  ASSERT_EQ(AOTInductorModelContainerGetInputName(container_, 1, &name), 0);
  EXPECT_STREQ(name, "y");
  ASSERT_EQ(AOTInductorModelContainerGetOutputName(container_, 2, &name), 0);
  EXPECT_STREQ(name, "copy");
  EXPECT_EQ(Thrown([&] { return AOTInductorModelContainerGetInputName(container_, 2, &name); }),
            "there is no input 2: the model has 2");
  ASSERT_EQ(AOTInductorModelContainerGetNumConstants(container_, &count), 0);
  EXPECT_EQ(count, 2u);
  int32_t number = 0;
  ASSERT_EQ(AOTInductorModelContainerGetConstantOriginalFQN(container_, 0, &name), 0);
  EXPECT_STREQ(name, "bias");
  ASSERT_EQ(AOTInductorModelContainerGetConstantType(container_, 0, &number), 0);
  EXPECT_EQ(number, 2);
  ASSERT_EQ(AOTInductorModelContainerGetConstantDtype(container_, 1, &number), 0);
  EXPECT_EQ(number, 6);
  ASSERT_EQ(AOTInductorModelContainerGetConstantDataSize(container_, 1, &count), 0);
  EXPECT_EQ(count, 16u);
  bool folded = true;
  ASSERT_EQ(AOTInductorModelContainerGetConstantFromFolded(container_, 1, &folded), 0);
  EXPECT_FALSE(folded);
}

TEST_F(ContainerTest, ReadsWeightsWhereTheyLie) {
  ASSERT_EQ(Create("cuda"), "");
  AtenTensorHandle first = MakeTensor({4}, {1}, {5, 6, 7, 8});
  ConstantMap map = {{"bias", first}};
  ASSERT_EQ(AOTInductorModelContainerUpdateUserManagedConstantBuffer(container_, Handle(map), false,
                                                                     false),
            0);
  ASSERT_EQ(Run(X()), 0);
  EXPECT_EQ(Take(), Result(kScale, {5, 6, 7, 8}));
  first->data()[0] = 50;  // seen by the next run: nothing was copied
  ASSERT_EQ(Run(X()), 0);
  EXPECT_EQ(Take(), Result(kScale, {50, 6, 7, 8}));
  // Of others, copies are made; the one in place may go then.
  AtenTensorHandle second = MakeTensor({4}, {1}, {1, 1, 1, 1});
  AtenTensorHandle scale = MakeTensor({4}, {1}, {3, 3, 3, 3});
  map = {{"bias", second}, {"scale", scale}};
  ASSERT_EQ(AOTInductorModelContainerUpdateConstantBuffer(container_, Handle(map), false, true), 0);
  for (AtenTensorHandle tensor : {first, second, scale}) DeleteTensor(tensor);
  ASSERT_EQ(Run(X()), 0);
  EXPECT_EQ(Take(), Result({3, 3, 3, 3}, {1, 1, 1, 1}));
}

}  // namespace
}  // namespace aoti::aotinductor
