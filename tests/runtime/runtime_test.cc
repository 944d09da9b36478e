// Models and sessions through the C ABI, on the simulated driver.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
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
using testing::GetDriver;
using testing::GetSimulator;
using testing::kBias;
using testing::kScale;
using testing::RuntimeTest;
using testing::Stream;
using testing::ToyModel;
using testing::ToyWeights;
using Floats = std::vector<float>;

// Both ways to run.
class RuntimeModeTest : public RuntimeTest, public ::testing::WithParamInterface<uint64_t> {};

INSTANTIATE_TEST_SUITE_P(Modes, RuntimeModeTest, ::testing::Values(0, AOTI_SESSION_NO_GRAPH),
                         [](const auto& info) { return info.param == 0 ? "Graph" : "Stream"; });

TEST_P(RuntimeModeTest, ComputesTheModel) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get(), GetParam());
  const Arguments arguments;
  ASSERT_EQ(Run(session.get(), arguments), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(arguments.Correct());
}

TEST_P(RuntimeModeTest, FollowsTheCallersPointers) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get(), GetParam());
  const Stream stream;
  const Arguments first(1);
  const Arguments second(100);
  Arguments mixed(1000);
  mixed.inputs[0] = first.inputs[0];
  // Enqueued together: a launch keeps the pointers of its time.
  for (const Arguments* arguments : {&first, &second, &first, &second}) {
    ASSERT_EQ(Run(session.get(), *arguments, stream.handle()), AOTI_OK) << status_.message;
  }
  ASSERT_EQ(Run(session.get(), mixed, stream.handle()), AOTI_OK) << status_.message;
  Synchronize(stream.handle());
  EXPECT_TRUE(first.Correct());
  EXPECT_TRUE(second.Correct());
  EXPECT_EQ(mixed.result.values(), first.result.values());
}

TEST_P(RuntimeModeTest, OrdersRunsOnSeveralStreams) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get(), GetParam());
  const Stream a;
  const Stream b;
  const Arguments first(1);
  const Arguments second(100);
  ASSERT_EQ(Run(session.get(), first, a.handle()), AOTI_OK) << status_.message;
  ASSERT_EQ(Run(session.get(), second, b.handle()), AOTI_OK) << status_.message;
  // The simulator would run b's work alone if the runtime had not ordered it behind a's.
  Synchronize(b.handle());
  EXPECT_TRUE(first.Correct());
  EXPECT_TRUE(second.Correct());
}

TEST_P(RuntimeModeTest, WaitsForTheLastRunBeforeMemoryIsFreed) {
  const CurrentContext current;
  const Stream stream;
  const Arguments arguments;
  {
    const ModelHandle model = LoadToy();
    const SessionHandle session = Create(model.get(), GetParam());
    ASSERT_EQ(Run(session.get(), arguments, stream.handle()), AOTI_OK) << status_.message;
  }
  EXPECT_TRUE(arguments.Correct());
}

TEST_P(RuntimeModeTest, SessionsKeepTheModel) {
  const CurrentContext current;
  ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get(), GetParam());
  model.reset();
  const Arguments arguments;
  ASSERT_EQ(Run(session.get(), arguments), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(arguments.Correct());
}

