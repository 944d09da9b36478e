// A device's CUDA context, and how the runtime enters and leaves it.

#ifndef AOTI_RUNTIME_CONTEXT_H_
#define AOTI_RUNTIME_CONTEXT_H_

#include <memory>
#include <string>
#include <utility>

#include "runtime/driver.h"
#include "runtime/status.h"

namespace aoti {

// What a device is, read without creating a context on it.
struct DeviceProperties {
  cuda::Device device;
  int ordinal;
  int major;  // compute capability
  int minor;
  std::string name;
  std::string architecture;  // as ReadArchitecture
};

Status ReadDevice(const Driver& driver, int ordinal, DeviceProperties* properties);

// The primary context, held until destruction; or one of the caller's, only used.
class Context {
 public:
  // `handle` is null for the primary context; else a context of `device`.
  static Status Create(const Driver& driver, const DeviceProperties& device, cuda::Context handle,
                       std::shared_ptr<const Context>* context);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  const Driver& driver() const { return driver_; }
  const DeviceProperties& device() const { return device_; }
  cuda::Context handle() const { return handle_; }

 private:
  Context(const Driver& driver, DeviceProperties device)
      : driver_(driver), device_(std::move(device)) {}

  const Driver& driver_;
  const DeviceProperties device_;
  cuda::Context handle_ = nullptr;
  bool retained_ = false;
};

// Makes a context current for its lifetime, and then again the one that was. Check `status` first.
class ScopedContext {
 public:
  explicit ScopedContext(const Context& context);
  ~ScopedContext();
  ScopedContext(const ScopedContext&) = delete;
  ScopedContext& operator=(const ScopedContext&) = delete;

  bool ok() const { return result_ == cuda::kSuccess; }
  Status status() const;

 private:
  const Driver& driver_;
  const cuda::Result result_;
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_CONTEXT_H_
