#include "simulator/limits.h"

#include <algorithm>

namespace simulator {
namespace {

using aoti::cuda::kErrorInvalidValue;
using aoti::cuda::Result;

constexpr Result kErrorLaunchOutOfResources = 701;
constexpr Result kErrorCooperativeLaunchTooLarge = 720;
constexpr Result kErrorInvalidClusterSize = 912;

constexpr uint32_t kWarp = 32;
// Registers are given to a warp in multiples of this (CUDA occupancy calculator, "register
// allocation unit size", compute capability 3.0 and later).
constexpr uint32_t kRegisterUnit = 256;
// What the system takes of each block's shared memory, from compute capability 8.0.
constexpr uint32_t kSystemShared = 1024;

uint64_t RegistersOfBlock(const KernelImage& kernel, uint64_t threads) {
  const uint64_t of_warp =
      (uint64_t{kernel.registers} * kWarp + kRegisterUnit - 1) / kRegisterUnit * kRegisterUnit;
  return of_warp * ((threads + kWarp - 1) / kWarp);
}

std::string Text(const uint32_t (&extent)[3]) {
  return std::to_string(extent[0]) + " x " + std::to_string(extent[1]) + " x " +
         std::to_string(extent[2]);
}

std::string Over(const std::string& what, uint64_t need, const std::string& has, uint64_t limit) {
  return what + " " + std::to_string(need) + ": " + has + " " + std::to_string(limit);
}

}  // namespace

Limits LimitsOf(int major, int minor) {
  struct Generation {
    int capability;  // and what is newer, up to the next one's
    uint32_t shared_optin_kib;
    uint32_t resident_threads;
    uint32_t resident_blocks;
    uint32_t multiprocessors;  // of the device in wrapgen/target.py
  };
  static constexpr Generation kGenerations[] = {
      {0, 48, 2048, 32, 108},   {75, 64, 1024, 16, 108},   {80, 163, 2048, 32, 108},
      {86, 99, 1536, 16, 72},   {87, 163, 2048, 32, 108},  {89, 99, 1536, 24, 58},
      {90, 227, 2048, 32, 132}, {100, 227, 2048, 32, 148}, {120, 99, 1536, 24, 170},
  };
  const int capability = 10 * major + minor;
  const Generation* generation = kGenerations;
  for (const Generation& each : kGenerations) {
    if (each.capability <= capability) generation = &each;
  }
  Limits limits;
  limits.shared_optin = 1024 * generation->shared_optin_kib;
  limits.cluster = major >= 9 ? 8 : 1;
  limits.cluster_optin = major >= 9 ? 16 : 1;
  limits.resident_threads = generation->resident_threads;
  limits.resident_blocks = generation->resident_blocks;
  limits.resident_shared = limits.shared_optin + kSystemShared;
  limits.multiprocessors = generation->multiprocessors;
  return limits;
}

uint32_t ResidentBlocks(const Limits& limits, const KernelImage& kernel, uint64_t threads,
                        uint64_t dynamic_shared) {
  uint64_t blocks = std::min<uint64_t>(limits.resident_blocks, limits.resident_threads / threads);
  const uint64_t registers = RegistersOfBlock(kernel, threads);
  if (registers != 0) blocks = std::min(blocks, limits.resident_registers / registers);
  blocks =
      std::min(blocks, limits.resident_shared / (kSystemShared + kernel.shared + dynamic_shared));
  return static_cast<uint32_t>(blocks);
}

Excess CheckShape(const Limits& limits, const KernelImage& kernel, const Shape& shape,
                  uint32_t max_shared, bool any_cluster) {
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
  const uint64_t registers = RegistersOfBlock(kernel, threads);
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
  const uint32_t cluster = any_cluster ? limits.cluster_optin : limits.cluster;
  if (shape.cluster > cluster) {
    return refuse(kErrorInvalidClusterSize,
                  Over("blocks of a cluster:", shape.cluster,
                       any_cluster ? "the device allows" : "without cuFuncSetAttribute it may have",
                       cluster));
  }
  if (shape.grid[0] % shape.cluster != 0) {
    return refuse(kErrorInvalidValue, "a grid of " + Text(shape.grid) +
                                          " blocks, no multiple of the cluster of " +
                                          std::to_string(shape.cluster));
  }
  if (shape.cooperative) {
    const uint64_t blocks = uint64_t{shape.grid[0]} * shape.grid[1] * shape.grid[2];
    const uint64_t resident =
        uint64_t{ResidentBlocks(limits, kernel, threads, shape.shared)} * limits.multiprocessors;
    if (blocks > resident) {
      return refuse(kErrorCooperativeLaunchTooLarge, Over("blocks of a cooperative grid:", blocks,
                                                          "at a time the device runs", resident));
    }
  }
  return {};
}

}  // namespace simulator
