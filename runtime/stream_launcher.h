// Runs a procedure by issuing each step to a stream. Where a step depends on a number in device
// memory, it waits until the stream has computed that and reads it.

#ifndef AOTI_RUNTIME_STREAM_LAUNCHER_H_
#define AOTI_RUNTIME_STREAM_LAUNCHER_H_

#include <string>

#include "runtime/context.h"
#include "runtime/kernels.h"
#include "runtime/launcher.h"

namespace aoti {

class StreamLauncher final : public Launcher, private Inspector {
 public:
  // Everything outlives the launcher. The context must be current during calls.
  StreamLauncher(const Addresses& addresses, const Driver& driver, const KernelSet& kernels,
                 cuda::Stream stream)
      : Launcher(addresses), driver_(driver), kernels_(kernels), stream_(stream) {}

  Status Launch(uint32_t index, Grid grid, void** params, Pointers pointers) override;
  Status Encode(uint32_t index, uint32_t param, const MappedTensor& tensor,
                TensorMap* map) override;
  Status Copy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes, Pointers pointers) override;
  Status Fill(DeviceAddress dst, uint8_t byte, uint64_t nbytes, Pointers pointers) override;
  Status If(uint32_t kernel, DeviceAddress predicate, uint32_t nbytes, Steps then,
            Steps otherwise) override;
  Status While(uint32_t kernel, DeviceAddress predicate, uint32_t nbytes, Steps condition,
               Steps body) override;
  Inspector* inspector() override { return this; }

 private:
  Status Synchronize(const std::string& doing) override;
  Status Fetch(void* to, DeviceAddress from, uint64_t nbytes) override;
  Status Read(DeviceAddress predicate, uint32_t nbytes, bool* holds) const;
  // Copies memory to the host and waits for that.
  Status ToHost(const std::string& doing, void* to, DeviceAddress from, uint64_t nbytes) const;

  const Driver& driver_;
  const KernelSet& kernels_;
  const cuda::Stream stream_;
  bool after_kernel_ = false;  // whether the last work in the stream is a kernel of this run
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_STREAM_LAUNCHER_H_
