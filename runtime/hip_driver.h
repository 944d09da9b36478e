// The part of HIP's binary interface that the runtime uses, declared here so that building needs no
// HIP headers. tests/runtime/hip_driver_test.cc compares every line with hip_runtime_api.h.
//
// Opaque handles have HIP's own types; enumerations are ints.

#ifndef AOTI_RUNTIME_HIP_DRIVER_H_
#define AOTI_RUNTIME_HIP_DRIVER_H_

#include <cstddef>
#include <cstdint>

struct ihipCtx_t;
struct ihipModule_t;
struct ihipModuleSymbol_t;
struct ihipStream_t;
struct ihipEvent_t;
struct ihipGraph;
struct hipGraphNode;
struct hipGraphExec;

namespace aoti::hip {

using Result = int;
using Device = int;
using DevicePointer = void*;
using Context = ihipCtx_t*;
using Module = ihipModule_t*;
using Function = ihipModuleSymbol_t*;
using Stream = ihipStream_t*;
using Event = ihipEvent_t*;
using Graph = ihipGraph*;
using GraphNode = hipGraphNode*;
using GraphExec = hipGraphExec*;

// hipError_t
constexpr Result kSuccess = 0;
constexpr Result kErrorInvalidValue = 1;
constexpr Result kErrorInvalidConfiguration = 9;
constexpr Result kErrorNotSupported = 801;

// hipDeviceAttribute_t
constexpr int kDeviceAttributeMajor = 23;
constexpr int kDeviceAttributeMinor = 61;
constexpr int kDeviceAttributeMultiprocessors = 63;
constexpr int kDeviceAttributeCooperativeLaunch = 10;

// hipFunction_attribute
constexpr int kFunctionAttributeMaxDynamicSharedMemory = 8;

// hipLaunchAttributeID
constexpr int kLaunchAttributeCooperative = 2;

// hipMemcpyKind
constexpr int kMemcpyDeviceToDevice = 3;

// dim3
struct Dim3 {
  uint32_t x;
  uint32_t y;
  uint32_t z;
};

// hipLaunchAttributeValue
union LaunchAttributeValue {
  char pad[64];
  int cooperative;
};

// hipKernelNodeParams
struct KernelNodeParams {
  Dim3 block;
  void** extra;
  void* function;
  Dim3 grid;
  void** params;
  unsigned shared_memory;
};

// hipMemsetParams
struct MemsetNodeParams {
  DevicePointer dst;
  unsigned element_size;
  size_t height;
  size_t pitch;
  unsigned value;
  size_t width;  // in elements
};

// hipDeviceProp_tR0600, of which one field is read.
struct DeviceProperties {
  char before[1160];
  char architecture[256];  // "gfx942:sramecc+:xnack-"
  char after[56];
};

}  // namespace aoti::hip

// The least HIP the runtime works with, as hipRuntimeGetVersion reports it: that of ROCm 6.0.
#define AOTI_HIP_MINIMUM_VERSION 60000000

