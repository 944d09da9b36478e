// Finding the driver. Each case needs a process that has not loaded it, so each is run in a child.

#include "runtime/driver.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/runtime/simulator.h"

namespace aoti {
namespace {

// Prints what Driver::Get returns and ends the process.
[[noreturn]] void Report() {
  const Driver* driver = nullptr;
  const Status status = Driver::Get(&driver);
  std::fprintf(stderr, "[%d] %s", static_cast<int>(status.code()), status.message());
  std::exit(status.ok() ? 0 : 1);
}

[[noreturn]] void ReportWith(const char* variable, const char* value) {
  setenv(variable, value, 1);
  testing::GetSimulator();
  Report();
}

TEST(DriverDeathTest, IsFound) {
  EXPECT_EXIT(ReportWith("SIMULATOR_DEVICES", "1"), ::testing::ExitedWithCode(0), "\\[0\\] $");
}

TEST(DriverDeathTest, IsNotInstalled) {
  if (dlopen("libcuda.so.1", RTLD_LAZY) != nullptr) GTEST_SKIP() << "this machine has a driver";
  EXPECT_EXIT(Report(), ::testing::ExitedWithCode(1),
              "\\[4\\] no usable CUDA driver: libcuda.so.1: cannot open shared object file");
}

TEST(DriverDeathTest, IsTooOldForAFunction) {
  EXPECT_EXIT(
      ReportWith("SIMULATOR_DRIVER_VERSION", "11040"), ::testing::ExitedWithCode(1),
      "\\[4\\] no usable CUDA driver: libcuda.so.1 is too old: it lacks cuLaunchKernelEx of "
      "CUDA 11.6");
}

TEST(DriverDeathTest, LacksAFunction) {
  EXPECT_EXIT(ReportWith("SIMULATOR_HIDE", "cuMemAlloc"), ::testing::ExitedWithCode(1),
              "\\[4\\] no usable CUDA driver: libcuda.so.1 lacks cuMemAlloc of CUDA 3.2");
}

TEST(DriverDeathTest, MayLackAnOptionalFunction) {
  EXPECT_EXIT(ReportWith("SIMULATOR_HIDE", "cuFuncLoad"), ::testing::ExitedWithCode(0),
              "\\[0\\] $");
}

TEST(DriverDeathTest, FailsToInitialize) {
  EXPECT_EXIT(ReportWith("SIMULATOR_DEVICES", "0"), ::testing::ExitedWithCode(1),
              "\\[4\\] initializing the CUDA driver: cuInit failed: CUDA_ERROR_NO_DEVICE \\(no "
              "CUDA-capable device is detected\\)");
  EXPECT_EXIT(ReportWith("SIMULATOR_FAIL", "cuInit:1:804"), ::testing::ExitedWithCode(1),
              "\\[4\\] initializing the CUDA driver: cuInit failed: error 804$");
  EXPECT_EXIT(ReportWith("SIMULATOR_FAIL", "cuDriverGetVersion:1:1"), ::testing::ExitedWithCode(1),
              "\\[6\\] reading the driver's version: cuDriverGetVersion failed: "
              "CUDA_ERROR_INVALID_VALUE \\(invalid argument\\)");
}

[[noreturn]] void FailThenSucceed() {
  setenv("SIMULATOR_FAIL", "cuInit:1:3", 1);
  testing::GetSimulator();
  const Driver* driver = nullptr;
  const bool first = Driver::Get(&driver).ok();
  const bool second = Driver::Get(&driver).ok();
  std::exit(!first && second ? 0 : 1);
}

TEST(DriverDeathTest, TriesAgainAfterAFailure) {
  EXPECT_EXIT(FailThenSucceed(), ::testing::ExitedWithCode(0), "");
}

[[noreturn]] void LoadInManyThreads() {
  const testing::Simulator& simulator = testing::GetSimulator();
  simulator.reset();
  std::vector<std::thread> threads;
  std::vector<const Driver*> drivers(8);
  for (const Driver*& driver : drivers) {
    threads.emplace_back([&driver] { static_cast<void>(Driver::Get(&driver).ok()); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Driver* driver : drivers) {
    if (driver == nullptr || driver != drivers[0]) std::exit(1);
  }
  std::exit(simulator.calls("cuInit") == 1 ? 0 : 2);
}

TEST(DriverDeathTest, IsLoadedOnceByManyThreads) {
  EXPECT_EXIT(LoadInManyThreads(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace aoti
