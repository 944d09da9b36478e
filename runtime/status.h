// A result code and, on failure, a message. Nothing in the runtime throws, prints or exits.

#ifndef AOTI_RUNTIME_STATUS_H_
#define AOTI_RUNTIME_STATUS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace aoti {

// Values are part of the C ABI.
enum class Code : int32_t {
  kOk = 0,
  kInvalidArgument = 1,  // an argument the caller can correct
  kNotFound = 2,         // a file, tensor, driver function or matching target is missing
  kDataLoss = 3,         // a file is truncated or contradicts itself
  kUnavailable = 4,      // no driver, or no device
  kOutOfMemory = 5,
  kDriver = 6,    // the driver reported an error; the message holds its name and text
  kInternal = 7,  // a fault of this library
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message)
      : failure_(std::make_unique<Failure>(Failure{code, std::move(message)})) {}

  bool ok() const { return failure_ == nullptr; }
  Code code() const { return ok() ? Code::kOk : failure_->code; }
  const char* message() const { return ok() ? "" : failure_->message.c_str(); }

 private:
  struct Failure {
    Code code;
    std::string message;
  };
  std::unique_ptr<Failure> failure_;  // null on success, so that success costs nothing
};

}  // namespace aoti

// Leaves the function with the status of `expression` if that failed.
#define AOTI_RETURN_IF_ERROR(expression)       \
  do {                                         \
    ::aoti::Status aoti_status = (expression); \
    if (!aoti_status.ok()) return aoti_status; \
  } while (false)

#endif  // AOTI_RUNTIME_STATUS_H_
