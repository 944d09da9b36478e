#include "tests/runtime/toy_model.h"

#include <cstring>

#include "tests/runtime/simulator.h"

namespace aoti::testing {
namespace {

constexpr DLDataType kFloat32 = {kDLFloat, 32, 1};

constexpr int64_t kShape[] = {2, 4};
constexpr int64_t kRowMajor[] = {4, 1};
constexpr int64_t kTransposed[] = {1, 2};
constexpr int64_t kVector[] = {4};
constexpr int64_t kUnit[] = {1};
constexpr uint64_t kBytes = 32;

constexpr TensorDescription kInputs[] = {
    {"x", kFloat32, {kShape, 2}, {kRowMajor, 2}},
    {"y", kFloat32, {kShape, 2}, {kTransposed, 2}},
};
constexpr TensorDescription kOutputs[] = {
    {"result", kFloat32, {kShape, 2}, {kRowMajor, 2}},
    {"copy", kFloat32, {kShape, 2}, {kRowMajor, 2}},
    {"sevens", kFloat32, {kVector, 1}, {kUnit, 1}},
};
constexpr WeightDescription kWeights[] = {
    {"bias", kFloat32, {kVector, 1}, 16, false, true},
    {"scale", kFloat32, {kVector, 1}, 16, true, false},
};

enum WeightIndex : size_t { kBias, kScale };

enum KernelIndex : uint32_t { kDouble, kMultiply, kAdd };

#define TOY_IMAGE(target)             \
  "simulator module\n"                \
  "kernel double target=" target      \
  " threads=128 params=8,8,4,8,8\n"   \
  "kernel multiply target=" target    \
  " threads=256 params=8,8,8,4,8,8\n" \
  "kernel add target=" target " threads=128 cluster=2 params=8,8,8,4,8,8\n"

#define TOY_KERNELS(name, target)                                                    \
  constexpr unsigned char name##Image[] = TOY_IMAGE(target);                         \
  constexpr KernelDescription name[] = {                                             \
      {"double", name##Image, name##Image + sizeof name##Image, 128, 0, 1, 5},       \
      {"multiply", name##Image, name##Image + sizeof name##Image, 256, 65536, 1, 6}, \
      {"add", name##Image, name##Image + sizeof name##Image, 128, 1024, 2, 6},       \
  }

TOY_KERNELS(kKernels80, "sm_80");
TOY_KERNELS(kKernels86, "sm_86");
TOY_KERNELS(kKernels90, "sm_90");
TOY_KERNELS(kKernelsPtx80, "compute_80");

DeviceAddress scratch = 0;

Status Fold(Launcher& launcher) {
  const Addresses& at = launcher.at();
  // By way of the arena, so that a wrong arena shows.
  AOTI_RETURN_IF_ERROR(launcher.Copy(at.arena, at.weights[kScale], 16, Pointers::kOwned));
  DeviceAddress out = at.constants;
  DeviceAddress in = at.arena;
  int32_t n = 4;
  void* params[] = {&out, &in, &n, &scratch, &scratch};
  return launcher.Launch(kDouble, {1, 1, 1}, params, Pointers::kOwned);
}

Status RunMain(Launcher& launcher) {
  const Addresses& at = launcher.at();
  AOTI_RETURN_IF_ERROR(launcher.Fill(at.arena, 0, 2 * 256, Pointers::kOwned));
  {
    DeviceAddress out = at.arena + 256;
    DeviceAddress x = at.inputs[0];
    DeviceAddress doubled = at.constants;
    int32_t n = 8;
    void* params[] = {&out, &x, &doubled, &n, &scratch, &scratch};
    AOTI_RETURN_IF_ERROR(launcher.Launch(kMultiply, {2, 1, 1}, params, Pointers::kCaller));
  }
  // Steps of no extent leave no node.
  AOTI_RETURN_IF_ERROR(launcher.Launch(kMultiply, {0, 1, 1}, nullptr, Pointers::kCaller));
  AOTI_RETURN_IF_ERROR(launcher.Copy(0, 0, 0, Pointers::kCaller));
  AOTI_RETURN_IF_ERROR(launcher.Fill(0, 0, 0, Pointers::kCaller));
  AOTI_RETURN_IF_ERROR(launcher.Copy(at.arena, at.arena + 256, kBytes, Pointers::kOwned));
  {
    DeviceAddress out = at.outputs[0];
    DeviceAddress a = at.arena;
    DeviceAddress bias = at.weights[kBias];
    int32_t n = 8;
    void* params[] = {&out, &a, &bias, &n, &scratch, &scratch};
    AOTI_RETURN_IF_ERROR(launcher.Launch(kAdd, {3, 1, 1}, params, Pointers::kCaller));
  }
  AOTI_RETURN_IF_ERROR(launcher.Copy(at.outputs[1], at.inputs[0], kBytes, Pointers::kCaller));
  return launcher.Fill(at.outputs[2], 7, 16, Pointers::kCaller);
}

constexpr MemoryDescription kMemory = {256, 256, 256, 256, 512};

constexpr TargetDescription kTargets[] = {
    {"compute_80", 8, 0, true, 12000, kMemory, {kWeights, 2}, {kKernelsPtx80, 3}, Fold, RunMain},
    {"sm_80", 8, 0, false, 12000, kMemory, {kWeights, 2}, {kKernels80, 3}, Fold, RunMain},
    {"sm_86", 8, 6, false, 12000, kMemory, {kWeights, 2}, {kKernels86, 3}, Fold, RunMain},
    {"sm_90", 9, 0, false, 12000, kMemory, {kWeights, 2}, {kKernels90, 3}, Fold, RunMain},
};

constexpr AotiDescription kModel = {
    {kDescriptionVersion, "toy", "digest", {kInputs, 2}, {kOutputs, 3}, {kTargets, 4}}};

template <typename T>
T Param(const SimulatorLaunch& launch, size_t index) {
  T value;
  std::memcpy(&value, launch.params[index], sizeof value);
  return value;
}

float* Floats(const SimulatorLaunch& launch, size_t index, size_t count) {
  const auto address = Param<uint64_t>(launch, index);
  const bool good = GetSimulator().check_range(address, count * sizeof(float), launch.kernel) != 0;
  return good ? reinterpret_cast<float*>(address) : nullptr;
}

}  // namespace

const AotiDescription& ToyModel() { return kModel; }

int RunToyKernel(const SimulatorLaunch* launch, void*) {
  constexpr int kIllegalAddress = 700;
  const std::string name = launch->kernel;
  const bool unary = name == "double";
  const auto n = static_cast<size_t>(Param<int32_t>(*launch, unary ? 2 : 3));
  float* out = Floats(*launch, 0, n);
  const float* a = Floats(*launch, 1, n);
  const float* b = unary ? a : Floats(*launch, 2, 4);
  if (out == nullptr || a == nullptr || b == nullptr) return kIllegalAddress;
  for (size_t i = 0; i < n; ++i) {
    if (name == "double") out[i] = 2 * a[i];
    if (name == "multiply") out[i] = a[i] * b[i % 4];
    if (name == "add") out[i] = a[i] + b[i % 4];
  }
  return 0;
}

std::string SafetensorsOf(const std::string& header, const std::string& data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xFF);
  return file + header + data;
}

std::string Safetensors(const std::vector<std::pair<std::string, std::vector<float>>>& tensors) {
  std::string header = "{\"__metadata__\":{\"format\":\"pt\"}";
  std::string data;
  for (const auto& [name, values] : tensors) {
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    header += ",\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[" + std::to_string(values.size()) +
              "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(data.size()) +
              "]}";
  }
  header += "}";
  while (header.size() % 8 != 0) header += ' ';
  return SafetensorsOf(header, data);
}

std::string ToyWeights(const std::vector<float>& scale, const std::vector<float>& bias) {
  return Safetensors({{"scale", scale}, {"unused", {9, 9}}, {"bias", bias}});
}

}  // namespace aoti::testing
