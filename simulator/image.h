// What the simulator takes as a module: machine code (an ELF file), PTX, or a text that declares
// kernels, which are then run by an executor in the process:
//
//   simulator module
//   kernel NAME target=sm_90 threads=128 cluster=1 params=8,8,4
//
// The executor process answers with such a text when it is given machine code or PTX. `target` is
// an sm_* or compute_* name, compared with the device as a driver compares machine code and PTX;
// `threads` the threads a block may have at most, or must have with `exact=1`; `static` the
// static shared memory of a block, `registers` those of a thread; `cluster` what a launch must ask
// for; `params` the size of each parameter in bytes, `names` their names, each pointer's begun by
// *; `id` what the executor process calls the kernel; `sets_condition=1` is said of the kernel of
// wrapgen/set_condition.py, which nobody runs but the simulator itself.

#ifndef AOTI_SIMULATOR_IMAGE_H_
#define AOTI_SIMULATOR_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace simulator {

struct Parameter {
  size_t size = 0;
  size_t offset = 0;  // in the parameter buffer
  std::string name;   // "" if it is not known
  bool pointer = false;
};

struct KernelImage {
  std::string name;
  std::string id;
  bool ptx = false;
  int major = 0;
  int minor = 0;
  uint32_t threads = 0;
  bool exact = false;
  uint32_t shared = 0;
  uint32_t registers = 0;
  uint32_t cluster = 1;
  bool sets_condition = false;
  std::vector<Parameter> params;

  // Bytes of the parameter buffer.
  size_t ParameterBytes() const;
  // "argument 2 (out_ptr0)".
  std::string Argument(size_t index) const;
};

enum class ImageKind { kText, kElf, kPtx, kUnknown };

// Says what an image is by its first bytes, and how long it is: images come without their size.
ImageKind Identify(const void* image, size_t* nbytes);

// Reads a text image. Returns false, with a text for the JIT's error log, if it is none.
bool ParseImage(const std::string& image, std::vector<KernelImage>* kernels, std::string* fault);

// Whether a device of this compute capability runs the kernel.
bool Runs(const KernelImage& kernel, int major, int minor);

}  // namespace simulator

#endif  // AOTI_SIMULATOR_IMAGE_H_
