#include "tests/aotinductor/fake_torch.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "tests/runtime/simulator.h"

struct CUDAGuardOpaque {
  int32_t device;
};
struct CUDAStreamGuardOpaque {
  void* stream;
};

namespace {

using aoti::testing::Fake;

uint64_t Span(const AtenTensorOpaque& tensor) {
  int64_t last = 0;
  for (size_t i = 0; i < tensor.sizes.size(); ++i) {
    last += (tensor.sizes[i] - 1) * tensor.strides[i];
  }
  return static_cast<uint64_t>(last + 1);
}

AtenTensorHandle Allocate(AtenTensorOpaque description) {
  auto* tensor = new AtenTensorOpaque(std::move(description));
  tensor->stream = Fake().current_stream;
  ++Fake().tensors;
  const uint64_t elements = Span(*tensor);
  tensor->host.resize(tensor->device == 0 ? elements : 0);
  if (tensor->device == 0) return tensor;
  const aoti::testing::CurrentContext context(tensor->index);
  const uint64_t nbytes = elements * sizeof(float) + tensor->offset;
  aoti::cuda::DevicePointer address = 0;
  if (aoti::testing::GetDriver().MemAlloc(&address, nbytes) != 0) throw std::bad_alloc();
  tensor->allocation = address;
  return tensor;
}

}  // namespace

float* AtenTensorOpaque::data() {
  return device == 0 ? host.data() : reinterpret_cast<float*>(allocation + offset);
}

namespace aoti::testing {

FakeTorch& Fake() {
  static FakeTorch fake = {aotinductor::TorchVersion(2, 13), 0, nullptr, 0, 0, {}};
  return fake;
}

AtenTensorHandle MakeTensor(std::vector<int64_t> sizes, std::vector<int64_t> strides,
                            const std::vector<float>& values, uint64_t offset) {
  AtenTensorOpaque description;
  description.sizes = std::move(sizes);
  description.strides = std::move(strides);
  description.index = Fake().current_device;
  description.offset = offset;
  AtenTensorHandle tensor = Allocate(description);
  std::copy(values.begin(), values.end(), tensor->data());
  return tensor;
}

void EmptyCache() {
  for (const auto& [device, address] : Fake().cached) {
    const CurrentContext context(device);
    GetDriver().MemFree(address);
  }
  Fake().cached.clear();
}

void DeleteTensor(AtenTensorHandle tensor) {
  if (tensor->allocation != 0) Fake().cached.emplace_back(tensor->index, tensor->allocation);
  --Fake().tensors;
  delete tensor;
}

}  // namespace aoti::testing

