// A libtorch with CUDA, as far as AOTInductor's interface uses it: its C functions, defined in
// fake_torch.cc for dlsym to find, over the simulated device.

#ifndef AOTI_TESTS_AOTINDUCTOR_FAKE_TORCH_H_
#define AOTI_TESTS_AOTINDUCTOR_FAKE_TORCH_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "runtime/aotinductor/torch.h"

struct AtenTensorOpaque {
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int32_t dtype = 6;   // float32
  int32_t device = 1;  // CUDA; 0 is the CPU
  int32_t index = 0;
  std::vector<float> host;  // the memory of one on the CPU
  uint64_t allocation = 0;  // that of one on CUDA, and where in it the first element is
  uint64_t offset = 0;      // in bytes
  void* stream = nullptr;   // the current one when it was made

  float* data();
};

namespace aoti::testing {

struct FakeTorch {
  uint64_t version;
  int32_t current_device;
  void* current_stream;
  int tensors;  // alive
  int guards;   // alive
  // Memory of tensors that are gone, with its device: as PyTorch's allocator does, it is not given
  // back, for what a stream has still to do with it.
  std::vector<std::pair<int32_t, uint64_t>> cached;
};

// The state of the process' fake.
FakeTorch& Fake();

// A float32 tensor on CUDA of these values, that begins `offset` bytes into its allocation.
AtenTensorHandle MakeTensor(std::vector<int64_t> sizes, std::vector<int64_t> strides,
                            const std::vector<float>& values, uint64_t offset = 0);

void DeleteTensor(AtenTensorHandle tensor);

// Gives memory back, once all streams have finished.
void EmptyCache();

}  // namespace aoti::testing

#endif  // AOTI_TESTS_AOTINDUCTOR_FAKE_TORCH_H_
