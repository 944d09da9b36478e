#include "runtime/driver.h"

#include <atomic>
#include <mutex>

#include "runtime/platform.h"

namespace aoti {

Status Driver::Get(const Driver** driver) {
  // Constant-initialized and never destroyed: usable before and after other static objects.
  static Driver instance;
  static std::mutex mutex;
  static std::atomic<bool> ready{false};
  if (!ready.load(std::memory_order_acquire)) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!ready.load(std::memory_order_relaxed)) {
      AOTI_RETURN_IF_ERROR(instance.Load());
      ready.store(true, std::memory_order_release);
    }
  }
  *driver = &instance;
  return Status();
}

Status Driver::Failure(cuda::Result result, const char* function, const std::string& doing) const {
  const char* name = nullptr;
  const char* text = nullptr;
  if (GetErrorName(result, &name) != cuda::kSuccess) name = nullptr;
  if (GetErrorString(result, &text) != cuda::kSuccess) text = nullptr;
  std::string message = doing + ": " + DriverFunctionName(function) + " failed: ";
  message += name != nullptr ? std::string(name) : "error " + std::to_string(result);
  if (text != nullptr) message += std::string(" (") + text + ")";
  switch (result) {
    case cuda::kErrorOutOfMemory:
      return Status(Code::kOutOfMemory, std::move(message));
    case cuda::kErrorStubLibrary:
    case cuda::kErrorNoDevice:
    case cuda::kErrorInvalidDevice:
    case cuda::kErrorSystemNotReady:
    case cuda::kErrorSystemDriverMismatch:
    case cuda::kErrorCompatNotSupported:
      return Status(Code::kUnavailable, std::move(message));
    default:
      return Status(Code::kDriver, std::move(message));
  }
}

}  // namespace aoti
