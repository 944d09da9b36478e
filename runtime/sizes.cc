#include "runtime/sizes.h"

#include <cctype>
#include <cstring>

#include "runtime/tensor.h"
#include "runtime/values.h"

namespace aoti {
namespace {

// What generated code calls an expression that is but a number or the name of a symbol.
bool IsNumber(const std::string& expression) {
  for (const char c : expression) {
    if (std::isdigit(static_cast<unsigned char>(c)) == 0) return false;
  }
  return true;
}

std::vector<TensorDescription> CopyOf(const Table<TensorDescription>& table) {
  return std::vector<TensorDescription>(table.begin(), table.end());
}

}  // namespace

Sizes::Sizes(const ModelDescription& model, const TargetDescription* target)
    : model_(model),
      target_(target),
      symbols_(model.symbols.size),
      next_(model.symbols.size),
      values_(target == nullptr ? model.num_values : target->num_values),
      inputs_(CopyOf(model.inputs)),
      outputs_(CopyOf(model.outputs)),
      dims_(2 * (inputs_.size() + outputs_.size())) {
  for (const SymbolDescription& symbol : model.symbols) {
    if (symbol.shapes) key_.push_back(0);
  }
}

Status Sizes::Read(const DLTensor* const* inputs, size_t num_inputs) {
  AOTI_RETURN_IF_ERROR(CheckCount(Side::kInput, model_.inputs, inputs, num_inputs));
  for (size_t i = 0; i < next_.size(); ++i) {
    AOTI_RETURN_IF_ERROR(ReadSymbol(model_.symbols[i], inputs, &next_[i]));
  }
  if (valid_ && next_ == symbols_) return CheckScalars(inputs);
  valid_ = false;
  symbols_ = next_;
  size_t keys = 0;
  for (size_t i = 0; i < symbols_.size(); ++i) {
    values_[i] = symbols_[i];
    if (model_.symbols[i].shapes) key_[keys++] = symbols_[i];
  }
  AOTI_RETURN_IF_ERROR(Check());
  const auto where = [this](const std::string& expression) { return Where(expression); };
  AOTI_RETURN_IF_ERROR(ComputeValues(model_, target_, where, values_.data()));
  AOTI_RETURN_IF_ERROR(Resolve("input", &inputs_));
  AOTI_RETURN_IF_ERROR(Resolve("output", &outputs_));
  valid_ = true;
  return CheckScalars(inputs);
}

Status Sizes::CheckScalars(const DLTensor* const* inputs) const {
  for (size_t i = 0; i < model_.inputs.size; ++i) {
    const TensorDescription& input = model_.inputs[i];
    if (input.symbol == kFixed) continue;
    const SymbolDescription& symbol = model_.symbols[static_cast<size_t>(input.symbol)];
    if (symbol.input == i) continue;
    int64_t value = 0;
    AOTI_RETURN_IF_ERROR(ReadScalar(i, input, *inputs[i], &value));
    const int64_t expected = symbols_[static_cast<size_t>(input.symbol)];
    if (value == expected) continue;
    return Status(Code::kInvalidArgument, TensorLabel(Side::kInput, i, input) + "expected " +
                                              std::to_string(expected) + Explain(symbol.name) +
                                              ", got " + std::to_string(value));
  }
  return Status();
}

Status Sizes::ReadSymbol(const SymbolDescription& symbol, const DLTensor* const* inputs,
                         int64_t* value) const {
  const TensorDescription& input = model_.inputs[symbol.input];
  const DLTensor& tensor = *inputs[symbol.input];
  if (symbol.dimension == kFixed) return ReadScalar(symbol.input, input, tensor, value);
  AOTI_RETURN_IF_ERROR(CheckRank(Side::kInput, symbol.input, input, tensor));
  *value = tensor.shape[symbol.dimension];
  return Status();
}

Status Sizes::Check() const {
  for (size_t i = 0; i < symbols_.size(); ++i) {
    const SymbolDescription& symbol = model_.symbols[i];
    if (symbol.minimum <= symbols_[i] && symbols_[i] <= symbol.maximum) continue;
    std::string what;
    if (symbol.dimension != kFixed) {
      what = "dimension " + std::to_string(symbol.dimension) + ": ";
    }
    const std::string name = symbol.name;
    return Status(Code::kInvalidArgument,
                  TensorLabel(Side::kInput, symbol.input, model_.inputs[symbol.input]) + what +
                      "expected " + std::to_string(symbol.minimum) + " <= " + name +
                      " <= " + std::to_string(symbol.maximum) + ", got " + name + " = " +
                      std::to_string(symbols_[i]));
  }
  return Status();
}

Status Sizes::Resolve(const char* sort, std::vector<TensorDescription>* tensors) {
  const size_t first = tensors == &inputs_ ? 0 : 2 * inputs_.size();
  for (size_t i = 0; i < tensors->size(); ++i) {
    TensorDescription& tensor = (*tensors)[i];
    const DynamicLayout* layout = tensor.dynamic;
    if (layout == nullptr) continue;
    const std::string label =
        std::string(sort) + " " + std::to_string(i) + " (" + tensor.name + "): ";
    std::vector<int64_t>* dims = &dims_[first + 2 * i];
    AOTI_RETURN_IF_ERROR(
        ResolveDims(label, "size", layout->shape, layout->shape_values, dims, &tensor.shape));
    AOTI_RETURN_IF_ERROR(ResolveDims(label, "stride", layout->strides, layout->stride_values,
                                     &dims[1], &tensor.strides));
    uint64_t nbytes = 0;
    if (!CheckedExtent(tensor, &nbytes)) {
      return Status(Code::kInvalidArgument, label + "its bytes do not fit 64 bits for the shape " +
                                                ShapeText(tensor.shape.data, tensor.shape.size));
    }
  }
  return Status();
}

Status Sizes::ResolveDims(const std::string& label, const char* what, const AotiDimInfo* dims,
                          const int32_t* indices, std::vector<int64_t>* resolved,
                          Table<int64_t>* table) const {
  resolved->resize(table->size);
  for (size_t i = 0; i < table->size; ++i) {
    const int64_t value =
        indices[i] == kFixed ? dims[i].minimum : values_[static_cast<size_t>(indices[i])];
    if (value < 0) {
      return Status(Code::kInvalidArgument,
                    label + "dimension " + std::to_string(i) + " would have " + what + " " +
                        std::to_string(value) + Explain(dims[i].expression));
    }
    (*resolved)[i] = value;
  }
  *table = {resolved->data(), resolved->size()};
  return Status();
}

uint64_t Sizes::arena() const { return ArenaSize(*target_, values_.data()); }

std::string Sizes::Explain(const char* expression) const {
  if (IsNumber(expression)) return "";
  for (const SymbolDescription& symbol : model_.symbols) {
    if (std::strcmp(symbol.name, expression) == 0) {
      return std::string(" (") + expression + ", which is " + Origin(symbol) + ")";
    }
  }
  return std::string(" (") + expression + Where(expression) + ")";
}

std::string Sizes::Where(const std::string& expression) const {
  std::string text;
  for (size_t i = 0; i < symbols_.size(); ++i) {
    const SymbolDescription& symbol = model_.symbols[i];
    if (!Mentions(expression, symbol.name)) continue;
    text += text.empty() ? ", where " : ", ";
    text +=
        std::string(symbol.name) + " = " + std::to_string(symbols_[i]) + " is " + Origin(symbol);
  }
  return text;
}

std::string Sizes::Origin(const SymbolDescription& symbol) const {
  std::string input =
      "input " + std::to_string(symbol.input) + " (" + model_.inputs[symbol.input].name + ")";
  if (symbol.dimension == kFixed) return input;
  return "dimension " + std::to_string(symbol.dimension) + " of " + input;
}

}  // namespace aoti
