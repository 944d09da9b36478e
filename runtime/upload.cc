#include <algorithm>
#include <vector>

#include "runtime/memory.h"
#include "runtime/stream.h"
#include "runtime/weights.h"

namespace aoti {
namespace {

// Large enough that a transfer's fixed cost does not count, small enough to page-lock quickly.
constexpr uint64_t kChunk = uint64_t{8} << 20;

// Two page-locked buffers, filled in turn while the other one is on its way to the device.
class Uploader {
 public:
  Status Create(const std::shared_ptr<const Context>& context, uint64_t largest) {
    context_ = context;
    chunk_ = std::max<uint64_t>(1, std::min(kChunk, largest));
    for (Buffer& buffer : buffers_) {
      AOTI_RETURN_IF_ERROR(buffer.memory.Allocate(context, chunk_));
      AOTI_RETURN_IF_ERROR(buffer.sent.Create(context));
    }
    return stream_.Create(context);
  }

  Status Copy(const Transfer& transfer) {
    uint64_t offset = transfer.offset;
    uint64_t nbytes = transfer.nbytes;
    DeviceAddress to = transfer.to;
    while (nbytes != 0) {
      const uint64_t size = std::min(nbytes, chunk_);
      Buffer& buffer = buffers_[next_];
      next_ = 1 - next_;
      AOTI_RETURN_IF_ERROR(buffer.sent.Wait());
      AOTI_RETURN_IF_ERROR(transfer.source->Read(offset, size, buffer.memory.data()));
      AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), "copying weights to the device",
                                MemcpyHtoDAsync, to, buffer.memory.data(), size, stream_.handle());
      AOTI_RETURN_IF_ERROR(buffer.sent.Record(stream_.handle()));
      offset += size;
      to += size;
      nbytes -= size;
    }
    return Status();
  }

  Status Finish() { return stream_.Synchronize("copying weights to the device"); }

 private:
  struct Buffer {
    PinnedMemory memory;
    Event sent;
  };

  std::shared_ptr<const Context> context_;
  uint64_t chunk_ = 0;
  Buffer buffers_[2];
  int next_ = 0;
  Stream stream_;  // last, so that it is destroyed, and thereby drained, before the buffers
};

}  // namespace

Status Upload(const std::shared_ptr<const Context>& context,
              const std::vector<Transfer>& transfers) {
  uint64_t largest = 0;
  for (const Transfer& transfer : transfers) largest = std::max(largest, transfer.nbytes);
  if (largest == 0) return Status();
  Uploader uploader;
  AOTI_RETURN_IF_ERROR(uploader.Create(context, largest));
  for (const Transfer& transfer : transfers) AOTI_RETURN_IF_ERROR(uploader.Copy(transfer));
  return uploader.Finish();
}

}  // namespace aoti
