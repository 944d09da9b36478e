// Prints a model's tables and what its procedures ask a launcher for, with memory that begins at
// round addresses. Compiled together with generated code; MODEL is the model's name.

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "model.h"
#include "runtime/description.h"
#include "runtime/launcher.h"
#include "runtime/status.h"

#define CONCATENATE_(a, b) a##b
#define CONCATENATE(a, b) CONCATENATE_(a, b)

namespace {

using aoti::DeviceAddress;

const DeviceAddress kInputs[] = {0x1000000, 0x1100000};
const DeviceAddress kOutputs[] = {0x2000000, 0x2100000, 0x2200000};

// Each weight lies anywhere.
std::vector<DeviceAddress> Weights(const aoti::TargetDescription& target) {
  std::vector<DeviceAddress> addresses(target.weights.size);
  for (size_t i = 0; i < addresses.size(); ++i) addresses[i] = 0x40000000 + 0x10000 * i;
  return addresses;
}

aoti::Addresses FoldingAddresses(const std::vector<DeviceAddress>& weights) {
  return {0x30000000, 0x60000000, weights.data(), nullptr, nullptr, nullptr};
}

aoti::Addresses MainAddresses(const std::vector<DeviceAddress>& weights) {
  return {0x70000000, 0x60000000, weights.data(), kInputs, kOutputs, nullptr};
}

const char* Spell(aoti::Pointers pointers) {
  return pointers == aoti::Pointers::kCaller ? "caller" : "owned";
}

// Argument sizes by the name of the kernel, as the test gave them on the command line:
// "kernel=8,8,4". A kernel it does not name has pointers only.
std::string Sizes(int argc, char** argv, const char* kernel) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (argument.substr(0, equals) == kernel) return argument.substr(equals + 1);
  }
  return "";
}

class Recorder : public aoti::Launcher {
 public:
  Recorder(const aoti::Addresses& addresses, const aoti::TargetDescription& target, int fail_at,
           int argc, char** argv)
      : Launcher(addresses), target_(target), fail_at_(fail_at), argc_(argc), argv_(argv) {}

  aoti::Status Launch(uint32_t kernel, aoti::Grid grid, void** params,
                      aoti::Pointers pointers) override {
    const aoti::KernelDescription& description = target_.kernels[kernel];
    std::printf("launch %s %" PRIu32 "x%" PRIu32 "x%" PRIu32 " %s", description.name, grid.x,
                grid.y, grid.z, Spell(pointers));
    std::string sizes = Sizes(argc_, argv_, description.name);
    for (uint32_t i = 0; i < description.num_params; ++i) {
      const size_t nbytes = sizes.empty() ? 8 : std::stoul(sizes);
      sizes = sizes.find(',') == std::string::npos ? "" : sizes.substr(sizes.find(',') + 1);
      uint64_t value = 0;
      std::memcpy(&value, params[i], nbytes < sizeof value ? nbytes : sizeof value);
      std::printf(" %zu:0x%" PRIx64, nbytes, value);
    }
    std::printf("\n");
    return Done();
  }

  aoti::Status Encode(uint32_t kernel, uint32_t param, const aoti::MappedTensor& tensor,
                      aoti::TensorMap* map) override {
    std::printf("map %s %" PRIu32 " 0x%" PRIx64, target_.kernels[kernel].name, param,
                tensor.address);
    for (const int64_t size : tensor.shape) std::printf(" %" PRId64, size);
    for (const int64_t stride : tensor.strides) std::printf(" %" PRId64, stride);
    std::printf(" %d %d\n", tensor.nan, tensor.tf32);
    std::memset(map, 0x11, sizeof *map);
    return aoti::Status();
  }

