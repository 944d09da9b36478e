// How kernels are launched beyond their grid: the C++ that the generator makes of
// tests/codegen/samples.py, launches(), run on the simulated driver, by graph and by stream.

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model.h"
#include "runtime/aoti.h"
#include "runtime/cpp.h"
#include "runtime/description.h"
#include "runtime/launcher.h"
#include "tests/runtime/simulator.h"

// The images that the generated tables name. Each is text, as the simulator reads it.
#define LAUNCHES_IMAGE(name, fields)             \
  asm(".pushsection .rodata\n"                   \
      ".global aoti_launches_sm_90_" name        \
      "\n"                                       \
      ".global aoti_launches_sm_90_" name        \
      "_end\n"                                   \
      "aoti_launches_sm_90_" name                \
      ":\n"                                      \
      ".asciz \"simulator module\\nkernel " name \
      " target=sm_90 threads=128 "               \
      "registers=32 " fields                     \
      "\\n\"\n"                                  \
      "aoti_launches_sm_90_" name                \
      "_end:\n"                                  \
      ".popsection\n")
LAUNCHES_IMAGE("pairs_fb0956241032", "cluster=2 params=8,8,8,8");
LAUNCHES_IMAGE("shift_ecd3fad7a4d3", "params=8,8,8,8");
LAUNCHES_IMAGE("tiles_ad9243fa6fb2", "params=128,128,4,8,8");
LAUNCHES_IMAGE("total_11239872d178", "params=8,8,8,8,4,8,8");

namespace aoti {
namespace {

using testing::CurrentContext;
using testing::GetDriver;
using testing::GetSimulator;

enum KernelIndex : uint32_t { kPairs, kShift, kTiles, kTotal };

// Blocks of `total` that the simulated device runs at a time: 2048 threads and 64 Ki registers a
// multiprocessor allow 16 blocks of 128 threads, and there are 132.
constexpr uint32_t kResident = 16 * 132;

// A launch, with its parameters.
struct Launched {
  SimulatorLaunch launch;
  std::vector<std::vector<unsigned char>> params;

  uint64_t Word(size_t param, size_t word = 0) const {
    uint64_t value = 0;
    std::memcpy(&value, params[param].data() + 8 * word, sizeof value);
    return value;
  }
};

// float16 [128, 64], whatever is in it.
class Halves {
 public:
  Halves() {
    EXPECT_EQ(GetDriver().MemAlloc(&address_, kBytes), cuda::kSuccess);
    tensor_.data = reinterpret_cast<void*>(address_);
    tensor_.device = {kDLCUDA, 0};
    tensor_.ndim = 2;
    tensor_.dtype = {kDLFloat, 16, 1};
    tensor_.shape = shape_;
  }
  ~Halves() { GetDriver().MemFree(address_); }
  Halves(const Halves&) = delete;
  Halves& operator=(const Halves&) = delete;

  const DLTensor* tensor() const { return &tensor_; }
  uint64_t address() const { return address_; }

 private:
  static constexpr size_t kBytes = size_t{128} * 64 * 2;

  int64_t shape_[2] = {128, 64};
  cuda::DevicePointer address_ = 0;
  DLTensor tensor_ = {};
};

class LaunchesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    GetSimulator().reset();
    GetSimulator().set_executor(Execute, this);
    description_ = *launches_description();
    target_ = description_.model.targets[0];
    kernels_.assign(target_.kernels.begin(), target_.kernels.end());
    target_.kernels = {kernels_.data(), kernels_.size()};
    description_.model.targets = {&target_, 1};
  }

  static int Execute(const SimulatorLaunch* launch, void* user) {
    constexpr size_t kSizes[][7] = {{8, 8, 8, 8}, {128, 128, 4, 8, 8}, {8, 8, 8, 8, 4, 8, 8}};
    const size_t* sizes = kSizes[launch->num_params == 4 ? 0 : launch->num_params == 5 ? 1 : 2];
    Launched launched = {*launch, {}};
    for (size_t i = 0; i < launch->num_params; ++i) {
      const auto* value = static_cast<const unsigned char*>(launch->params[i]);
      launched.params.emplace_back(value, value + sizes[i]);
    }
    const std::string name = launch->kernel;
    auto* test = static_cast<LaunchesTest*>(user);
    test->launched_[name.substr(0, name.find('_'))] = launched;
    return 0;
  }

  Status Load() {
    AotiModelOptions options = {};
    options.struct_size = sizeof options;
    return aoti::Load(&description_, options, &model_);
  }

