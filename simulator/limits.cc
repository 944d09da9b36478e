#include "simulator/limits.h"

namespace simulator {
namespace {

using aoti::cuda::kErrorInvalidValue;
using aoti::cuda::Result;

constexpr Result kErrorLaunchOutOfResources = 701;
constexpr Result kErrorInvalidClusterSize = 912;

constexpr uint32_t kWarp = 32;
// Registers are given to a warp in multiples of this (CUDA occupancy calculator, "register
// allocation unit size", compute capability 3.0 and later).
constexpr uint32_t kRegisterUnit = 256;

std::string Text(const uint32_t (&extent)[3]) {
  return std::to_string(extent[0]) + " x " + std::to_string(extent[1]) + " x " +
         std::to_string(extent[2]);
}

std::string Over(const std::string& what, uint64_t need, const std::string& has, uint64_t limit) {
  return what + " " + std::to_string(need) + ": " + has + " " + std::to_string(limit);
}

}  // namespace

Limits LimitsOf(int major, int minor) {
  Limits limits;
  const int capability = 10 * major + minor;
  limits.shared_optin = 1024 * (capability == 75                        ? 64
                                : capability == 80 || capability == 87  ? 163
                                : capability == 86 || capability == 89  ? 99
                                : capability >= 90 && capability <= 110 ? 227
                                : capability >= 120                     ? 99
                                                                        : 48);
  limits.cluster = major >= 9 ? 8 : 1;
  return limits;
}

Excess CheckShape(const Limits& limits, const KernelImage& kernel, const Shape& shape,
                  uint32_t max_shared) {
  const auto refuse = [](Result result, const std::string& what) { return Excess{result, what}; };
  for (int i = 0; i < 3; ++i) {
    if (shape.grid[i] == 0 || shape.block[i] == 0) {
      return refuse(kErrorInvalidValue, "an empty grid or block: grid " + Text(shape.grid) +
                                            ", block " + Text(shape.block));
    }
    if (shape.grid[i] > limits.grid[i]) {
      return refuse(kErrorInvalidValue, "a grid of " + Text(shape.grid) +
                                            " blocks: the device allows " + Text(limits.grid));
    }
    if (shape.block[i] > limits.block[i]) {
      return refuse(kErrorInvalidValue, "blocks of " + Text(shape.block) +
                                            " threads: the device allows " + Text(limits.block));
    }
  }
  const uint64_t threads = uint64_t{shape.block[0]} * shape.block[1] * shape.block[2];
  if (threads > limits.threads) {
    return refuse(kErrorInvalidValue,
                  Over("threads of a block:", threads, "the device allows", limits.threads));
  }
  if (kernel.exact ? threads != kernel.threads : threads > kernel.threads) {
    return refuse(
        kErrorInvalidValue,
        Over("threads of a block:", threads,
             kernel.exact ? "the kernel needs exactly" : "the kernel allows", kernel.threads));
  }
  const uint64_t registers = (uint64_t{kernel.registers} * kWarp + kRegisterUnit - 1) /
                             kRegisterUnit * kRegisterUnit * ((threads + kWarp - 1) / kWarp);
  if (registers > limits.registers) {
    return refuse(kErrorLaunchOutOfResources,
                  Over("registers of a block:", registers, "the device has", limits.registers) +
                      " (" + std::to_string(kernel.registers) + " a thread, " +
                      std::to_string(threads) + " threads)");
  }
  const uint64_t shared = uint64_t{shape.shared} + kernel.shared;
  const std::string parts = " (" + std::to_string(kernel.shared) + " static, " +
                            std::to_string(shape.shared) + " dynamic)";
  if (shared > limits.shared_optin) {
    return refuse(kErrorInvalidValue, Over("bytes of shared memory of a block:", shared,
                                           "the device has", limits.shared_optin) +
                                          parts);
  }
  if (shape.shared > max_shared) {
    return refuse(kErrorInvalidValue, Over("bytes of shared memory of a block:", shared,
                                           "without cuFuncSetAttribute it may have",
                                           uint64_t{max_shared} + kernel.shared) +
                                          parts);
  }
  if (shape.cluster != kernel.cluster) {
    return refuse(kErrorInvalidValue, Over("blocks of a cluster:", shape.cluster,
                                           "the kernel was compiled for", kernel.cluster));
  }
  if (shape.cluster > limits.cluster) {
    return refuse(kErrorInvalidClusterSize,
                  Over("blocks of a cluster:", shape.cluster, "the device allows", limits.cluster));
  }
  if (shape.grid[0] % shape.cluster != 0) {
    return refuse(kErrorInvalidValue, "a grid of " + Text(shape.grid) +
                                          " blocks, no multiple of the cluster of " +
                                          std::to_string(shape.cluster));
  }
  return {};
}

}  // namespace simulator
