// libtorch's C shim (torch/csrc/inductor/aoti_torch/c/shim.h), found at run time in the process
// that has libtorch loaded, and its functions by dlsym: a model's library names no library of
// PyTorch's.
//
// What is declared here is declared as there; a test compares the two.

#ifndef AOTI_RUNTIME_AOTINDUCTOR_TORCH_H_
#define AOTI_RUNTIME_AOTINDUCTOR_TORCH_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "dlpack/dlpack.h"
#include "runtime/status.h"

struct AtenTensorOpaque;
using AtenTensorHandle = AtenTensorOpaque*;

struct AOTIProxyExecutorOpaque;
using AOTIProxyExecutorHandle = AOTIProxyExecutorOpaque*;

struct CUDAGuardOpaque;
using CUDAGuardHandle = CUDAGuardOpaque*;

struct CUDAStreamGuardOpaque;
using CUDAStreamGuardHandle = CUDAStreamGuardOpaque*;

using AOTITorchError = int32_t;

// F(name without "aoti_torch_", result, parameters)
#define AOTI_SHIM_FUNCTIONS(F)                                                                    \
  F(abi_version, uint64_t, ())                                                                    \
  F(check, void,                                                                                  \
    (bool condition, const char* function, const char* file, uint32_t line, const char* message)) \
  F(device_type_cpu, int32_t, ())                                                                 \
  F(device_type_cuda, int32_t, ())                                                                \
  F(dtype_bool, int32_t, ())                                                                      \
  F(dtype_uint8, int32_t, ())                                                                     \
  F(dtype_uint16, int32_t, ())                                                                    \
  F(dtype_uint32, int32_t, ())                                                                    \
  F(dtype_uint64, int32_t, ())                                                                    \
  F(dtype_int8, int32_t, ())                                                                      \
  F(dtype_int16, int32_t, ())                                                                     \
  F(dtype_int32, int32_t, ())                                                                     \
  F(dtype_int64, int32_t, ())                                                                     \
  F(dtype_float8_e4m3fn, int32_t, ())                                                             \
  F(dtype_float8_e5m2, int32_t, ())                                                               \
  F(dtype_float16, int32_t, ())                                                                   \
  F(dtype_bfloat16, int32_t, ())                                                                  \
  F(dtype_float32, int32_t, ())                                                                   \
  F(dtype_float64, int32_t, ())                                                                   \
  F(dtype_complex64, int32_t, ())                                                                 \
  F(layout_strided, int32_t, ())                                                                  \
  F(get_current_device_index, AOTITorchError, (int32_t* index))                                   \
  F(get_data_ptr, AOTITorchError, (AtenTensorHandle tensor, void** data))                         \
  F(get_dim, AOTITorchError, (AtenTensorHandle tensor, int64_t* ndim))                            \
  F(get_sizes, AOTITorchError, (AtenTensorHandle tensor, int64_t** sizes))                        \
  F(get_strides, AOTITorchError, (AtenTensorHandle tensor, int64_t** strides))                    \
  F(get_dtype, AOTITorchError, (AtenTensorHandle tensor, int32_t* dtype))                         \
  F(get_device_type, AOTITorchError, (AtenTensorHandle tensor, int32_t* type))                    \
  F(get_device_index, AOTITorchError, (AtenTensorHandle tensor, int32_t* index))                  \
  F(get_layout, AOTITorchError, (AtenTensorHandle tensor, int32_t* layout))                       \
  F(empty_strided, AOTITorchError,                                                                \
    (int64_t ndim, const int64_t* sizes, const int64_t* strides, int32_t dtype,                   \
     int32_t device_type, int32_t device_index, AtenTensorHandle* tensor))                        \
  F(clone_preserve_strides, AOTITorchError, (AtenTensorHandle tensor, AtenTensorHandle * clone))  \
  F(copy_, AOTITorchError,                                                                        \
    (AtenTensorHandle destination, AtenTensorHandle source, int32_t non_blocking))                \
  F(delete_tensor_object, AOTITorchError, (AtenTensorHandle tensor))

