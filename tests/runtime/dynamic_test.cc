// A model whose shapes depend on its inputs: the C++ that the generator makes of
// tests/codegen/samples.py, dynamic(), run on the simulated driver.
//
//   inputs   x [s0, s1], y [s1, 2 * s0] (column by column), start, state [s0, 4], rows [s2, 3],
//   seed outputs  out = 2 * x + start + 3 * seed, half = 2 * rows[:half], copy = y, last = 2 *
//   x[-1],
//            square [s1, s1] of zeros; and state is increased by 1
//   where    start + s1 <= 1000, s2 <= s0, and a grid limits s0 to 54

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "model.h"
#include "runtime/aoti.h"
#include "runtime/cpp.h"
#include "tests/runtime/simulator_fixture.h"

// The images that the generated tables name. Each is text, as the simulator reads it.
#define DYNAMIC_IMAGE(name, params)                                                         \
  asm(".pushsection .rodata\n"                                                              \
      ".global aoti_dynamic_sm_90_" name                                                    \
      "\n"                                                                                  \
      ".global aoti_dynamic_sm_90_" name                                                    \
      "_end\n"                                                                              \
      "aoti_dynamic_sm_90_" name                                                            \
      ":\n"                                                                                 \
      ".asciz \"simulator module\\nkernel " name " target=sm_90 threads=128 params=" params \
      "\\n\"\n"                                                                             \
      "aoti_dynamic_sm_90_" name                                                            \
      "_end:\n"                                                                             \
      ".popsection\n")
DYNAMIC_IMAGE("increment_f679230253e5", "8,4,8,8");
DYNAMIC_IMAGE("scale_f469802a3144", "8,8,4,4,8,8");
DYNAMIC_IMAGE("shift_ecd3fad7a4d3", "8,8,4,8,8,8,8");