extern "C" {

uint64_t aoti_torch_abi_version() { return Fake().version; }
void aoti_torch_check(bool condition, const char*, const char*, uint32_t, const char* message) {
  if (!condition) throw std::runtime_error(message);
}
int32_t aoti_torch_device_type_cpu() { return 0; }
int32_t aoti_torch_device_type_cuda() { return 1; }
int32_t aoti_torch_layout_strided() { return 0; }

#define FAKE_DTYPE(name, number) \
  int32_t aoti_torch_dtype_##name() { return number; }
FAKE_DTYPE(uint8, 0)
FAKE_DTYPE(int8, 1)
FAKE_DTYPE(int16, 2)
FAKE_DTYPE(int32, 3)
FAKE_DTYPE(int64, 4)
FAKE_DTYPE(float16, 5)
FAKE_DTYPE(float32, 6)
FAKE_DTYPE(float64, 7)
FAKE_DTYPE(complex64, 9)
FAKE_DTYPE(bool, 11)
FAKE_DTYPE(bfloat16, 15)
FAKE_DTYPE(float8_e5m2, 23)
FAKE_DTYPE(float8_e4m3fn, 24)
FAKE_DTYPE(uint16, 27)
FAKE_DTYPE(uint32, 28)
FAKE_DTYPE(uint64, 29)

AOTITorchError aoti_torch_get_current_device_index(int32_t* index) {
  *index = Fake().current_device;
  return 0;
}
AOTITorchError aoti_torch_get_data_ptr(AtenTensorHandle tensor, void** data) {
  *data = tensor->data();
  return 0;
}
AOTITorchError aoti_torch_get_dim(AtenTensorHandle tensor, int64_t* ndim) {
  *ndim = static_cast<int64_t>(tensor->sizes.size());
  return 0;
}
AOTITorchError aoti_torch_get_sizes(AtenTensorHandle tensor, int64_t** sizes) {
  *sizes = tensor->sizes.data();
  return 0;
}
AOTITorchError aoti_torch_get_strides(AtenTensorHandle tensor, int64_t** strides) {
  *strides = tensor->strides.data();
  return 0;
}
AOTITorchError aoti_torch_get_dtype(AtenTensorHandle tensor, int32_t* dtype) {
  *dtype = tensor->dtype;
  return 0;
}
AOTITorchError aoti_torch_get_device_type(AtenTensorHandle tensor, int32_t* type) {
  *type = tensor->device;
  return 0;
}
AOTITorchError aoti_torch_get_device_index(AtenTensorHandle tensor, int32_t* index) {
  *index = tensor->index;
  return 0;
}
AOTITorchError aoti_torch_get_layout(AtenTensorHandle, int32_t* layout) {
  *layout = 0;
  return 0;
}
AOTITorchError aoti_torch_empty_strided(int64_t ndim, const int64_t* sizes, const int64_t* strides,
                                        int32_t dtype, int32_t device_type, int32_t device_index,
                                        AtenTensorHandle* tensor) {
  AtenTensorOpaque description;
  description.sizes.assign(sizes, sizes + ndim);
  description.strides.assign(strides, strides + ndim);
  description.dtype = dtype;
  description.device = device_type;
  description.index = device_index;
  *tensor = Allocate(description);
  return 0;
}
AOTITorchError aoti_torch_clone_preserve_strides(AtenTensorHandle tensor, AtenTensorHandle* clone) {
  AtenTensorOpaque description;
  description.sizes = tensor->sizes;
  description.strides = tensor->strides;
  description.device = tensor->device;
  description.index = tensor->index;
  *clone = Allocate(description);
  std::memcpy((*clone)->data(), tensor->data(), Span(*tensor) * sizeof(float));
  return 0;
}
// Between matrices.
AOTITorchError aoti_torch_copy_(AtenTensorHandle destination, AtenTensorHandle source, int32_t) {
  if (destination->sizes.size() != 2) return 1;
  for (int64_t i = 0; i < source->sizes[0]; ++i) {
    for (int64_t j = 0; j < source->sizes[1]; ++j) {
      destination->data()[i * destination->strides[0] + j * destination->strides[1]] =
          source->data()[i * source->strides[0] + j * source->strides[1]];
    }
  }
  return 0;
}
AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle tensor) {
  aoti::testing::DeleteTensor(tensor);
  return 0;
}

AOTITorchError aoti_torch_create_cuda_guard(int32_t device_index, CUDAGuardHandle* guard) {
  *guard = new CUDAGuardOpaque{Fake().current_device};
  Fake().current_device = device_index;
  ++Fake().guards;
  return 0;
}
AOTITorchError aoti_torch_delete_cuda_guard(CUDAGuardHandle guard) {
  Fake().current_device = guard->device;
  --Fake().guards;
  delete guard;
  return 0;
}
AOTITorchError aoti_torch_create_cuda_stream_guard(void* stream, int32_t,
                                                   CUDAStreamGuardHandle* guard) {
  *guard = new CUDAStreamGuardOpaque{Fake().current_stream};
  Fake().current_stream = stream;
  ++Fake().guards;
  return 0;
}
AOTITorchError aoti_torch_delete_cuda_stream_guard(CUDAStreamGuardHandle guard) {
  Fake().current_stream = guard->stream;
  --Fake().guards;
  delete guard;
  return 0;
}
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = Fake().current_stream;
  return 0;
}

}  // extern "C"
