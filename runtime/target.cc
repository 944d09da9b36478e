#include "runtime/target.h"

#include <string>
#include <tuple>

#include "runtime/memory.h"
#include "runtime/tensor.h"

namespace aoti {
namespace {

class DescriptionCheck {
 public:
  explicit DescriptionCheck(const ModelDescription& model) : model_(model) {}

  Status Run() const {
    for (const TensorDescription& tensor : model_.inputs) AOTI_RETURN_IF_ERROR(Tensor(tensor));
    for (const TensorDescription& tensor : model_.outputs) AOTI_RETURN_IF_ERROR(Tensor(tensor));
    for (const TargetDescription& target : model_.targets) AOTI_RETURN_IF_ERROR(Target(target));
    return Status();
  }

 private:
  Status Fault(const std::string& what) const {
    return Status(Code::kInternal,
                  std::string("the description of model ") + model_.name + " is wrong: " + what);
  }

  Status Tensor(const TensorDescription& tensor) const {
    const std::string name = tensor.name;
    if (tensor.strides.size != tensor.shape.size) return Fault(name + " has too few strides");
    if (ItemSize(tensor.dtype) == 0) return Fault(name + " has an unsupported dtype");
    for (const int64_t size : tensor.shape) {
      if (size < 0) return Fault(name + " has a negative size");
    }
    for (const int64_t stride : tensor.strides) {
      if (stride < 0) return Fault(name + " has a negative stride");
    }
    return Status();
  }

  Status Target(const TargetDescription& target) const {
    const std::string where = std::string("target ") + target.name + ": ";
    for (const WeightDescription& weight : target.weights) {
      const uint64_t available =
          weight.folding_only ? target.memory.staging : target.memory.weights;
      uint64_t nbytes = 0;
      if (!ContiguousSize(weight.shape.data, weight.shape.size, ItemSize(weight.dtype), &nbytes) ||
          nbytes != weight.nbytes || SafetensorsName(weight.dtype) == nullptr) {
        return Fault(where + "weight " + weight.name + " has a wrong size or dtype");
      }
      if (weight.offset % kAlignment != 0 || weight.offset > available ||
          weight.nbytes > available - weight.offset) {
        return Fault(where + "weight " + weight.name + " lies outside its memory");
      }
    }
    for (const KernelDescription& kernel : target.kernels) {
      if (kernel.image >= kernel.image_end || kernel.threads == 0 || kernel.cluster == 0) {
        return Fault(where + "kernel " + kernel.name + " has no image, threads or blocks");
      }
    }
    if (target.run == nullptr || target.fold == nullptr) return Fault(where + "no launch code");
    return Status();
  }

  const ModelDescription& model_;
};

std::string CapabilityText(int major, int minor) {
  return std::to_string(major) + "." + std::to_string(minor);
}

std::string TargetList(const ModelDescription& description) {
  std::string text;
  for (const TargetDescription& target : description.targets) {
    if (!text.empty()) text += ", ";
    text += target.name;
    text += target.ptx ? " (PTX for compute capability " : " (machine code for compute capability ";
    text += CapabilityText(target.major, target.minor) + (target.ptx ? " and later)" : ")");
  }
  return text.empty() ? "no target" : text;
}

bool Runs(const TargetDescription& target, const DeviceProperties& device) {
  if (target.ptx) {
    return std::tie(target.major, target.minor) <= std::tie(device.major, device.minor);
  }
  return target.major == device.major && target.minor <= device.minor;
}

bool Better(const TargetDescription& a, const TargetDescription& b) {
  if (a.ptx != b.ptx) return b.ptx;
  return std::tie(a.major, a.minor) > std::tie(b.major, b.minor);
}

}  // namespace

Status CheckDescription(const ModelDescription& description) {
  // First, and before any other field: another version may have another layout.
  if (description.version != kDescriptionVersion) {
    return Status(Code::kInvalidArgument,
                  "the model's description has version " + std::to_string(description.version) +
                      ", this runtime reads version " + std::to_string(kDescriptionVersion) +
                      ": build the model and the runtime from the same release");
  }
  return DescriptionCheck(description).Run();
}

Status ChooseTarget(const ModelDescription& description, const DeviceProperties& device,
                    int driver_version, const TargetDescription** target) {
  const TargetDescription* best = nullptr;
  for (const TargetDescription& candidate : description.targets) {
    if (!Runs(candidate, device)) continue;
    if (best == nullptr || Better(candidate, *best)) best = &candidate;
  }
  const std::string where = "device " + std::to_string(device.ordinal) + " (" + device.name +
                            ", compute capability " + CapabilityText(device.major, device.minor) +
                            ")";
  if (best == nullptr) {
    return Status(Code::kNotFound, std::string("model ") + description.name + " has no code for " +
                                       where + "; it was built for " + TargetList(description) +
                                       ". Build it with a target for this device.");
  }
  if (driver_version < best->driver) {
    return Status(Code::kUnavailable,
                  std::string("the code of model ") + description.name + " for " + best->name +
                      " on " + where + " needs a driver for CUDA " +
                      DriverVersionText(best->driver) + " or newer; this one supports CUDA " +
                      DriverVersionText(driver_version));
  }
  *target = best;
  return Status();
}

}  // namespace aoti