namespace aoti {
namespace {

using dynamic::Dynamic;
using testing::CurrentContext;
using testing::GetDriver;
using testing::GetSimulator;
using testing::Stream;
using Floats = std::vector<float>;

template <typename T>
T Param(const SimulatorLaunch& launch, size_t index) {
  T value;
  std::memcpy(&value, launch.params[index], sizeof value);
  return value;
}

float* Memory(const SimulatorLaunch& launch, size_t index, size_t count) {
  const auto address = Param<uint64_t>(launch, index);
  const bool good = GetSimulator().check_range(address, count * sizeof(float), launch.kernel) != 0;
  return good ? reinterpret_cast<float*>(address) : nullptr;
}

int RunKernel(const SimulatorLaunch* launch, void*) {
  constexpr int kIllegalAddress = 700;
  const std::string name = launch->kernel;
  const auto is = [&](const char* stem) { return name.compare(0, std::strlen(stem), stem) == 0; };
  const auto n = static_cast<size_t>(Param<int32_t>(*launch, is("increment") ? 1 : 2));
  // What a grid covers shows that it fits the sizes.
  const uint64_t covered = uint64_t{launch->grid[0]} * launch->grid[1] * launch->grid[2] * 128;
  if (covered < n) return kIllegalAddress;
  if (!is("increment") && launch->grid[0] != (n + 127) / 128) return kIllegalAddress;
  float* first = Memory(*launch, 0, n);
  float* out = is("increment") ? first : Memory(*launch, 1, n);
  if (first == nullptr || out == nullptr) return kIllegalAddress;
  for (size_t i = 0; i < n; ++i) {
    if (is("increment")) out[i] += 1;
    if (is("scale")) out[i] = first[i] * Param<float>(*launch, 3);
    if (is("shift")) {
      const int64_t sum = Param<int64_t>(*launch, 3) + Param<int64_t>(*launch, 4);
      out[i] = first[i] + static_cast<float>(sum);
    }
  }
  return 0;
}

// Memory of the simulated device; nothing for 0 floats.
class Block {
 public:
  explicit Block(size_t count, float first = 0) : count_(count) {
    if (count == 0) return;
    EXPECT_EQ(GetDriver().MemAlloc(&address_, count * sizeof(float)), cuda::kSuccess);
    for (size_t i = 0; i < count; ++i) data()[i] = first + static_cast<float>(i);
  }
  ~Block() {
    if (address_ == 0) return;
    EXPECT_EQ(GetDriver().MemFree(address_), cuda::kSuccess);
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  float* data() const { return reinterpret_cast<float*>(address_); }
  Floats values() const { return Floats(data(), data() + count_); }

 private:
  const size_t count_;
  cuda::DevicePointer address_ = 0;
};

namespace in = dynamic::inputs;
namespace out = dynamic::outputs;

// Arguments for sizes s0, s1 and s2, and what must come of them.
struct Arguments {
  Arguments(int64_t batch, int64_t length, int64_t count, int64_t start_at = 0, float first = 1)
      : s0(static_cast<size_t>(batch)),
        s1(static_cast<size_t>(length)),
        half_size(static_cast<size_t>(count) * 3 / 2),
        x_layout(RowMajor<in::X>({batch, length})),
        y_layout({{length, 2 * batch}, {1, length}, 0}),
        state_layout(RowMajor<in::State>({batch, 4})),
        rows_layout(RowMajor<in::Rows>({count, 3})),
        half_layout(RowMajor<out::Half>({count * 3 / 2})),
        last_layout(RowMajor<out::Last>({length})),
        square_layout(RowMajor<out::Square>({length, length})),
        x(s0 * s1, first),
        y(2 * s0 * s1, first),
        state(s0 * 4, first),
        rows(static_cast<size_t>(count) * 3, first),
        result(s0 * s1, -1),
        half(half_size, -1),
        copy(2 * s0 * s1, -1),
        last(s1, -1),
        square(s1 * s1, -1) {
    inputs.x = &x_tensor;
    inputs.y = &y_tensor;
    inputs.start = start_at;
    inputs.state = &state_tensor;
    inputs.rows = &rows_tensor;
    inputs.seed = 5;
    outputs = {&result_tensor, &half_tensor, &copy_tensor, &last_tensor, &square_tensor};
  }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;

  // After `runs` runs.
  void ExpectCorrect(int runs = 1) const {
    const Floats in = x.values();
    Floats shifted;
    const auto sum = static_cast<float>(inputs.start + 3 * inputs.seed);
    for (const float value : in) shifted.push_back(2 * value + sum);
    EXPECT_EQ(result.values(), shifted);
    Floats doubled;
    for (size_t i = 0; i < half_size; ++i) doubled.push_back(2 * rows.values()[i]);
    EXPECT_EQ(half.values(), doubled);
    EXPECT_EQ(copy.values(), y.values());
    Floats end;
    for (size_t i = 0; i < s1; ++i) end.push_back(2 * in[(s0 - 1) * s1 + i]);
    EXPECT_EQ(last.values(), end);
    EXPECT_EQ(square.values(), Floats(s1 * s1, 0));
    const Floats now = state.values();
    for (size_t i = 0; i < now.size(); ++i) {
      EXPECT_EQ(now[i], in[0] + static_cast<float>(i) + static_cast<float>(runs));
    }
  }

