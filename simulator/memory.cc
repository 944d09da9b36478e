#include "simulator/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>

namespace simulator {
namespace {

// Far more than any device has, so that addresses are seldom used twice. Pages exist once they are
// written; a process with a limit on addresses gets less.
constexpr uint64_t kMostAddresses = uint64_t{1} << 40;
constexpr uint64_t kFewestAddresses = uint64_t{1} << 30;

// Where nothing else lies in a process on Linux, so that addresses are the same in every run.
constexpr uintptr_t kPreferredBase = uintptr_t{1} << 45;

constexpr uint64_t kPage = 4096;

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

std::string Error(const char* doing) { return std::string(doing) + ": " + std::strerror(errno); }

}  // namespace

std::string Block::Name() const {
  return "allocation " + std::to_string(number) + " (" + std::to_string(nbytes) + " bytes)";
}

std::string DeviceMemory::Reserve() {
  if (size_ != 0) return "";
  std::string fault;
  for (uint64_t size = kMostAddresses; size >= kFewestAddresses; size /= 2) {
    fault = ReserveOfSize(size);
    if (fault.empty()) return "";
  }
  return "no addresses for device memory: " + fault;
}

std::string DeviceMemory::ReserveOfSize(uint64_t size) {
  const int data_file = memfd_create("simulator device memory", MFD_CLOEXEC);
  const int written_file = memfd_create("simulator written bytes", MFD_CLOEXEC);
  void* device = MAP_FAILED;
  void* data = MAP_FAILED;
  void* written = MAP_FAILED;
  std::string fault;
  const auto map = [size](uintptr_t where, int flags, int protection, int file) {
    return mmap(reinterpret_cast<void*>(where), size, protection,
                MAP_SHARED | MAP_NORESERVE | flags, file, 0);
  };
  if (data_file < 0 || written_file < 0) {
    fault = Error("memfd_create");
  } else if (ftruncate(data_file, static_cast<off_t>(size)) != 0 ||
             ftruncate(written_file, static_cast<off_t>(size)) != 0) {
    fault = Error("ftruncate");
  } else {
    // As with a GPU, a host that uses a device address as its own crashes.
    device = map(kPreferredBase, MAP_FIXED_NOREPLACE, PROT_NONE, data_file);
    if (device == MAP_FAILED) device = map(0, 0, PROT_NONE, data_file);
    data = map(0, 0, PROT_READ | PROT_WRITE, data_file);
    written = map(0, 0, PROT_READ | PROT_WRITE, written_file);
    if (device == MAP_FAILED || data == MAP_FAILED || written == MAP_FAILED) fault = Error("mmap");
  }
  if (!fault.empty()) {
    for (void* mapping : {device, data, written}) {
      if (mapping != MAP_FAILED) munmap(mapping, size);
    }
    for (const int file : {data_file, written_file}) {
      if (file >= 0) close(file);
    }
    return fault;
  }
  for (void* mapping : {device, data, written}) madvise(mapping, size, MADV_DONTDUMP);
  base_ = reinterpret_cast<DevicePointer>(device);
  size_ = size;
  data_ = static_cast<unsigned char*>(data);
  written_ = static_cast<unsigned char*>(written);
  data_file_ = data_file;
  written_file_ = written_file;
  return "";
}

// Returns the address of the next room for a block, 0 if there is none.
DevicePointer DeviceMemory::Place(uint64_t nbytes) {
  const uint64_t needed = AlignUp(nbytes, kPage) + kPage + kGap;
  for (int attempt = 0; attempt < 2; ++attempt) {
    uint64_t at = next_;
    while (at + needed <= size_) {
      // The first block that ends behind `at`, if it begins before the new one's end.
      auto other = blocks_.upper_bound(base_ + at);
      if (other != blocks_.begin()) {
        const auto before = std::prev(other);
        const uint64_t end = before->first - base_ + before->second.nbytes;
        if (end + kGap > at) {
          at = AlignUp(end, kPage) + kGap;
          continue;
        }
      }
      if (other != blocks_.end() && other->first - base_ < at + needed) {
        at = AlignUp(other->first - base_ + other->second.nbytes, kPage) + kGap;
        continue;
      }
      next_ = at + needed;
      return base_ + at + kAlignment;
    }
    next_ = 0;  // every address was in use once: take those that were freed longest ago
  }
  return 0;
}

DevicePointer DeviceMemory::Allocate(CUctx_st* context, uint64_t nbytes) {
  if (nbytes > capacity - allocated_) return 0;
  const DevicePointer address = Place(nbytes);
  if (address == 0) return 0;
  // Addresses that are used again are no longer those of what was freed.
  for (auto old = freed_.begin(); old != freed_.end();) {
    const bool apart = old->first + old->second.nbytes <= address || address + nbytes <= old->first;
    old = apart ? std::next(old) : freed_.erase(old);
  }
  const Block block = {context, nbytes, ++count_};
  blocks_[address] = block;
  allocated_ += nbytes;
  if (host_allowed_) {
    // Nothing may rely on zeros; a kernel in this process does not see what is written.
    std::memset(data_ + (address - base_), 0xA5, nbytes);
  }
  events_ += "alloc " + std::to_string(address) + " " + std::to_string(nbytes) + " allocation " +
             std::to_string(block.number) + "\n";
  return address;
}

void DeviceMemory::Free(DevicePointer address) {
  const auto found = blocks_.find(address);
  allocated_ -= found->second.nbytes;
  Punch(address, found->second.nbytes);
  freed_[address] = found->second;
  blocks_.erase(found);
  events_ += "free " + std::to_string(address) + "\n";
}

void DeviceMemory::Punch(DevicePointer address, uint64_t nbytes) {
  const uint64_t begin = (address - base_) / kPage * kPage;
  const uint64_t end = AlignUp(address - base_ + nbytes, kPage);
  for (const int file : {data_file_, written_file_}) {
    // Without it the pages stay until the process ends, and are still caught as freed.
    static_cast<void>(fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                static_cast<off_t>(begin), static_cast<off_t>(end - begin)));
  }
}

