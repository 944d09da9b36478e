#include "runtime/tensor.h"

#include <cstring>
#include <limits>

#include "runtime/integer.h"
#include "runtime/platform.h"
#include "runtime/sizes.h"

namespace aoti {
namespace {

// DLPack's codes, by value: older headers do not name them all.
enum DTypeCode : uint8_t {
  kInt = 0,
  kUInt = 1,
  kFloat = 2,
  kBfloat = 4,
  kComplex = 5,
  kBool = 6,
  kFloat8E4m3fn = 10,
  kFloat8E4m3fnuz = 11,
  kFloat8E5m2 = 12,
  kFloat8E5m2fnuz = 13,
};

enum DeviceType : int { kCpu = 1, kCuda = 2, kCudaHost = 3, kRocmHost = 11, kCudaManaged = 13 };

struct DTypeName {
  uint8_t code;
  uint8_t bits;
  const char* name;
  const char* safetensors;
};

constexpr DTypeName kDTypeNames[] = {
    {kBool, 8, "bool", "BOOL"},
    {kUInt, 8, "uint8", "U8"},
    {kUInt, 16, "uint16", "U16"},
    {kUInt, 32, "uint32", "U32"},
    {kUInt, 64, "uint64", "U64"},
    {kInt, 8, "int8", "I8"},
    {kInt, 16, "int16", "I16"},
    {kInt, 32, "int32", "I32"},
    {kInt, 64, "int64", "I64"},
    {kFloat8E4m3fn, 8, "float8_e4m3fn", "F8_E4M3"},
    {kFloat8E5m2, 8, "float8_e5m2", "F8_E5M2"},
    {kFloat8E4m3fnuz, 8, "float8_e4m3fnuz", "F8_E4M3FNUZ"},
    {kFloat8E5m2fnuz, 8, "float8_e5m2fnuz", "F8_E5M2FNUZ"},
    {kFloat, 16, "float16", "F16"},
    {kBfloat, 16, "bfloat16", "BF16"},
    {kFloat, 32, "float32", "F32"},
    {kFloat, 64, "float64", "F64"},
    {kComplex, 64, "complex64", "C64"},
};

const DTypeName* Find(const DLDataType& dtype) {
  if (dtype.lanes != 1) return nullptr;
  for (const DTypeName& row : kDTypeNames) {
    if (row.code == dtype.code && row.bits == dtype.bits) return &row;
  }
  return nullptr;
}

const char* DeviceText(int type) {
  switch (type) {
    case kCpu:
      return "host (CPU)";
    case kCuda:
      return "CUDA";
    case kCudaHost:
    case kRocmHost:
      return "page-locked host";
    case 10:
      return "ROCm";
    case kCudaManaged:
      return "managed CUDA";
    default:
      return "another device's";
  }
}

bool IsScalar(const TensorDescription& tensor) { return (tensor.flags & AOTI_TENSOR_SCALAR) != 0; }

// Checks one tensor; its messages begin with its name.
class TensorCheck {
 public:
  TensorCheck(Side side, size_t index, const TensorDescription& expected, const DLTensor& tensor,
              const Sizes* sizes)
      : side_(side), index_(index), expected_(expected), tensor_(tensor), sizes_(sizes) {}

  Status Run(int device) const {
    AOTI_RETURN_IF_ERROR(DType());
    AOTI_RETURN_IF_ERROR(Shape());
    AOTI_RETURN_IF_ERROR(Strides());
    AOTI_RETURN_IF_ERROR(DeviceKind(device));
    return Memory();
  }

  // Of a weight, which may be on the host as well if it is to be copied.
  Status Weight(int device, bool in_place, bool on_host) const {
    AOTI_RETURN_IF_ERROR(DType());
    AOTI_RETURN_IF_ERROR(Shape());
    AOTI_RETURN_IF_ERROR(Strides());
    if (on_host && in_place) {
      return Fault("it is to be read in place, and is in host memory: let it be copied");
    }
    if (!on_host) AOTI_RETURN_IF_ERROR(DeviceKind(device));
    if (in_place) return Memory();
    return Empty() || tensor_.data != nullptr ? Status() : Fault("its data is a null pointer");
  }

  // Of a scalar, which is a number on the host.
  Status Scalar() const {
    AOTI_RETURN_IF_ERROR(DType());
    AOTI_RETURN_IF_ERROR(Rank());
    const int type = static_cast<int>(tensor_.device.device_type);
    if (type != kCpu) {
      return Fault(std::string("expected a number in host (CPU) memory, got ") + DeviceText(type) +
                   " memory (DLPack device type " + std::to_string(type) + ")");
    }
    return tensor_.data == nullptr ? Fault("its data is a null pointer") : Status();
  }