TEST_P(RuntimeModeTest, RunsSessionsInThreads) {
  const ModelHandle model = LoadToy();
  std::vector<std::thread> threads;
  std::vector<int> correct(4, 0);
  for (size_t i = 0; i < correct.size(); ++i) {
    threads.emplace_back([i, &correct, &model] {
      const CurrentContext current;
      AotiSessionOptions options = {sizeof options, GetParam(), 0};
      AotiSession* created = nullptr;
      AotiStatus status;
      aoti_session_create(model.get(), &options, &created, &status);
      const SessionHandle session(created);
      const Stream stream;
      for (int run = 0; run < 20; ++run) {
        const Arguments a(static_cast<float>(100 * i) + static_cast<float>(run));
        aoti_session_run(created, a.inputs, 2, a.outputs, 3, stream.handle(), &status);
        Synchronize(stream.handle());
        correct[i] += status.code == AOTI_OK && a.Correct() ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(correct, std::vector<int>(4, 20));
}

TEST_P(RuntimeModeTest, BecomesPartOfTheCallersCapture) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get(), GetParam());
  const Stream stream;
  GetSimulator().set_capturing(stream.handle(), 1);
  GetSimulator().reset();
  GetSimulator().set_executor(testing::RunToyKernel, nullptr);
  const Arguments arguments;
  ASSERT_EQ(Run(session.get(), arguments, stream.handle()), AOTI_OK) << status_.message;
  EXPECT_EQ(GetSimulator().calls("cuGraphLaunch"), 0u);
  EXPECT_EQ(GetSimulator().calls("cuEventRecord"), 0u);
  EXPECT_EQ(GetSimulator().calls("cuStreamWaitEvent"), 0u);
  Synchronize(stream.handle());
  EXPECT_TRUE(arguments.Correct());
  // And then again as before.
  GetSimulator().set_capturing(stream.handle(), 0);
  const Arguments other(50);
  ASSERT_EQ(Run(session.get(), other, stream.handle()), AOTI_OK) << status_.message;
  ASSERT_EQ(Run(session.get(), arguments, stream.handle()), AOTI_OK) << status_.message;
  Synchronize(stream.handle());
  EXPECT_TRUE(other.Correct());
}

TEST_P(RuntimeModeTest, LeavesTheCallersContextCurrent) {
  const testing::Simulator& simulator = GetSimulator();
  CUctx_st* mine = nullptr;
  const CurrentContext primary;
  const Arguments arguments;
  ASSERT_EQ(simulator.create_context(&mine, 0, 0), 0);
  {
    const ModelHandle model = LoadToy();
    const SessionHandle session = Create(model.get(), GetParam());
    ASSERT_EQ(Run(session.get(), arguments), AOTI_OK) << status_.message;
    CUctx_st* now = nullptr;
    simulator.current_context(&now);
    EXPECT_EQ(now, mine);
  }
  CUctx_st* now = nullptr;
  simulator.current_context(&now);
  EXPECT_EQ(now, mine);
  ASSERT_EQ(simulator.destroy_context(mine), 0);
}

TEST_F(RuntimeTest, LoadsIntoTheCallersContext) {
  CUctx_st* mine = nullptr;
  ASSERT_EQ(GetSimulator().create_context(&mine, 0, 0), 0);
  {
    AotiModelOptions options = Options();
    options.context = mine;
    const ModelHandle model = Load(ToyModel(), options);
    ASSERT_NE(model, nullptr) << status_.message;
    EXPECT_EQ(GetSimulator().calls("cuDevicePrimaryCtxRetain"), 0u);
    const SessionHandle session = Create(model.get());
    const Arguments arguments;
    ASSERT_EQ(Run(session.get(), arguments), AOTI_OK) << status_.message;
    Synchronize();
    EXPECT_TRUE(arguments.Correct());
  }
  ASSERT_EQ(GetSimulator().destroy_context(mine), 0);
}

TEST_F(RuntimeTest, RefusesAContextOfAnotherDevice) {
  setenv("SIMULATOR_DEVICES", "2", 1);
  GetSimulator().reset();
  unsetenv("SIMULATOR_DEVICES");
  CUctx_st* mine = nullptr;
  ASSERT_EQ(GetSimulator().create_context(&mine, 0, 1), 0);
  AotiModelOptions options = Options();
  options.context = mine;
  EXPECT_EQ(Load(ToyModel(), options), nullptr);
  EXPECT_STREQ(status_.message, "the given context is not of device 0");
  ASSERT_EQ(GetSimulator().destroy_context(mine), 0);
}

TEST_F(RuntimeTest, UpdatesTheGraphOnlyWhereACallersPointerChanged) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get());
  const Arguments first;
  const Arguments second;
  const auto run = [&](const Arguments& arguments) {
    const uint64_t kernels = GetSimulator().calls("cuGraphExecKernelNodeSetParams");
    const uint64_t copies = GetSimulator().calls("cuGraphExecMemcpyNodeSetParams");
    const uint64_t fills = GetSimulator().calls("cuGraphExecMemsetNodeSetParams");
    EXPECT_EQ(Run(session.get(), arguments), AOTI_OK) << status_.message;
    return std::vector<uint64_t>{GetSimulator().calls("cuGraphExecKernelNodeSetParams") - kernels,
                                 GetSimulator().calls("cuGraphExecMemcpyNodeSetParams") - copies,
                                 GetSimulator().calls("cuGraphExecMemsetNodeSetParams") - fills};
  };
  EXPECT_EQ(run(first), (std::vector<uint64_t>{0, 0, 0}));
  EXPECT_EQ(run(first), (std::vector<uint64_t>{0, 0, 0}));
  // Of three kernels, two copies and two fills, those that hold a caller's pointer.
  EXPECT_EQ(run(second), (std::vector<uint64_t>{2, 1, 1}));
  EXPECT_EQ(run(second), (std::vector<uint64_t>{0, 0, 0}));
  EXPECT_EQ(GetSimulator().calls("cuGraphInstantiateWithFlags"), 1u);
  EXPECT_EQ(GetSimulator().calls("cuLaunchKernel"), 1u);  // folding
  Synchronize();
}

