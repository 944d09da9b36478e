// Tensor maps as the simulator has them: what cuTensorMapEncodeTiled was told, for the executor to
// read.

#ifndef AOTI_SIMULATOR_TENSOR_MAP_H_
#define AOTI_SIMULATOR_TENSOR_MAP_H_

#include <cstdint>
#include <string>

#include "runtime/cuda_driver.h"

namespace simulator {

// The parameters of cuTensorMapEncodeTiled; dimensions have the innermost first.
struct TiledTensor {
  int type;
  uint32_t rank;
  aoti::cuda::DevicePointer address;
  const uint64_t* shape;
  const uint64_t* strides;  // in bytes, of all dimensions but the innermost
  const uint32_t* box;
  const uint32_t* element_strides;
  int interleave;
  int swizzle;
  int l2_promotion;
  int fill;
};

// "", or what the hardware cannot take: CUDA driver API, cuTensorMapEncodeTiled.
std::string CheckTensorMap(const TiledTensor& tensor);

// Little endian, without gaps: the text "TENSMAP1"; a word with bit 21 set, which the runtime
// clears for small tensors; the address; 5 sizes and 4 strides of 8 bytes; 5 sizes of the box of 2
// bytes; type, rank, swizzle and fill of one byte each. What is beyond the rank is zero.
void WriteTensorMap(const TiledTensor& tensor, aoti::cuda::TensorMap* map);

}  // namespace simulator

#endif  // AOTI_SIMULATOR_TENSOR_MAP_H_