  // Loads and runs the description as it is.
  Status Run(uint64_t flags) {
    AOTI_RETURN_IF_ERROR(Load());
    AotiSessionOptions options = {};
    options.struct_size = sizeof options;
    options.flags = flags;
    AOTI_RETURN_IF_ERROR(aoti::CreateSession(model_, &options, &session_));
    return RunAgain();
  }

  Status RunAgain() {
    const DLTensor* inputs[] = {x_.tensor()};
    const DLTensor* outputs[] = {&total_.tensor(), y_->tensor()};
    AOTI_RETURN_IF_ERROR(aoti::Run(session_, inputs, 1, outputs, 2, nullptr));
    EXPECT_EQ(GetDriver().StreamSynchronize(nullptr), cuda::kSuccess);
    return Status();
  }

  AotiDescription description_ = {};
  TargetDescription target_ = {};
  std::vector<KernelDescription> kernels_;
  std::map<std::string, Launched> launched_;  // the last of each kernel
  CurrentContext current_;
  Halves x_;
  Halves first_;
  Halves second_;
  Halves* y_ = &first_;
  testing::FloatTensor total_{{}};
  ModelHandle model_;
  SessionHandle session_;
};

class WaysTest : public LaunchesTest, public ::testing::WithParamInterface<uint64_t> {};

INSTANTIATE_TEST_SUITE_P(GraphAndStream, WaysTest,
                         ::testing::Values(uint64_t{0}, uint64_t{AOTI_SESSION_NO_GRAPH}));

TEST_P(WaysTest, AttributesAreThoseOfTheKernel) {
  const Status status = Run(GetParam());
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(launched_.size(), 4U);
  for (const auto& [name, launched] : launched_) {
    EXPECT_EQ(launched.launch.cooperative, name == "total" ? 1U : 0U) << name;
    EXPECT_EQ(launched.launch.dependent, name == "shift" ? 1U : 0U) << name;
    EXPECT_EQ(launched.launch.cluster[0], name == "pairs" ? 2U : 1U) << name;
  }
  // In blocks.
  const SimulatorLaunch& pairs = launched_["pairs"].launch;
  EXPECT_EQ(pairs.grid[0], 8U);
  EXPECT_EQ(pairs.grid[1], 2U);
  EXPECT_EQ(pairs.grid[2], 3U);
  EXPECT_STREQ(GetSimulator().misuse(), "");
}

TEST_P(WaysTest, TensorsAreDescribedWhereTheyAre) {
  ASSERT_TRUE(Run(GetParam()).ok());
  const Launched& tiles = launched_["tiles"];
  // As simulator/tensor_map.h lays it out, innermost dimension first. The runtime clears the bit
  // for large tensors, as this one is small.
  EXPECT_EQ(std::memcmp(tiles.params[1].data(), "TENSMAP1", 8), 0);
  EXPECT_EQ(tiles.Word(1, 1), 0U);
  EXPECT_EQ(tiles.Word(1, 2), first_.address());
  EXPECT_EQ(tiles.Word(1, 3), 64U);
  EXPECT_EQ(tiles.Word(1, 4), 128U);
  EXPECT_EQ(tiles.Word(1, 5), 0U);
  EXPECT_EQ(tiles.Word(1, 8), 128U);  // bytes from row to row
  const unsigned char* rest = tiles.params[1].data() + 96;
  EXPECT_EQ(rest[0], 64);  // of the box
  EXPECT_EQ(rest[2], 64);
  EXPECT_EQ(rest[10], 6);  // float16
  EXPECT_EQ(rest[11], 2);  // dimensions
  EXPECT_EQ(rest[12], 3);  // swizzled by 128 bytes
  EXPECT_EQ(rest[13], 0);  // zeros beyond the tensor
  EXPECT_EQ(tiles.params[0][96 + 13], 1);
  EXPECT_EQ(tiles.params[0][96], 32);
  // Another tensor in the next run.
  y_ = &second_;
  ASSERT_TRUE(RunAgain().ok());
  EXPECT_EQ(launched_["tiles"].Word(1, 2), second_.address());
  EXPECT_STREQ(GetSimulator().misuse(), "");
}

TEST_P(WaysTest, ScratchMemoryIsInTheArena) {
  ASSERT_TRUE(Run(GetParam()).ok());
  const uint64_t address = launched_["tiles"].Word(3);
  // 2 x 2 blocks of 128 bytes.
  EXPECT_NE(GetSimulator().check_range(address, 4 * 128, "scratch"), 0);
  EXPECT_EQ(address % 128, 0U);
  EXPECT_EQ(launched_["pairs"].Word(2), 0U);
}

