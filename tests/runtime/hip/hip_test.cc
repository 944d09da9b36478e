// The runtime for AMD's GPUs: a model through the C ABI, on HIP's functions as fake.cc plays them.

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/aoti.h"
#include "runtime/cpp.h"
#include "runtime/description.h"
#include "tests/runtime/hip/fake.h"
#include "tests/runtime/simulator.h"
#include "tests/runtime/toy_arguments.h"
#include "tests/runtime/toy_model.h"

namespace aoti {
namespace {

using testing::Arguments;
using testing::CurrentContext;
using testing::GetDriver;
using testing::GetSimulator;
using testing::kBias;
using testing::kScale;
using testing::ToyModel;
using testing::ToyWeights;

constexpr char kLibrary[] = "tests/runtime/hip/libamdhip64.so.7";

// Makes it the process's HIP, by its soname.
FakeHip& Fake() {
  static FakeHip* const fake = [] {
    GetSimulator();
    void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      std::fprintf(stderr, "%s\n", dlerror());
      std::abort();
    }
    return reinterpret_cast<decltype(&fake_hip)>(dlsym(library, "fake_hip"))();
  }();
  return *fake;
}

// The toy model as it would be built for gfx90a and gfx942, without clusters.
class HipModel {
 public:
  HipModel() {
    description_.model.version |= kHip;
    const char* const names[] = {"gfx90a", "gfx942"};
    const Table<KernelDescription>& kernels = ToyModel().model.targets[0].kernels;
    const std::string clusters = " cluster=2";
    image_ = reinterpret_cast<const char*>(kernels[0].image);
    image_.erase(image_.find(clusters), clusters.size());
    for (const KernelDescription& kernel : kernels) {
      kernels_.push_back(kernel);
      kernels_.back().image = reinterpret_cast<const unsigned char*>(image_.c_str());
      kernels_.back().image_end = kernels_.back().image + image_.size() + 1;
      kernels_.back().cluster = 1;
    }
    for (const char* name : names) {
      TargetDescription target = ToyModel().model.targets[0];
      target.kernels = {kernels_.data(), kernels_.size()};
      target.name = name;
      target.major = 9;
      target.minor = target.name == names[1] ? 4 : 0;
      target.driver = 60000000;
      targets_.push_back(target);
    }
    description_.model.targets = {targets_.data(), targets_.size()};
  }

  AotiDescription& description() { return description_; }
  std::vector<TargetDescription>& targets() { return targets_; }
  std::vector<KernelDescription>& kernels() { return kernels_; }

 private:
  AotiDescription description_ = ToyModel();
  std::string image_;
  std::vector<KernelDescription> kernels_;
  std::vector<TargetDescription> targets_;
};

class HipTest : public ::testing::Test {
 protected:
  void SetUp() override {
    static const FakeHip initial = Fake();
    Fake() = initial;
    GetSimulator().reset();
    GetSimulator().set_executor(testing::RunToyKernel, nullptr);
  }

  void TearDown() override { EXPECT_STREQ(GetSimulator().misuse(), ""); }

  ModelHandle Load(const AotiDescription& description) {
    AotiModelOptions options = {};
    options.struct_size = sizeof options;
    options.weights_data = weights_.data();
    options.weights_size = weights_.size();
    AotiModel* model = nullptr;
    aoti_model_load(&description, &options, &model, &status_);
    return ModelHandle(model);
  }

  SessionHandle Create(AotiModel* model, uint64_t flags) {
    AotiSessionOptions options = {sizeof options, flags, 0};
    AotiSession* session = nullptr;
    aoti_session_create(model, &options, &session, &status_);
    EXPECT_EQ(status_.code, AOTI_OK) << status_.message;
    return SessionHandle(session);
  }

  void RunAndCheck(AotiSession* session, const Arguments& arguments) {
    ASSERT_EQ(
        aoti_session_run(session, arguments.inputs, 2, arguments.outputs, 3, nullptr, &status_),
        AOTI_OK)
        << status_.message;
    ASSERT_EQ(GetDriver().StreamSynchronize(nullptr), cuda::kSuccess);
    EXPECT_TRUE(arguments.Correct());
  }