TEST_F(RuntimeTest, RecoversFromAFailedUpdate) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get());
  const Arguments first;
  const Arguments second(9);
  ASSERT_EQ(Run(session.get(), first), AOTI_OK);
  GetSimulator().fail("cuGraphExecMemcpyNodeSetParams", 1, 1);
  EXPECT_EQ(Run(session.get(), second), AOTI_DRIVER);
  EXPECT_STREQ(status_.message,
               "updating a copy of a CUDA graph: cuGraphExecMemcpyNodeSetParams failed: "
               "CUDA_ERROR_INVALID_VALUE (invalid argument)");
  // Some nodes have the second arguments' pointers now.
  ASSERT_EQ(Run(session.get(), second), AOTI_OK) << status_.message;
  ASSERT_EQ(Run(session.get(), first), AOTI_OK) << status_.message;
  Synchronize();
  EXPECT_TRUE(first.Correct());
  EXPECT_TRUE(second.Correct());
}

TEST_F(RuntimeTest, ReadsWeightsLargerThanAChunkFromAFile) {
  // 20 MiB: more than two transfers' worth, so that both page-locked buffers are used again.
  const int64_t shape[] = {5 << 20};
  const uint64_t nbytes = uint64_t{20} << 20;
  const WeightDescription weight = {"big", {kDLFloat, 32, 1}, {shape, 1}, nbytes, false, true};
  AotiDescription description = ToyModel();
  TargetDescription target = description.model.targets[3];
  target.weights = {&weight, 1};
  target.memory.weights = nbytes;
  target.memory.staging = 0;
  static DeviceAddress where;
  static uint64_t expected;
  where = 0;
  expected = nbytes;
  target.fold = [](Launcher& launcher) {
    where = launcher.at().weights[0];
    return Status();
  };
  description.model.targets = {&target, 1};
  Floats values(5 << 20);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 65536);
  weights_ = testing::Safetensors({{"big", values}});
  const std::string path = ::testing::TempDir() + "runtime_test." + std::to_string(getpid());
  std::FILE* file = std::fopen(path.c_str(), "wb");
  ASSERT_NE(file, nullptr);
  std::fwrite(weights_.data(), 1, weights_.size(), file);
  std::fclose(file);
  AotiModelOptions options = Options();
  options.weights_data = nullptr;
  options.weights_path = path.c_str();
  const ModelHandle model = Load(description, options);
  ASSERT_EQ(std::remove(path.c_str()), 0);
  ASSERT_NE(model, nullptr) << status_.message;
  EXPECT_EQ(std::memcmp(reinterpret_cast<const void*>(where), values.data(), expected), 0);
}

