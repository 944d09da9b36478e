// The part of the CUDA driver's binary interface that the runtime uses, declared here so that
// building needs no CUDA headers. tests/runtime/cuda_driver_test.cc compares every line with
// cuda.h.
//
// Opaque handles have cuda.h's own types; enumerations are ints.

#ifndef AOTI_RUNTIME_CUDA_DRIVER_H_
#define AOTI_RUNTIME_CUDA_DRIVER_H_

#include <cstddef>
#include <cstdint>

struct CUctx_st;
struct CUmod_st;
struct CUfunc_st;
struct CUkern_st;
struct CUstream_st;
struct CUevent_st;
struct CUarray_st;
struct CUgraph_st;
struct CUgraphNode_st;
struct CUgraphExec_st;

namespace aoti::cuda {

using Result = int;
using Device = int;
using DevicePointer = unsigned long long;  // NOLINT(runtime/int): CUdeviceptr
using Context = CUctx_st*;
using Module = CUmod_st*;
using Function = CUfunc_st*;
using Kernel = CUkern_st*;
using Stream = CUstream_st*;
using Event = CUevent_st*;
using Array = CUarray_st*;
using Graph = CUgraph_st*;
using GraphNode = CUgraphNode_st*;
using GraphExec = CUgraphExec_st*;
using ConditionalHandle = uint64_t;

// CUresult
constexpr Result kSuccess = 0;
constexpr Result kErrorInvalidValue = 1;
constexpr Result kErrorOutOfMemory = 2;
constexpr Result kErrorNotInitialized = 3;
constexpr Result kErrorStubLibrary = 34;
constexpr Result kErrorNoDevice = 100;
constexpr Result kErrorInvalidDevice = 101;
constexpr Result kErrorInvalidImage = 200;
constexpr Result kErrorInvalidContext = 201;
constexpr Result kErrorNoBinaryForGpu = 209;
constexpr Result kErrorInvalidHandle = 400;
constexpr Result kErrorNotFound = 500;
constexpr Result kErrorNotReady = 600;
constexpr Result kErrorSystemNotReady = 802;
constexpr Result kErrorSystemDriverMismatch = 803;
constexpr Result kErrorCompatNotSupported = 804;

// CUdevice_attribute
constexpr int kDeviceAttributeMultiprocessors = 16;
constexpr int kDeviceAttributeMajor = 75;
constexpr int kDeviceAttributeMinor = 76;
constexpr int kDeviceAttributeCooperativeLaunch = 95;

// CUfunction_attribute
constexpr int kFunctionAttributeMaxThreads = 0;
constexpr int kFunctionAttributeMaxDynamicSharedMemory = 8;
constexpr int kFunctionAttributeNonPortableClusters = 14;

// CUjit_option
constexpr int kJitErrorLogBuffer = 5;
constexpr int kJitErrorLogBufferSize = 6;

// CUmemorytype
constexpr int kMemoryTypeDevice = 2;

// CUstream_flags, CUevent_flags
constexpr unsigned kStreamNonBlocking = 1;
constexpr unsigned kEventDisableTiming = 2;

// What means a stream without being a handle of one: CU_STREAM_LEGACY, CU_STREAM_PER_THREAD.
constexpr uintptr_t kStreamLegacy = 1;
constexpr uintptr_t kStreamPerThread = 2;

// CUstreamCaptureStatus
constexpr int kCaptureStatusNone = 0;

// CUlaunchAttributeID
constexpr int kLaunchAttributeCooperative = 2;
constexpr int kLaunchAttributeClusterDimension = 4;
constexpr int kLaunchAttributeProgrammaticStreamSerialization = 6;

// CU_GRAPH_KERNEL_NODE_PORT_*, CUgraphDependencyType
constexpr unsigned char kKernelNodePortProgrammatic = 1;
constexpr unsigned char kDependencyTypeProgrammatic = 1;

// CUtensorMapDataType, CUtensorMapInterleave, CUtensorMapL2promotion, CUtensorMapFloatOOBfill
constexpr int kTensorMapTfloat32 = 11;
constexpr int kTensorMapInterleaveNone = 0;
constexpr int kTensorMapL2Promotion128B = 2;
constexpr int kTensorMapFillZero = 0;
constexpr int kTensorMapFillNan = 1;

// CUgraphNodeType
constexpr int kGraphNodeTypeConditional = 13;

// CUgraphConditionalNodeType
constexpr int kConditionalIf = 0;
constexpr int kConditionalWhile = 1;

// CUdriverProcAddressQueryResult
constexpr int kProcAddressFound = 0;
constexpr int kProcAddressVersionNotSufficient = 2;

union LaunchAttributeValue {
  char pad[64];
  struct {
    unsigned x;
    unsigned y;
    unsigned z;
  } cluster;
  int cooperative;
  int programmatic;
};

struct LaunchAttribute {
  int id;
  char pad[4];
  LaunchAttributeValue value;
};

struct LaunchConfig {
  unsigned grid_x;
  unsigned grid_y;
  unsigned grid_z;
  unsigned block_x;
  unsigned block_y;
  unsigned block_z;
  unsigned shared_memory;
  Stream stream;
  LaunchAttribute* attributes;
  unsigned num_attributes;
};

// CUDA_KERNEL_NODE_PARAMS_v2
struct KernelNodeParams {
  Function function;
  unsigned grid_x;
  unsigned grid_y;
  unsigned grid_z;
  unsigned block_x;
  unsigned block_y;
  unsigned block_z;
  unsigned shared_memory;
  void** params;
  void** extra;
  Kernel kernel;
  Context context;
};

// CUDA_MEMSET_NODE_PARAMS_v1
struct MemsetNodeParams {
  DevicePointer dst;
  size_t pitch;
  unsigned value;
  unsigned element_size;
  size_t width;  // in elements
  size_t height;
};

// CUDA_MEMCPY3D_v2
struct Memcpy3D {
  size_t src_x;
  size_t src_y;
  size_t src_z;
  size_t src_lod;
  int src_memory_type;
  const void* src_host;
  DevicePointer src_device;
  Array src_array;
  void* reserved0;
  size_t src_pitch;
  size_t src_height;
  size_t dst_x;
  size_t dst_y;
  size_t dst_z;
  size_t dst_lod;
  int dst_memory_type;
  void* dst_host;
  DevicePointer dst_device;
  Array dst_array;
  void* reserved1;
  size_t dst_pitch;
  size_t dst_height;
  size_t width;  // in bytes
  size_t height;
  size_t depth;
};

// CUDA_CONDITIONAL_NODE_PARAMS
struct ConditionalNodeParams {
  ConditionalHandle handle;
  int type;
  unsigned size;
  Graph* graphs;  // set by the driver: `size` of them, which belong to the node
  Context context;
};

// CUgraphNodeParams, of which only conditional nodes are used.
struct GraphNodeParams {
  int type;
  int reserved0[3];
  union {
    long long reserved1[29];  // NOLINT(runtime/int): as cuda.h has it
    ConditionalNodeParams conditional;
  };
  long long reserved2;  // NOLINT(runtime/int)
};

// CUgraphEdgeData
struct GraphEdgeData {
  unsigned char from_port;
  unsigned char to_port;
  unsigned char type;
  unsigned char reserved[5];
};

// CUtensorMap
struct alignas(128) TensorMap {
  uint64_t opaque[16];
};

}  // namespace aoti::cuda

