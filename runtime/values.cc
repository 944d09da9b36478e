#include "runtime/values.h"

#include <cctype>

#include "runtime/memory.h"

namespace aoti {
namespace {

using Where = std::function<std::string(const std::string&)>;

bool IsWordCharacter(char c) {
  return c == '_' || std::isalnum(static_cast<unsigned char>(c)) != 0;
}

bool Holds(int64_t left, const std::string& comparison, int64_t right) {
  if (comparison == "==") return left == right;
  if (comparison == "!=") return left != right;
  if (comparison == "<") return left < right;
  if (comparison == "<=") return left <= right;
  if (comparison == ">") return left > right;
  return left >= right;
}

Status CheckConstraint(const ConstraintDescription& constraint, const Where& where,
                       const int64_t* values) {
  const int64_t left = values[static_cast<size_t>(constraint.left)];
  const int64_t right = values[static_cast<size_t>(constraint.right)];
  if (Holds(left, constraint.comparison, right)) return Status();
  return Status(Code::kInvalidArgument, std::string("the inputs violate the constraint ") +
                                            constraint.text + ": expected " + constraint.condition +
                                            ", got " + std::to_string(left) + " " +
                                            constraint.comparison + " " + std::to_string(right) +
                                            where(constraint.condition));
}

Status CheckLimit(const LimitDescription& limit, const Where& where, const int64_t* values) {
  const int64_t value = values[static_cast<size_t>(limit.value)];
  const bool within = limit.minimum <= value && value <= limit.maximum;
  if (within && value % limit.multiple_of == 0) return Status();
  const std::string expected =
      within ? "a multiple of " + std::to_string(limit.multiple_of)
             : std::to_string(limit.minimum) + " to " + std::to_string(limit.maximum);
  return Status(Code::kInvalidArgument, std::string("the model cannot run at these sizes: ") +
                                            limit.what + ", " + limit.expression + ", is " +
                                            std::to_string(value) + ", expected " + expected +
                                            where(limit.expression));
}

}  // namespace

bool Mentions(const std::string& expression, const std::string& name) {
  for (size_t at = expression.find(name); at != std::string::npos;
       at = expression.find(name, at + 1)) {
    const size_t end = at + name.size();
    if ((at == 0 || !IsWordCharacter(expression[at - 1])) &&
        (end == expression.size() || !IsWordCharacter(expression[end]))) {
      return true;
    }
  }
  return false;
}

Status ComputeValues(const ModelDescription& model, const TargetDescription* target,
                     const Where& where, int64_t* values) {
  const char* failed = nullptr;
  if (model.compute != nullptr) failed = model.compute(values);
  if (failed == nullptr) {
    for (const ConstraintDescription& constraint : model.constraints) {
      AOTI_RETURN_IF_ERROR(CheckConstraint(constraint, where, values));
    }
    if (target != nullptr && target->plan != nullptr) failed = target->plan(values);
  }
  if (failed != nullptr) {
    return Status(Code::kInvalidArgument, std::string("the model cannot run at these sizes: ") +
                                              failed + " divides by zero or does not fit 64 bits" +
                                              where(failed));
  }
  if (target == nullptr) return Status();
  for (const LimitDescription& limit : target->limits) {
    AOTI_RETURN_IF_ERROR(CheckLimit(limit, where, values));
  }
  return Status();
}

uint64_t ArenaSize(const TargetDescription& target, const int64_t* values) {
  if (target.arena == kFixed) return Align(target.memory.main_arena);
  return static_cast<uint64_t>(values[static_cast<size_t>(target.arena)]);
}

}  // namespace aoti
