// What the simulated driver refuses and reports, and in which words. Kernels here are texts, which
// are never run: tests/simulator/test_device.py has those that are.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/runtime/simulator.h"

namespace aoti {
namespace {

using testing::CurrentContext;
using testing::GetDriver;
using testing::GetSimulator;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kModule[] =
    "simulator module\n"
    "kernel plain target=sm_90 threads=128 params=8,8,4 names=*in_ptr0,*out_ptr0,xnumel\n"
    "kernel exact target=sm_90 threads=128 exact=1 params=8 names=*out_ptr0\n"
    "kernel greedy target=sm_90 threads=1024 registers=255\n"
    "kernel shared target=sm_90 threads=128 static=1024\n"
    "kernel clustered target=sm_90 threads=128 cluster=2\n";

constexpr int kIllegalAddress = 700;
constexpr int kOutOfResources = 701;

class SimulatorTest : public ::testing::Test {
 protected:
  void SetUp() override { GetSimulator().reset(); }

  static std::string Misuse() { return GetSimulator().misuse(); }

  cuda::DevicePointer Allocate(size_t nbytes) {
    cuda::DevicePointer address = 0;
    EXPECT_EQ(driver_.MemAlloc(&address, nbytes), 0);
    allocated_.push_back(address);
    return address;
  }

  void Free(cuda::DevicePointer address) {
    EXPECT_EQ(driver_.MemFree(address), 0);
    allocated_.pop_back();
  }

  void TearDown() override {
    for (const cuda::DevicePointer address : allocated_) driver_.MemFree(address);
    if (module_ != nullptr) driver_.ModuleUnload(module_);
  }

  cuda::Function Kernel(const char* name) {
    if (module_ == nullptr) {
      EXPECT_EQ(driver_.ModuleLoadDataEx(&module_, kModule, 0, nullptr, nullptr), 0);
    }
    cuda::Function function = nullptr;
    EXPECT_EQ(driver_.ModuleGetFunction(&function, module_, name), 0);
    return function;
  }

  // Launches a kernel without parameters.
  int Launch(const char* name, std::vector<unsigned> grid, std::vector<unsigned> block,
             unsigned shared = 0) {
    return driver_.LaunchKernel(Kernel(name), grid[0], grid[1], grid[2], block[0], block[1],
                                block[2], shared, nullptr, nullptr, nullptr);
  }