  size_t s0;
  size_t s1;
  size_t half_size;
  Layout<2> x_layout;
  Layout<2> y_layout;
  Layout<2> state_layout;
  Layout<2> rows_layout;
  Layout<1> half_layout;
  Layout<1> last_layout;
  Layout<2> square_layout;
  Block x;
  Block y;
  Block state;
  Block rows;
  Block result;
  Block half;
  Block copy;
  Block last;
  Block square;
  DLTensor x_tensor = View<in::X>(x.data(), 0, x_layout);
  DLTensor y_tensor = View<in::Y>(y.data(), 0, y_layout);
  DLTensor state_tensor = View<in::State>(state.data(), 0, state_layout);
  DLTensor rows_tensor = View<in::Rows>(rows.data(), 0, rows_layout);
  DLTensor result_tensor = View<out::Out>(result.data(), 0, x_layout);
  DLTensor half_tensor = View<out::Half>(half.data(), 0, half_layout);
  DLTensor copy_tensor = View<out::Copy>(copy.data(), 0, y_layout);
  DLTensor last_tensor = View<out::Last>(last.data(), 0, last_layout);
  DLTensor square_tensor = View<out::Square>(square.data(), 0, square_layout);
  Dynamic::Inputs inputs = {};
  Dynamic::Outputs outputs = {};
};

uint64_t Align(uint64_t nbytes) { return (nbytes + 255) / 256 * 256; }

// Of main's temporaries: `doubled` and later `squares`, and `zeros`.
uint64_t ArenaSize(uint64_t s0, uint64_t s1) {
  return Align(4 * std::max(s0 * s1, s1 * s1)) + Align(4 * s1 * s1);
}

class DynamicTest : public testing::SimulatorTest {
 protected:
  DynamicTest() : SimulatorTest(RunKernel) {}

  static Status Load(Dynamic* model) {
    AotiModelOptions options = {};
    options.struct_size = sizeof options;
    return Dynamic::Load(options, model);
  }

  static Status Create(const Dynamic& model, Dynamic::Session* session, uint64_t flags = 0,
                       uint64_t max_graphs = 0) {
    const AotiSessionOptions options = {sizeof options, flags, max_graphs};
    return model.CreateSession(&options, session);
  }

