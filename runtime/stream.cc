#include "runtime/stream.h"

#include <utility>

namespace aoti {

Status Stream::Create(std::shared_ptr<const Context> context) {
  AOTI_CUDA_RETURN_IF_ERROR(context->driver(), "creating a stream", StreamCreate, &handle_,
                            cuda::kStreamNonBlocking);
  context_ = std::move(context);
  return Status();
}

Stream::~Stream() {
  if (context_ == nullptr) return;
  const ScopedContext scope(*context_);
  if (!scope.ok()) return;
  // Work still enqueued, after an error, may read memory that is freed next.
  context_->driver().StreamSynchronize(handle_);
  context_->driver().StreamDestroy(handle_);
}

Status Stream::Synchronize(const char* doing) const {
  AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), doing, StreamSynchronize, handle_);
  return Status();
}

Status Event::Create(std::shared_ptr<const Context> context) {
  AOTI_CUDA_RETURN_IF_ERROR(context->driver(), "creating an event", EventCreate, &handle_,
                            cuda::kEventDisableTiming);
  context_ = std::move(context);
  return Status();
}

Event::~Event() {
  if (context_ == nullptr) return;
  const ScopedContext scope(*context_);
  if (scope.ok()) context_->driver().EventDestroy(handle_);
}

Status Event::Record(cuda::Stream stream) const {
  AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), "marking the end of the work", EventRecord, handle_,
                            stream);
  return Status();
}

bool Event::Reached() const {
  return context_ == nullptr || context_->driver().EventQuery(handle_) == cuda::kSuccess;
}

Status Event::Wait() const {
  if (context_ == nullptr) return Status();
  AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), "waiting for earlier work", EventSynchronize,
                            handle_);
  return Status();
}

Status Event::Wait(cuda::Stream stream) const {
  if (context_ == nullptr) return Status();
  AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), "ordering work after earlier work", StreamWaitEvent,
                            stream, handle_, 0);
  return Status();
}

}  // namespace aoti