TEST_F(RuntimeTest, FreesStagingMemoryOnceTheModelIsLoaded) {
  const ModelHandle model = LoadToy();
  const SimulatorLive live = GetSimulator().live();
  AotiTargetInfo info = {};
  ASSERT_EQ(aoti_model_target(model.get(), &info, &status_), AOTI_OK);
  EXPECT_STREQ(info.name, "sm_90");
  EXPECT_EQ(info.model_memory, 512u);
  EXPECT_EQ(info.load_memory, 512u);
  EXPECT_EQ(info.session_memory, 512u);
  EXPECT_EQ(live.device_bytes - before_.device_bytes, info.model_memory);
  const SessionHandle session = Create(model.get());
  EXPECT_EQ(GetSimulator().live().device_bytes - before_.device_bytes,
            info.model_memory + info.session_memory);
}

TEST_F(RuntimeTest, ChoosesTheTargetOfTheDevice) {
  const struct {
    const char* capability;
    const char* target;
  } cases[] = {{"8.0", "sm_80"}, {"8.9", "sm_86"}, {"9.0", "sm_90"}, {"10.0", "compute_80"}};
  for (const auto& [capability, target] : cases) {
    setenv("SIMULATOR_CAPABILITY", capability, 1);
    GetSimulator().reset();
    unsetenv("SIMULATOR_CAPABILITY");
    GetSimulator().set_executor(testing::RunToyKernel, nullptr);
    const ModelHandle model = LoadToy();
    AotiTargetInfo info = {};
    ASSERT_EQ(aoti_model_target(model.get(), &info, nullptr), AOTI_OK);
    EXPECT_STREQ(info.name, target);
  }
  setenv("SIMULATOR_CAPABILITY", "7.5", 1);
  GetSimulator().reset();
  unsetenv("SIMULATOR_CAPABILITY");
  EXPECT_EQ(Load(ToyModel(), Options()), nullptr);
  EXPECT_EQ(status_.code, AOTI_NOT_FOUND);
  EXPECT_NE(std::string(status_.message).find("compute capability 7.5); it was built for"),
            std::string::npos)
      << status_.message;
}

TEST_F(RuntimeTest, ChecksTensors) {
  const CurrentContext current;
  const ModelHandle model = LoadToy();
  const SessionHandle session = Create(model.get());
  Arguments arguments;
  arguments.x.tensor().dtype.bits = 16;
  EXPECT_EQ(Run(session.get(), arguments), AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message, "input 0 (x): expected dtype float32, got float16");
  arguments.x.tensor().dtype.bits = 32;
  arguments.outputs[1] = arguments.outputs[0];
  EXPECT_EQ(Run(session.get(), arguments), AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message, "output 1 (copy): shares memory with output 0 (result)");
  EXPECT_EQ(
      aoti_session_run(session.get(), arguments.inputs, 2, arguments.outputs, 2, nullptr, &status_),
      AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message, "expected 3 outputs (result, copy, sevens), got 2");
  EXPECT_EQ(GetSimulator().calls("cuGraphCreate"), 0u);
}

TEST_F(RuntimeTest, ReportsAKernelThatFails) {
  GetSimulator().set_executor([](const SimulatorLaunch*, void*) { return 700; }, nullptr);
  EXPECT_EQ(Load(ToyModel(), Options()), nullptr);
  EXPECT_EQ(status_.code, AOTI_DRIVER);
  EXPECT_STREQ(status_.message,
               "computing constants from the weights: cuStreamSynchronize failed: "
               "CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)");
}

