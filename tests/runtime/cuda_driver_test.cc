// Compares runtime/cuda_driver.h with NVIDIA's cuda.h: every structure's layout, every constant,
// and every function's parameters at the version that is asked for. The compiler does the work.

// Before cuda.h, whose macros rename functions.
#include "runtime/cuda_driver.h"

#include "runtime/driver.h"

// Then NVIDIA's.
#include <cudaTypedefs.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "gtest/gtest.h"

namespace aoti::cuda {
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
struct Alike<LaunchConfig, CUlaunchConfig> : std::true_type {};
template <>
struct Alike<LaunchAttribute, CUlaunchAttribute> : std::true_type {};
template <>
struct Alike<LaunchAttributeValue, CUlaunchAttributeValue> : std::true_type {};
template <>
struct Alike<KernelNodeParams, CUDA_KERNEL_NODE_PARAMS_v2> : std::true_type {};
template <>
struct Alike<MemsetNodeParams, CUDA_MEMSET_NODE_PARAMS_v1> : std::true_type {};
template <>
struct Alike<Memcpy3D, CUDA_MEMCPY3D_v2> : std::true_type {};
template <>
struct Alike<GraphNodeParams, CUgraphNodeParams> : std::true_type {};
template <>
struct Alike<GraphEdgeData, CUgraphEdgeData> : std::true_type {};
template <>
struct Alike<TensorMap, CUtensorMap> : std::true_type {};

template <typename Ours, typename Theirs>
struct AlikeFunctions : std::false_type {};

template <typename... Ours, typename... Theirs>
struct AlikeFunctions<Result (*)(Ours...), CUresult (*)(Theirs...)> {
  static constexpr bool value = [] {
    if constexpr (sizeof...(Ours) == sizeof...(Theirs)) {
      return (Alike<Ours, Theirs>::value && ...);
    } else {
      return false;
    }
  }();
};

#define AOTI_COMPARE(name, version, parameters)                                              \
  static_assert(AlikeFunctions<decltype(Functions::name), PFN_cu##name##_v##version>::value, \
                "cu" #name);
AOTI_CUDA_FUNCTIONS(AOTI_COMPARE)
AOTI_CUDA_OPTIONAL_FUNCTIONS(AOTI_COMPARE)
#undef AOTI_COMPARE

static_assert(AlikeFunctions<Result (*)(const char*, void**, int, uint64_t, int*),
                             PFN_cuGetProcAddress_v12000>::value);

#define AOTI_SIZE(ours, theirs) static_assert(sizeof(ours) == sizeof(theirs), #ours)
#define AOTI_FIELD(ours, our_field, theirs, their_field)                                    \
  static_assert(offsetof(ours, our_field) == offsetof(theirs, their_field) &&               \
                    Alike<decltype(ours::our_field), decltype(theirs::their_field)>::value, \
                #ours "::" #our_field)

AOTI_SIZE(LaunchAttributeValue, CUlaunchAttributeValue);
AOTI_SIZE(LaunchAttribute, CUlaunchAttribute);
AOTI_FIELD(LaunchAttribute, id, CUlaunchAttribute, id);
AOTI_FIELD(LaunchAttribute, value, CUlaunchAttribute, value);
static_assert(offsetof(LaunchAttributeValue, cluster.x) ==
              offsetof(CUlaunchAttributeValue, clusterDim.x));
static_assert(offsetof(LaunchAttributeValue, cluster.y) ==
              offsetof(CUlaunchAttributeValue, clusterDim.y));
static_assert(offsetof(LaunchAttributeValue, cluster.z) ==
              offsetof(CUlaunchAttributeValue, clusterDim.z));

static_assert(offsetof(LaunchAttributeValue, cooperative) ==
              offsetof(CUlaunchAttributeValue, cooperative));
static_assert(offsetof(LaunchAttributeValue, programmatic) ==
              offsetof(CUlaunchAttributeValue, programmaticStreamSerializationAllowed));

AOTI_SIZE(GraphEdgeData, CUgraphEdgeData);
AOTI_FIELD(GraphEdgeData, from_port, CUgraphEdgeData, from_port);
AOTI_FIELD(GraphEdgeData, to_port, CUgraphEdgeData, to_port);
AOTI_FIELD(GraphEdgeData, type, CUgraphEdgeData, type);
AOTI_SIZE(TensorMap, CUtensorMap);
static_assert(alignof(TensorMap) == alignof(CUtensorMap));

AOTI_SIZE(LaunchConfig, CUlaunchConfig);
AOTI_FIELD(LaunchConfig, grid_x, CUlaunchConfig, gridDimX);
AOTI_FIELD(LaunchConfig, grid_y, CUlaunchConfig, gridDimY);
AOTI_FIELD(LaunchConfig, grid_z, CUlaunchConfig, gridDimZ);
AOTI_FIELD(LaunchConfig, block_x, CUlaunchConfig, blockDimX);
AOTI_FIELD(LaunchConfig, block_y, CUlaunchConfig, blockDimY);
AOTI_FIELD(LaunchConfig, block_z, CUlaunchConfig, blockDimZ);
AOTI_FIELD(LaunchConfig, shared_memory, CUlaunchConfig, sharedMemBytes);
AOTI_FIELD(LaunchConfig, stream, CUlaunchConfig, hStream);
AOTI_FIELD(LaunchConfig, attributes, CUlaunchConfig, attrs);
AOTI_FIELD(LaunchConfig, num_attributes, CUlaunchConfig, numAttrs);

AOTI_SIZE(KernelNodeParams, CUDA_KERNEL_NODE_PARAMS_v2);
AOTI_FIELD(KernelNodeParams, function, CUDA_KERNEL_NODE_PARAMS_v2, func);
AOTI_FIELD(KernelNodeParams, grid_x, CUDA_KERNEL_NODE_PARAMS_v2, gridDimX);
AOTI_FIELD(KernelNodeParams, grid_y, CUDA_KERNEL_NODE_PARAMS_v2, gridDimY);
AOTI_FIELD(KernelNodeParams, grid_z, CUDA_KERNEL_NODE_PARAMS_v2, gridDimZ);
AOTI_FIELD(KernelNodeParams, block_x, CUDA_KERNEL_NODE_PARAMS_v2, blockDimX);
AOTI_FIELD(KernelNodeParams, block_y, CUDA_KERNEL_NODE_PARAMS_v2, blockDimY);
AOTI_FIELD(KernelNodeParams, block_z, CUDA_KERNEL_NODE_PARAMS_v2, blockDimZ);
AOTI_FIELD(KernelNodeParams, shared_memory, CUDA_KERNEL_NODE_PARAMS_v2, sharedMemBytes);
AOTI_FIELD(KernelNodeParams, params, CUDA_KERNEL_NODE_PARAMS_v2, kernelParams);
AOTI_FIELD(KernelNodeParams, extra, CUDA_KERNEL_NODE_PARAMS_v2, extra);
AOTI_FIELD(KernelNodeParams, kernel, CUDA_KERNEL_NODE_PARAMS_v2, kern);
AOTI_FIELD(KernelNodeParams, context, CUDA_KERNEL_NODE_PARAMS_v2, ctx);

AOTI_SIZE(MemsetNodeParams, CUDA_MEMSET_NODE_PARAMS_v1);
AOTI_FIELD(MemsetNodeParams, dst, CUDA_MEMSET_NODE_PARAMS_v1, dst);
AOTI_FIELD(MemsetNodeParams, pitch, CUDA_MEMSET_NODE_PARAMS_v1, pitch);
AOTI_FIELD(MemsetNodeParams, value, CUDA_MEMSET_NODE_PARAMS_v1, value);
AOTI_FIELD(MemsetNodeParams, element_size, CUDA_MEMSET_NODE_PARAMS_v1, elementSize);
AOTI_FIELD(MemsetNodeParams, width, CUDA_MEMSET_NODE_PARAMS_v1, width);
AOTI_FIELD(MemsetNodeParams, height, CUDA_MEMSET_NODE_PARAMS_v1, height);

AOTI_SIZE(Memcpy3D, CUDA_MEMCPY3D_v2);
AOTI_FIELD(Memcpy3D, src_x, CUDA_MEMCPY3D_v2, srcXInBytes);
AOTI_FIELD(Memcpy3D, src_y, CUDA_MEMCPY3D_v2, srcY);
AOTI_FIELD(Memcpy3D, src_z, CUDA_MEMCPY3D_v2, srcZ);
AOTI_FIELD(Memcpy3D, src_lod, CUDA_MEMCPY3D_v2, srcLOD);
AOTI_FIELD(Memcpy3D, src_memory_type, CUDA_MEMCPY3D_v2, srcMemoryType);
AOTI_FIELD(Memcpy3D, src_host, CUDA_MEMCPY3D_v2, srcHost);
AOTI_FIELD(Memcpy3D, src_device, CUDA_MEMCPY3D_v2, srcDevice);
AOTI_FIELD(Memcpy3D, src_array, CUDA_MEMCPY3D_v2, srcArray);
AOTI_FIELD(Memcpy3D, reserved0, CUDA_MEMCPY3D_v2, reserved0);
AOTI_FIELD(Memcpy3D, src_pitch, CUDA_MEMCPY3D_v2, srcPitch);
AOTI_FIELD(Memcpy3D, src_height, CUDA_MEMCPY3D_v2, srcHeight);
AOTI_FIELD(Memcpy3D, dst_x, CUDA_MEMCPY3D_v2, dstXInBytes);
AOTI_FIELD(Memcpy3D, dst_y, CUDA_MEMCPY3D_v2, dstY);
AOTI_FIELD(Memcpy3D, dst_z, CUDA_MEMCPY3D_v2, dstZ);
AOTI_FIELD(Memcpy3D, dst_lod, CUDA_MEMCPY3D_v2, dstLOD);
AOTI_FIELD(Memcpy3D, dst_memory_type, CUDA_MEMCPY3D_v2, dstMemoryType);
AOTI_FIELD(Memcpy3D, dst_host, CUDA_MEMCPY3D_v2, dstHost);
AOTI_FIELD(Memcpy3D, dst_device, CUDA_MEMCPY3D_v2, dstDevice);
AOTI_FIELD(Memcpy3D, dst_array, CUDA_MEMCPY3D_v2, dstArray);
AOTI_FIELD(Memcpy3D, reserved1, CUDA_MEMCPY3D_v2, reserved1);
AOTI_FIELD(Memcpy3D, dst_pitch, CUDA_MEMCPY3D_v2, dstPitch);
AOTI_FIELD(Memcpy3D, dst_height, CUDA_MEMCPY3D_v2, dstHeight);
AOTI_FIELD(Memcpy3D, width, CUDA_MEMCPY3D_v2, WidthInBytes);
AOTI_FIELD(Memcpy3D, height, CUDA_MEMCPY3D_v2, Height);
AOTI_FIELD(Memcpy3D, depth, CUDA_MEMCPY3D_v2, Depth);

AOTI_SIZE(ConditionalNodeParams, CUDA_CONDITIONAL_NODE_PARAMS);
AOTI_FIELD(ConditionalNodeParams, handle, CUDA_CONDITIONAL_NODE_PARAMS, handle);
AOTI_FIELD(ConditionalNodeParams, type, CUDA_CONDITIONAL_NODE_PARAMS, type);
AOTI_FIELD(ConditionalNodeParams, size, CUDA_CONDITIONAL_NODE_PARAMS, size);
AOTI_FIELD(ConditionalNodeParams, graphs, CUDA_CONDITIONAL_NODE_PARAMS, phGraph_out);
AOTI_FIELD(ConditionalNodeParams, context, CUDA_CONDITIONAL_NODE_PARAMS, ctx);

AOTI_SIZE(GraphNodeParams, CUgraphNodeParams);
AOTI_FIELD(GraphNodeParams, type, CUgraphNodeParams, type);
static_assert(offsetof(GraphNodeParams, conditional) == offsetof(CUgraphNodeParams, conditional));
AOTI_FIELD(GraphNodeParams, reserved2, CUgraphNodeParams, reserved2);

#define AOTI_VALUE(ours, theirs) static_assert(static_cast<int>(ours) == static_cast<int>(theirs))
AOTI_VALUE(kSuccess, CUDA_SUCCESS);
AOTI_VALUE(kErrorInvalidValue, CUDA_ERROR_INVALID_VALUE);
AOTI_VALUE(kErrorOutOfMemory, CUDA_ERROR_OUT_OF_MEMORY);
AOTI_VALUE(kErrorNotInitialized, CUDA_ERROR_NOT_INITIALIZED);
AOTI_VALUE(kErrorStubLibrary, CUDA_ERROR_STUB_LIBRARY);
AOTI_VALUE(kErrorNoDevice, CUDA_ERROR_NO_DEVICE);
AOTI_VALUE(kErrorInvalidDevice, CUDA_ERROR_INVALID_DEVICE);
AOTI_VALUE(kErrorInvalidImage, CUDA_ERROR_INVALID_IMAGE);
AOTI_VALUE(kErrorInvalidContext, CUDA_ERROR_INVALID_CONTEXT);
AOTI_VALUE(kErrorNoBinaryForGpu, CUDA_ERROR_NO_BINARY_FOR_GPU);
AOTI_VALUE(kErrorInvalidHandle, CUDA_ERROR_INVALID_HANDLE);
AOTI_VALUE(kErrorNotFound, CUDA_ERROR_NOT_FOUND);
AOTI_VALUE(kErrorSystemNotReady, CUDA_ERROR_SYSTEM_NOT_READY);
AOTI_VALUE(kErrorSystemDriverMismatch, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
AOTI_VALUE(kErrorCompatNotSupported, CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE);
AOTI_VALUE(kDeviceAttributeMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
AOTI_VALUE(kDeviceAttributeMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
AOTI_VALUE(kDeviceAttributeMultiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
AOTI_VALUE(kDeviceAttributeCooperativeLaunch, CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH);
AOTI_VALUE(kFunctionAttributeNonPortableClusters,
           CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED);
AOTI_VALUE(kFunctionAttributeMaxThreads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
AOTI_VALUE(kFunctionAttributeMaxDynamicSharedMemory,
           CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
AOTI_VALUE(kJitErrorLogBuffer, CU_JIT_ERROR_LOG_BUFFER);
AOTI_VALUE(kJitErrorLogBufferSize, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES);
AOTI_VALUE(kMemoryTypeDevice, CU_MEMORYTYPE_DEVICE);
AOTI_VALUE(kStreamNonBlocking, CU_STREAM_NON_BLOCKING);
AOTI_VALUE(kEventDisableTiming, CU_EVENT_DISABLE_TIMING);
AOTI_VALUE(kCaptureStatusNone, CU_STREAM_CAPTURE_STATUS_NONE);
AOTI_VALUE(kLaunchAttributeClusterDimension, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
AOTI_VALUE(kGraphNodeTypeConditional, CU_GRAPH_NODE_TYPE_CONDITIONAL);
AOTI_VALUE(kConditionalIf, CU_GRAPH_COND_TYPE_IF);
AOTI_VALUE(kConditionalWhile, CU_GRAPH_COND_TYPE_WHILE);
AOTI_VALUE(kLaunchAttributeCooperative, CU_LAUNCH_ATTRIBUTE_COOPERATIVE);
AOTI_VALUE(kLaunchAttributeProgrammaticStreamSerialization,
           CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
AOTI_VALUE(kKernelNodePortProgrammatic, CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC);
AOTI_VALUE(kDependencyTypeProgrammatic, CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC);
AOTI_VALUE(kTensorMapTfloat32, CU_TENSOR_MAP_DATA_TYPE_TFLOAT32);
AOTI_VALUE(kTensorMapInterleaveNone, CU_TENSOR_MAP_INTERLEAVE_NONE);
AOTI_VALUE(kTensorMapL2Promotion128B, CU_TENSOR_MAP_L2_PROMOTION_L2_128B);
AOTI_VALUE(kTensorMapFillZero, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
AOTI_VALUE(kTensorMapFillNan, CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA);
AOTI_VALUE(kProcAddressFound, CU_GET_PROC_ADDRESS_SUCCESS);
AOTI_VALUE(kProcAddressVersionNotSufficient, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);

TEST(CudaDriver, AgreesWithNvidiasHeader) { SUCCEED() << "compiled, so it does"; }

// Pointers of numbers are no constants.
TEST(CudaDriver, AgreesOnTheDefaultStreams) {
  EXPECT_EQ(reinterpret_cast<uintptr_t>(CU_STREAM_LEGACY), kStreamLegacy);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(CU_STREAM_PER_THREAD), kStreamPerThread);
}

}  // namespace
}  // namespace aoti::cuda
