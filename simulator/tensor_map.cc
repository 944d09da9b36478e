#include "simulator/tensor_map.h"

#include <cstring>

namespace simulator {
namespace {

constexpr uint32_t kMaxRank = 5;
constexpr uint64_t kUnit = 16;  // bytes, of addresses, strides and rows of the box
constexpr uint64_t kMostElements = uint64_t{1} << 32;
constexpr uint64_t kMostBytes = uint64_t{1} << 40;
constexpr uint32_t kLargestBox = 256;
constexpr uint64_t kLargeTensorBit = uint64_t{1} << 21;

// Bytes by CUtensorMapDataType: uint8, uint16, uint32, int32, uint64, int64, float16, float32,
// float64, bfloat16, float32 that flushes subnormals, tfloat32, and that again.
constexpr uint32_t kElementSizes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
constexpr int kFirstFloat = 6;

// Bytes of a row of the box by CUtensorMapSwizzle; 0 for any.
constexpr uint64_t kSwizzleRows[] = {0, 32, 64, 128};

template <typename T, size_t N>
constexpr int Count(const T (&)[N]) {
  return static_cast<int>(N);
}

std::string Dimension(uint32_t i) { return " of dimension " + std::to_string(i); }

}  // namespace

std::string CheckTensorMap(const TiledTensor& tensor) {
  if (tensor.type < 0 || tensor.type >= Count(kElementSizes)) return "an unknown element type";
  if (tensor.rank == 0 || tensor.rank > kMaxRank) return "a rank that is not 1 to 5";
  if (tensor.interleave != aoti::cuda::kTensorMapInterleaveNone) {
    return "interleaved tensors are not supported";
  }
  if (tensor.swizzle < 0 || tensor.swizzle >= Count(kSwizzleRows)) return "an unknown swizzle";
  if (tensor.fill != aoti::cuda::kTensorMapFillZero &&
      (tensor.fill != aoti::cuda::kTensorMapFillNan || tensor.type < kFirstFloat)) {
    return "a fill that is not for the element type";
  }
  if (tensor.address % kUnit != 0) return "an address that is no multiple of 16";
  const uint64_t element = kElementSizes[tensor.type];
  for (uint32_t i = 0; i < tensor.rank; ++i) {
    if (tensor.shape[i] == 0 || tensor.shape[i] > kMostElements) {
      return "the size" + Dimension(i) + " is not 1 to 2^32";
    }
    if (tensor.box[i] == 0 || tensor.box[i] > kLargestBox) {
      return "the box's size" + Dimension(i) + " is not 1 to 256";
    }
    if (tensor.element_strides[i] != 1) return "element strides are not supported";
    if (i + 1 == tensor.rank) continue;
    if (tensor.strides[i] % kUnit != 0 || tensor.strides[i] >= kMostBytes) {
      return "the stride" + Dimension(i + 1) + " is no multiple of 16 bytes below 2^40";
    }
  }
  const uint64_t row = tensor.box[0] * element;
  if (row % kUnit != 0) return "a row of the box is no multiple of 16 bytes";
  const uint64_t widest = kSwizzleRows[tensor.swizzle];
  if (widest != 0 && row > widest) return "a row of the box is wider than the swizzle";
  return "";
}

void WriteTensorMap(const TiledTensor& tensor, aoti::cuda::TensorMap* map) {
  uint64_t words[12] = {};
  std::memcpy(words, "TENSMAP1", sizeof words[0]);
  words[1] = kLargeTensorBit;
  words[2] = tensor.address;
  uint16_t box[kMaxRank] = {};
  for (uint32_t i = 0; i < tensor.rank; ++i) {
    words[3 + i] = tensor.shape[i];
    if (i + 1 < tensor.rank) words[3 + kMaxRank + i] = tensor.strides[i];
    box[i] = static_cast<uint16_t>(tensor.box[i]);
  }
  const unsigned char kinds[] = {
      static_cast<unsigned char>(tensor.type), static_cast<unsigned char>(tensor.rank),
      static_cast<unsigned char>(tensor.swizzle), static_cast<unsigned char>(tensor.fill)};
  *map = {};
  auto* bytes = reinterpret_cast<unsigned char*>(map);
  std::memcpy(bytes, words, sizeof words);
  std::memcpy(bytes + sizeof words, box, sizeof box);
  std::memcpy(bytes + sizeof words + sizeof box, kinds, sizeof kinds);
}

}  // namespace simulator
