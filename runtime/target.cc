#include "runtime/target.h"

#include <string>
#include <tuple>

#ifndef AOTI_STANDALONE
#include "runtime/memory.h"
#include "runtime/platform.h"
#include "runtime/tensor.h"
#endif  // AOTI_STANDALONE

namespace aoti {
namespace {

#ifndef AOTI_STANDALONE
class DescriptionCheck {
 public:
  explicit DescriptionCheck(const ModelDescription& model) : model_(model) {}

  Status Run() const {
    for (const TensorDescription& tensor : model_.inputs) AOTI_RETURN_IF_ERROR(Tensor(tensor));
    for (const TensorDescription& tensor : model_.outputs) AOTI_RETURN_IF_ERROR(Tensor(tensor));
    for (const SymbolDescription& symbol : model_.symbols) AOTI_RETURN_IF_ERROR(Symbol(symbol));
    for (const ConstraintDescription& constraint : model_.constraints) {
      const bool good = IsValue(constraint.left, model_.num_values) &&
                        IsValue(constraint.right, model_.num_values);
      if (!good) return Fault(std::string("constraint ") + constraint.text + " has no value");
    }
    if (model_.num_values < model_.symbols.size) return Fault("symbols have no values");
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
    const DynamicLayout* layout = tensor.dynamic;
    for (size_t i = 0; i < tensor.shape.size; ++i) {
      if (!Dim(tensor.shape[i], layout == nullptr ? kFixed : layout->shape_values[i])) {
        return Fault(name + " has a negative size");
      }
      if (!Dim(tensor.strides[i], layout == nullptr ? kFixed : layout->stride_values[i])) {
        return Fault(name + " has a negative stride");
      }
    }
    if ((tensor.flags & AOTI_TENSOR_SCALAR) != 0 && !IsValue(tensor.symbol, model_.symbols.size)) {
      return Fault(name + " is a scalar without a symbol");
    }
    return Status();
  }

  // Whether a size or stride is a number that is not negative, or one of the values of a call.
  bool Dim(int64_t number, int32_t value) const {
    return value == kFixed ? number >= 0 : IsValue(value, model_.num_values);
  }

  static bool IsValue(int32_t value, size_t count) {
    return value >= 0 && static_cast<size_t>(value) < count;
  }

  Status Symbol(const SymbolDescription& symbol) const {
    if (symbol.input < model_.inputs.size) {
      const TensorDescription& input = model_.inputs[symbol.input];
      const bool scalar = (input.flags & AOTI_TENSOR_SCALAR) != 0;
      if (scalar ? symbol.dimension == kFixed : IsValue(symbol.dimension, input.shape.size)) {
        return Status();
      }
    }
    return Fault(std::string("symbol ") + symbol.name + " is nothing of an input");
  }

  Status Target(const TargetDescription& target) const {
    const std::string where = std::string("target ") + target.name + ": ";
    uint64_t kept = 0;
    uint64_t staged = 0;
    for (const WeightDescription& weight : target.weights) {
      uint64_t nbytes = 0;
      if (!ContiguousSize(weight.shape.data, weight.shape.size, ItemSize(weight.dtype), &nbytes) ||
          nbytes != weight.nbytes || SafetensorsName(weight.dtype) == nullptr) {
        return Fault(where + "weight " + weight.name + " has a wrong size or dtype");
      }
      if (weight.main || weight.folding) (weight.main ? kept : staged) += Align(nbytes);
    }
    if (kept != target.memory.weights || staged != target.memory.staging) {
      return Fault(where + "the memory of weights is " + std::to_string(target.memory.weights) +
                   " + " + std::to_string(target.memory.staging) + " bytes, and they need " +
                   std::to_string(kept) + " + " + std::to_string(staged));
    }
    for (const KernelDescription& kernel : target.kernels) {
      if (kernel.image >= kernel.image_end || kernel.threads == 0 || kernel.cluster == 0) {
        return Fault(where + "kernel " + kernel.name + " has no image, threads or blocks");
      }
    }
    if (target.run == nullptr || target.fold == nullptr) return Fault(where + "no launch code");
    if (target.num_values < model_.num_values ||
        (target.arena != kFixed && !IsValue(target.arena, target.num_values))) {
      return Fault(where + "too few values");
    }
    for (const LimitDescription& limit : target.limits) {
      if (!IsValue(limit.value, target.num_values) || limit.multiple_of < 1) {
        return Fault(where + limit.what + " is no value");
      }
    }
    return Status();
  }

