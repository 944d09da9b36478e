// How kernels are loaded: once a context, from the library or from a directory.

#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/aoti.h"
#include "runtime/cpp.h"
#include "runtime/description.h"
#include "tests/runtime/simulator.h"
#include "tests/runtime/toy_arguments.h"
#include "tests/runtime/toy_model.h"

namespace aoti {
namespace {

using testing::Arguments;
using testing::CurrentContext;
using testing::GetDriver;
using testing::GetSimulator;
using testing::ToyModel;

// Of the toy model.
constexpr uint64_t kNumKernels = 3;

// The launch of a kernel that was last.
struct Launched {
  uint32_t threads;
  uint32_t shared_memory;
  uint32_t cluster;
};

class KernelsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Reset();
    weights_ = testing::ToyWeights(testing::kScale, testing::kBias);
    before_ = GetSimulator().live();
  }

  void TearDown() override {
    EXPECT_STREQ(GetSimulator().misuse(), "");
    EXPECT_EQ(GetSimulator().live().modules, before_.modules);
    EXPECT_EQ(GetSimulator().live().contexts, before_.contexts);
  }

  void Reset() {
    GetSimulator().reset();
    GetSimulator().set_executor(Execute, this);
  }

  // Runs a launch and remembers it.
  static int Execute(const SimulatorLaunch* launch, void* user) {
    auto* test = static_cast<KernelsTest*>(user);
    test->launched_[launch->kernel] = {launch->block[0], launch->shared_memory, launch->cluster[0]};
    return testing::RunToyKernel(launch, nullptr);
  }

  AotiModelOptions Options(const char* kernels_dir = nullptr) const {
    AotiModelOptions options = {};
    options.struct_size = sizeof options;
    options.weights_data = weights_.data();
    options.weights_size = weights_.size();
    options.kernels_dir = kernels_dir;
    return options;
  }

  ModelHandle Load(const AotiModelOptions& options,
                   const AotiDescription& description = ToyModel()) {
    AotiModel* model = nullptr;
    aoti_model_load(&description, &options, &model, &status_);
    return ModelHandle(model);
  }

  ModelHandle MustLoad(const AotiModelOptions& options,
                       const AotiDescription& description = ToyModel()) {
    ModelHandle model = Load(options, description);
    EXPECT_NE(model, nullptr) << status_.message;
    return model;
  }

  // Whether the model computes what it should.
  bool Works(const ModelHandle& model) {
    const CurrentContext current;
    AotiSession* created = nullptr;
    aoti_session_create(model.get(), nullptr, &created, &status_);
    const SessionHandle session(created);
    const Arguments arguments;
    const int32_t code =
        aoti_session_run(created, arguments.inputs, 2, arguments.outputs, 3, nullptr, &status_);
    EXPECT_EQ(code, AOTI_OK) << status_.message;
    EXPECT_EQ(GetDriver().StreamSynchronize(nullptr), cuda::kSuccess);
    return arguments.Correct();
  }

  static uint64_t Modules() { return GetSimulator().live().modules; }

  std::string weights_;
  AotiStatus status_ = {};
  SimulatorLive before_ = {};
  std::map<std::string, Launched> launched_;
};

TEST_F(KernelsTest, AreLoadedOnceForAllModelsOfAContext) {
  ModelHandle first = MustLoad(Options());
  EXPECT_EQ(Modules(), before_.modules + kNumKernels);
  const ModelHandle second = MustLoad(Options());
  EXPECT_EQ(Modules(), before_.modules + kNumKernels);
  EXPECT_EQ(GetSimulator().calls("cuModuleLoadDataEx"), kNumKernels);
  // Which of the two loaded them does not matter.
  first.reset();
  EXPECT_EQ(Modules(), before_.modules + kNumKernels);
  EXPECT_TRUE(Works(second));
}

TEST_F(KernelsTest, AreUnloadedWithTheLastModelAndLoadedAnew) {
  MustLoad(Options()).reset();
  EXPECT_EQ(Modules(), before_.modules);
  EXPECT_TRUE(Works(MustLoad(Options())));
  EXPECT_EQ(GetSimulator().calls("cuModuleLoadDataEx"), 2 * kNumKernels);
}

