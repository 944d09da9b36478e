// The toy model on a real GPU, with kernels in PTX. Skipped where there is none.

#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "runtime/aoti.h"
#include "runtime/context.h"
#include "runtime/description.h"
#include "runtime/memory.h"
#include "runtime/stream.h"
#include "tests/runtime/toy_model.h"

namespace aoti {
namespace {

using Floats = std::vector<float>;

const Floats kScale = {1, 2, 3, 4};
const Floats kBias = {10, 20, 30, 40};

// PTX of CUDA 12.0. A thread computes one element; the vector operands repeat after four.
#define TOY_INDEX                      \
  "  mov.u32 %r1, %ctaid.x;\n"         \
  "  mov.u32 %r2, %ntid.x;\n"          \
  "  mov.u32 %r3, %tid.x;\n"           \
  "  mad.lo.u32 %r4, %r1, %r2, %r3;\n" \
  "  setp.ge.u32 %p1, %r4, %r5;\n"     \
  "  @%p1 ret;\n"                      \
  "  mul.wide.u32 %rd4, %r4, 4;\n"     \
  "  and.b32 %r6, %r4, 3;\n"           \
  "  mul.wide.u32 %rd5, %r6, 4;\n"

#define TOY_REGISTERS     \
  "  .reg .pred %p<2>;\n" \
  "  .reg .b32 %r<7>;\n"  \
  "  .reg .b64 %rd<6>;\n" \
  "  .reg .f32 %f<4>;\n"

#define TOY_BINARY(name, operation)                                  \
  ".visible .entry " name                                            \
  "(.param .u64 out, .param .u64 a, .param .u64 b, .param .u32 n,\n" \
  "    .param .u64 scratch, .param .u64 profile) {\n" TOY_REGISTERS  \
  "  ld.param.u64 %rd1, [out];\n"                                    \
  "  ld.param.u64 %rd2, [a];\n"                                      \
  "  ld.param.u64 %rd3, [b];\n"                                      \
  "  ld.param.u32 %r5, [n];\n" TOY_INDEX                             \
  "  add.u64 %rd1, %rd1, %rd4;\n"                                    \
  "  add.u64 %rd2, %rd2, %rd4;\n"                                    \
  "  add.u64 %rd3, %rd3, %rd5;\n"                                    \
  "  ld.global.f32 %f1, [%rd2];\n"                                   \
  "  ld.global.f32 %f2, [%rd3];\n"                                   \
  "  " operation                                                     \
  " %f3, %f1, %f2;\n"                                                \
  "  st.global.f32 [%rd1], %f3;\n"                                   \
  "  ret;\n"                                                         \
  "}\n"

constexpr unsigned char kPtx[] =
    ".version 8.0\n"
    ".target sm_90\n"
    ".address_size 64\n"
    ".visible .entry double(.param .u64 out, .param .u64 a, .param .u32 n,\n"
    "    .param .u64 scratch, .param .u64 profile) {\n" TOY_REGISTERS
    "  ld.param.u64 %rd1, [out];\n"
    "  ld.param.u64 %rd2, [a];\n"
    "  ld.param.u32 %r5, [n];\n" TOY_INDEX
    "  add.u64 %rd1, %rd1, %rd4;\n"
    "  add.u64 %rd2, %rd2, %rd4;\n"
    "  ld.global.f32 %f1, [%rd2];\n"
    "  add.f32 %f3, %f1, %f1;\n"
    "  st.global.f32 [%rd1], %f3;\n"
    "  ret;\n"
    "}\n" TOY_BINARY("multiply", "mul.f32") TOY_BINARY("add", "add.f32");

// Device memory for the toy model's arguments, and what came out.
class Arguments {
 public:
  Arguments(const std::shared_ptr<const Context>& context, float first) : context_(context) {
    EXPECT_TRUE(memory_.Allocate(context, 5 * 256, "arguments").ok());
    for (int i = 0; i < 8; ++i) x_.push_back(first + static_cast<float>(i));
    Copy(memory_.address(), x_.data(), 32);
    for (int i = 0; i < 5; ++i) {
      tensors_[i].data =
          reinterpret_cast<void*>(memory_.address() + 256 * static_cast<uint64_t>(i));
      tensors_[i].device = {kDLCUDA, 0};
      tensors_[i].ndim = i == 4 ? 1 : 2;
      tensors_[i].dtype = {kDLFloat, 32, 1};
      tensors_[i].shape = i == 4 ? vector_ : shape_;
      tensors_[i].strides = i == 1 ? transposed_ : nullptr;
    }
  }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  int32_t Run(AotiSession* session, cuda::Stream stream, AotiStatus* status) const {
    const DLTensor* inputs[] = {&tensors_[0], &tensors_[1]};
    const DLTensor* outputs[] = {&tensors_[2], &tensors_[3], &tensors_[4]};
    return aoti_session_run(session, inputs, 2, outputs, 3, stream, status);
  }