  const ModelDescription& model_;
};
#endif  // AOTI_STANDALONE

std::string CapabilityText(int major, int minor) {
  return std::to_string(major) + "." + std::to_string(minor);
}

bool IsAmds(const ModelDescription& description) { return (description.version & kHip) != 0; }

std::string TargetList(const ModelDescription& description) {
  std::string text;
  for (const TargetDescription& target : description.targets) {
    if (!text.empty()) text += ", ";
    text += target.name;
    if (IsAmds(description)) continue;  // that says it all
    text += target.ptx ? " (PTX for compute capability " : " (machine code for compute capability ";
    text += CapabilityText(target.major, target.minor) + (target.ptx ? " and later)" : ")");
  }
  return text.empty() ? "no target" : text;
}

bool Runs(const TargetDescription& target, const DeviceProperties& device) {
  if (!device.architecture.empty()) return device.architecture == target.name;
  if (target.ptx) {
    return std::tie(target.major, target.minor) <= std::tie(device.major, device.minor);
  }
  if (target.major != device.major) return false;
  // From 9.0 on, machine code is made for one architecture's own instructions (sm_90a, sm_100a).
  return target.major >= 9 ? target.minor == device.minor : target.minor <= device.minor;
}

bool Better(const TargetDescription& a, const TargetDescription& b) {
  if (a.ptx != b.ptx) return b.ptx;
  return std::tie(a.major, a.minor) > std::tie(b.major, b.minor);
}

}  // namespace

#ifndef AOTI_STANDALONE
Status CheckDescription(const ModelDescription& description) {
  // First, and before any other field: another version may have another layout.
  const uint32_t version = description.version & ~kHip;
  if (version != kDescriptionVersion) {
    return Status(Code::kInvalidArgument,
                  "the model's description has version " + std::to_string(version) +
                      ", this runtime reads version " + std::to_string(kDescriptionVersion) +
                      ": build the model and the runtime from the same release");
  }
  if (description.version != kPlatform.description_version) {
    return Status(Code::kInvalidArgument,
                  std::string("the model was built for ") +
                      (IsAmds(description) ? "AMD's GPUs" : "NVIDIA's GPUs") +
                      ", and this runtime calls " + kPlatform.name +
                      ": link the model with the runtime that it was built for");
  }
  return DescriptionCheck(description).Run();
}
#endif  // AOTI_STANDALONE

Status ChooseTarget(const ModelDescription& description, const DeviceProperties& device,
                    int driver_version, const TargetDescription** target) {
  const TargetDescription* best = nullptr;
  for (const TargetDescription& candidate : description.targets) {
    if (!Runs(candidate, device)) continue;
    if (best == nullptr || Better(candidate, *best)) best = &candidate;
  }
  const std::string kind = device.architecture.empty()
                               ? "compute capability " + CapabilityText(device.major, device.minor)
                               : device.architecture;
  const std::string where =
      "device " + std::to_string(device.ordinal) + " (" + device.name + ", " + kind + ")";
  if (best == nullptr) {
    return Status(Code::kNotFound, std::string("model ") + description.name + " has no code for " +
                                       where + "; it was built for " + TargetList(description) +
                                       ". Build it with a target for this device.");
  }
  if (driver_version < best->driver) {
    return Status(Code::kUnavailable,
                  std::string("the code of model ") + description.name + " for " + best->name +
                      " on " + where + " needs a driver for " + kPlatform.name + " " +
                      DriverVersionText(best->driver) + " or newer; this one supports " +
                      kPlatform.name + " " + DriverVersionText(driver_version));
  }
  *target = best;
  return Status();
}

}  // namespace aoti