  Status Rank() const {
    const size_t ndim = expected_.shape.size;
    if (tensor_.ndim < 0 || static_cast<size_t>(tensor_.ndim) != ndim) {
      return Fault("expected " + std::to_string(ndim) + " dimensions " + Described() + ", got " +
                   std::to_string(tensor_.ndim));
    }
    if (ndim != 0 && tensor_.shape == nullptr) return Fault("its shape is a null pointer");
    return Status();
  }

  Status Shape() const {
    AOTI_RETURN_IF_ERROR(Rank());
    const size_t ndim = expected_.shape.size;
    for (size_t i = 0; i < ndim; ++i) {
      if (tensor_.shape[i] == expected_.shape[i]) continue;
      return Fault("dimension " + std::to_string(i) + ": expected size " +
                   std::to_string(expected_.shape[i]) + Explain(&DynamicLayout::shape, i) +
                   ", got " + std::to_string(tensor_.shape[i]) + " (expected shape " +
                   ShapeText(expected_.shape.data, ndim) + ", got " +
                   ShapeText(tensor_.shape, ndim) + ")");
    }
    return Status();
  }

 private:
  Status Fault(const std::string& what) const {
    return Status(Code::kInvalidArgument, TensorLabel(side_, index_, expected_) + what);
  }

  // "[s0, 64]"
  std::string Described() const {
    if (expected_.dynamic == nullptr) {
      return ShapeText(expected_.shape.data, expected_.shape.size);
    }
    std::string text = "[";
    for (size_t i = 0; i < expected_.shape.size; ++i) {
      if (i != 0) text += ", ";
      text += expected_.dynamic->shape[i].expression;
    }
    return text + "]";
  }

  // Where an expected size or stride comes from; "" if it is a constant.
  std::string Explain(const AotiDimInfo* DynamicLayout::* dims, size_t i) const {
    if (sizes_ == nullptr || expected_.dynamic == nullptr) return "";
    return sizes_->Explain((expected_.dynamic->*dims)[i].expression);
  }

  Status DType() const {
    const DLDataType& want = expected_.dtype;
    const DLDataType& got = tensor_.dtype;
    if (want.code == got.code && want.bits == got.bits && want.lanes == got.lanes) return Status();
    return Fault("expected dtype " + DTypeText(want) + ", got " + DTypeText(got));
  }

  Status Strides() const {
    if (Empty()) return Status();
    int64_t contiguous = 1;
    for (size_t i = expected_.shape.size; i-- > 0;) {
      const int64_t size = expected_.shape[i];
      const int64_t got = tensor_.strides == nullptr ? contiguous : tensor_.strides[i];
      contiguous *= size;
      if (size == 1 || got == expected_.strides[i]) continue;  // one element is never stepped over
      return Fault("dimension " + std::to_string(i) + ": expected stride " +
                   std::to_string(expected_.strides[i]) + Explain(&DynamicLayout::strides, i) +
                   ", got " + std::to_string(got) + " (expected strides " +
                   ShapeText(expected_.strides.data, expected_.strides.size) + ", got " +
                   (tensor_.strides == nullptr
                        ? "none, which means contiguous row-major"
                        : ShapeText(tensor_.strides, expected_.strides.size)) +
                   ")");
    }
    return Status();
  }

  static std::string Expected(int device) {
    return std::string("expected memory of ") + kPlatform.name + " device " +
           std::to_string(device);
  }

  Status DeviceKind(int device) const {
    const int type = static_cast<int>(tensor_.device.device_type);
    // PyTorch calls AMD's GPUs cuda, and so does the C++ class of a model.
    const bool of_device = type == kCuda || type == kPlatform.memory;
    if (!of_device && type != kCudaManaged) {
      return Fault(Expected(device) + ", got " + DeviceText(type) + " memory (DLPack device type " +
                   std::to_string(type) + ")");
    }
    // Managed memory is reachable from every device.
    if (of_device && tensor_.device.device_id != device) {
      return Fault(Expected(device) + ", got that of device " +
                   std::to_string(tensor_.device.device_id));
    }
    return Status();
  }

  Status Memory() const {
    if (Empty()) return Status();
    if (tensor_.data == nullptr) return Fault("its data is a null pointer");
    const uint64_t misaligned =
        (reinterpret_cast<uint64_t>(tensor_.data) + tensor_.byte_offset) % kTensorAlignment;
    if (misaligned == 0) return Status();
    return Fault("expected memory that begins at a multiple of " +
                 std::to_string(kTensorAlignment) + " bytes, got " + std::to_string(misaligned) +
                 " bytes past one (byte_offset is " + std::to_string(tensor_.byte_offset) + ")");
  }

