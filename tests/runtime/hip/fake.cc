// A libamdhip64.so.7 for machines without a GPU of AMD's: HIP's functions, as AMD's header declares
// them, by those of the simulated libcuda.so.1. It undoes what runtime/hip.cc does, from the other
// side of the interface, so that what the adapters pass is read as HIP would read it.
//
// The runtime that is linked here, of which nothing leaves this library, is the one for CUDA.

#define __HIP_PLATFORM_AMD__ 1
#define __HIP_DISABLE_CPP_FUNCTIONS__ 1
#include "tests/runtime/hip/fake.h"

#include <hip/hip_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/driver.h"

#define FAKE __attribute__((visibility("default")))
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace {

namespace cuda = aoti::cuda;

FakeHip fake = {HIP_VERSION, "gfx942:sramecc+:xnack-", 64 << 10};

// The simulator must be there: the test loads it first.
const aoti::Driver& Driver() {
  const aoti::Driver* driver = nullptr;
  const aoti::Status status = aoti::Driver::Get(&driver);
  if (!status.ok()) {
    std::fprintf(stderr, "fake HIP: %s\n", status.message());
    std::abort();
  }
  return *driver;
}

hipError_t Error(cuda::Result result) { return static_cast<hipError_t>(result); }

template <typename To, typename From>
To As(From handle) {
  return reinterpret_cast<To>(handle);
}

cuda::DevicePointer Address(const void* pointer) {
  return reinterpret_cast<cuda::DevicePointer>(pointer);
}

cuda::KernelNodeParams Kernel(const hipKernelNodeParams& params) {
  cuda::KernelNodeParams result = {};
  result.function = static_cast<cuda::Function>(params.func);
  result.grid_x = params.gridDim.x;
  result.grid_y = params.gridDim.y;
  result.grid_z = params.gridDim.z;
  result.block_x = params.blockDim.x;
  result.block_y = params.blockDim.y;
  result.block_z = params.blockDim.z;
  result.shared_memory = params.sharedMemBytes;
  result.params = params.kernelParams;
  result.extra = params.extra;
  return result;
}

cuda::MemsetNodeParams Memset(const hipMemsetParams& params) {
  cuda::MemsetNodeParams result = {};
  result.dst = Address(params.dst);
  result.pitch = params.pitch;
  result.value = params.value;
  result.element_size = params.elementSize;
  result.width = params.width;
  result.height = params.height;
  return result;
}

cuda::Memcpy3D Memcpy(void* dst, const void* src, size_t count) {
  cuda::Memcpy3D result = {};
  result.src_memory_type = cuda::kMemoryTypeDevice;
  result.src_device = Address(src);
  result.dst_memory_type = cuda::kMemoryTypeDevice;
  result.dst_device = Address(dst);
  result.width = count;
  result.height = 1;
  result.depth = 1;
  return result;
}

// Nodes need a context in CUDA, and take the current device in HIP.
cuda::Context Current() {
  cuda::Context context = nullptr;
  if (Driver().CtxPopCurrent(&context) != cuda::kSuccess) return nullptr;
  Driver().CtxPushCurrent(context);
  return context;
}

}  // namespace

