#include <algorithm>
#include <limits>
#include <set>
#include <tuple>
#include <utility>

#include "nlohmann/json.hpp"
#include "runtime/tensor.h"
#include "runtime/weights.h"

namespace aoti {
namespace {

using Json = nlohmann::json;

// The reference implementation's limit.
constexpr uint64_t kMaxHeader = 100'000'000;

// Parses an object that repeats no key at its top level: JSON leaves open what a repetition means.
// Returns what is wrong with the text, or "".
std::string ParseObject(const std::string& text, Json* value) {
  std::set<std::string> keys;
  std::string repeated;
  const auto callback = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (depth == 1 && event == Json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.insert(key).second) repeated = key;
    }
    return true;
  };
  *value = Json::parse(text, callback, /*allow_exceptions=*/false);
  if (value->is_discarded()) return "its header is not valid JSON";
  if (!value->is_object()) return "its header is not a JSON object";
  if (!repeated.empty()) return "tensor " + repeated + ": occurs twice in the header";
  return "";
}

bool ReadUnsigned(const Json& value, uint64_t* number) {
  if (!value.is_number_unsigned()) return false;
  *number = value.get<uint64_t>();
  return true;
}

// Reads one entry of the header; returns what is wrong with it, or "". `data_size` is the number of
// bytes after the header; the tensor's offset is still relative to them.
std::string ParseTensor(const Json& entry, uint64_t data_size, SafetensorsFile::Tensor* tensor) {
  if (!entry.is_object()) return "its entry is not an object";
  const auto dtype = entry.find("dtype");
  const auto shape = entry.find("shape");
  const auto offsets = entry.find("data_offsets");
  if (dtype == entry.end() || !dtype->is_string()) return "has no dtype";
  if (shape == entry.end() || !shape->is_array()) return "has no shape";
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2) {
    return "has no pair of data_offsets";
  }
  tensor->dtype = dtype->get_ref<const std::string&>();
  for (const Json& element : *shape) {
    uint64_t size = 0;
    if (!ReadUnsigned(element, &size) ||
        size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return "a size in its shape is not a natural number";
    }
    tensor->shape.push_back(static_cast<int64_t>(size));
  }
  uint64_t begin = 0;
  uint64_t end = 0;
  if (!ReadUnsigned((*offsets)[0], &begin) || !ReadUnsigned((*offsets)[1], &end) || begin > end) {
    return "its data_offsets are not two ascending natural numbers";
  }
  if (end > data_size) {
    return "its data ends at byte " + std::to_string(end) + " of " + std::to_string(data_size) +
           ": the file is truncated or its header wrong";
  }
  tensor->offset = begin;
  tensor->nbytes = end - begin;
  // A type unknown here cannot be one the model asks for, so it does no harm.
  const uint64_t item_size = SafetensorsItemSize(tensor->dtype);
  uint64_t nbytes = 0;
  if (item_size != 0 &&
      (!ContiguousSize(tensor->shape.data(), tensor->shape.size(), item_size, &nbytes) ||
       nbytes != tensor->nbytes)) {
    return "its shape " + ShapeText(tensor->shape.data(), tensor->shape.size()) + " of " +
           tensor->dtype + " does not make the " + std::to_string(tensor->nbytes) +
           " bytes of its data_offsets";
  }
  return "";
}

std::string TensorText(const std::string& dtype, const int64_t* shape, size_t ndim) {
  return dtype + ShapeText(shape, ndim);
}

}  // namespace

Status SafetensorsFile::Open(std::unique_ptr<ByteSource> source, std::string label,
                             std::unique_ptr<SafetensorsFile>* file) {
  auto opened = std::make_unique<SafetensorsFile>();
  opened->source_ = std::move(source);
  opened->label_ = std::move(label);
  AOTI_RETURN_IF_ERROR(opened->ReadHeader());
  *file = std::move(opened);
  return Status();
}

Status SafetensorsFile::Fault(const std::string& what) const {
  return Status(Code::kDataLoss, label_ + ": " + what);
}