  bool Empty() const {
    for (const int64_t size : expected_.shape) {
      if (size == 0) return true;
    }
    return false;
  }

  const Side side_;
  const size_t index_;
  const TensorDescription& expected_;
  const DLTensor& tensor_;
  const Sizes* const sizes_;
};

std::string NameList(const Table<TensorDescription>& descriptions) {
  std::string text;
  for (const TensorDescription& description : descriptions) {
    text += text.empty() ? " (" : ", ";
    text += description.name;
  }
  return text.empty() ? text : text + ")";
}

}  // namespace

std::string DTypeText(const DLDataType& dtype) {
  if (const DTypeName* row = Find(dtype)) return row->name;
  return "(code " + std::to_string(dtype.code) + ", bits " + std::to_string(dtype.bits) +
         ", lanes " + std::to_string(dtype.lanes) + ")";
}

uint64_t ItemSize(const DLDataType& dtype) {
  const uint64_t bits = uint64_t{dtype.bits} * dtype.lanes;
  return bits % 8 == 0 ? bits / 8 : 0;
}

const char* SafetensorsName(const DLDataType& dtype) {
  const DTypeName* row = Find(dtype);
  return row == nullptr ? nullptr : row->safetensors;
}

uint64_t SafetensorsItemSize(const std::string& name) {
  for (const DTypeName& row : kDTypeNames) {
    if (name == row.safetensors) return row.bits / 8;
  }
  return 0;
}

std::string ShapeText(const int64_t* sizes, size_t count) {
  std::string text = "[";
  for (size_t i = 0; i < count; ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(sizes[i]);
  }
  return text + "]";
}

bool ContiguousSize(const int64_t* shape, size_t ndim, uint64_t item_size, uint64_t* nbytes) {
  uint64_t product = item_size;
  bool empty = false;
  bool overflow = false;
  for (size_t i = 0; i < ndim; ++i) {
    if (shape[i] < 0) return false;
    const auto size = static_cast<uint64_t>(shape[i]);
    empty = empty || size == 0;
    overflow = overflow || (size != 0 && product > std::numeric_limits<uint64_t>::max() / size);
    if (!empty && !overflow) product *= size;
  }
  *nbytes = empty ? 0 : product;
  return empty || !overflow;
}

uint64_t Extent(const TensorDescription& tensor) {
  uint64_t last = 0;
  for (size_t i = 0; i < tensor.shape.size; ++i) {
    if (tensor.shape[i] == 0) return 0;
    last += static_cast<uint64_t>(tensor.shape[i] - 1) * static_cast<uint64_t>(tensor.strides[i]);
  }
  return (last + 1) * ItemSize(tensor.dtype);
}

bool CheckedExtent(const TensorDescription& tensor, uint64_t* nbytes) {
  Checked last = 0;
  *nbytes = 0;
  for (size_t i = 0; i < tensor.shape.size; ++i) {
    if (tensor.shape[i] == 0) return true;
    last = last + Checked(tensor.shape[i] - 1) * tensor.strides[i];
  }
  const Checked extent = (last + 1) * static_cast<int64_t>(ItemSize(tensor.dtype));
  *nbytes = static_cast<uint64_t>(extent.value());
  return extent.ok();
}

std::string TensorLabel(Side side, size_t index, const TensorDescription& description) {
  if (side == Side::kWeight) return std::string("weight ") + description.name + ": ";
  return std::string(side == Side::kInput ? "input " : "output ") + std::to_string(index) + " (" +
         description.name + "): ";
}

Status CheckCount(Side side, const Table<TensorDescription>& descriptions,
                  const DLTensor* const* tensors, size_t count) {
  const std::string sort = side == Side::kInput ? "input" : "output";
  if (count != descriptions.size) {
    return Status(Code::kInvalidArgument, "expected " + std::to_string(descriptions.size) + " " +
                                              sort + "s" + NameList(descriptions) + ", got " +
                                              std::to_string(count));
  }
  if (count != 0 && tensors == nullptr) {
    return Status(Code::kInvalidArgument, "the array of " + sort + "s is a null pointer");
  }
  for (size_t i = 0; i < count; ++i) {
    if (tensors[i] != nullptr) continue;
    return Status(Code::kInvalidArgument,
                  TensorLabel(side, i, descriptions[i]) + "is a null pointer");
  }
  return Status();
}

Status CheckRank(Side side, size_t index, const TensorDescription& description,
                 const DLTensor& tensor) {
  return TensorCheck(side, index, description, tensor, nullptr).Rank();
}

Status CheckShape(Side side, size_t index, const TensorDescription& description,
                  const DLTensor& tensor, const Sizes* sizes) {
  return TensorCheck(side, index, description, tensor, sizes).Shape();
}

Status ReadScalar(size_t index, const TensorDescription& description, const DLTensor& tensor,
                  int64_t* value) {
  AOTI_RETURN_IF_ERROR(TensorCheck(Side::kInput, index, description, tensor, nullptr).Scalar());
  std::memcpy(value, static_cast<const char*>(tensor.data) + tensor.byte_offset, sizeof *value);
  return Status();
}

Status ReadTensors(Side side, const Table<TensorDescription>& descriptions,
                   const DLTensor* const* tensors, size_t count, int device, Check check,
                   DeviceAddress* addresses, const Sizes* sizes) {
  // Never trusted: the addresses are stored in an array of the described size.
  AOTI_RETURN_IF_ERROR(CheckCount(side, descriptions, tensors, count));
  for (size_t i = 0; i < count; ++i) {
    const DLTensor& tensor = *tensors[i];
    if (IsScalar(descriptions[i])) {
      addresses[i] = 0;
      continue;
    }
    if (check == Check::kFull) {
      AOTI_RETURN_IF_ERROR(TensorCheck(side, i, descriptions[i], tensor, sizes).Run(device));
    }
    addresses[i] = reinterpret_cast<DeviceAddress>(tensor.data) + tensor.byte_offset;
  }
  return Status();
}

Status CheckOverlap(const Table<TensorDescription>& inputs, const DeviceAddress* input_addresses,
                    const Table<TensorDescription>& outputs,
                    const DeviceAddress* output_addresses) {
  const auto share = [](const TensorDescription& a, DeviceAddress at_a, const TensorDescription& b,
                        DeviceAddress at_b) {
    const uint64_t a_bytes = Extent(a);
    const uint64_t b_bytes = Extent(b);
    return a_bytes != 0 && b_bytes != 0 && at_a < at_b + b_bytes && at_b < at_a + a_bytes;
  };
  const auto fault = [](const std::string& label, const char* sort, size_t index,
                        const TensorDescription& other) {
    return Status(Code::kInvalidArgument, label + "shares memory with " + sort + " " +
                                              std::to_string(index) + " (" + other.name + ")");
  };
  for (size_t i = 0; i < outputs.size; ++i) {
    const TensorDescription& output = outputs[i];
    for (size_t j = 0; j < inputs.size; ++j) {
      if (IsScalar(inputs[j])) continue;
      if (share(output, output_addresses[i], inputs[j], input_addresses[j])) {
        return fault(TensorLabel(Side::kOutput, i, output), "input", j, inputs[j]);
      }
    }
    for (size_t j = 0; j < i; ++j) {
      if (share(output, output_addresses[i], outputs[j], output_addresses[j])) {
        return fault(TensorLabel(Side::kOutput, i, output), "output", j, outputs[j]);
      }
    }
  }
  for (size_t i = 0; i < inputs.size; ++i) {
    if ((inputs[i].flags & AOTI_TENSOR_MUTATED) == 0) continue;
    for (size_t j = 0; j < inputs.size; ++j) {
      if (j == i || IsScalar(inputs[j])) continue;
      if (share(inputs[i], input_addresses[i], inputs[j], input_addresses[j])) {
        return fault(TensorLabel(Side::kInput, i, inputs[i]) + "the model writes to it, and it ",
                     "input", j, inputs[j]);
      }
    }
  }
  return Status();
}

Status ReadWeight(const WeightDescription& weight, const DLTensor& tensor, int device,
                  bool in_place, DeviceAddress* address, bool* on_host) {
  std::vector<int64_t> strides(weight.shape.size);
  int64_t step = 1;
  for (size_t i = strides.size(); i-- > 0;) {
    strides[i] = step;
    step *= weight.shape[i];
  }
  const TensorDescription expected = {
      weight.name, weight.dtype, weight.shape, {strides.data(), strides.size()}};
  const int type = static_cast<int>(tensor.device.device_type);
  *on_host = type == kCpu || type == kCudaHost || type == kRocmHost;
  *address = reinterpret_cast<DeviceAddress>(tensor.data) + tensor.byte_offset;
  return TensorCheck(Side::kWeight, 0, expected, tensor, nullptr)
      .Weight(device, in_place, *on_host);
}

}  // namespace aoti
