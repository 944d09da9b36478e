// A fixture for tests of models and sessions, which finds what they do not release; and a stream.

#ifndef AOTI_TESTS_RUNTIME_RUNTIME_FIXTURE_H_
#define AOTI_TESTS_RUNTIME_RUNTIME_FIXTURE_H_

#include <set>
#include <string>

#include "gtest/gtest.h"
#include "runtime/aoti.h"
#include "runtime/cpp.h"
#include "tests/runtime/simulator.h"
#include "tests/runtime/toy_arguments.h"
#include "tests/runtime/toy_model.h"

namespace aoti::testing {

class RuntimeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    GetSimulator().reset();
    GetSimulator().set_executor(RunToyKernel, nullptr);
    weights_ = ToyWeights(kScale, kBias);
    before_ = GetSimulator().live();
  }

  void TearDown() override {
    EXPECT_STREQ(GetSimulator().misuse(), "");
    ExpectNothingNewLives();
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

  AotiModelOptions Options() const {
    AotiModelOptions options = {};
    options.struct_size = sizeof options;
    options.weights_data = weights_.data();
    options.weights_size = weights_.size();
    return options;
  }

  ModelHandle Load(const AotiDescription& description, const AotiModelOptions& options) {
    AotiModel* model = nullptr;
    const int32_t code = aoti_model_load(&description, &options, &model, &status_);
    EXPECT_EQ(code, status_.code);
    EXPECT_EQ(code == AOTI_OK, model != nullptr);
    return ModelHandle(model);
  }

  ModelHandle LoadToy() {
    ModelHandle model = Load(ToyModel(), Options());
    EXPECT_EQ(status_.code, AOTI_OK) << status_.message;
    return model;
  }

  SessionHandle Create(AotiModel* model, uint64_t flags = 0) {
    AotiSessionOptions options = {sizeof options, flags, 0};
    AotiSession* session = nullptr;
    aoti_session_create(model, &options, &session, &status_);
    EXPECT_EQ(status_.code == AOTI_OK, session != nullptr) << status_.message;
    return SessionHandle(session);
  }

  int32_t Run(AotiSession* session, const Arguments& arguments, cuda::Stream stream = nullptr) {
    return aoti_session_run(session, arguments.inputs, 2, arguments.outputs, 3, stream, &status_);
  }

  static void Synchronize(cuda::Stream stream = nullptr) {
    ASSERT_EQ(GetDriver().StreamSynchronize(stream), cuda::kSuccess);
  }

  // Only a failure to release something, or to wait before that, may pass without notice.
  static void MayFailSilently(const std::string& function) {
    const std::set<std::string> releasing = {
        "cuCtxPopCurrent",    "cuCtxPushCurrent",   "cuDevicePrimaryCtxRelease",
        "cuEventDestroy",     "cuEventQuery",       "cuEventSynchronize",
        "cuGraphDestroy",     "cuGraphExecDestroy", "cuMemFree",
        "cuMemFreeHost",      "cuModuleUnload",     "cuStreamDestroy",
        "cuStreamSynchronize"};
    EXPECT_EQ(releasing.count(function), 1u) << function;
  }

  std::string weights_;
  AotiStatus status_ = {};
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

#endif  // AOTI_TESTS_RUNTIME_RUNTIME_FIXTURE_H_