Status SafetensorsFile::Read(uint64_t offset, uint64_t nbytes, void* destination) const {
  return source_->Read(offset, nbytes, destination);
}

Status SafetensorsFile::ReadHeader() {
  constexpr uint64_t kPrefix = 8;
  if (source_->size() < kPrefix) {
    return Fault("is no safetensors file: it has only " + std::to_string(source_->size()) +
                 " bytes");
  }
  unsigned char prefix[kPrefix];
  AOTI_RETURN_IF_ERROR(source_->Read(0, kPrefix, prefix));
  uint64_t length = 0;
  for (size_t i = 0; i < kPrefix; ++i) length |= uint64_t{prefix[i]} << (8 * i);
  if (length > kMaxHeader) {
    return Fault("is no safetensors file: its header would have " + std::to_string(length) +
                 " bytes, and " + std::to_string(kMaxHeader) + " is the most");
  }
  if (length > source_->size() - kPrefix) {
    return Fault("is truncated: its header should have " + std::to_string(length) +
                 " bytes, and only " + std::to_string(source_->size() - kPrefix) + " follow");
  }
  std::string header(length, '\0');
  AOTI_RETURN_IF_ERROR(source_->Read(kPrefix, length, header.data()));
  AOTI_RETURN_IF_ERROR(ParseTensors(header, kPrefix + length));
  return CheckCoverage(kPrefix + length);
}

Status SafetensorsFile::ParseTensors(const std::string& header, uint64_t data_begin) {
  Json json;
  std::string fault = ParseObject(header, &json);
  if (!fault.empty()) return Fault(fault);
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") continue;
    Tensor tensor;
    fault = ParseTensor(entry, source_->size() - data_begin, &tensor);
    if (!fault.empty()) return Fault("tensor " + name + ": " + fault);
    tensor.offset += data_begin;
    tensors_.emplace(name, std::move(tensor));
  }
  return Status();
}

Status SafetensorsFile::CheckCoverage(uint64_t data_begin) const {
  std::vector<const std::pair<const std::string, Tensor>*> in_order;
  in_order.reserve(tensors_.size());
  for (const auto& tensor : tensors_) in_order.push_back(&tensor);
  std::sort(in_order.begin(), in_order.end(), [](const auto* a, const auto* b) {
    return std::tie(a->second.offset, a->second.nbytes) <
           std::tie(b->second.offset, b->second.nbytes);
  });
  uint64_t end = data_begin;
  const std::string* before = nullptr;
  for (const auto* entry : in_order) {
    const auto& [name, tensor] = *entry;
    if (tensor.offset < end) return Fault("tensors " + *before + " and " + name + " overlap");
    if (tensor.offset > end) {
      return Fault("no tensor covers the " + std::to_string(tensor.offset - end) +
                   " bytes before tensor " + name);
    }
    end = tensor.offset + tensor.nbytes;
    before = &name;
  }
  if (end != source_->size()) {
    return Fault("no tensor covers its last " + std::to_string(source_->size() - end) + " bytes");
  }
  return Status();
}

Status SafetensorsFile::Find(const WeightDescription& weight, const Tensor** tensor) const {
  const std::string expected = aoti::TensorText(weight);
  const auto found = tensors_.find(weight.name);
  if (found == tensors_.end()) {
    return Status(Code::kNotFound,
                  label_ + ": has no tensor " + weight.name + " (" + expected + ")");
  }
  const std::string got =
      TensorText(found->second.dtype, found->second.shape.data(), found->second.shape.size());
  if (got != expected) {
    return Status(Code::kInvalidArgument,
                  label_ + ": tensor " + weight.name + ": expected " + expected + ", got " + got);
  }
  *tensor = &found->second;
  return Status();
}

std::string TensorText(const WeightDescription& weight) {
  return TensorText(SafetensorsName(weight.dtype), weight.shape.data, weight.shape.size);
}

}  // namespace aoti
