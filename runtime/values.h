// The values of a call: numbers that follow from its symbols, computed and checked.

#ifndef AOTI_RUNTIME_VALUES_H_
#define AOTI_RUNTIME_VALUES_H_

#include <cstdint>
#include <functional>
#include <string>

#include "runtime/description.h"
#include "runtime/status.h"

namespace aoti {

// Whether an expression of generated code has the symbol `name` in it.
bool Mentions(const std::string& expression, const std::string& name);

// Computes the values behind those of the symbols, which are in range: the model's and, where a
// target is given, its own; and checks the constraints and limits. `where` says what is behind an
// expression, for messages: ", where s0 = 7 is dimension 0 of input 0 (x)".
Status ComputeValues(const ModelDescription& model, const TargetDescription* target,
                     const std::function<std::string(const std::string&)>& where, int64_t* values);

// Bytes of main's arena in a call with these values, which are not read where it is always the
// same.
uint64_t ArenaSize(const TargetDescription& target, const int64_t* values);

}  // namespace aoti

#endif  // AOTI_RUNTIME_VALUES_H_