  const std::string weights_ = ToyWeights(kScale, kBias);
  AotiStatus status_ = {};
  HipModel model_;
};

// Both ways to run.
class HipModeTest : public HipTest, public ::testing::WithParamInterface<uint64_t> {};

INSTANTIATE_TEST_SUITE_P(Modes, HipModeTest, ::testing::Values(0, AOTI_SESSION_NO_GRAPH),
                         [](const auto& info) { return info.param == 0 ? "Graph" : "Stream"; });

TEST_P(HipModeTest, ComputesTheModel) {
  const ModelHandle model = Load(model_.description());
  ASSERT_EQ(status_.code, AOTI_OK) << status_.message;
  AotiTargetInfo target;
  ASSERT_EQ(aoti_model_target(model.get(), &target, &status_), AOTI_OK) << status_.message;
  EXPECT_STREQ(target.name, "gfx942");
  const SessionHandle session = Create(model.get(), GetParam());
  const CurrentContext current;
  const Arguments first(1);
  RunAndCheck(session.get(), first);
  // Other tensors: of a graph, kernel, copy and fill nodes are updated.
  const Arguments second(5);
  RunAndCheck(session.get(), second);
  RunAndCheck(session.get(), first);
}

TEST_P(HipModeTest, LaunchesCooperativeGrids) {
  for (KernelDescription& kernel : model_.kernels()) {
    kernel.flags = kCooperative;
    kernel.blocks = 1;
  }
  const ModelHandle model = Load(model_.description());
  ASSERT_EQ(status_.code, AOTI_OK) << status_.message;
  const SessionHandle session = Create(model.get(), GetParam());
  const CurrentContext current;
  const Arguments arguments;
  RunAndCheck(session.get(), arguments);
  EXPECT_GE(
      GetSimulator().calls(GetParam() == 0 ? "cuGraphKernelNodeSetAttribute" : "cuLaunchKernelEx"),
      1);
}

TEST_F(HipTest, TakesTensorsOfEitherName) {
  const ModelHandle model = Load(model_.description());
  const SessionHandle session = Create(model.get(), 0);
  const CurrentContext current;
  Arguments arguments;
  arguments.x.tensor().device.device_type = kDLROCM;
  arguments.result.tensor().device.device_type = kDLROCM;
  RunAndCheck(session.get(), arguments);
  arguments.x.tensor().device.device_type = kDLCPU;
  EXPECT_EQ(
      aoti_session_run(session.get(), arguments.inputs, 2, arguments.outputs, 3, nullptr, &status_),
      AOTI_INVALID_ARGUMENT);
  EXPECT_NE(std::string(status_.message).find("expected memory of HIP device 0, got host (CPU)"),
            std::string::npos)
      << status_.message;
}

TEST_F(HipTest, ChoosesTheCodeByArchitecture) {
  Fake().architecture = "gfx90a:sramecc+:xnack-";
  const ModelHandle model = Load(model_.description());
  AotiTargetInfo target;
  ASSERT_EQ(aoti_model_target(model.get(), &target, &status_), AOTI_OK) << status_.message;
  EXPECT_STREQ(target.name, "gfx90a");
}

TEST_F(HipTest, HasNoCodeForAnotherArchitecture) {
  // Of the same major number; its name begins alike.
  for (const char* architecture : {"gfx940", "gfx90", "gfx942x"}) {
    Fake().architecture = architecture;
    EXPECT_EQ(Load(model_.description()), nullptr);
    EXPECT_EQ(status_.code, AOTI_NOT_FOUND);
    EXPECT_NE(
        std::string(status_.message)
            .find(std::string(", ") + architecture +
                  "); it was built for gfx90a, gfx942. Build it with a target for this device."),
        std::string::npos)
        << status_.message;
  }
}

TEST_F(HipTest, RefusesAModelForNvidias) {
  EXPECT_EQ(Load(ToyModel()), nullptr);
  EXPECT_EQ(status_.code, AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message,
               "the model was built for NVIDIA's GPUs, and this runtime calls HIP: link the model "
               "with the runtime that it was built for");
}

TEST_F(HipTest, CodeMayNeedANewerHip) {
  for (TargetDescription& target : model_.targets()) target.driver = 90900000;
  EXPECT_EQ(Load(model_.description()), nullptr);
  EXPECT_EQ(status_.code, AOTI_UNAVAILABLE);
  EXPECT_NE(
      std::string(status_.message).find("needs a driver for HIP 9.9 or newer; this one supports"),
      std::string::npos)
      << status_.message;
}

TEST_F(HipTest, ErrorsSayHip) {
  GetSimulator().fail("cuMemAlloc", 1, cuda::kErrorOutOfMemory);
  EXPECT_EQ(Load(model_.description()), nullptr);
  EXPECT_EQ(status_.code, AOTI_OUT_OF_MEMORY);
  EXPECT_NE(std::string(status_.message).find(": hipMalloc failed: hipErrorOutOfMemory (said HIP)"),
            std::string::npos)
      << status_.message;
  GetSimulator().fail("cuModuleGetFunction", 1, cuda::kErrorNotFound);
  EXPECT_EQ(Load(model_.description()), nullptr);
  EXPECT_NE(std::string(status_.message).find(" for gfx942: hipModuleGetFunction failed: hipError"),
            std::string::npos)
      << status_.message;
}

TEST_F(HipTest, ErrorsOfGraphsSayHip) {
  const ModelHandle model = Load(model_.description());
  const SessionHandle session = Create(model.get(), 0);
  const CurrentContext current;
  const Arguments arguments;
  GetSimulator().fail("cuGraphAddMemcpyNode", 1, cuda::kErrorInvalidValue);
  EXPECT_EQ(
      aoti_session_run(session.get(), arguments.inputs, 2, arguments.outputs, 3, nullptr, &status_),
      AOTI_DRIVER);
  EXPECT_STREQ(status_.message,
               "adding a copy to a HIP graph: hipGraphAddMemcpyNode1D failed: hipError (said HIP)");
}

TEST_F(HipTest, SharedMemoryIsThereWithoutAsking) {
  GetDriver();
  EXPECT_EQ(GetDriver().FuncSetAttribute(nullptr, cuda::kFunctionAttributeMaxDynamicSharedMemory,
                                         64 << 10),
            cuda::kSuccess);
  EXPECT_EQ(GetDriver().FuncSetAttribute(nullptr, cuda::kFunctionAttributeMaxDynamicSharedMemory,
                                         (64 << 10) + 1),
            cuda::kErrorInvalidValue);
}

TEST_F(HipTest, GridsAreCountedInThreads) {
  // 2^22 blocks of 2^10 threads do not fit 32 bits, which is what HIP would take.
  constexpr int kInvalidConfiguration = 9;
  EXPECT_EQ(
      GetDriver().LaunchKernel(nullptr, 1 << 22, 1, 1, 1 << 10, 1, 1, 0, nullptr, nullptr, nullptr),
      kInvalidConfiguration);
  cuda::KernelNodeParams params = {};
  params.grid_x = 1 << 22;
  params.block_x = 1 << 10;
  EXPECT_EQ(GetDriver().GraphAddKernelNode(nullptr, nullptr, nullptr, 0, &params),
            kInvalidConfiguration);
}

TEST_F(HipTest, CopiesAreRuns) {
  cuda::Memcpy3D params = {};
  params.src_memory_type = cuda::kMemoryTypeDevice;
  params.dst_memory_type = cuda::kMemoryTypeDevice;
  params.width = 8;
  params.height = 2;
  params.depth = 1;
  EXPECT_EQ(GetDriver().GraphAddMemcpyNode(nullptr, nullptr, nullptr, 0, &params, nullptr),
            cuda::kErrorInvalidValue);
}

TEST_F(HipTest, ThereAreNoClusters) {
  constexpr int kNotSupported = 801;
  cuda::LaunchAttribute attribute = {};
  cuda::LaunchConfig config = {};
  config.attributes = &attribute;
  config.num_attributes = 1;
  EXPECT_EQ(GetDriver().LaunchKernelEx(&config, nullptr, nullptr, nullptr), kNotSupported);
}

// Finding the library. Each case needs a process that has not loaded it.

[[noreturn]] void Report() {
  const Driver* driver = nullptr;
  const Status status = Driver::Get(&driver);
  std::fprintf(stderr, "[%d] %s", static_cast<int>(status.code()), status.message());
  std::exit(status.ok() ? 0 : 1);
}

TEST(HipDeathTest, IsNotInstalled) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  if (dlopen("libamdhip64.so.6", RTLD_LAZY) != nullptr) GTEST_SKIP() << "this machine has HIP";
  EXPECT_EXIT(Report(), ::testing::ExitedWithCode(1),
              "\\[4\\] no usable HIP runtime: libamdhip64.so.7: cannot open shared object file.*; "
              "libamdhip64.so.6: cannot open shared object file");
}

[[noreturn]] void ReportOld() {
  Fake().version = 50200000;
  Report();
}

TEST(HipDeathTest, IsTooOld) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(ReportOld(), ::testing::ExitedWithCode(1),
              "\\[4\\] no usable HIP runtime: libamdhip64.so.7 is HIP 5.2, and HIP 6.0 or newer is "
              "needed");
}

}  // namespace
}  // namespace aoti