  static void Run(const Dynamic::Session& session, const Arguments& arguments,
                  cuda::Stream stream = nullptr) {
    const Status status = session.Run(arguments.inputs, arguments.outputs, stream);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  static std::string Fault(const Dynamic::Session& session, const Arguments& arguments) {
    const Status status = session.Run(arguments.inputs, arguments.outputs, nullptr);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    return status.message();
  }

  static void Synchronize(cuda::Stream stream = nullptr) {
    ASSERT_EQ(GetDriver().StreamSynchronize(stream), cuda::kSuccess);
  }

  static uint64_t Calls(const char* function) { return GetSimulator().calls(function); }
};

// Both ways to run.
class DynamicModeTest : public DynamicTest, public ::testing::WithParamInterface<uint64_t> {};

INSTANTIATE_TEST_SUITE_P(Modes, DynamicModeTest, ::testing::Values(0, AOTI_SESSION_NO_GRAPH),
                         [](const auto& info) { return info.param == 0 ? "Graph" : "Stream"; });

TEST_P(DynamicModeTest, ServesEverySize) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  // 1, odd, the limits, empty; sizes that return.
  const int64_t cases[][4] = {{1, 1, 0, 0},     {3, 7, 1, 0},   {54, 100, 16, 900}, {1, 1, 0, 0},
                              {54, 1, 16, 999}, {7, 99, 3, 1},  {3, 7, 1, 0},       {2, 64, 0, 10},
                              {1, 100, 1, 0},   {17, 31, 2, 5}, {54, 100, 16, 0}};
  for (const auto& [s0, s1, s2, start] : cases) {
    const Arguments arguments(s0, s1, s2, start, static_cast<float>(s0 + s1));
    Run(session, arguments);
    Synchronize();
    arguments.ExpectCorrect();
    ASSERT_FALSE(HasFailure()) << s0 << ", " << s1 << ", " << s2;
  }
}

TEST_P(DynamicModeTest, TellsTheShapesOfOutputs) {
  const CurrentContext current;
  for (const int64_t s2 : {0, 1, 5}) {
    const Arguments arguments(6, 7, s2);
    Dynamic::Layouts layouts = {};
    const Status status = Dynamic::OutputLayouts(arguments.inputs, &layouts);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(layouts.out.shape, (std::array<int64_t, 2>{6, 7}));
    EXPECT_EQ(layouts.out.strides, (std::array<int64_t, 2>{7, 1}));
    EXPECT_EQ(layouts.out.nbytes, 168u);
    EXPECT_EQ(layouts.half.shape, (std::array<int64_t, 1>{s2 * 3 / 2}));
    EXPECT_EQ(layouts.half.nbytes, static_cast<uint64_t>(s2 * 3 / 2 * 4));
    EXPECT_EQ(layouts.copy.shape, (std::array<int64_t, 2>{7, 12}));
    EXPECT_EQ(layouts.copy.strides, (std::array<int64_t, 2>{1, 7}));
  }
}

TEST_P(DynamicModeTest, RunsOfDifferentSizesKeepTheirOrder) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  const Stream a;
  const Stream b;
  const Arguments large(20, 30, 4, 0, 100);
  Run(session, large, a.handle());
  Synchronize(a.handle());
  // Not waited for: the simulator runs none of it yet, and then b's alone if nothing orders it.
  const Arguments first(20, 30, 4, 0, 1);
  const Arguments second(5, 30, 0, 7, 1000);
  Run(session, first, a.handle());
  Run(session, second, b.handle());
  Synchronize(b.handle());
  first.ExpectCorrect();
  second.ExpectCorrect();
}

TEST_P(DynamicModeTest, MemoryGrowsWhileEarlierWorkIsPending) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  const uint64_t loaded = GetSimulator().live().device_bytes;
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  EXPECT_EQ(GetSimulator().live().device_bytes, loaded) << "none before sizes are known";
  const Stream stream;
  const Arguments small(2, 3, 1, 0, 10);
  const Arguments large(40, 90, 2, 0, 500);
  const Arguments again(2, 3, 1, 4, 20);
  uint64_t bytes = GetSimulator().live().device_bytes;
  Run(session, small, stream.handle());
  EXPECT_EQ(GetSimulator().live().device_bytes - bytes, ArenaSize(2, 3));
  Run(session, large, stream.handle());
  EXPECT_EQ(GetSimulator().live().device_bytes - bytes, ArenaSize(40, 90));
  const uint64_t allocations = Calls("cuMemAlloc");
  Run(session, again, stream.handle());
  EXPECT_EQ(Calls("cuMemAlloc"), allocations) << "it does not shrink";
  Synchronize(stream.handle());
  small.ExpectCorrect();
  large.ExpectCorrect();
  again.ExpectCorrect();
  AotiTargetInfo info = {};
  ASSERT_EQ(aoti_model_target(model.get(), &info, nullptr), AOTI_OK);
  EXPECT_EQ(info.session_memory, ArenaSize(64, 100)) << "the most there can be";
}

TEST_P(DynamicModeTest, RecoversWhereMemoryCannotGrow) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  const Arguments small(2, 3, 1);
  const Arguments large(40, 90, 2);
  Run(session, small);
  GetSimulator().fail("cuMemAlloc", 1, 2);
  const Status status = session.Run(large.inputs, large.outputs, nullptr);
  EXPECT_EQ(status.code(), Code::kOutOfMemory);
  EXPECT_NE(
      std::string(status.message()).find("bytes of device memory for a session's temporaries"),
      std::string::npos)
      << status.message();
  Run(session, small);
  Run(session, large);
  Synchronize();
  small.ExpectCorrect(2);
  large.ExpectCorrect();
}