  const Driver& driver_ = GetDriver();
  const CurrentContext context_;
  cuda::Module module_ = nullptr;
  std::vector<cuda::DevicePointer> allocated_;
};

TEST_F(SimulatorTest, HoldsLaunchesToTheLimitsOfDeviceAndKernel) {
  struct Case {
    const char* kernel;
    std::vector<unsigned> grid;
    std::vector<unsigned> block;
    unsigned shared;
    int result;
    const char* report;
  };
  const Case cases[] = {
      {"greedy",
       {1, 1, 0},
       {1, 1, 1},
       0,
       1,
       "an empty grid or block: grid 1 x 1 x 0, block 1 x 1 x 1"},
      {"greedy",
       {1, 65536, 1},
       {1, 1, 1},
       0,
       1,
       "a grid of 1 x 65536 x 1 blocks: the device allows 2147483647 x 65535 x 65535"},
      {"greedy",
       {1, 1, 1},
       {1, 1, 65},
       0,
       1,
       "blocks of 1 x 1 x 65 threads: the device allows 1024 x 1024 x 64"},
      {"greedy", {1, 1, 1}, {1024, 2, 1}, 0, 1, "threads of a block: 2048: the device allows 1024"},
      {"plain", {1, 1, 1}, {256, 1, 1}, 0, 1, "threads of a block: 256: the kernel allows 128"},
      {"exact",
       {1, 1, 1},
       {64, 1, 1},
       0,
       1,
       "threads of a block: 64: the kernel needs exactly 128"},
      {"greedy",
       {1, 1, 1},
       {288, 1, 1},
       0,
       kOutOfResources,
       "registers of a block: 73728: the device has 65536 (255 a thread, 288 threads)"},
      {"shared",
       {1, 1, 1},
       {128, 1, 1},
       232448,
       1,
       "bytes of shared memory of a block: 233472: the device has 232448 (1024 static, 232448 "
       "dynamic)"},
      {"shared",
       {1, 1, 1},
       {128, 1, 1},
       49152,
       1,
       "bytes of shared memory of a block: 50176: without cuFuncSetAttribute it may have 49152 "
       "(1024 static, 49152 dynamic)"},
      {"clustered",
       {2, 1, 1},
       {128, 1, 1},
       0,
       1,
       "blocks of a cluster: 1: the kernel was compiled for 2"},
  };
  for (const Case& each : cases) {
    GetSimulator().reset();
    EXPECT_EQ(Launch(each.kernel, each.grid, each.block, each.shared), each.result) << each.report;
    EXPECT_THAT(Misuse(), StartsWith(std::string("kernel ") + each.kernel + ", launch "));
    EXPECT_THAT(Misuse(), HasSubstr(std::string(": ") + each.report + "\n"));
  }
  GetSimulator().reset();
  EXPECT_EQ(driver_.FuncSetAttribute(Kernel("shared"),
                                     cuda::kFunctionAttributeMaxDynamicSharedMemory, 65536),
            0);
  EXPECT_EQ(Launch("shared", {1, 1, 1}, {128, 1, 1}, 65536), 0);
  EXPECT_EQ(driver_.FuncSetAttribute(Kernel("shared"),
                                     cuda::kFunctionAttributeMaxDynamicSharedMemory, 232448),
            1)
      << "static memory counts";
  EXPECT_EQ(Misuse(), "");
  // A kernel that this process has nothing to run with is found out when it is run.
  EXPECT_EQ(driver_.StreamSynchronize(nullptr), 0);
  EXPECT_EQ(Misuse(), "no executor for kernel shared\n");
}

TEST_F(SimulatorTest, NoticesAModuleThatGoesTooEarly) {
  ASSERT_EQ(Launch("shared", {1, 1, 1}, {128, 1, 1}), 0);
  ASSERT_EQ(driver_.ModuleUnload(module_), 0);
  module_ = nullptr;
  EXPECT_EQ(driver_.StreamSynchronize(nullptr), 719);
  EXPECT_THAT(Misuse(), StartsWith("kernel shared, launch "));
  EXPECT_THAT(Misuse(), HasSubstr(": its module was unloaded before it had run\n"));
}

TEST_F(SimulatorTest, AsksForWholeClusters) {
  cuda::LaunchAttribute attribute = {};
  attribute.id = cuda::kLaunchAttributeClusterDimension;
  attribute.value.cluster = {2, 1, 1};
  const cuda::LaunchConfig config = {3, 1, 1, 128, 1, 1, 0, nullptr, &attribute, 1};
  EXPECT_EQ(driver_.LaunchKernelEx(&config, Kernel("clustered"), nullptr, nullptr), 1);
  EXPECT_THAT(Misuse(), HasSubstr("a grid of 3 x 1 x 1 blocks, no multiple of the cluster of 2\n"));
}

TEST_F(SimulatorTest, ComparesParametersWithTheKernels) {
  cuda::DevicePointer in = Allocate(64);
  cuda::DevicePointer host = 0x1234;
  int n = 4;
  const char layout[] =
      "the kernel takes 3 parameters of 20 bytes: in_ptr0 (8), out_ptr0 (8), xnumel (4)";
  const auto launch = [&](void** params, void** extra) {
    GetSimulator().reset();
    return driver_.LaunchKernel(Kernel("plain"), 1, 1, 1, 128, 1, 1, 0, nullptr, params, extra);
  };
  void* missing[] = {&in, &in, nullptr};
  EXPECT_EQ(launch(missing, nullptr), 1);
  EXPECT_THAT(Misuse(),
              HasSubstr(std::string(": argument 2 (xnumel) is not there to be read; ") + layout));
  // Where an array is too short, what follows is seldom a pointer.
  void* garbage[] = {&in, &in, reinterpret_cast<void*>(0x10)};
  EXPECT_EQ(launch(garbage, nullptr), 1);
  EXPECT_THAT(Misuse(), HasSubstr("argument 2 (xnumel) is not there to be read"));
  EXPECT_EQ(launch(nullptr, nullptr), 1);
  EXPECT_THAT(Misuse(), HasSubstr("argument 0 (in_ptr0) is not there to be read"));
  void* shifted[] = {&in, &host, &n};
  EXPECT_EQ(launch(shifted, nullptr), 1);
  EXPECT_THAT(
      Misuse(),
      HasSubstr(
          "argument 1 (out_ptr0) is a pointer, and its value is no address of device memory; "));

  char buffer[20] = {};
  size_t nbytes = 16;
  void* extra[] = {reinterpret_cast<void*>(1), buffer, reinterpret_cast<void*>(2), &nbytes,
                   nullptr};
  EXPECT_EQ(launch(nullptr, extra), 1);
  EXPECT_THAT(Misuse(), HasSubstr(std::string("the parameter buffer has 16 bytes, ") + layout));
  nbytes = 20;
  EXPECT_EQ(launch(nullptr, extra), 0);
  void* good[] = {&in, &in, &n};
  EXPECT_EQ(launch(good, nullptr), 0);
  EXPECT_EQ(Misuse(), "");
  EXPECT_EQ(driver_.StreamSynchronize(nullptr), 0);
  EXPECT_EQ(launch(good, extra), 1);
  EXPECT_THAT(Misuse(), HasSubstr("parameters are given twice"));
}

TEST_F(SimulatorTest, RefusesWhatIsGone) {
  cuda::Stream stream = nullptr;
  ASSERT_EQ(driver_.StreamCreate(&stream, 0), 0);
  ASSERT_EQ(driver_.StreamDestroy(stream), 0);
  EXPECT_EQ(driver_.StreamSynchronize(stream), cuda::kErrorInvalidHandle);
  EXPECT_EQ(Misuse(), "cuStreamSynchronize: a stream that is not of the current context\n");
  const cuda::Function kernel = Kernel("plain");
  ASSERT_EQ(driver_.ModuleUnload(module_), 0);
  module_ = nullptr;
  GetSimulator().reset();
  EXPECT_EQ(driver_.LaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr),
            cuda::kErrorInvalidHandle);
  EXPECT_THAT(Misuse(),
              HasSubstr("the function is of no module that is loaded in the current context\n"));
  CUctx_st* context = nullptr;
  ASSERT_EQ(GetSimulator().create_context(&context, 0, 0), 0);
  ASSERT_EQ(GetSimulator().destroy_context(context), 0);
  GetSimulator().reset();
  EXPECT_EQ(driver_.CtxPushCurrent(context), cuda::kErrorInvalidContext);
  EXPECT_EQ(Misuse(), "cuCtxPushCurrent: the context is not live\n");
}

TEST_F(SimulatorTest, HasADefaultStreamForEachThread) {
  const auto own = reinterpret_cast<cuda::Stream>(cuda::kStreamPerThread);
  const cuda::DevicePointer block = Allocate(4);
  const char ones[4] = {1, 1, 1, 1};
  const char twos[4] = {2, 2, 2, 2};
  char result[4] = {};
  ASSERT_EQ(driver_.MemcpyHtoDAsync(block, ones, 4, own), 0);
  // Done when the thread ends, if not before.
  std::thread([&] {
    const CurrentContext entered;
    EXPECT_EQ(driver_.MemcpyHtoDAsync(block, twos, 4, own), 0);
  }).join();
  ASSERT_EQ(driver_.MemcpyDtoHAsync(result, block, 4, own), 0);
  EXPECT_EQ(driver_.StreamSynchronize(own), 0);
  EXPECT_EQ(result[0], 1) << "this thread's copy came last";
  EXPECT_EQ(driver_.StreamDestroy(own), cuda::kErrorInvalidHandle);
  EXPECT_EQ(Misuse(), "cuStreamDestroy: not a stream\n");
}

TEST_F(SimulatorTest, KeepsDevicesApart) {
  setenv("SIMULATOR_DEVICES", "2", 1);
  GetSimulator().reset();
  unsetenv("SIMULATOR_DEVICES");
  cuda::DevicePointer here = Allocate(64);
  const CurrentContext second(1);
  cuda::DevicePointer there = 0;
  ASSERT_EQ(driver_.MemAlloc(&there, 64), 0);
  int n = 1;
  void* params[] = {&there, &here, &n};
  EXPECT_EQ(driver_.LaunchKernel(Kernel("plain"), 1, 1, 1, 1, 1, 1, 0, nullptr, params, nullptr),
            cuda::kErrorInvalidValue);
  EXPECT_THAT(Misuse(), HasSubstr("argument 1 (out_ptr0) points into allocation "));
  EXPECT_THAT(Misuse(), HasSubstr(" (64 bytes) of device 0, and the kernel runs on device 1\n"));
  ASSERT_EQ(driver_.MemFree(there), 0);
  ASSERT_EQ(driver_.ModuleUnload(module_), 0);
  module_ = nullptr;
}

TEST_F(SimulatorTest, KnowsWhereARangeLies) {
  char bytes[64] = {};
  const cuda::DevicePointer block = Allocate(32);
  const auto copy = [&](cuda::DevicePointer to, size_t nbytes) {
    GetSimulator().reset();
    return driver_.MemcpyHtoDAsync(to, bytes, nbytes, nullptr);
  };
  EXPECT_EQ(block % 1024, 512u) << "no more alignment than is promised";
  EXPECT_EQ(copy(block + 8, 32), cuda::kErrorInvalidValue);
  EXPECT_THAT(Misuse(),
              HasSubstr("cuMemcpyHtoDAsync: a range of 32 bytes runs over the end of allocation "));
  EXPECT_THAT(Misuse(), HasSubstr("(32 bytes) by 8 bytes\n"));
  EXPECT_EQ(copy(block + 40, 4), cuda::kErrorInvalidValue);
  EXPECT_THAT(Misuse(), HasSubstr("begins 8 bytes after the end of allocation "));
  EXPECT_EQ(copy(reinterpret_cast<cuda::DevicePointer>(bytes), 4), cuda::kErrorInvalidValue);
  EXPECT_THAT(Misuse(), HasSubstr("is not in device memory\n"));
  GetSimulator().reset();
  EXPECT_EQ(driver_.MemcpyHtoDAsync(block, reinterpret_cast<void*>(block), 4, nullptr),
            cuda::kErrorInvalidValue);
  EXPECT_EQ(Misuse(), "cuMemcpyHtoDAsync: the host's memory is an address of the device\n");
  GetSimulator().reset();
  EXPECT_EQ(driver_.MemFree(block + 16), cuda::kErrorInvalidValue);
  EXPECT_EQ(Misuse(), "cuMemFree: the address is not the beginning of an allocation\n");
}

TEST_F(SimulatorTest, AFaultIsTheLastThingInAContext) {
  char bytes[32] = {};
  const cuda::DevicePointer block = Allocate(32);
  const cuda::DevicePointer other = Allocate(32);
  ASSERT_EQ(driver_.MemsetD8Async(other, 1, 32, nullptr), 0);
  ASSERT_EQ(driver_.MemcpyHtoDAsync(other, bytes, 32, nullptr), 0);
  // Still to be done when the memory goes.
  allocated_.erase(allocated_.begin());
  ASSERT_EQ(driver_.MemcpyDtoDAsync(block, other, 32, nullptr), 0);
  ASSERT_EQ(driver_.MemFree(block), 0);
  EXPECT_EQ(driver_.StreamSynchronize(nullptr), kIllegalAddress);
  EXPECT_THAT(
      Misuse(),
      StartsWith("destination of a copy on the device: a range of 32 bytes is in allocation "));
  EXPECT_THAT(Misuse(), HasSubstr(" (32 bytes), which was freed\n"));
  cuda::DevicePointer more = 0;
  EXPECT_EQ(driver_.MemAlloc(&more, 32), kIllegalAddress);
  EXPECT_EQ(driver_.MemcpyHtoDAsync(other, bytes, 32, nullptr), kIllegalAddress);
  cuda::Stream stream = nullptr;
  EXPECT_EQ(driver_.StreamCreate(&stream, 0), kIllegalAddress);
  module_ = nullptr;
  int count = 0;
  EXPECT_EQ(driver_.DeviceGetCount(&count), 0);
}

TEST_F(SimulatorTest, TellsReadsOfWhatNothingWrote) {
  char bytes[64] = {};
  const cuda::DevicePointer from = Allocate(64);
  const cuda::DevicePointer to = Allocate(64);
  ASSERT_EQ(driver_.MemcpyHtoDAsync(from, bytes, 40, nullptr), 0);
  ASSERT_EQ(driver_.MemsetD8Async(from + 48, 0, 16, nullptr), 0);
  // A copy on the device is no use of the bytes, as in a structure with gaps.
  ASSERT_EQ(driver_.MemcpyDtoDAsync(to, from, 64, nullptr), 0);
  ASSERT_EQ(driver_.MemcpyDtoHAsync(bytes, to, 40, nullptr), 0);
  ASSERT_EQ(driver_.StreamSynchronize(nullptr), 0);
  EXPECT_EQ(Misuse(), "");
  ASSERT_EQ(driver_.MemcpyDtoHAsync(bytes, to, 64, nullptr), 0);
  EXPECT_EQ(driver_.StreamSynchronize(nullptr), 0) << "a GPU does not notice";
  EXPECT_THAT(Misuse(), StartsWith("a copy to the host: 8 of 64 bytes were never written, the "
                                   "first at byte 40 of allocation "));
}

TEST_F(SimulatorTest, HasAsMuchMemoryAsItIsTold) {
  setenv("SIMULATOR_MEMORY", "1000", 1);
  GetSimulator().reset();
  unsetenv("SIMULATOR_MEMORY");
  cuda::DevicePointer address = 0;
  Allocate(600);
  EXPECT_EQ(driver_.MemAlloc(&address, 600), cuda::kErrorOutOfMemory);
  Allocate(400);
  EXPECT_EQ(Misuse(), "");
}

TEST_F(SimulatorTest, InjectsFaultsFromTheEnvironment) {
  setenv("SIMULATOR_FAIL", "cuMemAlloc:2:CUDA_ERROR_OUT_OF_MEMORY,cuStreamCreate:1+:46", 1);
  GetSimulator().reset();
  unsetenv("SIMULATOR_FAIL");
  cuda::DevicePointer address = 0;
  Allocate(16);
  EXPECT_EQ(driver_.MemAlloc(&address, 16), cuda::kErrorOutOfMemory);
  EXPECT_STREQ(GetSimulator().failed(), "cuMemAlloc");
  Allocate(16);
  cuda::Stream stream = nullptr;
  for (int i = 0; i < 3; ++i) EXPECT_EQ(driver_.StreamCreate(&stream, 0), 46);
  EXPECT_EQ(Misuse(), "");
}

TEST_F(SimulatorTest, RefusesAVariableItCannotRead) {
  const struct {
    const char* name;
    const char* value;
    const char* report;
  } cases[] = {
      {"SIMULATOR_FAIL", "cuMemAlloc",
       "SIMULATOR_FAIL=cuMemAlloc: cuMemAlloc: expected FUNCTION:N:CODE\n"},
      {"SIMULATOR_FAIL", "cuMemAloc:1:2", ": there is no function \"cuMemAloc\"\n"},
      {"SIMULATOR_FAIL", "*:0:2", ": \"0\" is no number from 1\n"},
      {"SIMULATOR_FAIL", "*:1:CUDA_ERROR_SAD", ": \"CUDA_ERROR_SAD\" is no CUDA error\n"},
      {"SIMULATOR_CAPABILITY", "sm_90", "expected a compute capability, such as 9.0\n"},
      {"SIMULATOR_MEMORY", "lots", "expected a number of bytes\n"},
  };
  for (const auto& [name, value, report] : cases) {
    setenv(name, value, 1);
    GetSimulator().reset();
    unsetenv(name);
    EXPECT_EQ(driver_.Init(0), cuda::kErrorInvalidValue) << value;
    EXPECT_THAT(Misuse(), HasSubstr(report));
  }
  GetSimulator().reset();
  EXPECT_EQ(driver_.Init(0), 0);
}

TEST_F(SimulatorTest, IsOfOneProcess) {
  const pid_t child = fork();
  if (child == 0) {
    cuda::DevicePointer address = 0;
    const bool refused = driver_.MemAlloc(&address, 16) == cuda::kErrorNotInitialized &&
                         driver_.Init(0) == cuda::kErrorNotInitialized;
    _exit(refused ? 0 : 1);
  }
  int status = 1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(SimulatorTest, SaysThatThereIsNoExecutor) {
  char ptx[] = ".version 8.0\n.target sm_90\n";
  char log[256] = "";
  int options[] = {cuda::kJitErrorLogBuffer, cuda::kJitErrorLogBufferSize};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  cuda::Module module = nullptr;
  EXPECT_NE(driver_.ModuleLoadDataEx(&module, ptx, 2, options, values), 0);
  EXPECT_THAT(
      log,
      StartsWith("there is no executor to run kernels: set SIMULATOR_EXECUTOR to its command"));
}

}  // namespace
}  // namespace aoti