  aoti::Status Copy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes,
                    aoti::Pointers pointers) override {
    std::printf("copy 0x%" PRIx64 " 0x%" PRIx64 " %" PRIu64 " %s\n", dst, src, nbytes,
                Spell(pointers));
    return Done();
  }

  aoti::Status Fill(DeviceAddress dst, uint8_t byte, uint64_t nbytes,
                    aoti::Pointers pointers) override {
    std::printf("fill 0x%" PRIx64 " %d %" PRIu64 " %s\n", dst, byte, nbytes, Spell(pointers));
    return Done();
  }

  aoti::Status If(uint32_t kernel, DeviceAddress predicate, uint32_t nbytes, Steps then,
                  Steps otherwise) override {
    std::printf("if %s 0x%" PRIx64 " %" PRIu32 "\n", target_.kernels[kernel].name, predicate,
                nbytes);
    AOTI_RETURN_IF_ERROR(Inside("then", then));
    return Inside("otherwise", otherwise);
  }

  aoti::Status While(uint32_t kernel, DeviceAddress predicate, uint32_t nbytes, Steps condition,
                     Steps body) override {
    std::printf("while %s 0x%" PRIx64 " %" PRIu32 "\n", target_.kernels[kernel].name, predicate,
                nbytes);
    AOTI_RETURN_IF_ERROR(Inside("condition", condition));
    return Inside("body", body);
  }

 private:
  aoti::Status Inside(const char* what, Steps steps) {
    if (steps == nullptr) return Done();
    std::printf("%s begins\n", what);
    AOTI_RETURN_IF_ERROR(steps(*this));
    std::printf("%s ends\n", what);
    return Done();
  }

  aoti::Status Done() {
    if (fail_at_ != 0 && ++calls_ == fail_at_) {
      return aoti::Status(aoti::Code::kDriver, "launch failed as the test asked");
    }
    return aoti::Status();
  }

  const aoti::TargetDescription& target_;
  const int fail_at_;
  int calls_ = 0;
  int argc_;
  char** argv_;
};

void Print(const char* what, const aoti::Table<int64_t>& table) {
  std::printf(" %s=", what);
  for (const int64_t value : table) std::printf("%" PRId64 ",", value);
}

void Print(const char* what, const aoti::Table<aoti::TensorDescription>& tensors) {
  for (const aoti::TensorDescription& tensor : tensors) {
    std::printf("%s %s %d/%d/%d", what, tensor.name, tensor.dtype.code, tensor.dtype.bits,
                tensor.dtype.lanes);
    Print("shape", tensor.shape);
    Print("strides", tensor.strides);
    std::printf("\n");
  }
}

// How a kernel is launched beyond its grid.
void PrintLaunch(const aoti::KernelDescription& kernel) {
  if (kernel.flags == 0 && kernel.tensor_maps.size == 0) return;
  std::printf("attributes %s flags=%u blocks=%" PRIu64 " maps=", kernel.name, kernel.flags,
              kernel.blocks);
  for (const aoti::TensorMapDescription& map : kernel.tensor_maps) {
    std::printf("%u:%d/%u/%d/", map.param, map.element, map.element_size, map.swizzle);
    for (const uint32_t size : map.box) std::printf("%ux", size);
    std::printf(",");
  }
  std::printf("\n");
}

void Print(const aoti::TargetDescription& target) {
  std::printf("target %s %d.%d ptx=%d driver=%d\n", target.name, target.major, target.minor,
              target.ptx, target.driver);
  const aoti::MemoryDescription& memory = target.memory;
  std::printf("memory %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
              memory.weights, memory.staging, memory.constants, memory.folding_arena,
              memory.main_arena);
  for (const aoti::WeightDescription& weight : target.weights) {
    std::printf("weight %s %d/%d nbytes=%" PRIu64 " folding=%d main=%d", weight.name,
                weight.dtype.code, weight.dtype.bits, weight.nbytes, weight.folding, weight.main);
    Print("shape", weight.shape);
    std::printf("\n");
  }
  for (const aoti::KernelDescription& kernel : target.kernels) {
    const size_t size = static_cast<size_t>(kernel.image_end - kernel.image);
    std::printf("kernel %s threads=%u shared=%u cluster=%u params=%u aligned=%d terminated=%d %.*s",
                kernel.name, kernel.threads, kernel.shared_memory, kernel.cluster,
                kernel.num_params, reinterpret_cast<uintptr_t>(kernel.image) % 16 == 0,
                target.ptx && kernel.image[size] == 0, static_cast<int>(size),
                reinterpret_cast<const char*>(kernel.image));
    PrintLaunch(kernel);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const aoti::ModelDescription& model = CONCATENATE(MODEL, _description)()->model;
  std::printf("model %s version=%d digest=%s\n", model.name,
              model.version == aoti::kDescriptionVersion, model.weights_digest);
  Print("input", model.inputs);
  Print("output", model.outputs);
  for (const aoti::TargetDescription& target : model.targets) {
    Print(target);
    const std::vector<DeviceAddress> weights = Weights(target);
    Recorder folding(FoldingAddresses(weights), target, 0, argc, argv);
    std::printf("folding\n");
    if (!target.fold(folding).ok()) return 1;
    Recorder main(MainAddresses(weights), target, 0, argc, argv);
    std::printf("main\n");
    if (!target.run(main).ok()) return 1;
    // A failing launch ends the procedure and its status comes back.
    std::printf("failing\n");
    Recorder failing(MainAddresses(weights), target, 1, argc, argv);
    const aoti::Status status = target.run(failing);
    std::printf("status %d %s\n", static_cast<int>(status.code()), status.message());
  }
  return 0;
}
