// Integer arithmetic as Python does it, for the size expressions of generated code.

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

}  // namespace aoti

#endif  // AOTI_RUNTIME_INTEGER_H_
