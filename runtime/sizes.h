// What the sizes and scalars among a call's inputs come to: the values of a model's symbols, and
// all that is computed from them.

#ifndef AOTI_RUNTIME_SIZES_H_
#define AOTI_RUNTIME_SIZES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "dlpack/dlpack.h"
#include "runtime/description.h"
#include "runtime/status.h"

namespace aoti {

class Sizes {
 public:
  // Of a model with symbols. `target` is null where only shapes are asked for; else what its launch
  // code needs is computed as well.
  Sizes(const ModelDescription& model, const TargetDescription* target);
  Sizes(const Sizes&) = delete;
  Sizes& operator=(const Sizes&) = delete;

  // Reads the symbols from a call's inputs and, if they are others than in the call before, checks
  // their ranges and the model's constraints and computes everything. After a failure the other
  // members must not be used until a call succeeds. A message names the input and the dimension, or
  // quotes the constraint.
  Status Read(const DLTensor* const* inputs, size_t num_inputs);

  // The model's, with all sizes and strides as they are in this call.
  Table<TensorDescription> inputs() const { return {inputs_.data(), inputs_.size()}; }
  Table<TensorDescription> outputs() const { return {outputs_.data(), outputs_.size()}; }

  const int64_t* values() const { return values_.data(); }
  // The values of all symbols, and of those that a CUDA graph is made for.
  const std::vector<int64_t>& symbols() const { return symbols_; }
  const std::vector<int64_t>& key() const { return key_; }
  // Bytes of main's arena.
  uint64_t arena() const;

  // " (s0 * 2, where s0 = 7 is dimension 0 of input 0 (x))"; "" for a number.
  std::string Explain(const char* expression) const;

 private:
  Status ReadSymbol(const SymbolDescription& symbol, const DLTensor* const* inputs,
                    int64_t* value) const;
  Status Check() const;
  Status Resolve(const char* sort, std::vector<TensorDescription>* tensors);
  Status ResolveDims(const std::string& label, const char* what, const AotiDimInfo* dims,
                     const int32_t* indices, std::vector<int64_t>* resolved,
                     Table<int64_t>* table) const;
  // Fails unless scalars are what dimensions of earlier inputs say.
  Status CheckScalars(const DLTensor* const* inputs) const;
  // ", where s0 = 7 is dimension 0 of input 0 (x)": the symbols in an expression; "" if there is
  // none.
  std::string Where(const std::string& expression) const;
  std::string Origin(const SymbolDescription& symbol) const;

  const ModelDescription& model_;
  const TargetDescription* const target_;
  bool valid_ = false;
  std::vector<int64_t> symbols_;
  std::vector<int64_t> next_;  // symbols of the call in progress
  std::vector<int64_t> key_;
  std::vector<int64_t> values_;
  std::vector<TensorDescription> inputs_;
  std::vector<TensorDescription> outputs_;
  // What the tables of these point to: shapes and strides of the inputs, then of the outputs.
  std::vector<std::vector<int64_t>> dims_;
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_SIZES_H_