const Block* DeviceMemory::Find(DevicePointer address) const {
  const auto after = blocks_.upper_bound(address);
  if (after == blocks_.begin()) return nullptr;
  const auto& [begin, block] = *std::prev(after);
  return address - begin < block.nbytes ? &block : nullptr;
}

std::string DeviceMemory::Fault(DevicePointer address, uint64_t nbytes) const {
  if (!Owns(address)) return "is not in device memory";
  const auto at_or_before = [address](const std::map<DevicePointer, Block>& blocks) {
    auto after = blocks.upper_bound(address);
    return after == blocks.begin() ? blocks.end() : std::prev(after);
  };
  const auto live = at_or_before(blocks_);
  if (live != blocks_.end()) {
    const uint64_t offset = address - live->first;
    const uint64_t size = live->second.nbytes;
    if (offset <= size && nbytes <= size - offset) return "";
    if (offset < size) {
      return "runs over the end of " + live->second.Name() + " by " +
             std::to_string(offset + nbytes - size) + " bytes";
    }
  }
  const auto freed = at_or_before(freed_);
  if (freed != freed_.end() && address - freed->first < freed->second.nbytes) {
    return "is in " + freed->second.Name() + ", which was freed";
  }
  if (live != blocks_.end()) {
    return "begins " + std::to_string(address - live->first - live->second.nbytes) +
           " bytes after the end of " + live->second.Name();
  }
  return "is in no allocation";
}

void DeviceMemory::Store(DevicePointer to, const void* from, uint64_t nbytes) {
  std::memcpy(data_ + (to - base_), from, nbytes);
  std::memset(written_ + (to - base_), 1, nbytes);
}

void DeviceMemory::Load(void* to, DevicePointer from, uint64_t nbytes) const {
  std::memcpy(to, data_ + (from - base_), nbytes);
}

void DeviceMemory::Fill(DevicePointer to, unsigned char byte, uint64_t nbytes) {
  std::memset(data_ + (to - base_), byte, nbytes);
  std::memset(written_ + (to - base_), 1, nbytes);
}

void DeviceMemory::Copy(DevicePointer to, DevicePointer from, uint64_t nbytes) {
  std::memmove(data_ + (to - base_), data_ + (from - base_), nbytes);
  std::memmove(written_ + (to - base_), written_ + (from - base_), nbytes);
}

std::string DeviceMemory::Unwritten(DevicePointer address, uint64_t nbytes) const {
  if (host_allowed_) return "";  // what kernels in this process write is not seen
  const unsigned char* written = written_ + (address - base_);
  const void* first = std::memchr(written, 0, nbytes);
  if (first == nullptr) return "";
  uint64_t count = 0;
  for (uint64_t i = 0; i < nbytes; ++i) count += written[i] == 0 ? 1 : 0;
  const auto block = std::prev(blocks_.upper_bound(address));
  const uint64_t offset = address - block->first +
                          static_cast<uint64_t>(static_cast<const unsigned char*>(first) - written);
  return std::to_string(count) + " of " + std::to_string(nbytes) +
         " bytes were never written, the first at byte " + std::to_string(offset) + " of " +
         block->second.Name();
}

void DeviceMemory::AllowHost() {
  if (host_allowed_ || !Reserve().empty()) return;
  host_allowed_ = mprotect(reinterpret_cast<void*>(base_), size_, PROT_READ | PROT_WRITE) == 0;
}

std::string DeviceMemory::TakeEvents() {
  std::string events;
  events.swap(events_);
  return events;
}

}  // namespace simulator
