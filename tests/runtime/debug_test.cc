// A debug build: the C++ that the generator makes of tests/codegen/samples.py, dynamic(), with all
// modes, run on the simulated driver.

#include "runtime/debug/debug.h"

#include <dirent.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "model.h"
#include "nvtx3/nvToolsExt.h"
#include "runtime/aoti.h"
#include "runtime/cpp.h"
#include "runtime/weights.h"
#include "tests/runtime/simulator.h"

// The images that the generated tables name. Each is text, as the simulator reads it.
#define DEBUG_IMAGE(name, params)                                                           \
  asm(".pushsection .rodata\n"                                                              \
      ".global aoti_dynamic_debug_sm_90_" name                                              \
      "\n"                                                                                  \
      ".global aoti_dynamic_debug_sm_90_" name                                              \
      "_end\n"                                                                              \
      "aoti_dynamic_debug_sm_90_" name                                                      \
      ":\n"                                                                                 \
      ".asciz \"simulator module\\nkernel " name " target=sm_90 threads=128 params=" params \
      "\\n\"\n"                                                                             \
      "aoti_dynamic_debug_sm_90_" name                                                      \
      "_end:\n"                                                                             \
      ".popsection\n")
DEBUG_IMAGE("increment_f679230253e5", "8,4,8,8");
DEBUG_IMAGE("scale_f469802a3144", "8,8,4,4,8,8");
DEBUG_IMAGE("shift_ecd3fad7a4d3", "8,8,4,8,8,8,8");

namespace {

// The names of open ranges and of those closed, as a tool that NVTX loads sees them.
std::vector<std::string>& Opened() {
  static std::vector<std::string> names;
  return names;
}

int closed = 0;

int Push(nvtxDomainHandle_t, const nvtxEventAttributes_t* attributes) {
  Opened().emplace_back(attributes->message.ascii);
  return 0;
}

int Pop(nvtxDomainHandle_t) { return ++closed; }

int InitializeTool(NvtxGetExportTableFunc_t get) {
  const auto* callbacks = static_cast<const NvtxExportTableCallbacks*>(get(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable functions = nullptr;
  unsigned size = 0;
  if (callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &functions, &size) != 1) return 0;
  *functions[NVTX_CBID_CORE2_DomainRangePushEx] = reinterpret_cast<NvtxFunctionPointer>(Push);
  *functions[NVTX_CBID_CORE2_DomainRangePop] = reinterpret_cast<NvtxFunctionPointer>(Pop);
  return 1;
}

}  // namespace

namespace aoti {
namespace {

using dynamic_debug::DynamicDebug;
using testing::CurrentContext;
using testing::GetDriver;
using testing::GetSimulator;

template <typename T>
T Param(const SimulatorLaunch& launch, size_t index) {
  T value;
  std::memcpy(&value, launch.params[index], sizeof value);
  return value;
}

int RunKernel(const SimulatorLaunch* launch, void*) {
  const std::string name = launch->kernel;
  const bool increments = name.compare(0, 9, "increment") == 0;
  const auto n = static_cast<size_t>(Param<int32_t>(*launch, increments ? 1 : 2));
  auto* first = reinterpret_cast<float*>(Param<uint64_t>(*launch, 0));
  auto* out = increments ? first : reinterpret_cast<float*>(Param<uint64_t>(*launch, 1));
  for (size_t i = 0; i < n; ++i) {
    if (increments) out[i] += 1;
    if (name.compare(0, 5, "scale") == 0) out[i] = first[i] * Param<float>(*launch, 3);
    if (name.compare(0, 5, "shift") == 0) {
      out[i] =
          first[i] + static_cast<float>(Param<int64_t>(*launch, 3) + Param<int64_t>(*launch, 4));
    }
  }
  return 0;
}

int Fail(const SimulatorLaunch* launch, void* user) {
  constexpr int kIllegalAddress = 700;
  const std::string name = launch->kernel;
  if (name.compare(0, 5, "shift") == 0) return kIllegalAddress;
  return RunKernel(launch, user);
}

// Memory of the simulated device.
class Block {
 public:
  explicit Block(size_t count, float value = 0) : count_(count) {
    EXPECT_EQ(GetDriver().MemAlloc(&address_, count * sizeof(float)), cuda::kSuccess);
    std::fill(data(), data() + count, value);
  }
  // Reports an earlier error of the device, if a test made one.
  ~Block() { GetDriver().MemFree(address_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  float* data() const { return reinterpret_cast<float*>(address_); }
  std::vector<float> values() const { return {data(), data() + count_}; }

 private:
  const size_t count_;
  cuda::DevicePointer address_ = 0;
};

namespace in = dynamic_debug::inputs;
namespace out = dynamic_debug::outputs;

// x is [2, 3] of 1, rows [2, 3] of 2; outputs hold what is no value before the run.
struct Arguments {
  Block x{6, 1};
  Block y{12, 3};
  Block state{8, 4};
  Block rows{6, 2};
  Block result{6, NAN};
  Block half{3, NAN};
  Block copy{12, NAN};
  Block last{3, NAN};
  Block square{9, NAN};
  Layout<2> x_layout = RowMajor<in::X>({2, 3});
  Layout<2> y_layout{{3, 4}, {1, 3}, 0};
  Layout<2> state_layout = RowMajor<in::State>({2, 4});
  Layout<1> line_layout = RowMajor<out::Half>({3});
  Layout<2> square_layout = RowMajor<out::Square>({3, 3});
  DLTensor x_tensor = View<in::X>(x.data(), 0, x_layout);
  DLTensor y_tensor = View<in::Y>(y.data(), 0, y_layout);
  DLTensor state_tensor = View<in::State>(state.data(), 0, state_layout);
  DLTensor rows_tensor = View<in::Rows>(rows.data(), 0, x_layout);
  DLTensor result_tensor = View<out::Out>(result.data(), 0, x_layout);
  DLTensor half_tensor = View<out::Half>(half.data(), 0, line_layout);
  DLTensor copy_tensor = View<out::Copy>(copy.data(), 0, y_layout);
  DLTensor last_tensor = View<out::Last>(last.data(), 0, line_layout);
  DLTensor square_tensor = View<out::Square>(square.data(), 0, square_layout);
  DynamicDebug::Inputs inputs = {&x_tensor, &y_tensor, 7, &state_tensor, &rows_tensor, 5};
  DynamicDebug::Outputs outputs = {&result_tensor, &half_tensor, &copy_tensor, &last_tensor,
                                   &square_tensor};
};

class DebugTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // What NVTX looks for first, when it is called first: a tool that is linked.
    InitializeInjectionNvtx2_fnptr = InitializeTool;
    GetSimulator().reset();
    GetSimulator().set_executor(RunKernel, nullptr);
    const ::testing::TestInfo* info = ::testing::UnitTest::GetInstance()->current_test_info();
    directory_ = ::testing::TempDir() + "/debug_" + info->name();
    ASSERT_EQ(setenv("AOTI_DEBUG_DIR", directory_.c_str(), 1), 0);
    AotiModelOptions options = {};
    options.struct_size = sizeof options;
    ASSERT_TRUE(DynamicDebug::Load(options, &model_).ok());
    ASSERT_TRUE(model_.CreateSession(nullptr, &session_).ok());
  }

