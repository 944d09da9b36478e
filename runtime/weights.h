// Reading safetensors files, and bringing a model's weights to the device.
//
// The format (https://github.com/huggingface/safetensors): 8 bytes, the header's length as a
// little-endian integer; the header, a JSON object from name to {"dtype", "shape", "data_offsets"};
// the data. Offsets are pairs [begin, end) relative to the data, which the tensors cover without
// gap or overlap. "__metadata__" maps strings to strings and is not read.

#ifndef AOTI_RUNTIME_WEIGHTS_H_
#define AOTI_RUNTIME_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/context.h"
#include "runtime/description.h"
#include "runtime/launcher.h"
#include "runtime/status.h"

namespace aoti {

// Random access to bytes that are read once.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual uint64_t size() const = 0;
  // Copies [offset, offset + nbytes), which lies within the size.
  virtual Status Read(uint64_t offset, uint64_t nbytes, void* destination) const = 0;
};

// A regular file. It is read, not mapped: a file that is cut short while it is being read is an
// error then and not a SIGBUS, and its bytes go to page-locked memory without a copy in between.
Status OpenFile(const std::string& path, std::unique_ptr<ByteSource>* source);

// Memory of the caller's, which must outlive the source.
std::unique_ptr<ByteSource> WrapMemory(const void* data, uint64_t size);

// A safetensors file whose header was read and checked.
class SafetensorsFile {
 public:
  struct Tensor {
    std::string dtype;
    std::vector<int64_t> shape;
    uint64_t offset;  // from the beginning of the file
    uint64_t nbytes;
  };

  // `label` begins every error message: the path, or what else the caller would recognize.
  static Status Open(std::unique_ptr<ByteSource> source, std::string label,
                     std::unique_ptr<SafetensorsFile>* file);

  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  const std::string& label() const { return label_; }
  const ByteSource& source() const { return *source_; }
  Status Read(uint64_t offset, uint64_t nbytes, void* destination) const;

  // Fails unless the file holds the weight with the described dtype and shape. Other tensors may be
  // there too.
  Status Find(const WeightDescription& weight, const Tensor** tensor) const;

 private:
  Status ReadHeader();
  Status ParseTensors(const std::string& header, uint64_t data_begin);
  Status CheckCoverage(uint64_t data_begin) const;
  Status Fault(const std::string& what) const;

  std::unique_ptr<ByteSource> source_;
  std::string label_;
  std::map<std::string, Tensor> tensors_;
};

// "F32[4]", as messages describe a weight.
std::string TensorText(const WeightDescription& weight);

// Bytes on their way to the device.
struct Transfer {
  const ByteSource* source;
  uint64_t offset;  // in the source
  uint64_t nbytes;
  DeviceAddress to;
};

// Copies, in this order, and waits until all is there. The context must be current.
Status Upload(const std::shared_ptr<const Context>& context,
              const std::vector<Transfer>& transfers);

}  // namespace aoti

#endif  // AOTI_RUNTIME_WEIGHTS_H_
