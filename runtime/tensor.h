// Element types, sizes, and the check of the caller's tensors.

#ifndef AOTI_RUNTIME_TENSOR_H_
#define AOTI_RUNTIME_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/description.h"
#include "runtime/launcher.h"
#include "runtime/status.h"

namespace aoti {

class Sizes;

// Every tensor the caller passes begins at a multiple of it; kernels are compiled to rely on that.
constexpr uint64_t kTensorAlignment = 16;

// "float16"; "dtype (code 4, bits 12, lanes 1)" for one without a name.
std::string DTypeText(const DLDataType& dtype);

// Bytes an element, or 0 for a type that is not a whole number of bytes.
uint64_t ItemSize(const DLDataType& dtype);

// "F16", as safetensors spells the type; null for a type it has no name for.
const char* SafetensorsName(const DLDataType& dtype);

// Bytes an element of the type safetensors calls `name`, or 0 for one that is not known here.
uint64_t SafetensorsItemSize(const std::string& name);

// "[1, 3, 224, 224]"
std::string ShapeText(const int64_t* sizes, size_t count);

// shape * item size, false on overflow or a negative size.
bool ContiguousSize(const int64_t* shape, size_t ndim, uint64_t item_size, uint64_t* nbytes);

// Bytes from the first element to one past the last; 0 if there is no element. Strides are not
// negative.
uint64_t Extent(const TensorDescription& tensor);

// The same, false if it does not fit 63 bits.
bool CheckedExtent(const TensorDescription& tensor, uint64_t* nbytes);

// The caller's tensors of one side of a call, checked against their descriptions or trusted; and
// tensors given for weights.
enum class Side { kInput, kOutput, kWeight };
enum class Check { kFull, kTrust };

// "input 0 (x): ", or "weight fc.bias: ", with which each message begins.
std::string TensorLabel(Side side, size_t index, const TensorDescription& description);

// Fails unless there are as many tensors as are described, none of them null.
Status CheckCount(Side side, const Table<TensorDescription>& descriptions,
                  const DLTensor* const* tensors, size_t count);

// Fails unless a tensor has the described number of dimensions, and a shape if it has any.
Status CheckRank(Side side, size_t index, const TensorDescription& description,
                 const DLTensor& tensor);

// Fails unless a tensor has the described shape. `sizes` explains expectations that depend on the
// inputs; null for a model without symbols.
Status CheckShape(Side side, size_t index, const TensorDescription& description,
                  const DLTensor& tensor, const Sizes* sizes);

// Reads the value of scalar input `index`, which is a tensor on the host.
Status ReadScalar(size_t index, const TensorDescription& description, const DLTensor& tensor,
                  int64_t* value);

// Stores the first element's address of each tensor, and 0 for a scalar. In full: compares the
// count, and each tensor's dtype, number of dimensions, shape, strides, device and alignment, in
// time proportional to the number of dimensions. A message names the tensor and the dimension, what
// is expected and what came. Of a model with symbols, descriptions are those that `sizes` resolved;
// else it is null.
Status ReadTensors(Side side, const Table<TensorDescription>& descriptions,
                   const DLTensor* const* tensors, size_t count, int device, Check check,
                   DeviceAddress* addresses, const Sizes* sizes = nullptr);

// Fails if an output, or an input that the model writes to, shares memory with anything else.
Status CheckOverlap(const Table<TensorDescription>& inputs, const DeviceAddress* input_addresses,
                    const Table<TensorDescription>& outputs, const DeviceAddress* output_addresses);

// Fails unless a tensor has the dtype and shape of a weight, is contiguous and row-major, and lies
// in the host's memory or the device's; or, where it is to be read in place, in the device's and
// aligned as kernels rely on it. Stores its first element's address and whose memory it is.
Status ReadWeight(const WeightDescription& weight, const DLTensor& tensor, int device,
                  bool in_place, DeviceAddress* address, bool* on_host);

}  // namespace aoti

#endif  // AOTI_RUNTIME_TENSOR_H_
