#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "runtime/weights.h"

namespace aoti {
namespace {

// strerror is not thread-safe.
std::string ErrorText(int error) { return std::generic_category().message(error); }

class FileSource : public ByteSource {
 public:
  FileSource(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  ~FileSource() override { close(descriptor_); }
  FileSource(const FileSource&) = delete;
  FileSource& operator=(const FileSource&) = delete;

  Status Measure() {
    struct stat information;
    if (fstat(descriptor_, &information) != 0) {
      return Status(Code::kNotFound, path_ + ": cannot be examined: " + ErrorText(errno));
    }
    if (!S_ISREG(information.st_mode)) {
      return Status(Code::kInvalidArgument, path_ + ": is not a regular file");
    }
    size_ = static_cast<uint64_t>(information.st_size);
    return Status();
  }

  uint64_t size() const override { return size_; }

  Status Read(uint64_t offset, uint64_t nbytes, void* destination) const override {
    char* to = static_cast<char*>(destination);
    while (nbytes != 0) {
      // Linux transfers at most 0x7ffff000 bytes a call.
      const size_t wanted = static_cast<size_t>(std::min<uint64_t>(nbytes, 1u << 30));
      const ssize_t got = pread(descriptor_, to, wanted, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return Status(Code::kDataLoss, path_ + ": cannot be read: " + ErrorText(errno));
      if (got == 0) return Status(Code::kDataLoss, path_ + ": was cut short while it was read");
      to += got;
      offset += static_cast<uint64_t>(got);
      nbytes -= static_cast<uint64_t>(got);
    }
    return Status();
  }

 private:
  const std::string path_;
  const int descriptor_;
  uint64_t size_ = 0;
};

class MemorySource : public ByteSource {
 public:
  MemorySource(const void* data, uint64_t size)
      : data_(static_cast<const char*>(data)), size_(size) {}

  uint64_t size() const override { return size_; }

  Status Read(uint64_t offset, uint64_t nbytes, void* destination) const override {
    if (nbytes != 0) std::memcpy(destination, data_ + offset, nbytes);
    return Status();
  }

 private:
  const char* const data_;
  const uint64_t size_;
};

// Closes a descriptor unless it was released.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return value_; }
  void Release() { value_ = -1; }

 private:
  int value_;
};

}  // namespace

Status OpenFile(const std::string& path, std::unique_ptr<ByteSource>* source) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer before it is refused.
  Descriptor descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (descriptor.get() < 0) {
    return Status(Code::kNotFound, path + ": cannot be opened: " + ErrorText(errno));
  }
  auto file = std::make_unique<FileSource>(path, descriptor.get());
  descriptor.Release();
  AOTI_RETURN_IF_ERROR(file->Measure());
  *source = std::move(file);
  return Status();
}

std::unique_ptr<ByteSource> WrapMemory(const void* data, uint64_t size) {
  return std::make_unique<MemorySource>(data, size);
}

}  // namespace aoti
