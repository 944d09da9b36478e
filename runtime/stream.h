// Owned streams and events.

#ifndef AOTI_RUNTIME_STREAM_H_
#define AOTI_RUNTIME_STREAM_H_

#include <memory>

#include "runtime/context.h"
#include "runtime/status.h"

namespace aoti {

class Stream {
 public:
  Stream() = default;
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // The context must be current. Work in it does not wait for the legacy default stream.
  Status Create(std::shared_ptr<const Context> context);
  // `doing` describes, for the error message, the work waited for.
  Status Synchronize(const char* doing) const;

  cuda::Stream handle() const { return handle_; }

 private:
  std::shared_ptr<const Context> context_;
  cuda::Stream handle_ = nullptr;
};

class Event {
 public:
  Event() = default;
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  // The context must be current. Without timing.
  Status Create(std::shared_ptr<const Context> context);
  Status Record(cuda::Stream stream) const;
  // Whether what was recorded has finished; false as well where the driver reports an error.
  bool Reached() const;
  // Each returns at once if the event was never created or recorded.
  Status Wait() const;
  Status Wait(cuda::Stream stream) const;

 private:
  std::shared_ptr<const Context> context_;
  cuda::Event handle_ = nullptr;
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_STREAM_H_