TEST_P(DynamicModeTest, NamesWhatIsOutOfRange) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  const Arguments wide(1, 101, 0);
  EXPECT_EQ(Fault(session, wide),
            "input 0 (x): dimension 1: expected 1 <= s1 <= 100, got s1 = 101");
  const Arguments empty(0, 5, 0);
  EXPECT_EQ(Fault(session, empty), "input 0 (x): dimension 0: expected 1 <= s0 <= 64, got s0 = 0");
  const Arguments late(2, 5, 0, 1001);
  EXPECT_EQ(Fault(session, late), "input 2 (start): expected 0 <= u0 <= 1000, got u0 = 1001");
  const Arguments sum(2, 5, 0, 996);
  EXPECT_EQ(
      Fault(session, sum),
      "the inputs violate the constraint start + x.shape[1] <= 1000: expected u0 + s1 <= 1000, "
      "got 1001 <= 1000, where s1 = 5 is dimension 1 of input 0 (x), u0 = 996 is input 2 "
      "(start)");
  const Arguments rows(2, 5, 3);
  EXPECT_EQ(Fault(session, rows),
            "the inputs violate the constraint rows.shape[0] <= x.shape[0]: expected s2 <= s0, got "
            "3 <= 2, where s0 = 2 is dimension 0 of input 0 (x), s2 = 3 is dimension 0 of input 4 "
            "(rows)");
  const Arguments tall(55, 5, 0);
  EXPECT_EQ(Fault(session, tall),
            "the model cannot run at these sizes: main step 3, kernel increment_f679230253e5: the "
            "grid in direction y, s0 * 1200, is 66000, expected 0 to 65535, where s0 = 55 is "
            "dimension 0 of input 0 (x)");
  Arguments seed(2, 5, 0);
  seed.inputs.seed = INT64_MAX / 2;
  EXPECT_EQ(Fault(session, seed),
            "the model cannot run at these sizes: u1 * 3 divides by zero or does not fit 64 bits, "
            "where u1 = 4611686018427387903 is input 5 (seed)");
  seed.inputs.seed = -3;
  Run(session, seed);
  Synchronize();
  seed.ExpectCorrect();
  EXPECT_EQ(Fault(session, tall).substr(0, 31), "the model cannot run at these s");
  Run(session, seed);
  Synchronize();
  seed.ExpectCorrect(2);
}

TEST_P(DynamicModeTest, NamesWhatDoesNotFitTheSizes) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  Arguments arguments(4, 5, 2);
  int64_t y_shape[] = {5, 9};
  arguments.y_tensor.shape = y_shape;
  EXPECT_EQ(Fault(session, arguments),
            "input 1 (y): dimension 1: expected size 8 (s0 * 2, where s0 = 4 is dimension 0 of "
            "input 0 (x)), got 9 (expected shape [5, 8], got [5, 9])");
  y_shape[0] = 6;
  EXPECT_EQ(Fault(session, arguments),
            "input 1 (y): dimension 0: expected size 5 (s1, which is dimension 1 of input 0 (x)), "
            "got 6 (expected shape [5, 8], got [6, 9])");
  arguments.y_tensor.shape = arguments.y_layout.shape.data();
  int64_t strides[] = {8, 1};
  arguments.y_tensor.strides = strides;
  EXPECT_EQ(
      Fault(session, arguments),
      "input 1 (y): dimension 1: expected stride 5 (s1, which is dimension 1 of input 0 (x)), "
      "got 1 (expected strides [1, 5], got [8, 1])");
  arguments.y_tensor.strides = arguments.y_layout.strides.data();
  arguments.x_tensor.ndim = 3;
  EXPECT_EQ(Fault(session, arguments), "input 0 (x): expected 2 dimensions [s0, s1], got 3");
  arguments.x_tensor.ndim = 2;
  int64_t out_shape[] = {4, 6};
  arguments.result_tensor.shape = out_shape;
  EXPECT_EQ(Fault(session, arguments),
            "output 0 (out): dimension 1: expected size 5 (s1, which is dimension 1 of input 0 "
            "(x)), got 6 (expected shape [4, 5], got [4, 6])");
}