extern "C" {

FAKE FakeHip* fake_hip() { return &fake; }

FAKE hipError_t hipInit(unsigned flags) { return Error(Driver().Init(flags)); }

FAKE hipError_t hipRuntimeGetVersion(int* version) {
  *version = fake.version;
  return hipSuccess;
}

FAKE hipError_t hipDrvGetErrorName(hipError_t error, const char** text) {
  *text = error == hipErrorOutOfMemory ? "hipErrorOutOfMemory" : "hipError";
  return hipSuccess;
}

FAKE hipError_t hipDrvGetErrorString(hipError_t, const char** text) {
  *text = "said HIP";
  return hipSuccess;
}

FAKE hipError_t hipDeviceGet(hipDevice_t* device, int ordinal) {
  return Error(Driver().DeviceGet(device, ordinal));
}

FAKE hipError_t hipGetDeviceCount(int* count) { return Error(Driver().DeviceGetCount(count)); }

FAKE hipError_t hipDeviceGetName(char* name, int size, hipDevice_t device) {
  return Error(Driver().DeviceGetName(name, size, device));
}

FAKE hipError_t hipDeviceGetAttribute(int* value, hipDeviceAttribute_t attribute, int device) {
  if (attribute == hipDeviceAttributeMultiprocessorCount) {
    return Error(Driver().DeviceGetAttribute(value, cuda::kDeviceAttributeMultiprocessors, device));
  }
  if (attribute == hipDeviceAttributeCooperativeLaunch) {
    return Error(
        Driver().DeviceGetAttribute(value, cuda::kDeviceAttributeCooperativeLaunch, device));
  }
  if (attribute == hipDeviceAttributeComputeCapabilityMajor) {
    *value = 9;
  } else if (attribute == hipDeviceAttributeComputeCapabilityMinor) {
    *value = 4;
  } else {
    return hipErrorInvalidValue;
  }
  return hipSuccess;
}

FAKE hipError_t hipGetDeviceProperties(hipDeviceProp_t* properties, int) {
  *properties = {};
  std::strncpy(properties->gcnArchName, fake.architecture, sizeof properties->gcnArchName - 1);
  return hipSuccess;
}

FAKE hipError_t hipDevicePrimaryCtxRetain(hipCtx_t* context, hipDevice_t device) {
  return Error(Driver().DevicePrimaryCtxRetain(As<cuda::Context*>(context), device));
}

FAKE hipError_t hipDevicePrimaryCtxRelease(hipDevice_t device) {
  return Error(Driver().DevicePrimaryCtxRelease(device));
}

FAKE hipError_t hipCtxPushCurrent(hipCtx_t context) {
  return Error(Driver().CtxPushCurrent(As<cuda::Context>(context)));
}

FAKE hipError_t hipCtxPopCurrent(hipCtx_t* context) {
  return Error(Driver().CtxPopCurrent(As<cuda::Context*>(context)));
}

FAKE hipError_t hipCtxGetDevice(hipDevice_t* device) {
  return Error(Driver().CtxGetDevice(device));
}

FAKE hipError_t hipModuleLoadData(hipModule_t* module, const void* image) {
  return Error(Driver().ModuleLoadDataEx(As<cuda::Module*>(module), image, 0, nullptr, nullptr));
}

FAKE hipError_t hipModuleUnload(hipModule_t module) {
  return Error(Driver().ModuleUnload(As<cuda::Module>(module)));
}

// A kernel may use all the shared memory there is, which the simulator wants to be asked for.
FAKE hipError_t hipModuleGetFunction(hipFunction_t* function, hipModule_t module,
                                     const char* name) {
  const cuda::Result result =
      Driver().ModuleGetFunction(As<cuda::Function*>(function), As<cuda::Module>(module), name);
  if (result != cuda::kSuccess) return Error(result);
  return Error(Driver().FuncSetAttribute(As<cuda::Function>(*function),
                                         cuda::kFunctionAttributeMaxDynamicSharedMemory,
                                         fake.shared_memory));
}

FAKE hipError_t hipFuncGetAttribute(int* value, hipFunction_attribute attribute,
                                    hipFunction_t function) {
  if (attribute == HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
    *value = fake.shared_memory;
    return hipSuccess;
  }
  return Error(Driver().FuncGetAttribute(value, attribute, As<cuda::Function>(function)));
}

FAKE hipError_t hipModuleLaunchKernel(hipFunction_t function, unsigned grid_x, unsigned grid_y,
                                      unsigned grid_z, unsigned block_x, unsigned block_y,
                                      unsigned block_z, unsigned shared_memory, hipStream_t stream,
                                      void** params, void** extra) {
  return Error(Driver().LaunchKernel(As<cuda::Function>(function), grid_x, grid_y, grid_z, block_x,
                                     block_y, block_z, shared_memory, As<cuda::Stream>(stream),
                                     params, extra));
}

FAKE hipError_t hipModuleLaunchCooperativeKernel(hipFunction_t function, unsigned grid_x,
                                                 unsigned grid_y, unsigned grid_z, unsigned block_x,
                                                 unsigned block_y, unsigned block_z,
                                                 unsigned shared_memory, hipStream_t stream,
                                                 void** params) {
  cuda::LaunchAttribute attribute = {};
  attribute.id = cuda::kLaunchAttributeCooperative;
  attribute.value.cooperative = 1;
  const cuda::LaunchConfig config = {grid_x,     grid_y,  grid_z,        block_x,
                                     block_y,    block_z, shared_memory, As<cuda::Stream>(stream),
                                     &attribute, 1};
  return Error(Driver().LaunchKernelEx(&config, As<cuda::Function>(function), params, nullptr));
}

FAKE hipError_t hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks,
                                                                   hipFunction_t function,
                                                                   int threads,
                                                                   size_t shared_memory) {
  return Error(Driver().OccupancyMaxActiveBlocksPerMultiprocessor(
      blocks, As<cuda::Function>(function), threads, shared_memory));
}

