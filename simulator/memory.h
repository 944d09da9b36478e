// Device memory: a range of addresses, backed by a sparse file that the executor process maps too.
//
// Beside each byte stands another, in a second file of the same layout, that is 1 once something
// has written the first. Blocks have wide gaps between them and their addresses are not used again
// while there are others, so that what runs over an end, or into a block that was freed, is caught.

#ifndef AOTI_SIMULATOR_MEMORY_H_
#define AOTI_SIMULATOR_MEMORY_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/cuda_driver.h"

namespace simulator {

using aoti::cuda::DevicePointer;

struct Block {
  CUctx_st* context = nullptr;
  uint64_t nbytes = 0;
  uint64_t number = 0;  // how many blocks there had been when it was allocated, itself included

  // "allocation 3 (4096 bytes)": how reports call it.
  std::string Name() const;
};

// Not synchronized.
class DeviceMemory {
 public:
  // Of every block, as cuMemAlloc promises; odd multiples of it, so that no kernel gets more.
  static constexpr uint64_t kAlignment = 512;
  static constexpr uint64_t kGap = 1 << 20;  // at least that, between two blocks

  // 0 where there is no memory left.
  DevicePointer Allocate(CUctx_st* context, uint64_t nbytes);
  // Gives the block's pages back; its name is remembered.
  void Free(DevicePointer address);

  const std::map<DevicePointer, Block>& blocks() const { return blocks_; }
  uint64_t allocated() const { return allocated_; }

  // Whether an address could be one of device memory, allocated or not.
  bool Owns(DevicePointer address) const { return address - base_ < size_; }

  // The live block that an address lies in, or null.
  const Block* Find(DevicePointer address) const;

  // "" if [address, address + nbytes) lies in one live block, else what it does instead.
  std::string Fault(DevicePointer address, uint64_t nbytes) const;

  // These take ranges without fault.
  void Store(DevicePointer to, const void* from, uint64_t nbytes);
  void Load(void* to, DevicePointer from, uint64_t nbytes) const;
  void Fill(DevicePointer to, unsigned char byte, uint64_t nbytes);
  void Copy(DevicePointer to, DevicePointer from, uint64_t nbytes);  // unwritten bytes stay so
  // "" if every byte was written, else how many were not, and where the first is.
  std::string Unwritten(DevicePointer address, uint64_t nbytes) const;

  // Lets this process read and write device memory at its addresses, as kernels in this process do.
  void AllowHost();
  bool host_allowed() const { return host_allowed_; }

  // Reserves the addresses unless it has been done. "", or why there are none.
  std::string Reserve();
  DevicePointer base() const { return base_; }
  uint64_t size() const { return size_; }
  int data_file() const { return data_file_; }
  int written_file() const { return written_file_; }

  // What happened to blocks since the last call, for the executor: lines "alloc ADDRESS NBYTES
  // NAME" and "free ADDRESS".
  std::string TakeEvents();

  uint64_t capacity = 0;  // of a device, in bytes

 private:
  std::string ReserveOfSize(uint64_t size);
  void Punch(DevicePointer address, uint64_t nbytes);
  DevicePointer Place(uint64_t nbytes);

  DevicePointer base_ = 0;
  uint64_t size_ = 0;
  unsigned char* data_ = nullptr;  // a second mapping, which this process may always use
  unsigned char* written_ = nullptr;
  int data_file_ = -1;
  int written_file_ = -1;
  bool host_allowed_ = false;
  uint64_t next_ = 0;  // offset at which to look for room
  uint64_t allocated_ = 0;
  uint64_t count_ = 0;
  std::map<DevicePointer, Block> blocks_;
  std::map<DevicePointer, Block> freed_;
  std::string events_;
};

}  // namespace simulator

#endif  // AOTI_SIMULATOR_MEMORY_H_