TEST_F(KernelsTest, AreLoadedOnceByThreadsThatLoadTheModelTogether) {
  const CurrentContext current;
  std::vector<ModelHandle> models(8);
  std::vector<std::thread> threads;
  for (ModelHandle& model : models) {
    threads.emplace_back([this, &model] {
      const AotiModelOptions options = Options();
      AotiModel* loaded = nullptr;
      AotiStatus status;
      aoti_model_load(&ToyModel(), &options, &loaded, &status);
      model.reset(loaded);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(GetSimulator().calls("cuModuleLoadDataEx"), kNumKernels);
  for (const ModelHandle& model : models) {
    ASSERT_NE(model, nullptr);
    EXPECT_TRUE(Works(model));
  }
}

TEST_F(KernelsTest, AreLoadedForEachContextByItself) {
  CUctx_st* mine = nullptr;
  ASSERT_EQ(GetSimulator().create_context(&mine, 0, 0), 0);
  {
    AotiModelOptions options = Options();
    options.context = mine;
    const ModelHandle first = MustLoad(options);
    const ModelHandle second = MustLoad(Options());
    EXPECT_EQ(Modules(), before_.modules + 2 * kNumKernels);
    EXPECT_TRUE(Works(second));
  }
  ASSERT_EQ(GetSimulator().destroy_context(mine), 0);
}

TEST_F(KernelsTest, OfAnotherModelAreItsOwn) {
  AotiDescription other = ToyModel();
  const std::vector<TargetDescription> targets(other.model.targets.begin(),
                                               other.model.targets.end());
  other.model.targets = {targets.data(), targets.size()};
  const ModelHandle first = MustLoad(Options());
  const ModelHandle second = MustLoad(Options(), other);
  EXPECT_EQ(Modules(), before_.modules + 2 * kNumKernels);
}

TEST_F(KernelsTest, ThatCouldNotBeLoadedAreTriedAgain) {
  GetSimulator().fail("cuModuleLoadDataEx", 2, 2);
  EXPECT_EQ(Load(Options()), nullptr);
  EXPECT_EQ(status_.code, AOTI_OUT_OF_MEMORY) << status_.message;
  EXPECT_EQ(Modules(), before_.modules);
  EXPECT_TRUE(Works(MustLoad(Options())));
}

// A directory such as the compile step writes.
class KernelsDirectoryTest : public KernelsTest {
 protected:
  void SetUp() override {
    KernelsTest::SetUp();
    std::string name = ::testing::TempDir() + "/kernels_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory_ = name;
    ASSERT_EQ(mkdir((directory_ + "/sm_90").c_str(), 0777), 0);
  }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(directory_ + "/sm_90/" + name) << text;
  }

  // Of the kernel `double`.
  void WriteKernel(const std::string& fields = "", const std::string& params = "8,8,4,8,8",
                   int threads = 64) const {
    const std::string number = std::to_string(threads);
    Write("double.cubin", "simulator module\nkernel double target=sm_90 threads=" + number +
                              " params=" + params + "\n");
    // The last of a repeated key counts.
    Write("double.json",
          R"({"schema_version": 2, "name": "double", "target": "sm_90", "format": "cubin",)"
          R"( "params": [0, 0, 0, 0, 0], "global_scratch": 0, "profile_scratch": 0,)"
          R"( "tensor_maps": [], "shared_memory": 2048, "num_ctas": 1, "driver": 12000,)"
          R"( "registers": 8,)"
          R"( "threads": )" +
              number + fields + "}");
  }

  void ExpectFailure(int32_t code, const std::string& message) {
    EXPECT_EQ(Load(Options(directory_.c_str())), nullptr);
    EXPECT_EQ(status_.code, code);
    EXPECT_EQ(status_.message, message);
  }

  std::string directory_;
};

TEST_F(KernelsDirectoryTest, ReplacesTheKernelsThatAreThere) {
  WriteKernel();
  Write("double.json~", "an editor's");
  const ModelHandle model = MustLoad(Options(directory_.c_str()));
  EXPECT_TRUE(Works(model));
  EXPECT_EQ(launched_["double"].threads, 64u);
  EXPECT_EQ(launched_["double"].shared_memory, 2048u);
  EXPECT_EQ(launched_["multiply"].threads, 256u);
  EXPECT_EQ(launched_["add"].cluster, 2u);
  // The one that is embedded was loaded to compare parameters, and no longer.
  EXPECT_EQ(Modules(), before_.modules + kNumKernels);
}

TEST_F(KernelsDirectoryTest, WithoutKernelsChangesNothing) {
  EXPECT_TRUE(Works(MustLoad(Options(directory_.c_str()))));
  EXPECT_EQ(launched_["double"].threads, 128u);
}

TEST_F(KernelsDirectoryTest, IsReadByEachModelAnew) {
  WriteKernel();
  const ModelHandle embedded = MustLoad(Options());
  const ModelHandle first = MustLoad(Options(directory_.c_str()));
  const ModelHandle same = MustLoad(Options(directory_.c_str()));
  EXPECT_EQ(Modules(), before_.modules + 2 * kNumKernels);
  WriteKernel("", "8,8,4,8,8", 32);
  const ModelHandle changed = MustLoad(Options(directory_.c_str()));
  EXPECT_EQ(Modules(), before_.modules + 3 * kNumKernels);
  EXPECT_EQ(launched_["double"].threads, 32u);
  EXPECT_TRUE(Works(first));
  EXPECT_TRUE(Works(changed));
}

TEST_F(KernelsDirectoryTest, IsAnErrorWhereItIsMissing) {
  const std::string missing = directory_ + "/missing";
  EXPECT_EQ(Load(Options(missing.c_str())), nullptr);
  EXPECT_EQ(status_.code, AOTI_NOT_FOUND);
  EXPECT_EQ(status_.message,
            "kernels_dir: " + missing + "/sm_90: cannot be opened: No such file or directory");
  setenv("SIMULATOR_CAPABILITY", "8.6", 1);
  Reset();
  unsetenv("SIMULATOR_CAPABILITY");
  ExpectFailure(AOTI_NOT_FOUND, "kernels_dir: " + directory_ +
                                    "/sm_86: cannot be opened: No such file or directory");
}

TEST_F(KernelsDirectoryTest, RefusesWhatIsNoKernelOfTheModel) {
  Write("triple.json", "{}");
  ExpectFailure(AOTI_INVALID_ARGUMENT,
                directory_ +
                    "/sm_90/triple.json: model toy has no kernel triple for sm_90; remove the "
                    "file, or build the model again");
}

TEST_F(KernelsDirectoryTest, RefusesHalfAKernel) {
  Write("double.cubin", "image");
  ExpectFailure(AOTI_NOT_FOUND, directory_ +
                                    "/sm_90/double.json is missing: it is beside double.cubin "
                                    "where wrapgen compile writes the two");
  WriteKernel();
  ASSERT_EQ(std::remove((directory_ + "/sm_90/double.cubin").c_str()), 0);
  ExpectFailure(AOTI_NOT_FOUND,
                directory_ + "/sm_90/double.cubin: cannot be opened: No such file or directory");
}

TEST_F(KernelsDirectoryTest, RefusesMetadataThatDoesNotFit) {
  const std::string json = directory_ + "/sm_90/double.json: ";
  const auto expect = [&](const std::string& fields, int32_t code, const std::string& message) {
    WriteKernel(fields);
    ExpectFailure(code, json + message);
  };
  expect(", \"schema_version\": 3", AOTI_INVALID_ARGUMENT,
         "schema_version is 3, expected 2; compile it with this release's wrapgen");
  expect(", \"name\": \"treble\"", AOTI_INVALID_ARGUMENT, "name is treble, expected double");
  expect(", \"target\": \"sm_80\"", AOTI_INVALID_ARGUMENT, "target is sm_80, expected sm_90");
  expect(", \"format\": \"ptx\"", AOTI_INVALID_ARGUMENT, "format is ptx, expected cubin");
  expect(", \"params\": [0]", AOTI_INVALID_ARGUMENT,
         "the number of params is 1, expected 5, which launch code passes; a kernel whose "
         "parameters changed needs the model to be built again");
  expect(", \"global_scratch\": 64", AOTI_INVALID_ARGUMENT,
         "global_scratch is 64, the library provides 0 bytes a block; build the model again");
  expect(", \"tensor_maps\": [{\"param\": 0}]", AOTI_INVALID_ARGUMENT,
         "tensor_maps is [{\"param\":0}], expected []; a kernel whose tensor maps changed needs "
         "the "
         "model to be built again");
  expect(", \"driver\": 13000", AOTI_UNAVAILABLE,
         "needs a driver for CUDA 13.0 or newer; this one supports CUDA 12.8");
  expect(", \"threads\": 0", AOTI_DATA_LOSS, "threads and num_ctas must not be 0");
  expect(", \"threads\": -32", AOTI_DATA_LOSS, "threads is not a number of 32 bits");
  expect(", \"params\": 5", AOTI_DATA_LOSS, "params is not an array");
  expect(", \"name\": 5", AOTI_DATA_LOSS, "name is not a string");
  Write("double.json", "[]");
  ExpectFailure(AOTI_DATA_LOSS, json + "is not a JSON object");
  Write("double.json", "{\"schema_version\": 2}");
  ExpectFailure(AOTI_DATA_LOSS, json + "has no name");
}

TEST_F(KernelsDirectoryTest, RefusesAKernelWithOtherParameters) {
  const std::string cubin = directory_ + "/sm_90/double.cubin: ";
  WriteKernel("", "8,8,8,8,8");
  ExpectFailure(AOTI_INVALID_ARGUMENT,
                cubin +
                    "kernel double, parameter 2: launch code passes 4 bytes at offset 16, the "
                    "kernel takes 8 bytes at offset 16; a kernel whose parameters changed needs "
                    "the model to be built again");
  // The metadata says otherwise.
  WriteKernel("", "8,8,4,8");
  ExpectFailure(AOTI_INTERNAL, cubin +
                                   "loading kernel double for sm_90: launch code passes 5 "
                                   "parameters, the kernel takes 4");
}

}  // namespace
}  // namespace aoti