TEST_P(DynamicModeTest, ScalarsAreNumbersOnTheHost) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  const Arguments arguments(4, 5, 2);
  const int64_t start = 3;
  const int64_t seed = 5;
  DLTensor scalar = Scalar(&start);
  const DLTensor other = Scalar(&seed);
  const DLTensor* inputs[] = {&arguments.x_tensor,     &arguments.y_tensor,    &scalar,
                              &arguments.state_tensor, &arguments.rows_tensor, &other};
  const DLTensor* outputs[] = {&arguments.result_tensor, &arguments.half_tensor,
                               &arguments.copy_tensor, &arguments.last_tensor,
                               &arguments.square_tensor};
  AotiStatus status;
  const auto run = [&] {
    aoti_session_run(session.get(), inputs, 6, outputs, 5, nullptr, &status);
    return std::string(status.message);
  };
  EXPECT_EQ(run(), "");
  scalar.dtype.bits = 32;
  EXPECT_EQ(run(), "input 2 (start): expected dtype int64, got int32");
  scalar.dtype.bits = 64;
  scalar.device.device_type = kDLCUDA;
  EXPECT_EQ(run(),
            "input 2 (start): expected a number in host (CPU) memory, got CUDA memory (DLPack "
            "device type 2)");
  scalar.device.device_type = kDLCPU;
  scalar.ndim = 1;
  EXPECT_EQ(run(), "input 2 (start): expected 0 dimensions [], got 1");
  scalar.ndim = 0;
  scalar.data = nullptr;
  EXPECT_EQ(run(), "input 2 (start): its data is a null pointer");
  inputs[2] = nullptr;
  EXPECT_EQ(run(), "input 2 (start): is a null pointer");
  aoti_session_run(session.get(), inputs, 5, outputs, 5, nullptr, &status);
  EXPECT_STREQ(status.message, "expected 6 inputs (x, y, start, state, rows, seed), got 5");
  Synchronize();
}

TEST_P(DynamicModeTest, AMutatedInputOverlapsNothing) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  Arguments arguments(4, 5, 2);
  arguments.x_tensor.data = arguments.state.data();
  EXPECT_EQ(Fault(session, arguments),
            "input 3 (state): the model writes to it, and it shares memory with input 0 (x)");
  arguments.x_tensor.data = arguments.y.data();
  Run(session, arguments);
  arguments.last_tensor.data = arguments.state.data() + 8;
  EXPECT_EQ(Fault(session, arguments), "output 3 (last): shares memory with input 3 (state)");
  Synchronize();
}

TEST_F(DynamicTest, ReturningSizesReuseTheirGraph) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session).ok());
  const Arguments a(40, 90, 1, 0, 1);
  const Arguments b(5, 6, 1, 0, 2);
  const Arguments other_a(40, 90, 1, 0, 3);
  Run(session, a);
  Run(session, b);
  EXPECT_EQ(Calls("cuGraphInstantiateWithFlags"), 2u);
  const auto updates = [] {
    return Calls("cuGraphExecKernelNodeSetParams") + Calls("cuGraphExecMemcpyNodeSetParams") +
           Calls("cuGraphExecMemsetNodeSetParams");
  };
  EXPECT_EQ(updates(), 0u);
  Run(session, a);
  EXPECT_EQ(updates(), 0u) << "the same pointers";
  Run(session, other_a);
  EXPECT_EQ(updates(), 7u) << "all steps but the fill and the one on temporaries";
  EXPECT_EQ(Calls("cuGraphInstantiateWithFlags"), 2u);
  Synchronize();
  a.ExpectCorrect(2);
  b.ExpectCorrect();
  other_a.ExpectCorrect();
}

TEST_F(DynamicTest, ScalarsThatArePassedOnNeedNoOtherGraph) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session).ok());
  Arguments arguments(4, 5, 1);
  for (int64_t start = 0; start < 20; ++start) {
    arguments.inputs.start = start;
    arguments.inputs.seed = -start;
    Run(session, arguments);
    Synchronize();
    arguments.ExpectCorrect(static_cast<int>(start) + 1);
  }
  EXPECT_EQ(Calls("cuGraphInstantiateWithFlags"), 1u);
}