// The least driver the runtime works with, as cuDriverGetVersion reports it.
#define AOTI_CUDA_MINIMUM_DRIVER 12000

// F(name without "cu", version of the interface as cuGetProcAddress takes it, parameters)
#define AOTI_CUDA_FUNCTIONS(F)                                                                   \
  F(Init, 2000, (unsigned flags))                                                                \
  F(DriverGetVersion, 2020, (int* version))                                                      \
  F(GetErrorName, 6000, (Result error, const char** text))                                       \
  F(GetErrorString, 6000, (Result error, const char** text))                                     \
  F(DeviceGet, 2000, (Device * device, int ordinal))                                             \
  F(DeviceGetCount, 2000, (int* count))                                                          \
  F(DeviceGetName, 2000, (char* name, int size, Device device))                                  \
  F(DeviceGetAttribute, 2000, (int* value, int attribute, Device device))                        \
  F(DevicePrimaryCtxRetain, 7000, (Context * context, Device device))                            \
  F(DevicePrimaryCtxRelease, 11000, (Device device))                                             \
  F(CtxPushCurrent, 4000, (Context context))                                                     \
  F(CtxPopCurrent, 4000, (Context * context))                                                    \
  F(CtxGetDevice, 2000, (Device * device))                                                       \
  F(ModuleLoadDataEx, 2010,                                                                      \
    (Module * module, const void* image, unsigned num_options, int* options, void** values))     \
  F(ModuleUnload, 2000, (Module module))                                                         \
  F(ModuleGetFunction, 2000, (Function * function, Module module, const char* name))             \
  F(FuncGetAttribute, 2020, (int* value, int attribute, Function function))                      \
  F(FuncSetAttribute, 9000, (Function function, int attribute, int value))                       \
  F(LaunchKernel, 4000,                                                                          \
    (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,     \
     unsigned block_y, unsigned block_z, unsigned shared_memory, Stream stream, void** params,   \
     void** extra))                                                                              \
  F(OccupancyMaxActiveBlocksPerMultiprocessor, 6050,                                             \
    (int* blocks, Function function, int threads, size_t shared_memory))                         \
  F(LaunchKernelEx, 11060,                                                                       \
    (const LaunchConfig* config, Function function, void** params, void** extra))                \
  F(MemAlloc, 3020, (DevicePointer * address, size_t nbytes))                                    \
  F(MemFree, 3020, (DevicePointer address))                                                      \
  F(MemHostAlloc, 2020, (void** pointer, size_t nbytes, unsigned flags))                         \
  F(MemFreeHost, 2000, (void* pointer))                                                          \
  F(MemcpyHtoDAsync, 3020, (DevicePointer dst, const void* src, size_t nbytes, Stream stream))   \
  F(MemcpyDtoHAsync, 3020, (void* dst, DevicePointer src, size_t nbytes, Stream stream))         \
  F(MemcpyDtoDAsync, 3020, (DevicePointer dst, DevicePointer src, size_t nbytes, Stream stream)) \
  F(MemsetD8Async, 3020, (DevicePointer dst, unsigned char byte, size_t nbytes, Stream stream))  \
  F(StreamCreate, 2000, (Stream * stream, unsigned flags))                                       \
  F(StreamDestroy, 4000, (Stream stream))                                                        \
  F(StreamSynchronize, 2000, (Stream stream))                                                    \
  F(StreamWaitEvent, 3020, (Stream stream, Event event, unsigned flags))                         \
  F(StreamIsCapturing, 10000, (Stream stream, int* status))                                      \
  F(EventCreate, 2000, (Event * event, unsigned flags))                                          \
  F(EventDestroy, 4000, (Event event))                                                           \
  F(EventRecord, 2000, (Event event, Stream stream))                                             \
  F(EventQuery, 2000, (Event event))                                                             \
  F(EventSynchronize, 2000, (Event event))                                                       \
  F(EventElapsedTime, 2000, (float* milliseconds, Event start, Event end))                       \
  F(GraphCreate, 10000, (Graph * graph, unsigned flags))                                         \
  F(GraphDestroy, 10000, (Graph graph))                                                          \
  F(GraphAddKernelNode, 12000,                                                                   \
    (GraphNode * node, Graph graph, const GraphNode* dependencies, size_t num_dependencies,      \
     const KernelNodeParams* params))                                                            \
  F(GraphAddMemcpyNode, 10000,                                                                   \
    (GraphNode * node, Graph graph, const GraphNode* dependencies, size_t num_dependencies,      \
     const Memcpy3D* params, Context context))                                                   \
  F(GraphAddMemsetNode, 10000,                                                                   \
    (GraphNode * node, Graph graph, const GraphNode* dependencies, size_t num_dependencies,      \
     const MemsetNodeParams* params, Context context))                                           \
  F(GraphKernelNodeSetAttribute, 11000,                                                          \
    (GraphNode node, int attribute, const LaunchAttributeValue* value))                          \
  F(GraphInstantiateWithFlags, 11040, (GraphExec * exec, Graph graph, unsigned long long flags)) \
  F(GraphExecDestroy, 10000, (GraphExec exec))                                                   \
  F(GraphExecKernelNodeSetParams, 12000,                                                         \
    (GraphExec exec, GraphNode node, const KernelNodeParams* params))                            \
  F(GraphExecMemcpyNodeSetParams, 10020,                                                         \
    (GraphExec exec, GraphNode node, const Memcpy3D* params, Context context))                   \
  F(GraphExecMemsetNodeSetParams, 10020,                                                         \
    (GraphExec exec, GraphNode node, const MemsetNodeParams* params, Context context))           \
  F(GraphLaunch, 10000, (GraphExec exec, Stream stream))

// Null where the driver is older.
#define AOTI_CUDA_OPTIONAL_FUNCTIONS(F)                                                         \
  F(FuncLoad, 12040, (Function function))                                                       \
  F(FuncGetParamInfo, 12040, (Function function, size_t index, size_t* offset, size_t* size))   \
  F(GraphConditionalHandleCreate, 12030,                                                        \
    (ConditionalHandle * handle, Graph graph, Context context, unsigned value, unsigned flags)) \
  F(GraphAddNode, 12020,                                                                        \
    (GraphNode * node, Graph graph, const GraphNode* dependencies, size_t num_dependencies,     \
     GraphNodeParams* params))                                                                  \
  F(GraphAddDependencies, 12030,                                                                \
    (Graph graph, const GraphNode* from, const GraphNode* to, const GraphEdgeData* edges,       \
     size_t num_edges))                                                                         \
  F(TensorMapEncodeTiled, 12000,                                                                \
    (TensorMap * map, int type, uint32_t rank, void* address, const uint64_t* shape,            \
     const uint64_t* strides, const uint32_t* box, const uint32_t* element_strides,             \
     int interleave, int swizzle, int l2_promotion, int fill))

#endif  // AOTI_RUNTIME_CUDA_DRIVER_H_
