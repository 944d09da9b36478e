// A fixture for tests on the simulated driver, which finds misuse of it and what is not released;
// and a stream.

#ifndef AOTI_TESTS_RUNTIME_SIMULATOR_FIXTURE_H_
#define AOTI_TESTS_RUNTIME_SIMULATOR_FIXTURE_H_

#include "gtest/gtest.h"
#include "tests/runtime/simulator.h"

namespace aoti::testing {

class SimulatorTest : public ::testing::Test {
 protected:
  explicit SimulatorTest(SimulatorExecutor executor) : executor_(executor) {}

  void SetUp() override {
    Reset();
    before_ = GetSimulator().live();
  }

  void TearDown() override {
    EXPECT_STREQ(GetSimulator().misuse(), "");
    ExpectNothingNewLives();
  }

  void Reset() {
    GetSimulator().reset();
    GetSimulator().set_executor(executor_, nullptr);
  }

  void ExpectNothingNewLives() {
    const SimulatorLive live = GetSimulator().live();
    EXPECT_EQ(live.contexts, before_.contexts);
    EXPECT_EQ(live.modules, before_.modules);
    EXPECT_EQ(live.device_allocations, before_.device_allocations);
    EXPECT_EQ(live.host_allocations, before_.host_allocations);
    EXPECT_EQ(live.streams, before_.streams);
    EXPECT_EQ(live.events, before_.events);
    EXPECT_EQ(live.graphs, before_.graphs);
    EXPECT_EQ(live.graph_execs, before_.graph_execs);
  }

  const SimulatorExecutor executor_;
  SimulatorLive before_ = {};
};

class Stream {
 public:
  Stream() { EXPECT_EQ(GetDriver().StreamCreate(&handle_, cuda::kStreamNonBlocking), 0); }
  ~Stream() { EXPECT_EQ(GetDriver().StreamDestroy(handle_), 0); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cuda::Stream handle() const { return handle_; }

 private:
  cuda::Stream handle_ = nullptr;
};

}  // namespace aoti::testing

#endif  // AOTI_TESTS_RUNTIME_SIMULATOR_FIXTURE_H_