// Of a libtorch with CUDA; null in another.
#define AOTI_SHIM_CUDA_FUNCTIONS(F)                                                    \
  F(create_cuda_guard, AOTITorchError, (int32_t device_index, CUDAGuardHandle* guard)) \
  F(delete_cuda_guard, AOTITorchError, (CUDAGuardHandle guard))                        \
  F(create_cuda_stream_guard, AOTITorchError,                                          \
    (void* stream, int32_t device_index, CUDAStreamGuardHandle* guard))                \
  F(delete_cuda_stream_guard, AOTITorchError, (CUDAStreamGuardHandle guard))           \
  F(get_current_cuda_stream, AOTITorchError, (int32_t device_index, void** stream))

namespace aoti::aotinductor {

namespace shim {

#define AOTI_SHIM_DECLARE(name, result, parameters) result(*name) parameters;
struct Functions {
  AOTI_SHIM_FUNCTIONS(AOTI_SHIM_DECLARE)
  AOTI_SHIM_CUDA_FUNCTIONS(AOTI_SHIM_DECLARE)
};
#undef AOTI_SHIM_DECLARE

}  // namespace shim

// As aoti_torch_abi_version has versions of PyTorch: major, minor and patch in the upper bytes.
constexpr uint64_t TorchVersion(uint64_t major, uint64_t minor) {
  return major << 56 | minor << 48;
}

// The oldest version that this was tested with.
constexpr uint64_t kOldestTorch = TorchVersion(2, 11);

class Torch : public shim::Functions {
 public:
  // Finds libtorch on the first call; later calls only return it. Any number of threads may call. A
  // failure is not remembered.
  static Status Get(const Torch** torch);

  // Whether the process' libtorch knows CUDA.
  bool has_cuda() const { return create_cuda_guard != nullptr; }

  // The status for a function that failed while `doing` (as in "allocating output 0 (y)").
  Status Failure(const char* function, const std::string& doing) const;

  // PyTorch's number of an element type, or -1; and the type of such a number, of no bits if it is
  // none that models have.
  int32_t DType(const DLDataType& dtype) const;
  DLDataType DType(int32_t dtype) const;

 private:
  Status Load();

  // torch_exception_get_what_without_backtrace: why a function of this thread has failed. Null in
  // versions before 2.13.
  const char* (*reason_)() = nullptr;
};

// A tensor, owned.
class Tensor {
 public:
  Tensor(const Torch& torch, AtenTensorHandle handle) : torch_(&torch), handle_(handle) {}
  ~Tensor() {
    if (handle_ != nullptr) torch_->delete_tensor_object(handle_);
  }
  Tensor(Tensor&& other) noexcept : torch_(other.torch_), handle_(other.Release()) {}
  Tensor& operator=(Tensor&& other) noexcept {
    std::swap(torch_, other.torch_);
    std::swap(handle_, other.handle_);
    return *this;
  }

  AtenTensorHandle get() const { return handle_; }
  AtenTensorHandle Release() {
    AtenTensorHandle handle = handle_;
    handle_ = nullptr;
    return handle;
  }

 private:
  const Torch* torch_;
  AtenTensorHandle handle_;
};

}  // namespace aoti::aotinductor

// Calls `torch.function(arguments)`; on an error, returns from the enclosing function. `doing` is
// evaluated only then.
#define AOTI_SHIM_RETURN_IF_ERROR(torch, doing, function, ...)  \
  do {                                                          \
    if ((torch).function(__VA_ARGS__) != 0) {                   \
      return (torch).Failure("aoti_torch_" #function, (doing)); \
    }                                                           \
  } while (false)

#endif  // AOTI_RUNTIME_AOTINDUCTOR_TORCH_H_
