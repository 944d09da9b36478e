// Which stream a run goes to, and which device: the caller's, and no other.

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/aoti.h"
#include "runtime/cpp.h"
#include "runtime/stream.h"
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

const auto kLegacy = reinterpret_cast<cuda::Stream>(cuda::kStreamLegacy);
const auto kPerThread = reinterpret_cast<cuda::Stream>(cuda::kStreamPerThread);

// Of a run of the toy model.
constexpr int kLaunches = 2;

class OwnStream {
 public:
  explicit OwnStream(unsigned flags = cuda::kStreamNonBlocking) {
    EXPECT_EQ(GetDriver().StreamCreate(&handle_, flags), cuda::kSuccess);
  }
  ~OwnStream() { EXPECT_EQ(GetDriver().StreamDestroy(handle_), cuda::kSuccess); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;

  cuda::Stream handle() const { return handle_; }

 private:
  cuda::Stream handle_ = nullptr;
};

void Synchronize(cuda::Stream stream) {
  EXPECT_EQ(GetDriver().StreamSynchronize(stream), cuda::kSuccess);
}

// The simulator does work as late as waits allow, so what has been launched when a stream has been
// waited for, and not before, was in that stream.
class StreamsTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override {
    Reset();
    weights_ = testing::ToyWeights(testing::kScale, testing::kBias);
    before_ = GetSimulator().live();
  }

  void TearDown() override {
    EXPECT_STREQ(GetSimulator().misuse(), "");
    const SimulatorLive live = GetSimulator().live();
    EXPECT_EQ(live.contexts, before_.contexts);
    EXPECT_EQ(live.modules, before_.modules);
    EXPECT_EQ(live.streams, before_.streams);
    EXPECT_EQ(live.device_allocations, before_.device_allocations);
  }

  void Reset() {
    GetSimulator().reset();
    GetSimulator().set_executor(Execute, this);
  }

  static int Execute(const SimulatorLaunch* launch, void* user) {
    ++static_cast<StreamsTest*>(user)->launched_;
    return testing::RunToyKernel(launch, nullptr);
  }

  ModelHandle Load(int device = 0) {
    AotiModelOptions options = {};
    options.struct_size = sizeof options;
    options.weights_data = weights_.data();
    options.weights_size = weights_.size();
    options.device = device;
    AotiModel* model = nullptr;
    AotiStatus status;
    EXPECT_EQ(aoti_model_load(&ToyModel(), &options, &model, &status), AOTI_OK) << status.message;
    launched_ = 0;
    return ModelHandle(model);
  }

  static SessionHandle Create(const ModelHandle& model) {
    AotiSessionOptions options = {sizeof options, GetParam(), 0};
    AotiSession* session = nullptr;
    AotiStatus status;
    EXPECT_EQ(aoti_session_create(model.get(), &options, &session, &status), AOTI_OK)
        << status.message;
    return SessionHandle(session);
  }

  static std::string Run(const SessionHandle& session, const Arguments& arguments,
                         cuda::Stream stream) {
    AotiStatus status;
    aoti_session_run(session.get(), arguments.inputs, 2, arguments.outputs, 3, stream, &status);
    return status.message;
  }

  std::string weights_;
  SimulatorLive before_ = {};
  std::atomic<int> launched_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Modes, StreamsTest, ::testing::Values(0, AOTI_SESSION_NO_GRAPH),
                         [](const auto& info) { return info.param == 0 ? "Graph" : "Stream"; });

TEST_P(StreamsTest, RunsInTheCallersStream) {
  const CurrentContext current;
  const ModelHandle model = Load();
  const SessionHandle session = Create(model);
  const OwnStream mine;
  const OwnStream other;
  const Arguments arguments;
  EXPECT_EQ(Run(session, arguments, mine.handle()), "");
  for (const cuda::Stream stream : {other.handle(), cuda::Stream{}, kPerThread}) {
    Synchronize(stream);
    EXPECT_EQ(launched_, 0);
  }
  Synchronize(mine.handle());
  EXPECT_EQ(launched_, kLaunches);
  EXPECT_TRUE(arguments.Correct());
}

// Null and CU_STREAM_LEGACY are one stream.
TEST_P(StreamsTest, RunsInTheLegacyDefaultStream) {
  const CurrentContext current;
  const ModelHandle model = Load();
  const SessionHandle session = Create(model);
  const OwnStream other;
  for (const auto& [given, waited] : {std::pair(cuda::Stream{}, kLegacy), {kLegacy, nullptr}}) {
    const Arguments arguments;
    launched_ = 0;
    EXPECT_EQ(Run(session, arguments, given), "");
    Synchronize(other.handle());
    Synchronize(kPerThread);
    EXPECT_EQ(launched_, 0);
    Synchronize(waited);
    EXPECT_EQ(launched_, kLaunches);
    EXPECT_TRUE(arguments.Correct());
  }
}

TEST_P(StreamsTest, IsOrderedWithBlockingStreamsByTheLegacyDefaultStream) {
  const CurrentContext current;
  const ModelHandle model = Load();
  const SessionHandle session = Create(model);
  const OwnStream blocking(0);
  const Arguments first;
  const Arguments second(50);
  EXPECT_EQ(Run(session, first, nullptr), "");
  EXPECT_EQ(Run(session, second, blocking.handle()), "");
  Synchronize(blocking.handle());
  EXPECT_EQ(launched_, 2 * kLaunches);
  EXPECT_TRUE(first.Correct());
  EXPECT_TRUE(second.Correct());
}