// Behind what is no kernel, and at the beginning of a run, a kernel starts when all is done.
Status RunAfterOtherWork(Launcher& launcher) {
  const Addresses& at = launcher.at();
  DeviceAddress x = at.arena;
  DeviceAddress none = 0;
  void* params[] = {&x, &x, &none, &none};
  AOTI_RETURN_IF_ERROR(launcher.Launch(kShift, {1, 1, 1}, params, Pointers::kOwned));
  AOTI_RETURN_IF_ERROR(launcher.Fill(at.arena, 0, 16, Pointers::kOwned));
  return launcher.Launch(kShift, {2, 1, 1}, params, Pointers::kOwned);
}

TEST_P(WaysTest, OnlyAKernelIsNotWaitedFor) {
  target_.run = RunAfterOtherWork;
  bool dependent = false;
  GetSimulator().set_executor(
      [](const SimulatorLaunch* launch, void* user) {
        *static_cast<bool*>(user) |= launch->dependent != 0;
        return 0;
      },
      &dependent);
  ASSERT_TRUE(Run(GetParam()).ok());
  EXPECT_FALSE(dependent);
}

TEST_F(LaunchesTest, AFixedCooperativeGridThatDoesNotFitIsToldAtLoad) {
  kernels_[kTotal].blocks = kResident;
  ASSERT_TRUE(Load().ok());
  model_.reset();  // which has the kernels loaded
  kernels_[kTotal].blocks = kResident + 1;
  EXPECT_EQ(std::string(Load().message()),
            "loading kernel total_11239872d178 for sm_90: a cooperative grid of 2113 blocks, of "
            "which this device runs 2112 at a time; they would wait for each other for ever");
}

Status RunTooLarge(Launcher& launcher) {
  DeviceAddress x = launcher.at().arena;
  int32_t n = 0;
  void* params[] = {&x, &x, &x, &x, &n, &x, &x};
  return launcher.Launch(kTotal, {kResident, 2, 1}, params, Pointers::kOwned);
}

TEST_P(WaysTest, ACooperativeGridThatDoesNotFitIsToldInTheRun) {
  target_.run = RunTooLarge;
  EXPECT_EQ(std::string(Run(GetParam()).message()),
            "kernel total_11239872d178: a cooperative grid of 4224 blocks, of which this device "
            "runs 2112 at a time; they would wait for each other for ever");
}

MappedTensor mapped = {};  // what the procedures below describe
uint32_t mapped_param = 0;
TensorMap described = {};

Status RunDescribing(Launcher& launcher) {
  mapped.address = launcher.at().arena;
  return launcher.Encode(kTiles, mapped_param, mapped, &described);
}

TEST_F(LaunchesTest, ATensorThatCannotBeDescribedIsToldWithItsSizes) {
  target_.run = RunDescribing;
  mapped = {0, {128, 64}, {63, 1}};
  mapped_param = 0;
  EXPECT_EQ(std::string(Run(AOTI_SESSION_NO_GRAPH).message()),
            "describing parameter 0 of kernel tiles_ad9243fa6fb2 to TMA (sizes [128, 64], strides "
            "[63, 1]): cuTensorMapEncodeTiled failed: CUDA_ERROR_INVALID_VALUE (invalid argument)");
  mapped_param = 2;
  EXPECT_EQ(std::string(Run(AOTI_SESSION_NO_GRAPH).message()),
            "describing parameter 2 of kernel tiles_ad9243fa6fb2 to TMA: the kernel has no tensor "
            "map there");
}

TEST_F(LaunchesTest, LargeTensorsAreDescribedAsSuchAndEmptyOnesByZeros) {
  target_.run = RunDescribing;
  mapped = {0, {1 << 20, 64}, {64, 1}};
  mapped_param = 0;
  ASSERT_TRUE(Run(AOTI_SESSION_NO_GRAPH).ok());
  uint64_t words[2] = {};
  std::memcpy(words, &described, sizeof words);
  EXPECT_EQ(words[1], uint64_t{1} << 21);
  mapped.shape[0] = 0;
  ASSERT_TRUE(RunAgain().ok());
  const TensorMap zeros = {};
  EXPECT_EQ(std::memcmp(&described, &zeros, sizeof zeros), 0);
}

TEST_F(LaunchesTest, LargeClustersAreAskedFor) {
  constexpr unsigned char kImage[] =
      "simulator module\n"
      "kernel pairs_fb0956241032 target=sm_90 threads=128 cluster=16 params=8,8,8,8\n";
  kernels_[kPairs].image = kImage;
  kernels_[kPairs].image_end = kImage + sizeof kImage;
  kernels_[kPairs].cluster = 16;
  const Status status = Run(0);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(launched_["pairs"].launch.cluster[0], 16U);
  EXPECT_EQ(launched_["pairs"].launch.grid[0], 64U);
}

}  // namespace
}  // namespace aoti