  bool Correct() const {
    Floats result(8);
    Floats copy(8);
    unsigned char sevens[16];
    Read(result.data(), 2, 32);
    Read(copy.data(), 3, 32);
    Read(sevens, 4, 16);
    for (size_t i = 0; i < 8; ++i) {
      if (result[i] != x_[i] * 2 * kScale[i % 4] + kBias[i % 4]) return false;
    }
    for (const unsigned char byte : sevens) {
      if (byte != 7) return false;
    }
    return copy == x_;
  }

 private:
  void Copy(DeviceAddress to, const void* from, size_t nbytes) {
    Stream stream;
    EXPECT_TRUE(stream.Create(context_).ok());
    EXPECT_EQ(context_->driver().MemcpyHtoDAsync(to, from, nbytes, stream.handle()), 0);
    EXPECT_TRUE(stream.Synchronize("copying").ok());
  }
  void Read(void* to, uint64_t tensor, size_t nbytes) const {
    Stream stream;
    EXPECT_TRUE(stream.Create(context_).ok());
    EXPECT_EQ(context_->driver().MemcpyDtoHAsync(to, memory_.address() + 256 * tensor, nbytes,
                                                 stream.handle()),
              0);
    EXPECT_TRUE(stream.Synchronize("copying").ok());
  }

  const std::shared_ptr<const Context> context_;
  DeviceMemory memory_;
  Floats x_;
  int64_t shape_[2] = {2, 4};
  int64_t vector_[1] = {4};
  int64_t transposed_[2] = {1, 2};
  DLTensor tensors_[5] = {};
};

class DeviceTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override {
    const Driver* driver = nullptr;
    Status status = Driver::Get(&driver);
    if (status.code() == Code::kUnavailable) GTEST_SKIP() << status.message();
    ASSERT_TRUE(status.ok()) << status.message();
    DeviceProperties device;
    status = ReadDevice(*driver, 0, &device);
    ASSERT_TRUE(status.ok()) << status.message();
    if (device.major < 9) GTEST_SKIP() << "the kernels use clusters, which came with 9.0";
    ASSERT_TRUE(Context::Create(*driver, device, nullptr, &context_).ok());

    description_ = testing::ToyModel();
    target_ = description_.model.targets[3];
    target_.name = "compute_90";
    target_.ptx = true;
    kernels_.assign(target_.kernels.begin(), target_.kernels.end());
    for (KernelDescription& kernel : kernels_) {
      kernel.image = kPtx;
      kernel.image_end = kPtx + sizeof kPtx;
    }
    target_.kernels = {kernels_.data(), kernels_.size()};
    description_.model.targets = {&target_, 1};
    weights_ = testing::ToyWeights(kScale, kBias);
    AotiModelOptions options = {};
    options.struct_size = sizeof options;
    options.weights_data = weights_.data();
    options.weights_size = weights_.size();
    ASSERT_EQ(aoti_model_load(&description_, &options, &model_, &status_), AOTI_OK)
        << status_.message;
    const AotiSessionOptions session_options = {sizeof session_options, GetParam(), 0};
    ASSERT_EQ(aoti_session_create(model_, &session_options, &session_, &status_), AOTI_OK)
        << status_.message;
  }