TEST_F(RuntimeTest, RefusesConcurrentUseOfASession) {
  static AotiSession* running;
  static int32_t inner;
  static AotiStatus inner_status;
  AotiDescription description = ToyModel();
  TargetDescription target = description.model.targets[3];
  // A launch procedure that calls its own session stands for a second thread at the worst moment.
  target.run = [](Launcher&) {
    inner = aoti_session_run(running, nullptr, 0, nullptr, 0, nullptr, &inner_status);
    return Status();
  };
  description.model.targets = {&target, 1};
  const CurrentContext current;
  const ModelHandle model = Load(description, Options());
  ASSERT_NE(model, nullptr) << status_.message;
  const SessionHandle session = Create(model.get());
  running = session.get();
  const Arguments arguments;
  ASSERT_EQ(Run(session.get(), arguments), AOTI_OK) << status_.message;
  EXPECT_EQ(inner, AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(inner_status.message,
               "the session is in use by another thread; create one session a thread");
  EXPECT_EQ(Run(session.get(), arguments), AOTI_OK) << "free again";
  Synchronize();
}

TEST_F(RuntimeTest, TurnsExceptionsIntoStatuses) {
  AotiDescription description = ToyModel();
  TargetDescription target = description.model.targets[3];
  description.model.targets = {&target, 1};
  target.fold = [](Launcher&) -> Status { throw std::bad_alloc(); };
  EXPECT_EQ(Load(description, Options()), nullptr);
  EXPECT_EQ(status_.code, AOTI_OUT_OF_MEMORY);
  EXPECT_STREQ(status_.message, "out of host memory");
  target.fold = [](Launcher&) -> Status { throw std::runtime_error("oh"); };
  EXPECT_EQ(Load(description, Options()), nullptr);
  EXPECT_EQ(status_.code, AOTI_INTERNAL);
  EXPECT_STREQ(status_.message, "oh");
  target.fold = [](Launcher&) -> Status { throw 5; };
  EXPECT_EQ(Load(description, Options()), nullptr);
  EXPECT_STREQ(status_.message, "unknown exception");
}

TEST_F(RuntimeTest, RefusesLaunchCodeThatChangesItsSteps) {
  static int steps;
  AotiDescription description = ToyModel();
  TargetDescription target = description.model.targets[3];
  target.run = [](Launcher& launcher) {
    for (int i = 0; i < steps; ++i) {
      AOTI_RETURN_IF_ERROR(launcher.Fill(launcher.at().arena, 0, 16, Pointers::kCaller));
    }
    return Status();
  };
  description.model.targets = {&target, 1};
  const CurrentContext current;
  const ModelHandle model = Load(description, Options());
  const SessionHandle session = Create(model.get());
  const Arguments first;
  const Arguments second;
  steps = 2;
  ASSERT_EQ(Run(session.get(), first), AOTI_OK) << status_.message;
  for (const int changed : {1, 3}) {
    steps = changed;
    EXPECT_EQ(Run(session.get(), second), AOTI_INTERNAL);
    EXPECT_STREQ(status_.message,
                 "launch code issued other steps than the CUDA graph was built of");
  }
  target.run = [](Launcher& launcher) { return launcher.Launch(7, {1, 1, 1}, nullptr, {}); };
  const SessionHandle other = Create(model.get());
  EXPECT_EQ(Run(other.get(), first), AOTI_INTERNAL);
  EXPECT_STREQ(status_.message, "launch code names kernel 7 of 3");
  Synchronize();
}

TEST_F(RuntimeTest, ExplainsKernelsThatDoNotLoad) {
  AotiDescription description = ToyModel();
  TargetDescription target = description.model.targets[3];
  KernelDescription kernel = target.kernels[0];
  target.kernels = {&kernel, 1};
  description.model.targets = {&target, 1};
  const auto expect = [&](const char* message) {
    EXPECT_EQ(Load(description, Options()), nullptr);
    EXPECT_STREQ(status_.message, message);
  };
  kernel.name = "other";
  expect(
      "loading kernel other for sm_90: cuModuleGetFunction failed: CUDA_ERROR_NOT_FOUND (named "
      "symbol not found)");
  kernel.name = "double";
  kernel.threads = 1024;
  expect("loading kernel double for sm_90: it needs blocks of 1024 threads, the device allows 128");
  kernel.threads = 128;
  kernel.shared_memory = 1 << 20;
  expect(
      "loading kernel double for sm_90, which needs 1048576 bytes of shared memory: "
      "cuFuncSetAttribute failed: CUDA_ERROR_INVALID_VALUE (invalid argument)");
  kernel.shared_memory = 0;
  for (const auto& [count, takes] : {std::pair<uint32_t, std::string>{6, "5"}, {4, "more"}}) {
    kernel.num_params = count;
    expect(("loading kernel double for sm_90: launch code passes " + std::to_string(count) +
            " parameters, the kernel takes " + takes)
               .c_str());
  }
  kernel.num_params = 5;
  const unsigned char bad[] = "garbage";
  kernel.image = bad;
  kernel.image_end = bad + sizeof bad;
  expect(
      "loading kernel double for sm_90 (neither machine code (ELF) nor PTX): cuModuleLoadDataEx "
      "failed: "
      "CUDA_ERROR_INVALID_IMAGE (device kernel image is invalid)");
}

TEST_F(RuntimeTest, RefusesUnusableArguments) {
  AotiModel* model = nullptr;
  AotiModelOptions options = Options();
  const auto expect = [&](const char* message) {
    const int32_t code = aoti_model_load(&ToyModel(), &options, &model, &status_);
    EXPECT_EQ(code, AOTI_INVALID_ARGUMENT);
    EXPECT_STREQ(status_.message, message);
    EXPECT_EQ(model, nullptr);
    options = Options();
  };
  EXPECT_EQ(aoti_model_load(nullptr, &options, &model, &status_), AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message, "description is a null pointer");
  EXPECT_EQ(aoti_model_load(&ToyModel(), nullptr, &model, &status_), AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message, "options is a null pointer");
  EXPECT_EQ(aoti_model_load(&ToyModel(), &options, nullptr, &status_), AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message, "model is a null pointer");
  options.struct_size = 8;
  const std::string size = std::to_string(sizeof options);
  expect(("AotiModelOptions.struct_size is 8, expected sizeof(AotiModelOptions), " + size).c_str());
  options.flags = 2;
  expect("AotiModelOptions.flags has an unknown bit set");
  options.device = 5;
  expect("device 5 does not exist: the devices are 0 to 0");
  options.device = -1;
  expect("device -1 does not exist: the devices are 0 to 0");
  options.weights_path = "also";
  expect("both weights_path and weights_data are given; give one of them");
  options.weights_data = nullptr;
  expect("model toy needs 2 weights: name a safetensors file, or give them as tensors");

  struct {
    AotiModelOptions known;
    uint64_t unknown;
  } newer = {Options(), 0};
  newer.known.struct_size = sizeof newer;
  ASSERT_EQ(aoti_model_load(&ToyModel(), &newer.known, &model, &status_), AOTI_OK);
  const ModelHandle loaded(model);
  newer.unknown = 1;
  EXPECT_EQ(aoti_model_load(&ToyModel(), &newer.known, &model, &status_), AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message,
               "AotiModelOptions uses an option that this runtime is too old to know");

  AotiSession* session = nullptr;
  EXPECT_EQ(aoti_session_create(nullptr, nullptr, &session, &status_), AOTI_INVALID_ARGUMENT);
  EXPECT_EQ(aoti_session_create(loaded.get(), nullptr, nullptr, &status_), AOTI_INVALID_ARGUMENT);
  AotiSessionOptions unknown = {sizeof unknown, 64, 0};
  EXPECT_EQ(aoti_session_create(loaded.get(), &unknown, &session, &status_), AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message, "AotiSessionOptions.flags has an unknown bit set");
  EXPECT_EQ(aoti_session_run(nullptr, nullptr, 0, nullptr, 0, nullptr, nullptr),
            AOTI_INVALID_ARGUMENT);
  aoti_model_destroy(nullptr);
  aoti_session_destroy(nullptr);
}

TEST_F(RuntimeTest, AllocatesNothingBeforeTheWeightsHeaderIsChecked) {
  weights_ = ToyWeights(kScale, {1, 2});
  EXPECT_EQ(Load(ToyModel(), Options()), nullptr);
  EXPECT_EQ(status_.code, AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message, "weights in memory: tensor bias: expected F32[4], got F32[2]");
  EXPECT_EQ(GetSimulator().calls("cuDevicePrimaryCtxRetain"), 0u);
  EXPECT_EQ(GetSimulator().calls("cuMemAlloc"), 0u);
  EXPECT_EQ(GetSimulator().calls("cuModuleLoadDataEx"), 0u);
}

TEST_F(RuntimeTest, Describes) {
  AotiDescriptionInfo info = {};
  ASSERT_EQ(aoti_description_info(&ToyModel(), &info, &status_), AOTI_OK);
  EXPECT_STREQ(info.name, "toy");
  EXPECT_STREQ(info.weights_digest, "digest");
  EXPECT_EQ(info.num_inputs, 2u);
  EXPECT_EQ(info.num_outputs, 3u);
  EXPECT_EQ(info.num_targets, 4u);
  AotiTensorInfo tensor = {};
  ASSERT_EQ(aoti_description_input(&ToyModel(), 1, &tensor, &status_), AOTI_OK);
  EXPECT_STREQ(tensor.name, "y");
  EXPECT_EQ(tensor.ndim, 2);
  EXPECT_EQ(tensor.shape[1], 4);
  EXPECT_EQ(tensor.strides[1], 2);
  EXPECT_EQ(tensor.nbytes, 32u);
  EXPECT_EQ(tensor.dtype.bits, 32);
  ASSERT_EQ(aoti_description_output(&ToyModel(), 2, &tensor, &status_), AOTI_OK);
  EXPECT_STREQ(tensor.name, "sevens");
  EXPECT_EQ(aoti_description_output(&ToyModel(), 3, &tensor, &status_), AOTI_INVALID_ARGUMENT);
  EXPECT_STREQ(status_.message, "there is no output 3: the model has 3");
  AotiTargetInfo target = {};
  ASSERT_EQ(aoti_description_target(&ToyModel(), 2, &target, &status_), AOTI_OK);
  EXPECT_STREQ(target.name, "sm_86");
  EXPECT_EQ(target.major, 8);
  EXPECT_EQ(target.minor, 6);
  EXPECT_EQ(target.num_kernels, 3u);
  EXPECT_EQ(aoti_description_target(&ToyModel(), 4, &target, nullptr), AOTI_INVALID_ARGUMENT);
  EXPECT_EQ(aoti_abi_version(), static_cast<uint32_t>(AOTI_ABI_VERSION));
}

TEST_F(RuntimeTest, CutsLongMessagesBetweenCharacters) {
  std::string path = "/nowhere/";
  for (int i = 0; i < 2000; ++i) path += "\xC3\xA9";
  AotiModelOptions options = Options();
  options.weights_data = nullptr;
  options.weights_path = path.c_str();
  EXPECT_EQ(Load(ToyModel(), options), nullptr);
  const std::string message = status_.message;
  EXPECT_LE(message.size(), 2043u);
  EXPECT_GE(message.size(), 2041u);
  EXPECT_EQ(message.substr(message.size() - 4), "\xA9...");
}

// Lets each driver call of a model's whole life fail in turn. Whatever fails, there is an error, a
// message, and nothing that lives on.
TEST_P(RuntimeModeTest, ReleasesEverythingWhicheverCallFails) {
  const SimulatorLive nothing = before_;
  {
    const CurrentContext current;
    const Arguments first(1);
    const Arguments second(7);
    const Stream stream;
    before_ = GetSimulator().live();
    const auto live_once = [&]() -> bool {
      AotiModel* loaded = nullptr;
      const AotiModelOptions options = Options();
      if (aoti_model_load(&ToyModel(), &options, &loaded, &status_) != AOTI_OK) return false;
      const ModelHandle model(loaded);
      AotiSession* created = nullptr;
      const AotiSessionOptions flags = {sizeof flags, GetParam(), 0};
      if (aoti_session_create(loaded, &flags, &created, &status_) != AOTI_OK) return false;
      const SessionHandle session(created);
      bool good = true;
      for (const Arguments* arguments : {&first, &second, &first}) {
        good = Run(created, *arguments, stream.handle()) == AOTI_OK && good;
      }
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
        EXPECT_GT(nth, 50u);
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
