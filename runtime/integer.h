// Integer arithmetic as Python does it, for the size expressions of generated code. Where a result
// may not fit 64 bits for sizes within their ranges, generated code computes with Checked.

#ifndef AOTI_RUNTIME_INTEGER_H_
#define AOTI_RUNTIME_INTEGER_H_

#include <cstdint>

namespace aoti {

// Rounds down, where C++ rounds towards zero. `b` is not zero.
constexpr int64_t FloorDivide(int64_t a, int64_t b) {
  return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

// What FloorDivide leaves: it has the sign of `b`. `b` is not zero.
constexpr int64_t Modulo(int64_t a, int64_t b) {
  return a % b + ((a % b != 0 && (a < 0) != (b < 0)) ? b : 0);
}

constexpr int64_t Absolute(int64_t a) { return a < 0 ? -a : a; }

// `exponent` is not negative.
constexpr int64_t Power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  for (; exponent > 0; exponent /= 2) {
    if (exponent % 2 != 0) result *= base;
    if (exponent > 1) base *= base;
  }
  return result;
}

// `count` is 0 to 63.
constexpr int64_t ShiftLeft(int64_t a, int64_t count) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) << count);
}

// Rounds down. `count` is not negative.
constexpr int64_t ShiftRight(int64_t a, int64_t count) { return a >> (count < 63 ? count : 63); }

// A result of 64 bits, or the fact that there is none: something on the way to it did not fit,
// divided by zero, or had a negative exponent or count. A condition is 1 or 0.
class Checked {
 public:
  constexpr Checked(int64_t value) : value_(value) {}  // NOLINT: mixes with literals

  constexpr bool ok() const { return ok_; }
  // 0 where there is none.
  constexpr int64_t value() const { return ok_ ? value_ : 0; }

  static constexpr Checked None() { return Checked(0, false); }

  friend constexpr Checked operator+(Checked a, Checked b) {
    int64_t sum = 0;
    const bool overflow = __builtin_add_overflow(a.value_, b.value_, &sum);
    return Checked(sum, a.ok_ && b.ok_ && !overflow);
  }
  friend constexpr Checked operator-(Checked a, Checked b) {
    int64_t difference = 0;
    const bool overflow = __builtin_sub_overflow(a.value_, b.value_, &difference);
    return Checked(difference, a.ok_ && b.ok_ && !overflow);
  }
  friend constexpr Checked operator*(Checked a, Checked b) {
    int64_t product = 0;
    const bool overflow = __builtin_mul_overflow(a.value_, b.value_, &product);
    return Checked(product, a.ok_ && b.ok_ && !overflow);
  }
  friend constexpr Checked operator-(Checked a) { return Checked(0) - a; }
  friend constexpr Checked operator~(Checked a) { return Checked(~a.value_, a.ok_); }
  friend constexpr Checked operator&(Checked a, Checked b) {
    return Checked(a.value_ & b.value_, a.ok_ && b.ok_);
  }
  friend constexpr Checked operator|(Checked a, Checked b) {
    return Checked(a.value_ | b.value_, a.ok_ && b.ok_);
  }
  friend constexpr Checked operator^(Checked a, Checked b) {
    return Checked(a.value_ ^ b.value_, a.ok_ && b.ok_);
  }

 private:
  constexpr Checked(int64_t value, bool ok) : value_(value), ok_(ok) {}

  int64_t value_;
  bool ok_ = true;
};

constexpr bool Both(Checked a, Checked b) { return a.ok() && b.ok(); }

constexpr Checked FloorDivide(Checked a, Checked b) {
  if (!Both(a, b) || b.value() == 0) return Checked::None();
  return b.value() == -1 ? -a : Checked(FloorDivide(a.value(), b.value()));
}

constexpr Checked Modulo(Checked a, Checked b) {
  if (!Both(a, b) || b.value() == 0) return Checked::None();
  return b.value() == -1 ? 0 : Modulo(a.value(), b.value());
}

constexpr Checked Absolute(Checked a) { return a.value() < 0 ? -a : a; }

constexpr Checked Power(Checked base, Checked exponent) {
  if (!Both(base, exponent) || exponent.value() < 0) return Checked::None();
  Checked result = 1;
  for (int64_t left = exponent.value(); left > 0; left /= 2) {
    if (left % 2 != 0) result = result * base;
    if (left > 1) base = base * base;
  }
  return result;
}

constexpr Checked ShiftLeft(Checked a, Checked count) {
  if (!Both(a, count) || count.value() < 0) return Checked::None();
  if (a.value() == 0) return a;
  // 1 << 63 is none, though -1 << 63 is.
  if (count.value() == 63 && a.value() == -1) return INT64_MIN;
  return count.value() < 63 ? a * ShiftLeft(1, count.value()) : Checked::None();
}

constexpr Checked ShiftRight(Checked a, Checked count) {
  if (!Both(a, count) || count.value() < 0) return Checked::None();
  return ShiftRight(a.value(), count.value());
}

constexpr Checked Max(Checked a, Checked b) {
  return Both(a, b) ? (a.value() > b.value() ? a : b) : Checked::None();
}

constexpr Checked Min(Checked a, Checked b) {
  return Both(a, b) ? (a.value() < b.value() ? a : b) : Checked::None();
}

constexpr Checked Equal(Checked a, Checked b) {
  return Both(a, b) ? (a.value() == b.value() ? 1 : 0) : Checked::None();
}

constexpr Checked Unequal(Checked a, Checked b) {
  return Both(a, b) ? (a.value() != b.value() ? 1 : 0) : Checked::None();
}

constexpr Checked Less(Checked a, Checked b) {
  return Both(a, b) ? (a.value() < b.value() ? 1 : 0) : Checked::None();
}

constexpr Checked LessOrEqual(Checked a, Checked b) {
  return Both(a, b) ? (a.value() <= b.value() ? 1 : 0) : Checked::None();
}

// As in Python, what the first operand decides does not depend on the second.
constexpr Checked And(Checked a, Checked b) { return a.ok() && a.value() != 0 ? b : a; }
constexpr Checked Or(Checked a, Checked b) { return a.ok() && a.value() == 0 ? b : a; }
constexpr Checked Not(Checked a) { return a.ok() ? (a.value() == 0 ? 1 : 0) : a; }

// Nor on the branch that is not taken.
constexpr Checked Select(Checked condition, Checked a, Checked b) {
  if (!condition.ok()) return condition;
  return condition.value() != 0 ? a : b;
}

// The least multiple of `alignment` that is not below `a`.
constexpr Checked AlignTo(Checked a, int64_t alignment) {
  return FloorDivide(a + (alignment - 1), alignment) * alignment;
}

}  // namespace aoti

#endif  // AOTI_RUNTIME_INTEGER_H_
