// What the functions of the C ABI share: the types behind the opaque ones, argument checks, and the
// border that no exception crosses.

#ifndef AOTI_RUNTIME_ABI_H_
#define AOTI_RUNTIME_ABI_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "runtime/aoti.h"
#include "runtime/model.h"
#include "runtime/session.h"
#include "runtime/status.h"
#include "runtime/weight_set.h"

struct AotiModel {
  std::shared_ptr<aoti::Model> model;
};

struct AotiSession {
  std::unique_ptr<aoti::Session> session;
};

struct AotiWeights {
  std::shared_ptr<const aoti::WeightSet> set;
  std::weak_ptr<aoti::Model> model;  // whose sessions may run with it
};

namespace aoti {

// Fills in the caller's status, if there is one; returns the code.
int32_t Report(Code code, const char* message, AotiStatus* status) noexcept;

// Runs `body`, which returns a Status, and reports its result or its exception.
template <typename Body>
int32_t Guard(AotiStatus* status, Body body) noexcept {
  try {
    const Status result = body();
    return Report(result.code(), result.message(), status);
  } catch (const std::bad_alloc&) {
    return Report(Code::kOutOfMemory, "out of host memory", status);
  } catch (const std::exception& error) {
    return Report(Code::kInternal, error.what(), status);
  } catch (...) {
    return Report(Code::kInternal, "unknown exception", status);
  }
}

Status IsNull(const char* argument);

// Fails unless there are more than `index` of a `sort`, such as "input".
Status CheckIndex(const char* sort, uint64_t index, size_t count);

// Copies the caller's struct, which may be shorter (of an older release: the rest is zero) or
// longer (of a newer one: then what this release does not know must be zero).
template <typename Struct>
Status ReadOptions(const Struct* given, const char* name, uint64_t oldest, Struct* options) {
  *options = {};
  if (given->struct_size < oldest) {
    return Status(Code::kInvalidArgument,
                  std::string(name) + ".struct_size is " + std::to_string(given->struct_size) +
                      ", expected sizeof(" + name + "), " + std::to_string(sizeof(Struct)));
  }
  const auto* bytes = reinterpret_cast<const unsigned char*>(given);
  for (uint64_t i = sizeof(Struct); i < given->struct_size; ++i) {
    if (bytes[i] == 0) continue;
    return Status(Code::kInvalidArgument,
                  std::string(name) + " uses an option that this runtime is too old to know");
  }
  std::memcpy(options, given, std::min<uint64_t>(given->struct_size, sizeof(Struct)));
  return Status();
}

// Reads what aoti_weights_load is given. What it points to outlives `sources`.
Status ReadWeightSources(const AotiWeightsOptions* given, WeightSources* sources);

}  // namespace aoti

#endif  // AOTI_RUNTIME_ABI_H_