// F(name without "hip", parameters)
#define AOTI_HIP_FUNCTIONS(F)                                                                   \
  F(Init, (unsigned flags))                                                                     \
  F(RuntimeGetVersion, (int* version))                                                          \
  F(DrvGetErrorName, (Result error, const char** text))                                         \
  F(DrvGetErrorString, (Result error, const char** text))                                       \
  F(DeviceGet, (Device * device, int ordinal))                                                  \
  F(GetDeviceCount, (int* count))                                                               \
  F(DeviceGetName, (char* name, int size, Device device))                                       \
  F(DeviceGetAttribute, (int* value, int attribute, Device device))                             \
  F(GetDevicePropertiesR0600, (DeviceProperties * properties, int ordinal))                     \
  F(DevicePrimaryCtxRetain, (Context * context, Device device))                                 \
  F(DevicePrimaryCtxRelease, (Device device))                                                   \
  F(CtxPushCurrent, (Context context))                                                          \
  F(CtxPopCurrent, (Context * context))                                                         \
  F(CtxGetDevice, (Device * device))                                                            \
  F(ModuleLoadData, (Module * module, const void* image))                                       \
  F(ModuleUnload, (Module module))                                                              \
  F(ModuleGetFunction, (Function * function, Module module, const char* name))                  \
  F(FuncGetAttribute, (int* value, int attribute, Function function))                           \
  F(ModuleLaunchKernel, (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,  \
                         unsigned block_x, unsigned block_y, unsigned block_z,                  \
                         unsigned shared_memory, Stream stream, void** params, void** extra))   \
  F(ModuleLaunchCooperativeKernel,                                                              \
    (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,    \
     unsigned block_y, unsigned block_z, unsigned shared_memory, Stream stream, void** params)) \
  F(ModuleOccupancyMaxActiveBlocksPerMultiprocessor,                                            \
    (int* blocks, Function function, int threads, size_t shared_memory))                        \
  F(Malloc, (void** address, size_t nbytes))                                                    \
  F(Free, (void* address))                                                                      \
  F(HostMalloc, (void** pointer, size_t nbytes, unsigned flags))                                \
  F(HostFree, (void* pointer))                                                                  \
  F(MemcpyHtoDAsync, (DevicePointer dst, const void* src, size_t nbytes, Stream stream))        \
  F(MemcpyDtoHAsync, (void* dst, DevicePointer src, size_t nbytes, Stream stream))              \
  F(MemcpyDtoDAsync, (DevicePointer dst, DevicePointer src, size_t nbytes, Stream stream))      \
  F(MemsetD8Async, (DevicePointer dst, unsigned char byte, size_t nbytes, Stream stream))       \
  F(StreamCreateWithFlags, (Stream * stream, unsigned flags))                                   \
  F(StreamDestroy, (Stream stream))                                                             \
  F(StreamSynchronize, (Stream stream))                                                         \
  F(StreamWaitEvent, (Stream stream, Event event, unsigned flags))                              \
  F(StreamIsCapturing, (Stream stream, int* status))                                            \
  F(EventCreateWithFlags, (Event * event, unsigned flags))                                      \
  F(EventDestroy, (Event event))                                                                \
  F(EventRecord, (Event event, Stream stream))                                                  \
  F(EventQuery, (Event event))                                                                  \
  F(EventSynchronize, (Event event))                                                            \
  F(EventElapsedTime, (float* milliseconds, Event start, Event end))                            \
  F(GraphCreate, (Graph * graph, unsigned flags))                                               \
  F(GraphDestroy, (Graph graph))                                                                \
  F(GraphAddKernelNode, (GraphNode * node, Graph graph, const GraphNode* dependencies,          \
                         size_t num_dependencies, const KernelNodeParams* params))              \
  F(GraphAddMemcpyNode1D,                                                                       \
    (GraphNode * node, Graph graph, const GraphNode* dependencies, size_t num_dependencies,     \
     void* dst, const void* src, size_t nbytes, int kind))                                      \
  F(GraphAddMemsetNode, (GraphNode * node, Graph graph, const GraphNode* dependencies,          \
                         size_t num_dependencies, const MemsetNodeParams* params))              \
  F(GraphKernelNodeSetAttribute,                                                                \
    (GraphNode node, int attribute, const LaunchAttributeValue* value))                         \
  F(GraphInstantiateWithFlags, (GraphExec * exec, Graph graph, unsigned long long flags))       \
  F(GraphExecDestroy, (GraphExec exec))                                                         \
  F(GraphExecKernelNodeSetParams,                                                               \
    (GraphExec exec, GraphNode node, const KernelNodeParams* params))                           \
  F(GraphExecMemcpyNodeSetParams1D,                                                             \
    (GraphExec exec, GraphNode node, void* dst, const void* src, size_t nbytes, int kind))      \
  F(GraphExecMemsetNodeSetParams,                                                               \
    (GraphExec exec, GraphNode node, const MemsetNodeParams* params))                           \
  F(GraphLaunch, (GraphExec exec, Stream stream))

#endif  // AOTI_RUNTIME_HIP_DRIVER_H_
