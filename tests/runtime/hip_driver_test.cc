// Compares runtime/hip_driver.h with AMD's hip_runtime_api.h: every structure's layout, every
// constant, and every function's parameters. The compiler does the work.

#include "runtime/hip_driver.h"

#include "runtime/cuda_driver.h"

// Then AMD's, without templates of the functions' names.
#define __HIP_PLATFORM_AMD__ 1
#define __HIP_DISABLE_CPP_FUNCTIONS__ 1
#include <hip/hip_runtime_api.h>

#include <cstddef>
#include <type_traits>

#include "gtest/gtest.h"

namespace aoti::hip {
namespace {

// Whether values of the two types are passed and stored alike.
template <typename Ours, typename Theirs>
struct Alike {
  static constexpr bool Compare() {
    if constexpr (std::is_same_v<Ours, Theirs>) {
      return true;
    } else if constexpr (std::is_integral_v<Ours> && std::is_enum_v<Theirs>) {
      return sizeof(Ours) == sizeof(Theirs);
    } else if constexpr (std::is_integral_v<Ours> && std::is_integral_v<Theirs>) {
      return sizeof(Ours) == sizeof(Theirs) && std::is_signed_v<Ours> == std::is_signed_v<Theirs>;
    } else {
      return false;
    }
  }
  static constexpr bool value = Compare();
};

template <typename Ours, typename Theirs>
struct Alike<Ours*, Theirs*> : Alike<Ours, Theirs> {};

template <typename Ours, typename Theirs>
struct Alike<const Ours, const Theirs> : Alike<Ours, Theirs> {};

// Their layouts are compared below.
template <>
struct Alike<Dim3, dim3> : std::true_type {};
template <>
struct Alike<KernelNodeParams, hipKernelNodeParams> : std::true_type {};
template <>
struct Alike<MemsetNodeParams, hipMemsetParams> : std::true_type {};
template <>
struct Alike<LaunchAttributeValue, hipLaunchAttributeValue> : std::true_type {};
template <>
struct Alike<DeviceProperties, hipDeviceProp_tR0600> : std::true_type {};

template <typename Ours, typename Theirs>
struct AlikeFunctions : std::false_type {};

template <typename... Ours, typename... Theirs>
struct AlikeFunctions<Result (*)(Ours...), hipError_t (*)(Theirs...)> {
  static constexpr bool value = [] {
    if constexpr (sizeof...(Ours) == sizeof...(Theirs)) {
      return (Alike<Ours, Theirs>::value && ...);
    } else {
      return false;
    }
  }();
};

// Contexts are to go one day; the libraries of ROCm 6 and 7 have them.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#define AOTI_COMPARE(name, parameters) \
  static_assert(AlikeFunctions<Result(*) parameters, decltype(&::hip##name)>::value, "hip" #name);
AOTI_HIP_FUNCTIONS(AOTI_COMPARE)
#undef AOTI_COMPARE

#define AOTI_SIZE(ours, theirs) static_assert(sizeof(ours) == sizeof(theirs), #ours)
#define AOTI_FIELD(ours, our_field, theirs, their_field)                                    \
  static_assert(offsetof(ours, our_field) == offsetof(theirs, their_field) &&               \
                    Alike<decltype(ours::our_field), decltype(theirs::their_field)>::value, \
                #ours "::" #our_field)

AOTI_SIZE(Dim3, dim3);
AOTI_FIELD(Dim3, x, dim3, x);
AOTI_FIELD(Dim3, y, dim3, y);
AOTI_FIELD(Dim3, z, dim3, z);

AOTI_SIZE(LaunchAttributeValue, hipLaunchAttributeValue);
AOTI_FIELD(LaunchAttributeValue, cooperative, hipLaunchAttributeValue, cooperative);

AOTI_SIZE(KernelNodeParams, hipKernelNodeParams);
AOTI_FIELD(KernelNodeParams, block, hipKernelNodeParams, blockDim);
AOTI_FIELD(KernelNodeParams, extra, hipKernelNodeParams, extra);
AOTI_FIELD(KernelNodeParams, function, hipKernelNodeParams, func);
AOTI_FIELD(KernelNodeParams, grid, hipKernelNodeParams, gridDim);
AOTI_FIELD(KernelNodeParams, params, hipKernelNodeParams, kernelParams);
AOTI_FIELD(KernelNodeParams, shared_memory, hipKernelNodeParams, sharedMemBytes);

AOTI_SIZE(MemsetNodeParams, hipMemsetParams);
AOTI_FIELD(MemsetNodeParams, dst, hipMemsetParams, dst);
AOTI_FIELD(MemsetNodeParams, element_size, hipMemsetParams, elementSize);
AOTI_FIELD(MemsetNodeParams, height, hipMemsetParams, height);
AOTI_FIELD(MemsetNodeParams, pitch, hipMemsetParams, pitch);
AOTI_FIELD(MemsetNodeParams, value, hipMemsetParams, value);
AOTI_FIELD(MemsetNodeParams, width, hipMemsetParams, width);

AOTI_SIZE(DeviceProperties, hipDeviceProp_tR0600);
AOTI_SIZE(DeviceProperties::architecture, hipDeviceProp_tR0600::gcnArchName);
static_assert(offsetof(DeviceProperties, architecture) ==
              offsetof(hipDeviceProp_tR0600, gcnArchName));

#define AOTI_VALUE(ours, theirs) static_assert(static_cast<int>(ours) == static_cast<int>(theirs))
AOTI_VALUE(kSuccess, hipSuccess);
AOTI_VALUE(kErrorInvalidValue, hipErrorInvalidValue);
AOTI_VALUE(kErrorInvalidConfiguration, hipErrorInvalidConfiguration);
AOTI_VALUE(kErrorNotSupported, hipErrorNotSupported);
AOTI_VALUE(kDeviceAttributeMajor, hipDeviceAttributeComputeCapabilityMajor);
AOTI_VALUE(kDeviceAttributeMinor, hipDeviceAttributeComputeCapabilityMinor);
AOTI_VALUE(kDeviceAttributeMultiprocessors, hipDeviceAttributeMultiprocessorCount);
AOTI_VALUE(kDeviceAttributeCooperativeLaunch, hipDeviceAttributeCooperativeLaunch);
AOTI_VALUE(kLaunchAttributeCooperative, hipLaunchAttributeCooperative);
AOTI_VALUE(kFunctionAttributeMaxDynamicSharedMemory,
           HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
AOTI_VALUE(kMemcpyDeviceToDevice, hipMemcpyDeviceToDevice);

// What the runtime compares a result with, or passes, and the adapters hand on as it is.
AOTI_VALUE(cuda::kSuccess, hipSuccess);
AOTI_VALUE(cuda::kErrorInvalidValue, hipErrorInvalidValue);
AOTI_VALUE(cuda::kErrorOutOfMemory, hipErrorOutOfMemory);
AOTI_VALUE(cuda::kErrorNotInitialized, hipErrorNotInitialized);
AOTI_VALUE(cuda::kErrorNoDevice, hipErrorNoDevice);
AOTI_VALUE(cuda::kErrorInvalidDevice, hipErrorInvalidDevice);
AOTI_VALUE(cuda::kErrorInvalidImage, hipErrorInvalidImage);
AOTI_VALUE(cuda::kErrorInvalidContext, hipErrorInvalidContext);
AOTI_VALUE(cuda::kErrorNoBinaryForGpu, hipErrorNoBinaryForGpu);
AOTI_VALUE(cuda::kErrorInvalidHandle, hipErrorInvalidHandle);
AOTI_VALUE(cuda::kErrorNotFound, hipErrorNotFound);
AOTI_VALUE(cuda::kErrorNotReady, hipErrorNotReady);
AOTI_VALUE(cuda::kFunctionAttributeMaxThreads, HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
AOTI_VALUE(cuda::kFunctionAttributeMaxDynamicSharedMemory,
           HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
AOTI_VALUE(cuda::kStreamNonBlocking, hipStreamNonBlocking);
AOTI_VALUE(cuda::kEventDisableTiming, hipEventDisableTiming);
AOTI_VALUE(cuda::kCaptureStatusNone, hipStreamCaptureStatusNone);

TEST(HipDriver, AgreesWithAmdsHeader) {
  EXPECT_EQ(hipStreamLegacy, reinterpret_cast<hipStream_t>(cuda::kStreamLegacy));
  EXPECT_EQ(hipStreamPerThread, reinterpret_cast<hipStream_t>(cuda::kStreamPerThread));
}

}  // namespace
}  // namespace aoti::hip