FAKE hipError_t hipMalloc(void** pointer, size_t size) {
  return Error(Driver().MemAlloc(reinterpret_cast<cuda::DevicePointer*>(pointer), size));
}

FAKE hipError_t hipFree(void* pointer) { return Error(Driver().MemFree(Address(pointer))); }

FAKE hipError_t hipHostMalloc(void** pointer, size_t size, unsigned flags) {
  return Error(Driver().MemHostAlloc(pointer, size, flags));
}

FAKE hipError_t hipHostFree(void* pointer) { return Error(Driver().MemFreeHost(pointer)); }

FAKE hipError_t hipMemcpyHtoDAsync(hipDeviceptr_t dst, const void* src, size_t size,
                                   hipStream_t stream) {
  return Error(Driver().MemcpyHtoDAsync(Address(dst), src, size, As<cuda::Stream>(stream)));
}

FAKE hipError_t hipMemcpyDtoHAsync(void* dst, hipDeviceptr_t src, size_t size, hipStream_t stream) {
  return Error(Driver().MemcpyDtoHAsync(dst, Address(src), size, As<cuda::Stream>(stream)));
}

FAKE hipError_t hipMemcpyDtoDAsync(hipDeviceptr_t dst, hipDeviceptr_t src, size_t size,
                                   hipStream_t stream) {
  return Error(
      Driver().MemcpyDtoDAsync(Address(dst), Address(src), size, As<cuda::Stream>(stream)));
}

FAKE hipError_t hipMemsetD8Async(hipDeviceptr_t dst, unsigned char value, size_t count,
                                 hipStream_t stream) {
  return Error(Driver().MemsetD8Async(Address(dst), value, count, As<cuda::Stream>(stream)));
}

FAKE hipError_t hipStreamCreateWithFlags(hipStream_t* stream, unsigned flags) {
  return Error(Driver().StreamCreate(As<cuda::Stream*>(stream), flags));
}

FAKE hipError_t hipStreamDestroy(hipStream_t stream) {
  return Error(Driver().StreamDestroy(As<cuda::Stream>(stream)));
}

FAKE hipError_t hipStreamSynchronize(hipStream_t stream) {
  return Error(Driver().StreamSynchronize(As<cuda::Stream>(stream)));
}

FAKE hipError_t hipStreamWaitEvent(hipStream_t stream, hipEvent_t event, unsigned flags) {
  return Error(Driver().StreamWaitEvent(As<cuda::Stream>(stream), As<cuda::Event>(event), flags));
}

FAKE hipError_t hipStreamIsCapturing(hipStream_t stream, hipStreamCaptureStatus* status) {
  int number = 0;
  const cuda::Result result = Driver().StreamIsCapturing(As<cuda::Stream>(stream), &number);
  *status = static_cast<hipStreamCaptureStatus>(number);
  return Error(result);
}

FAKE hipError_t hipEventCreateWithFlags(hipEvent_t* event, unsigned flags) {
  return Error(Driver().EventCreate(As<cuda::Event*>(event), flags));
}

FAKE hipError_t hipEventDestroy(hipEvent_t event) {
  return Error(Driver().EventDestroy(As<cuda::Event>(event)));
}

FAKE hipError_t hipEventRecord(hipEvent_t event, hipStream_t stream) {
  return Error(Driver().EventRecord(As<cuda::Event>(event), As<cuda::Stream>(stream)));
}

FAKE hipError_t hipEventQuery(hipEvent_t event) {
  return Error(Driver().EventQuery(As<cuda::Event>(event)));
}

FAKE hipError_t hipEventSynchronize(hipEvent_t event) {
  return Error(Driver().EventSynchronize(As<cuda::Event>(event)));
}

FAKE hipError_t hipEventElapsedTime(float* milliseconds, hipEvent_t start, hipEvent_t stop) {
  return Error(
      Driver().EventElapsedTime(milliseconds, As<cuda::Event>(start), As<cuda::Event>(stop)));
}

FAKE hipError_t hipGraphCreate(hipGraph_t* graph, unsigned flags) {
  return Error(Driver().GraphCreate(As<cuda::Graph*>(graph), flags));
}

FAKE hipError_t hipGraphDestroy(hipGraph_t graph) {
  return Error(Driver().GraphDestroy(As<cuda::Graph>(graph)));
}