  void TearDown() override {
    aoti_session_destroy(session_);
    aoti_model_destroy(model_);
  }

  std::shared_ptr<const Context> context_;
  AotiDescription description_ = {};
  TargetDescription target_ = {};
  std::vector<KernelDescription> kernels_;
  std::string weights_;
  AotiModel* model_ = nullptr;
  AotiSession* session_ = nullptr;
  AotiStatus status_ = {};
};

INSTANTIATE_TEST_SUITE_P(Modes, DeviceTest, ::testing::Values(0, AOTI_SESSION_NO_GRAPH),
                         [](const auto& info) { return info.param == 0 ? "Graph" : "Stream"; });

TEST_P(DeviceTest, FollowsTheCallersPointers) {
  const ScopedContext scope(*context_);
  Stream stream;
  ASSERT_TRUE(stream.Create(context_).ok());
  const Arguments first(context_, 1);
  const Arguments second(context_, 100);
  for (int i = 0; i < 3; ++i) {
    for (const Arguments* arguments : {&first, &second, &second}) {
      ASSERT_EQ(arguments->Run(session_, stream.handle(), &status_), AOTI_OK) << status_.message;
    }
  }
  ASSERT_TRUE(stream.Synchronize("running").ok());
  EXPECT_TRUE(first.Correct());
  EXPECT_TRUE(second.Correct());
}

TEST_P(DeviceTest, RunsOnTheDefaultStreams) {
  const ScopedContext scope(*context_);
  const Arguments arguments(context_, 5);
  const Arguments others(context_, 50);
  for (const uintptr_t handle : {uintptr_t{0}, cuda::kStreamLegacy, cuda::kStreamPerThread}) {
    const auto stream = reinterpret_cast<cuda::Stream>(handle);
    ASSERT_EQ(others.Run(session_, stream, &status_), AOTI_OK) << status_.message;
    ASSERT_EQ(arguments.Run(session_, stream, &status_), AOTI_OK) << status_.message;
    ASSERT_EQ(context_->driver().StreamSynchronize(stream), 0);
    EXPECT_TRUE(arguments.Correct());
    EXPECT_TRUE(others.Correct());
  }
}

// One session in two threads' own streams: the second run waits for the first on the device.
TEST_P(DeviceTest, OrdersRunsOfThreadsOwnStreams) {
  const ScopedContext scope(*context_);
  const auto own = reinterpret_cast<cuda::Stream>(cuda::kStreamPerThread);
  const Arguments first(context_, 5);
  const Arguments second(context_, 50);
  for (int i = 0; i < 10; ++i) {
    std::thread([&] {
      AotiStatus status;
      EXPECT_EQ(first.Run(session_, own, &status), AOTI_OK) << status.message;
    }).join();
    ASSERT_EQ(second.Run(session_, own, &status_), AOTI_OK) << status_.message;
  }
  ASSERT_EQ(context_->driver().StreamSynchronize(own), 0);
  EXPECT_TRUE(first.Correct());
  EXPECT_TRUE(second.Correct());
}

// The kernels are those of the first model, which goes.
TEST_P(DeviceTest, SharesKernelsWithASecondModel) {
  AotiModelOptions options = {};
  options.struct_size = sizeof options;
  options.weights_data = weights_.data();
  options.weights_size = weights_.size();
  AotiModel* second = nullptr;
  ASSERT_EQ(aoti_model_load(&description_, &options, &second, &status_), AOTI_OK)
      << status_.message;
  aoti_session_destroy(session_);
  aoti_model_destroy(model_);
  model_ = second;
  session_ = nullptr;
  const AotiSessionOptions session_options = {sizeof session_options, GetParam(), 0};
  ASSERT_EQ(aoti_session_create(model_, &session_options, &session_, &status_), AOTI_OK)
      << status_.message;
  const ScopedContext scope(*context_);
  const Arguments arguments(context_, 5);
  ASSERT_EQ(arguments.Run(session_, nullptr, &status_), AOTI_OK) << status_.message;
  ASSERT_EQ(context_->driver().StreamSynchronize(nullptr), 0);
  EXPECT_TRUE(arguments.Correct());
}

TEST_P(DeviceTest, RunsWithoutACurrentContextInManyThreads) {
  std::vector<int> good(4, 0);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < good.size(); ++i) {
    threads.emplace_back([this, i, &good] {
      AotiStatus status;
      AotiSession* session = nullptr;
      const AotiSessionOptions options = {sizeof options, GetParam(), 0};
      if (aoti_session_create(model_, &options, &session, &status) != AOTI_OK) return;
      for (int run = 0; run < 20; ++run) {
        Stream stream;
        std::unique_ptr<Arguments> arguments;
        {
          const ScopedContext scope(*context_);
          if (!stream.Create(context_).ok()) return;
          arguments = std::make_unique<Arguments>(context_, static_cast<float>(100 * i));
        }
        const int32_t code = arguments->Run(session, stream.handle(), &status);
        const ScopedContext scope(*context_);
        if (code == AOTI_OK && stream.Synchronize("running").ok() && arguments->Correct())
          ++good[i];
      }
      aoti_session_destroy(session);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, std::vector<int>(4, 20));
}

TEST_P(DeviceTest, BecomesPartOfTheCallersCapture) {
  // Only this test captures, so the runtime knows nothing of these functions.
  void* library = dlopen("libcuda.so.1", RTLD_NOW);
  ASSERT_NE(library, nullptr);
  const auto begin =
      reinterpret_cast<int (*)(cuda::Stream, int)>(dlsym(library, "cuStreamBeginCapture_v2"));
  const auto end =
      reinterpret_cast<int (*)(cuda::Stream, cuda::Graph*)>(dlsym(library, "cuStreamEndCapture"));
  ASSERT_TRUE(begin != nullptr && end != nullptr);
  const Driver& driver = context_->driver();
  const ScopedContext scope(*context_);
  Stream stream;
  ASSERT_TRUE(stream.Create(context_).ok());
  const Arguments arguments(context_, 9);
  ASSERT_EQ(begin(stream.handle(), 1), 0);
  EXPECT_EQ(arguments.Run(session_, stream.handle(), &status_), AOTI_OK) << status_.message;
  cuda::Graph graph = nullptr;
  ASSERT_EQ(end(stream.handle(), &graph), 0);
  EXPECT_FALSE(arguments.Correct());
  cuda::GraphExec exec = nullptr;
  ASSERT_EQ(driver.GraphInstantiateWithFlags(&exec, graph, 0), 0);
  ASSERT_EQ(driver.GraphLaunch(exec, stream.handle()), 0);
  ASSERT_TRUE(stream.Synchronize("running").ok());
  EXPECT_TRUE(arguments.Correct());
  EXPECT_EQ(driver.GraphExecDestroy(exec), 0);
  EXPECT_EQ(driver.GraphDestroy(graph), 0);
}

TEST_P(DeviceTest, ReportsTheJitCompilersError) {
  AotiDescription description = description_;
  TargetDescription target = target_;
  KernelDescription kernel = kernels_[0];
  const unsigned char bad[] = ".version 8.0\n.target sm_90\n.address_size 64\n nonsense\n";
  kernel.image = bad;
  kernel.image_end = bad + sizeof bad;
  target.kernels = {&kernel, 1};
  description.model.targets = {&target, 1};
  AotiModelOptions options = {};
  options.struct_size = sizeof options;
  options.weights_data = weights_.data();
  options.weights_size = weights_.size();
  AotiModel* model = nullptr;
  EXPECT_EQ(aoti_model_load(&description, &options, &model, &status_), AOTI_DRIVER);
  EXPECT_NE(std::string(status_.message).find("nonsense"), std::string::npos) << status_.message;
  EXPECT_NE(std::string(status_.message).find("CUDA_ERROR_INVALID_PTX"), std::string::npos)
      << status_.message;
}

}  // namespace
}  // namespace aoti