TEST_F(DynamicTest, KeepsTheGraphsOfTheLatestSizes) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, 0, 2).ok());
  const Arguments a(30, 50, 1, 0, 1);
  const Arguments b(5, 6, 1, 0, 2);
  const Arguments c(7, 8, 1, 0, 3);
  const auto built_by = [&](const Arguments& arguments) {
    const uint64_t built = Calls("cuGraphInstantiateWithFlags");
    Run(session, arguments);
    return Calls("cuGraphInstantiateWithFlags") - built;
  };
  // Enqueued together: a graph that goes finishes what it was launched for.
  EXPECT_EQ(built_by(a), 1u);
  EXPECT_EQ(built_by(b), 1u);
  EXPECT_EQ(built_by(a), 0u);
  EXPECT_EQ(built_by(c), 1u);
  EXPECT_EQ(GetSimulator().live().graph_execs - before_.graph_execs, 2u);
  EXPECT_EQ(built_by(a), 0u);
  EXPECT_EQ(built_by(b), 1u) << "b was used the longest ago when c came";
  EXPECT_EQ(built_by(c), 1u);
  Synchronize();
  a.ExpectCorrect(3);
  b.ExpectCorrect(2);
  c.ExpectCorrect(2);
  // The default keeps 8.
  Dynamic::Session other;
  ASSERT_TRUE(Create(model, &other).ok());
  const uint64_t before = GetSimulator().live().graph_execs;
  for (int64_t s1 = 1; s1 <= 12; ++s1) {
    const Arguments arguments(1, s1, 0);
    Run(other, arguments);
    Synchronize();
  }
  EXPECT_EQ(GetSimulator().live().graph_execs - before, 8u);
}

TEST_F(DynamicTest, OneGraphIsEnoughForRunsInOrder) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, 0, 1).ok());
  const Stream a;
  const Stream b;
  const Arguments first(30, 50, 1, 0, 1);
  const Arguments second(5, 6, 1, 0, 2);
  const Arguments third(30, 50, 1, 0, 3);
  Run(session, first, a.handle());
  Run(session, second, b.handle());
  Run(session, third, a.handle());
  Synchronize(b.handle());
  Synchronize(a.handle());
  first.ExpectCorrect();
  second.ExpectCorrect();
  third.ExpectCorrect();
}

TEST_P(DynamicModeTest, ACaptureKeepsTheMemoryOfItsTime) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, GetParam()).ok());
  const Stream stream;
  const Arguments small(3, 4, 1, 0, 1);
  const Arguments large(30, 50, 1, 0, 2);
  GetSimulator().set_capturing(stream.handle(), 1);
  const Status early = session.Run(small.inputs, small.outputs, stream.handle());
  EXPECT_EQ(early.code(), Code::kInvalidArgument);
  EXPECT_EQ(std::string(early.message()),
            "the stream is being captured, and the session's memory must grow from 0 to " +
                std::to_string(ArenaSize(3, 4)) +
                " bytes for these sizes, which a capture does not allow: run the session at these "
                "sizes once before");
  GetSimulator().set_capturing(stream.handle(), 0);
  Run(session, small, stream.handle());
  GetSimulator().set_capturing(stream.handle(), 1);
  Run(session, small, stream.handle());
  GetSimulator().set_capturing(stream.handle(), 0);
  const uint64_t frees = Calls("cuMemFree");
  // What was captured may be launched at any time, and holds the address of the small memory.
  Run(session, large, stream.handle());
  EXPECT_EQ(Calls("cuMemFree"), frees);
  Synchronize(stream.handle());
  small.ExpectCorrect(2);
  large.ExpectCorrect();
}