FAKE hipError_t hipGraphAddKernelNode(hipGraphNode_t* node, hipGraph_t graph,
                                      const hipGraphNode_t* dependencies, size_t num_dependencies,
                                      const hipKernelNodeParams* params) {
  const cuda::KernelNodeParams converted = Kernel(*params);
  return Error(Driver().GraphAddKernelNode(As<cuda::GraphNode*>(node), As<cuda::Graph>(graph),
                                           As<const cuda::GraphNode*>(dependencies),
                                           num_dependencies, &converted));
}

FAKE hipError_t hipGraphAddMemcpyNode1D(hipGraphNode_t* node, hipGraph_t graph,
                                        const hipGraphNode_t* dependencies, size_t num_dependencies,
                                        void* dst, const void* src, size_t count,
                                        hipMemcpyKind kind) {
  if (kind != hipMemcpyDeviceToDevice) return hipErrorInvalidValue;
  const cuda::Memcpy3D converted = Memcpy(dst, src, count);
  return Error(Driver().GraphAddMemcpyNode(As<cuda::GraphNode*>(node), As<cuda::Graph>(graph),
                                           As<const cuda::GraphNode*>(dependencies),
                                           num_dependencies, &converted, Current()));
}

FAKE hipError_t hipGraphAddMemsetNode(hipGraphNode_t* node, hipGraph_t graph,
                                      const hipGraphNode_t* dependencies, size_t num_dependencies,
                                      const hipMemsetParams* params) {
  const cuda::MemsetNodeParams converted = Memset(*params);
  return Error(Driver().GraphAddMemsetNode(As<cuda::GraphNode*>(node), As<cuda::Graph>(graph),
                                           As<const cuda::GraphNode*>(dependencies),
                                           num_dependencies, &converted, Current()));
}

FAKE hipError_t hipGraphKernelNodeSetAttribute(hipGraphNode_t node, hipKernelNodeAttrID attribute,
                                               const hipKernelNodeAttrValue* value) {
  if (attribute != hipKernelNodeAttributeCooperative) return hipErrorInvalidValue;
  cuda::LaunchAttributeValue converted = {};
  converted.cooperative = value->cooperative;
  return Error(Driver().GraphKernelNodeSetAttribute(As<cuda::GraphNode>(node),
                                                    cuda::kLaunchAttributeCooperative, &converted));
}

FAKE hipError_t hipGraphInstantiateWithFlags(hipGraphExec_t* exec, hipGraph_t graph,
                                             unsigned long long flags) {
  return Error(Driver().GraphInstantiateWithFlags(As<cuda::GraphExec*>(exec),
                                                  As<cuda::Graph>(graph), flags));
}

FAKE hipError_t hipGraphExecDestroy(hipGraphExec_t exec) {
  return Error(Driver().GraphExecDestroy(As<cuda::GraphExec>(exec)));
}

FAKE hipError_t hipGraphExecKernelNodeSetParams(hipGraphExec_t exec, hipGraphNode_t node,
                                                const hipKernelNodeParams* params) {
  const cuda::KernelNodeParams converted = Kernel(*params);
  return Error(Driver().GraphExecKernelNodeSetParams(As<cuda::GraphExec>(exec),
                                                     As<cuda::GraphNode>(node), &converted));
}

FAKE hipError_t hipGraphExecMemcpyNodeSetParams1D(hipGraphExec_t exec, hipGraphNode_t node,
                                                  void* dst, const void* src, size_t count,
                                                  hipMemcpyKind kind) {
  if (kind != hipMemcpyDeviceToDevice) return hipErrorInvalidValue;
  const cuda::Memcpy3D converted = Memcpy(dst, src, count);
  return Error(Driver().GraphExecMemcpyNodeSetParams(
      As<cuda::GraphExec>(exec), As<cuda::GraphNode>(node), &converted, Current()));
}

FAKE hipError_t hipGraphExecMemsetNodeSetParams(hipGraphExec_t exec, hipGraphNode_t node,
                                                const hipMemsetParams* params) {
  const cuda::MemsetNodeParams converted = Memset(*params);
  return Error(Driver().GraphExecMemsetNodeSetParams(
      As<cuda::GraphExec>(exec), As<cuda::GraphNode>(node), &converted, Current()));
}

FAKE hipError_t hipGraphLaunch(hipGraphExec_t exec, hipStream_t stream) {
  return Error(Driver().GraphLaunch(As<cuda::GraphExec>(exec), As<cuda::Stream>(stream)));
}

}  // extern "C"
