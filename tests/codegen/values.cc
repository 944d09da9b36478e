// Prints the values that the model `dynamic` computes: for numbers in range, and for a scalar of
// which a product leaves 64 bits.

#include <algorithm>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "model.h"
#include "runtime/description.h"

int main() {
  const aoti::ModelDescription& model = dynamic_description()->model;
  const aoti::TargetDescription& target = model.targets[0];
  for (int64_t number : {int64_t{1}, int64_t{7}, int64_t{16}, int64_t{1} << 62}) {
    std::vector<int64_t> values(target.num_values, -1);
    for (size_t i = 0; i < model.symbols.size; ++i) values[i] = std::min<int64_t>(number, 16) + i;
    values[model.symbols.size - 1] = number;
    const char* none = model.compute(values.data());
    if (none == nullptr) none = target.plan(values.data());
    std::printf("%s:", none == nullptr ? "all" : none);
    if (none == nullptr) {
      for (const int64_t value : values) std::printf(" %" PRId64, value);
    }
    std::printf("\n");
  }
  return 0;
}