TEST_F(DynamicTest, UncheckedSessionsStillKnowTheirSizes) {
  const CurrentContext current;
  Dynamic model;
  Dynamic::Session session;
  ASSERT_TRUE(Load(&model).ok());
  ASSERT_TRUE(Create(model, &session, AOTI_SESSION_NO_CHECKS).ok());
  const Arguments good(4, 5, 2);
  Run(session, good);
  Synchronize();
  good.ExpectCorrect();
  const Arguments wide(1, 101, 0);
  EXPECT_EQ(Fault(session, wide),
            "input 0 (x): dimension 1: expected 1 <= s1 <= 100, got s1 = 101");
}

TEST_F(DynamicTest, IsDescribed) {
  const AotiDescription* description = dynamic_description();
  AotiTensorInfo info = {};
  ASSERT_EQ(aoti_description_input(description, 1, &info, nullptr), AOTI_OK);
  EXPECT_STREQ(info.name, "y");
  EXPECT_STREQ(info.path, "args[1]['y']");
  EXPECT_EQ(info.flags, static_cast<uint32_t>(AOTI_TENSOR_DYNAMIC));
  EXPECT_EQ(info.shape[0], -1);
  EXPECT_EQ(info.shape[1], -1);
  EXPECT_EQ(info.strides[0], 1);
  EXPECT_EQ(info.strides[1], -1);
  EXPECT_STREQ(info.shape_info[1].expression, "s0 * 2");
  EXPECT_EQ(info.shape_info[1].minimum, 2);
  EXPECT_EQ(info.shape_info[1].maximum, 128);
  EXPECT_STREQ(info.stride_info[0].expression, "1");
  EXPECT_EQ(info.nbytes, 4u * 100 * 128);
  ASSERT_EQ(aoti_description_input(description, 2, &info, nullptr), AOTI_OK);
  EXPECT_EQ(info.flags, static_cast<uint32_t>(AOTI_TENSOR_SCALAR));
  EXPECT_EQ(info.ndim, 0);
  EXPECT_STREQ(info.value.expression, "u0");
  EXPECT_EQ(info.value.maximum, 1000);
  ASSERT_EQ(aoti_description_input(description, 3, &info, nullptr), AOTI_OK);
  EXPECT_EQ(info.flags, static_cast<uint32_t>(AOTI_TENSOR_DYNAMIC | AOTI_TENSOR_MUTATED));
}

// Lets each driver call fail in turn, where sizes change, memory grows and graphs are evicted.
TEST_P(DynamicModeTest, ReleasesEverythingWhicheverCallFails) {
  const std::set<std::string> releasing = {
      "cuCtxPopCurrent",    "cuCtxPushCurrent", "cuDevicePrimaryCtxRelease", "cuEventDestroy",
      "cuEventSynchronize", "cuGraphDestroy",   "cuGraphExecDestroy",        "cuMemFree",
      "cuMemFreeHost",      "cuModuleUnload",   "cuStreamDestroy",           "cuStreamSynchronize"};
  const SimulatorLive nothing = before_;
  {
    const CurrentContext current;
    const Arguments a(2, 3, 1, 0, 1);
    const Arguments b(30, 20, 2, 4, 2);
    const Arguments c(4, 1, 0, 9, 3);
    const Arguments other_a(2, 3, 1, 5, 4);
    const Stream stream;
    before_ = GetSimulator().live();
    const auto live_once = [&]() -> bool {
      Dynamic model;
      if (!Load(&model).ok()) return false;
      Dynamic::Session session;
      if (!Create(model, &session, GetParam(), 2).ok()) return false;
      bool good = true;
      for (const Arguments* arguments : {&a, &b, &a, &other_a, &c, &b}) {
        good = session.Run(arguments->inputs, arguments->outputs, stream.handle()).ok() && good;
      }
      return good;
    };
    for (uint64_t nth = 1;; ++nth) {
      ASSERT_LT(nth, 2000u);
      Reset();
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
      if (good) {
        EXPECT_EQ(releasing.count(failed), 1u) << failed;
      }
    }
  }
  // Now the context and what was left in it are gone.
  GetSimulator().reset();
  before_ = nothing;
}

}  // namespace
}  // namespace aoti