  // What a run prints; its status goes to `status`.
  std::string Printed(const Arguments& arguments, Status* status) {
    ::testing::internal::CaptureStderr();
    *status = session_.Run(arguments.inputs, arguments.outputs, nullptr);
    return ::testing::internal::GetCapturedStderr();
  }

  // The files of the directory, in their order.
  std::vector<std::string> Files() const {
    std::vector<std::string> names;
    DIR* directory = opendir(directory_.c_str());
    while (const dirent* entry = directory == nullptr ? nullptr : readdir(directory)) {
      if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    }
    if (directory != nullptr) closedir(directory);
    std::sort(names.begin(), names.end());
    return names;
  }

  const CurrentContext current_;
  DynamicDebug model_;
  DynamicDebug::Session session_;
  std::string directory_;
};

TEST_F(DebugTest, PrintsEachStepWithItsArguments) {
  const Arguments arguments;
  Status status;
  const std::string printed = Printed(arguments, &status);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_NE(
      printed.find("dynamic_debug main step 0, kernel scale_f469802a3144 (sample.py, in forward: "
                   "y = 2 * x)\n  launch scale_f469802a3144 over 1 x 1 x 1: x = 0x"),
      std::string::npos)
      << printed;
  EXPECT_NE(printed.find(", n = 6, factor = 2\n"), std::string::npos) << printed;
  EXPECT_NE(printed.find(", n = 6, start = 7, seed = 15\n"), std::string::npos) << printed;
  EXPECT_NE(printed.find("dynamic_debug main step 1\n  fill 36 bytes at 0x"), std::string::npos)
      << printed;
  EXPECT_NE(printed.find("dynamic_debug main step 5\n  copy 48 bytes to 0x"), std::string::npos)
      << printed;
}

TEST_F(DebugTest, ComputesTheSame) {
  const Arguments arguments;
  Status status;
  Printed(arguments, &status);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(arguments.result.values(), std::vector<float>(6, 2 + 7 + 15));
  EXPECT_EQ(arguments.half.values(), std::vector<float>(3, 4));
  EXPECT_EQ(arguments.copy.values(), std::vector<float>(12, 3));
  EXPECT_EQ(arguments.last.values(), std::vector<float>(3, 2));
  EXPECT_EQ(arguments.square.values(), std::vector<float>(9, 0));
  EXPECT_EQ(arguments.state.values(), std::vector<float>(8, 5));
  // Each step is issued and waited for.
  EXPECT_EQ(GetSimulator().calls("cuGraphLaunch"), 0u);
  EXPECT_STREQ(GetSimulator().misuse(), "");
}

TEST_F(DebugTest, WritesWhatEachStepWrites) {
  const Arguments arguments;
  Status status;
  Printed(arguments, &status);
  ASSERT_TRUE(status.ok()) << status.message();
  const std::vector<std::string> files = Files();
  ASSERT_EQ(files.size(), 9u);
  EXPECT_EQ(files[0].substr(6), "_dynamic_debug_main_step_0_kernel_scale_f469802a3144.safetensors");

  const std::string path = directory_ + "/" + files[5];  // column by column in memory
  std::unique_ptr<ByteSource> source;
  ASSERT_TRUE(OpenFile(path, &source).ok());
  std::unique_ptr<SafetensorsFile> file;
  status = SafetensorsFile::Open(std::move(source), path, &file);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(file->tensors().size(), 1u);
  const SafetensorsFile::Tensor& tensor = file->tensors().at("output copy");
  EXPECT_EQ(tensor.dtype, "F32");
  EXPECT_EQ(tensor.shape, (std::vector<int64_t>{12}));
  std::vector<float> values(12);
  ASSERT_TRUE(file->Read(tensor.offset, tensor.nbytes, values.data()).ok());
  EXPECT_EQ(values, std::vector<float>(12, 3));
}

TEST_F(DebugTest, ADirectoryThatCannotBeMadeIsNamed) {
  ASSERT_EQ(setenv("AOTI_DEBUG_DIR", "/proc/none", 1), 0);
  const Arguments arguments;
  Status status;
  Printed(arguments, &status);
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_NE(std::string(status.message()).find("cannot create /proc/none"), std::string::npos)
      << status.message();
}

TEST_F(DebugTest, TheFirstStepThatWritesNanIsNamed) {
  const Arguments arguments;
  arguments.x.data()[4] = NAN;
  Status status;
  Printed(arguments, &status);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_STREQ(
      status.message(),
      "dynamic_debug main step 0, kernel scale_f469802a3144 (sample.py, in forward: y = 2 * x): "
      "arena doubled, F32 [2, 3], has 1 NaN, the first at [1, 1]; there is NaN in input x");
}

TEST_F(DebugTest, AnErrorOfTheDeviceIsThatOfTheStep) {
  GetSimulator().set_executor(Fail, nullptr);
  const Arguments arguments;
  Status status;
  Printed(arguments, &status);
  EXPECT_EQ(status.code(), Code::kDriver);
  EXPECT_EQ(std::string(status.message())
                .find("dynamic_debug main step 2, kernel shift_ecd3fad7a4d3 (sample.py, in "
                      "forward: y = y + start + 3 * seed): cuStreamSynchronize failed: "
                      "CUDA_ERROR_ILLEGAL_ADDRESS"),
            0u)
      << status.message();
}

TEST_F(DebugTest, RangesBearTheStepsNames) {
  Opened().clear();
  closed = 0;
  const Arguments arguments;
  Status status;
  Printed(arguments, &status);
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(Opened().size(), 9u);
  EXPECT_EQ(Opened()[2],
            "dynamic_debug main step 2, kernel shift_ecd3fad7a4d3 (sample.py, in forward: y = y + "
            "start + 3 * seed)");
  EXPECT_EQ(closed, 9);
}

TEST_F(DebugTest, CannotBeCaptured) {
  cuda::Stream stream = nullptr;
  ASSERT_EQ(GetDriver().StreamCreate(&stream, cuda::kStreamNonBlocking), cuda::kSuccess);
  GetSimulator().set_capturing(stream, 1);
  const Arguments arguments;
  const Status status = session_.Run(arguments.inputs, arguments.outputs, stream);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find("--//aoti:debug"), std::string::npos);
  GetSimulator().set_capturing(stream, 0);
  ASSERT_EQ(GetDriver().StreamDestroy(stream), cuda::kSuccess);
}

// Numbers of every floating-point type, printed; and which bits are NaN.
TEST(DebugFormats, ArgumentsAreReadAsTheirTypesSay) {
  const uint16_t half = 0x3e00;
  const uint16_t bfloat = 0xc040;
  const uint8_t e4m3 = 0x7f;
  const uint8_t e5m2 = 0x7c;
  const uint8_t e4m3fnuz = 0x80;
  const uint8_t e5m2fnuz = 0xc2;
  const double wide = 0.1;
  const int64_t least = INT64_MIN;
  const bool flag = true;
  ::testing::internal::CaptureStderr();
  debug::PrintLaunch("k", {1, 2, 3},
                     {{"a", "F16", &half},
                      {"b", "BF16", &bfloat},
                      {"c", "F8_E4M3", &e4m3},
                      {"d", "F8_E5M2", &e5m2},
                      {"e", "F64", &wide},
                      {"f", "I64", &least},
                      {"g", "BOOL", &flag},
                      {"h", "F8_E4M3FNUZ", &e4m3fnuz},
                      {"i", "F8_E5M2FNUZ", &e5m2fnuz}});
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "  launch k over 1 x 2 x 3: a = 1.5, b = -3, c = nan, d = inf, e = 0.1, "
            "f = -9223372036854775808, g = 1, h = nan, i = -1.5\n");
}

}  // namespace
}  // namespace aoti
