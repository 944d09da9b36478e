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
constexpr int64_t Power(int64_t base, int exponent) {
  int64_t result = 1;
  for (int i = 0; i < exponent; ++i) result *= base;
  return result;
}

// A result of 64 bits, or the fact that there is none: something on the way to it did not fit, or
// divided by zero.
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

 private:
  constexpr Checked(int64_t value, bool ok) : value_(value), ok_(ok) {}

  int64_t value_;
  bool ok_ = true;
};

constexpr bool Divides(Checked a, Checked b) {
  return a.ok() && b.ok() && b.value() != 0 && (a.value() != INT64_MIN || b.value() != -1);
}

constexpr Checked FloorDivide(Checked a, Checked b) {
  return Divides(a, b) ? FloorDivide(a.value(), b.value()) : Checked::None();
}

constexpr Checked Modulo(Checked a, Checked b) {
  return Divides(a, b) ? Modulo(a.value(), b.value()) : Checked::None();
}

constexpr Checked Absolute(Checked a) { return a.value() < 0 ? -a : a; }

// `exponent` is not negative.
constexpr Checked Power(Checked base, int exponent) {
  Checked result = 1;
  for (int i = 0; i < exponent; ++i) result = result * base;
  return result;
}

constexpr Checked Max(Checked a, Checked b) {
  return a.ok() && b.ok() ? Checked(a.value() > b.value() ? a : b) : Checked::None();
}

constexpr Checked Min(Checked a, Checked b) {
  return a.ok() && b.ok() ? Checked(a.value() < b.value() ? a : b) : Checked::None();
}

// The least multiple of `alignment` that is not below `a`.
constexpr Checked AlignTo(Checked a, int64_t alignment) {
  return FloorDivide(a + (alignment - 1), alignment) * alignment;
}

}  // namespace aoti

#endif  // AOTI_RUNTIME_INTEGER_H_