// CU_STREAM_PER_THREAD is another stream in each thread.
TEST_P(StreamsTest, RunsInTheThreadsOwnDefaultStream) {
  const CurrentContext current;
  const ModelHandle model = Load();
  const SessionHandle session = Create(model);
  const Arguments arguments;
  EXPECT_EQ(Run(session, arguments, kPerThread), "");
  std::thread([] {
    const CurrentContext entered;
    Synchronize(kPerThread);
  }).join();
  EXPECT_EQ(launched_, 0);
  Synchronize(kPerThread);
  EXPECT_EQ(launched_, kLaunches);
  EXPECT_TRUE(arguments.Correct());
}

// Runs of one session follow one another in threads' own streams too.
TEST_P(StreamsTest, OrdersRunsOfSeveralThreadsOwnStreams) {
  const CurrentContext current;
  const ModelHandle model = Load();
  const SessionHandle session = Create(model);
  const Arguments first;
  const Arguments second(50);
  std::mutex mutex;
  std::condition_variable changed;
  bool issued = false;
  bool done = false;
  std::thread thread([&] {
    EXPECT_EQ(Run(session, first, kPerThread), "");
    std::unique_lock<std::mutex> lock(mutex);
    issued = true;
    changed.notify_all();
    // What a thread has issued is done when it ends, so it must not.
    changed.wait(lock, [&] { return done; });
  });
  {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return issued; });
    EXPECT_EQ(launched_, 0);
    EXPECT_EQ(Run(session, second, kPerThread), "");
    Synchronize(kPerThread);
    EXPECT_EQ(launched_, 2 * kLaunches);
    done = true;
    changed.notify_all();
  }
  thread.join();
  EXPECT_TRUE(first.Correct());
  EXPECT_TRUE(second.Correct());
}

TEST_P(StreamsTest, WaitsForTheThreadsOwnStreamWhenTheSessionGoes) {
  const CurrentContext current;
  const ModelHandle model = Load();
  const Arguments arguments;
  {
    const SessionHandle session = Create(model);
    EXPECT_EQ(Run(session, arguments, kPerThread), "");
    EXPECT_EQ(launched_, 0);
  }
  EXPECT_TRUE(arguments.Correct());
}

class DevicesTest : public StreamsTest {
 protected:
  void SetUp() override {
    setenv("SIMULATOR_DEVICES", "2", 1);
    StreamsTest::SetUp();
  }

  void TearDown() override {
    StreamsTest::TearDown();
    unsetenv("SIMULATOR_DEVICES");
  }
};

INSTANTIATE_TEST_SUITE_P(Modes, DevicesTest, ::testing::Values(0, AOTI_SESSION_NO_GRAPH),
                         [](const auto& info) { return info.param == 0 ? "Graph" : "Stream"; });

TEST_P(DevicesTest, RunsAModelOnEachFromThreads) {
  std::vector<int> correct(4, 0);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < correct.size(); ++i) {
    threads.emplace_back([this, i, &correct] {
      const int device = static_cast<int>(i % 2);
      const ModelHandle model = Load(device);
      const SessionHandle session = Create(model);
      CUctx_st* now = nullptr;
      GetSimulator().current_context(&now);
      EXPECT_EQ(now, nullptr);
      const CurrentContext current(device);
      const OwnStream stream;
      for (int run = 0; run < 10; ++run) {
        const Arguments arguments(static_cast<float>(100 * i) + static_cast<float>(run));
        EXPECT_EQ(Run(session, arguments, stream.handle()), "");
        Synchronize(stream.handle());
        correct[i] += arguments.Correct() ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(correct, std::vector<int>(4, 10));
}

TEST_P(DevicesTest, LeavesAnotherDevicesContextCurrent) {
  const CurrentContext second(1);
  const ModelHandle model = Load(1);
  const SessionHandle session = Create(model);
  const Arguments arguments;
  const CurrentContext first(0);
  // The null stream is that of the model's context.
  EXPECT_EQ(Run(session, arguments, nullptr), "");
  CUctx_st* now = nullptr;
  GetSimulator().current_context(&now);
  EXPECT_EQ(now, first.handle());
  Synchronize(nullptr);
  EXPECT_EQ(launched_, 0);
  ASSERT_EQ(GetDriver().CtxPushCurrent(second.handle()), cuda::kSuccess);
  Synchronize(nullptr);
  ASSERT_EQ(GetDriver().CtxPopCurrent(&now), cuda::kSuccess);
  EXPECT_EQ(launched_, kLaunches);
  EXPECT_TRUE(arguments.Correct());
}

TEST_P(DevicesTest, LoadsKernelsOnEach) {
  const ModelHandle first = Load(0);
  const ModelHandle second = Load(1);
  const ModelHandle third = Load(1);
  EXPECT_EQ(GetSimulator().live().modules, before_.modules + 6);
}

TEST_P(DevicesTest, RefusesAnotherDevicesTensors) {
  const CurrentContext current(0);
  const ModelHandle model = Load(1);
  const SessionHandle session = Create(model);
  const Arguments arguments;
  EXPECT_EQ(Run(session, arguments, nullptr),
            "input 0 (x): expected memory of CUDA device 1, got that of device 0");
}

}  // namespace
}  // namespace aoti
