// AMD's driver: the functions of cuda_driver.h by those of HIP's libamdhip64.so.
//
// HIP has what the runtime asks for under names, types and structs of its own. An adapter converts
// a call's arguments; none of them holds state.

#include <dlfcn.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "runtime/description.h"
#include "runtime/driver.h"
#include "runtime/hip_driver.h"
#include "runtime/platform.h"
#include "runtime/status.h"

namespace aoti {
namespace hip {
namespace {

// Of ROCm 7 and 6, the newer first: its major version is in the name.
constexpr const char* kLibraries[] = {"libamdhip64.so.7", "libamdhip64.so.6"};

#define AOTI_HIP_DECLARE(name, parameters) Result(*name) parameters;
struct Functions {
  AOTI_HIP_FUNCTIONS(AOTI_HIP_DECLARE)
};
#undef AOTI_HIP_DECLARE

// Written by Driver::Load alone, before any adapter is called.
Functions api;

void* Pointer(cuda::DevicePointer address) { return reinterpret_cast<void*>(address); }

// The same handle, by the other's name of its type.
Context To(cuda::Context handle) { return reinterpret_cast<Context>(handle); }
Module To(cuda::Module handle) { return reinterpret_cast<Module>(handle); }
Function To(cuda::Function handle) { return reinterpret_cast<Function>(handle); }
Stream To(cuda::Stream handle) { return reinterpret_cast<Stream>(handle); }
Event To(cuda::Event handle) { return reinterpret_cast<Event>(handle); }
Graph To(cuda::Graph handle) { return reinterpret_cast<Graph>(handle); }
GraphNode To(cuda::GraphNode handle) { return reinterpret_cast<GraphNode>(handle); }
GraphExec To(cuda::GraphExec handle) { return reinterpret_cast<GraphExec>(handle); }
Context* To(cuda::Context* handle) { return reinterpret_cast<Context*>(handle); }
Module* To(cuda::Module* handle) { return reinterpret_cast<Module*>(handle); }
Function* To(cuda::Function* handle) { return reinterpret_cast<Function*>(handle); }
Stream* To(cuda::Stream* handle) { return reinterpret_cast<Stream*>(handle); }
Event* To(cuda::Event* handle) { return reinterpret_cast<Event*>(handle); }
Graph* To(cuda::Graph* handle) { return reinterpret_cast<Graph*>(handle); }
GraphNode* To(cuda::GraphNode* handle) { return reinterpret_cast<GraphNode*>(handle); }
GraphExec* To(cuda::GraphExec* handle) { return reinterpret_cast<GraphExec*>(handle); }
const GraphNode* To(const cuda::GraphNode* handles) {
  return reinterpret_cast<const GraphNode*>(handles);
}

// HIP counts a grid in threads, in 32 bits.
bool IsTooLarge(unsigned grid, unsigned block) {
  return uint64_t{grid} * block > std::numeric_limits<uint32_t>::max();
}

Result Convert(const cuda::KernelNodeParams& params, KernelNodeParams* converted) {
  if (IsTooLarge(params.grid_x, params.block_x) || IsTooLarge(params.grid_y, params.block_y) ||
      IsTooLarge(params.grid_z, params.block_z)) {
    return kErrorInvalidConfiguration;
  }
  *converted = {};
  converted->block = {params.block_x, params.block_y, params.block_z};
  converted->extra = params.extra;
  converted->function = params.function;
  converted->grid = {params.grid_x, params.grid_y, params.grid_z};
  converted->params = params.params;
  converted->shared_memory = params.shared_memory;
  return kSuccess;
}

MemsetNodeParams Convert(const cuda::MemsetNodeParams& params) {
  MemsetNodeParams converted = {};
  converted.dst = Pointer(params.dst);
  converted.element_size = params.element_size;
  converted.height = params.height;
  converted.pitch = params.pitch;
  converted.value = params.value;
  converted.width = params.width;
  return converted;
}

// A run of bytes from device memory to device memory, which is all that the runtime copies.
bool IsRun(const cuda::Memcpy3D& params) {
  return params.src_memory_type == cuda::kMemoryTypeDevice &&
         params.dst_memory_type == cuda::kMemoryTypeDevice && params.height == 1 &&
         params.depth == 1 && params.src_x == 0 && params.src_y == 0 && params.src_z == 0 &&
         params.dst_x == 0 && params.dst_y == 0 && params.dst_z == 0;
}

// One for each of AOTI_CUDA_FUNCTIONS, by its name: one that is missing is an error of the compiler
// in Driver::Load. A result is HIP's own number, which is CUDA's wherever the runtime looks at it.
namespace adapter {

Result Init(unsigned flags) { return api.Init(flags); }

Result DriverGetVersion(int* version) { return api.RuntimeGetVersion(version); }

Result GetErrorName(Result error, const char** text) { return api.DrvGetErrorName(error, text); }

Result GetErrorString(Result error, const char** text) {
  return api.DrvGetErrorString(error, text);
}

Result DeviceGet(cuda::Device* device, int ordinal) { return api.DeviceGet(device, ordinal); }

Result DeviceGetCount(int* count) { return api.GetDeviceCount(count); }

Result DeviceGetName(char* name, int size, cuda::Device device) {
  return api.DeviceGetName(name, size, device);
}

Result DeviceGetAttribute(int* value, int attribute, cuda::Device device) {
  switch (attribute) {
    case cuda::kDeviceAttributeMajor:
      return api.DeviceGetAttribute(value, kDeviceAttributeMajor, device);
    case cuda::kDeviceAttributeMinor:
      return api.DeviceGetAttribute(value, kDeviceAttributeMinor, device);
    case cuda::kDeviceAttributeMultiprocessors:
      return api.DeviceGetAttribute(value, kDeviceAttributeMultiprocessors, device);
    case cuda::kDeviceAttributeCooperativeLaunch:
      return api.DeviceGetAttribute(value, kDeviceAttributeCooperativeLaunch, device);
    default:
      return kErrorInvalidValue;
  }
}

Result DevicePrimaryCtxRetain(cuda::Context* context, cuda::Device device) {
  return api.DevicePrimaryCtxRetain(To(context), device);
}

Result DevicePrimaryCtxRelease(cuda::Device device) { return api.DevicePrimaryCtxRelease(device); }

Result CtxPushCurrent(cuda::Context context) { return api.CtxPushCurrent(To(context)); }

Result CtxPopCurrent(cuda::Context* context) { return api.CtxPopCurrent(To(context)); }

Result CtxGetDevice(cuda::Device* device) { return api.CtxGetDevice(device); }

// The options are about compiling PTX, of which there is none.
Result ModuleLoadDataEx(cuda::Module* module, const void* image, unsigned, int*, void**) {
  return api.ModuleLoadData(To(module), image);
}

Result ModuleUnload(cuda::Module module) { return api.ModuleUnload(To(module)); }

Result ModuleGetFunction(cuda::Function* function, cuda::Module module, const char* name) {
  return api.ModuleGetFunction(To(function), To(module), name);
}

// The attributes have the same numbers.
Result FuncGetAttribute(int* value, int attribute, cuda::Function function) {
  return api.FuncGetAttribute(value, attribute, To(function));
}

// A kernel may use all the shared memory there is without asking; and HIP asks for the address of a
// function of the host here.
Result FuncSetAttribute(cuda::Function function, int attribute, int value) {
  if (attribute != cuda::kFunctionAttributeMaxDynamicSharedMemory) return kErrorNotSupported;
  int available = 0;
  const Result result =
      api.FuncGetAttribute(&available, kFunctionAttributeMaxDynamicSharedMemory, To(function));
  if (result != kSuccess) return result;
  return value <= available ? kSuccess : kErrorInvalidValue;
}

Result LaunchKernel(cuda::Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                    unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_memory,
                    cuda::Stream stream, void** params, void** extra) {
  if (IsTooLarge(grid_x, block_x) || IsTooLarge(grid_y, block_y) || IsTooLarge(grid_z, block_z)) {
    return kErrorInvalidConfiguration;
  }
  return api.ModuleLaunchKernel(To(function), grid_x, grid_y, grid_z, block_x, block_y, block_z,
                                shared_memory, To(stream), params, extra);
}

Result OccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, cuda::Function function, int threads,
                                                 size_t shared_memory) {
  return api.ModuleOccupancyMaxActiveBlocksPerMultiprocessor(blocks, To(function), threads,
                                                             shared_memory);
}

// Of what attributes ask for, AMD's GPUs have cooperative grids; no clusters, no dependent
// launches.
Result LaunchKernelEx(const cuda::LaunchConfig* config, cuda::Function function, void** params,
                      void** extra) {
  bool cooperative = false;
  for (unsigned i = 0; i < config->num_attributes; ++i) {
    const cuda::LaunchAttribute& attribute = config->attributes[i];
    if (attribute.id != cuda::kLaunchAttributeCooperative) return kErrorNotSupported;
    cooperative = attribute.value.cooperative != 0;
  }
  if (!cooperative) {
    return LaunchKernel(function, config->grid_x, config->grid_y, config->grid_z, config->block_x,
                        config->block_y, config->block_z, config->shared_memory, config->stream,
                        params, extra);
  }
  return api.ModuleLaunchCooperativeKernel(
      To(function), config->grid_x, config->grid_y, config->grid_z, config->block_x,
      config->block_y, config->block_z, config->shared_memory, To(config->stream), params);
}

Result MemAlloc(cuda::DevicePointer* address, size_t nbytes) {
  void* pointer = nullptr;
  const Result result = api.Malloc(&pointer, nbytes);
  *address = reinterpret_cast<cuda::DevicePointer>(pointer);
  return result;
}

Result MemFree(cuda::DevicePointer address) { return api.Free(Pointer(address)); }

Result MemHostAlloc(void** pointer, size_t nbytes, unsigned flags) {
  return api.HostMalloc(pointer, nbytes, flags);
}

Result MemFreeHost(void* pointer) { return api.HostFree(pointer); }

Result MemcpyHtoDAsync(cuda::DevicePointer dst, const void* src, size_t nbytes,
                       cuda::Stream stream) {
  return api.MemcpyHtoDAsync(Pointer(dst), src, nbytes, To(stream));
}

Result MemcpyDtoHAsync(void* dst, cuda::DevicePointer src, size_t nbytes, cuda::Stream stream) {
  return api.MemcpyDtoHAsync(dst, Pointer(src), nbytes, To(stream));
}

Result MemcpyDtoDAsync(cuda::DevicePointer dst, cuda::DevicePointer src, size_t nbytes,
                       cuda::Stream stream) {
  return api.MemcpyDtoDAsync(Pointer(dst), Pointer(src), nbytes, To(stream));
}

Result MemsetD8Async(cuda::DevicePointer dst, unsigned char byte, size_t nbytes,
                     cuda::Stream stream) {
  return api.MemsetD8Async(Pointer(dst), byte, nbytes, To(stream));
}

Result StreamCreate(cuda::Stream* stream, unsigned flags) {
  return api.StreamCreateWithFlags(To(stream), flags);
}

Result StreamDestroy(cuda::Stream stream) { return api.StreamDestroy(To(stream)); }

Result StreamSynchronize(cuda::Stream stream) { return api.StreamSynchronize(To(stream)); }

Result StreamWaitEvent(cuda::Stream stream, cuda::Event event, unsigned flags) {
  return api.StreamWaitEvent(To(stream), To(event), flags);
}

Result StreamIsCapturing(cuda::Stream stream, int* status) {
  return api.StreamIsCapturing(To(stream), status);
}

Result EventCreate(cuda::Event* event, unsigned flags) {
  return api.EventCreateWithFlags(To(event), flags);
}

Result EventDestroy(cuda::Event event) { return api.EventDestroy(To(event)); }

Result EventRecord(cuda::Event event, cuda::Stream stream) {
  return api.EventRecord(To(event), To(stream));
}

Result EventQuery(cuda::Event event) { return api.EventQuery(To(event)); }

Result EventSynchronize(cuda::Event event) { return api.EventSynchronize(To(event)); }

Result EventElapsedTime(float* milliseconds, cuda::Event start, cuda::Event end) {
  return api.EventElapsedTime(milliseconds, To(start), To(end));
}

Result GraphCreate(cuda::Graph* graph, unsigned flags) { return api.GraphCreate(To(graph), flags); }

Result GraphDestroy(cuda::Graph graph) { return api.GraphDestroy(To(graph)); }

// HIP takes a module's function where it wants the address of a function of the host.
Result GraphAddKernelNode(cuda::GraphNode* node, cuda::Graph graph,
                          const cuda::GraphNode* dependencies, size_t num_dependencies,
                          const cuda::KernelNodeParams* params) {
  KernelNodeParams converted;
  const Result result = Convert(*params, &converted);
  if (result != kSuccess) return result;
  return api.GraphAddKernelNode(To(node), To(graph), To(dependencies), num_dependencies,
                                &converted);
}

Result GraphAddMemcpyNode(cuda::GraphNode* node, cuda::Graph graph,
                          const cuda::GraphNode* dependencies, size_t num_dependencies,
                          const cuda::Memcpy3D* params, cuda::Context) {
  if (!IsRun(*params)) return kErrorInvalidValue;
  return api.GraphAddMemcpyNode1D(To(node), To(graph), To(dependencies), num_dependencies,
                                  Pointer(params->dst_device), Pointer(params->src_device),
                                  params->width, kMemcpyDeviceToDevice);
}

Result GraphAddMemsetNode(cuda::GraphNode* node, cuda::Graph graph,
                          const cuda::GraphNode* dependencies, size_t num_dependencies,
                          const cuda::MemsetNodeParams* params, cuda::Context) {
  const MemsetNodeParams converted = Convert(*params);
  return api.GraphAddMemsetNode(To(node), To(graph), To(dependencies), num_dependencies,
                                &converted);
}

// As LaunchKernelEx.
Result GraphKernelNodeSetAttribute(cuda::GraphNode node, int attribute,
                                   const cuda::LaunchAttributeValue* value) {
  if (attribute != cuda::kLaunchAttributeCooperative) return kErrorNotSupported;
  LaunchAttributeValue converted = {};
  converted.cooperative = value->cooperative;
  return api.GraphKernelNodeSetAttribute(To(node), kLaunchAttributeCooperative, &converted);
}

Result GraphInstantiateWithFlags(cuda::GraphExec* exec, cuda::Graph graph,
                                 unsigned long long flags) {
  return api.GraphInstantiateWithFlags(To(exec), To(graph), flags);
}

Result GraphExecDestroy(cuda::GraphExec exec) { return api.GraphExecDestroy(To(exec)); }

Result GraphExecKernelNodeSetParams(cuda::GraphExec exec, cuda::GraphNode node,
                                    const cuda::KernelNodeParams* params) {
  KernelNodeParams converted;
  const Result result = Convert(*params, &converted);
  if (result != kSuccess) return result;
  return api.GraphExecKernelNodeSetParams(To(exec), To(node), &converted);
}

Result GraphExecMemcpyNodeSetParams(cuda::GraphExec exec, cuda::GraphNode node,
                                    const cuda::Memcpy3D* params, cuda::Context) {
  if (!IsRun(*params)) return kErrorInvalidValue;
  return api.GraphExecMemcpyNodeSetParams1D(To(exec), To(node), Pointer(params->dst_device),
                                            Pointer(params->src_device), params->width,
                                            kMemcpyDeviceToDevice);
}

Result GraphExecMemsetNodeSetParams(cuda::GraphExec exec, cuda::GraphNode node,
                                    const cuda::MemsetNodeParams* params, cuda::Context) {
  const MemsetNodeParams converted = Convert(*params);
  return api.GraphExecMemsetNodeSetParams(To(exec), To(node), &converted);
}

Result GraphLaunch(cuda::GraphExec exec, cuda::Stream stream) {
  return api.GraphLaunch(To(exec), To(stream));
}

}  // namespace adapter

// What is not called as the adapter is, which errors name.
struct Name {
  const char* cuda;
  const char* hip;
};
constexpr Name kNames[] = {
    {"cuDriverGetVersion", "hipRuntimeGetVersion"},
    {"cuDeviceGetCount", "hipGetDeviceCount"},
    {"cuModuleLoadDataEx", "hipModuleLoadData"},
    {"cuFuncSetAttribute", "hipFuncGetAttribute"},
    {"cuLaunchKernel", "hipModuleLaunchKernel"},
    {"cuLaunchKernelEx", "hipModuleLaunchKernel"},
    {"cuOccupancyMaxActiveBlocksPerMultiprocessor",
     "hipModuleOccupancyMaxActiveBlocksPerMultiprocessor"},
    {"cuMemAlloc", "hipMalloc"},
    {"cuMemFree", "hipFree"},
    {"cuMemHostAlloc", "hipHostMalloc"},
    {"cuMemFreeHost", "hipHostFree"},
    {"cuStreamCreate", "hipStreamCreateWithFlags"},
    {"cuEventCreate", "hipEventCreateWithFlags"},
    {"cuGraphAddMemcpyNode", "hipGraphAddMemcpyNode1D"},
    {"cuGraphExecMemcpyNodeSetParams", "hipGraphExecMemcpyNodeSetParams1D"},
};

Status NoDriver(const std::string& reason) {
  return Status(Code::kUnavailable, "no usable HIP runtime: " + reason);
}

Status Open(void** library, const char** name) {
  std::string reasons;
  for (const char* candidate : kLibraries) {
    // Not closed, not even on failure: a driver that has started threads cannot be unloaded.
    *library = dlopen(candidate, RTLD_NOW | RTLD_LOCAL);
    *name = candidate;
    if (*library != nullptr) return Status();
    const char* reason = dlerror();
    reasons += reasons.empty() ? "" : "; ";
    reasons += reason == nullptr ? candidate : reason;
  }
  return NoDriver(reasons);
}

Status Resolve(void* library, const char* library_name, const char* name, void** function) {
  *function = dlsym(library, name);
  if (*function != nullptr) return Status();
  return NoDriver(std::string(library_name) + " lacks " + name + " of HIP " +
                  DriverVersionText(AOTI_HIP_MINIMUM_VERSION));
}

}  // namespace
}  // namespace hip

// PyTorch's programs for AMD's GPUs call them CUDA devices, but not in DLPack.
const Platform kPlatform = {"HIP", kDescriptionVersion | kHip, "hsaco", 10 /* kDLROCM */};

std::string DriverFunctionName(const char* function) {
  for (const hip::Name& name : hip::kNames) {
    if (std::strcmp(name.cuda, function) == 0) return name.hip;
  }
  return std::string("hip") + (function + 2);
}

Status ReadArchitecture(const Driver& driver, cuda::Device device, std::string* architecture) {
  hip::DeviceProperties properties = {};
  const hip::Result result = hip::api.GetDevicePropertiesR0600(&properties, device);
  if (result != hip::kSuccess) {
    return driver.Failure(result, "cuGetDeviceProperties",
                          "reading the properties of device " + std::to_string(device));
  }
  // What follows the name are modes of which code runs in either, as it is compiled.
  const std::string text(properties.architecture,
                         strnlen(properties.architecture, sizeof properties.architecture));
  *architecture = text.substr(0, text.find(':'));
  return Status();
}

std::string DriverVersionText(int version) {
  return std::to_string(version / 10000000) + "." + std::to_string(version % 10000000 / 100000);
}

Status Driver::Load() {
  void* library = nullptr;
  const char* library_name = nullptr;
  AOTI_RETURN_IF_ERROR(hip::Open(&library, &library_name));
#define AOTI_HIP_RESOLVE(name, parameters) \
  AOTI_RETURN_IF_ERROR(                    \
      hip::Resolve(library, library_name, "hip" #name, reinterpret_cast<void**>(&hip::api.name)));
  AOTI_HIP_FUNCTIONS(AOTI_HIP_RESOLVE)
#undef AOTI_HIP_RESOLVE
  // The optional functions stay null: HIP has no conditional nodes, and AMD's GPUs no TMA.
#define AOTI_HIP_ADAPT(name, version, parameters) name = hip::adapter::name;
  AOTI_CUDA_FUNCTIONS(AOTI_HIP_ADAPT)
#undef AOTI_HIP_ADAPT
  AOTI_CUDA_RETURN_IF_ERROR(*this, "initializing HIP", Init, 0);
  AOTI_CUDA_RETURN_IF_ERROR(*this, "reading HIP's version", DriverGetVersion, &version_);
  if (version_ < AOTI_HIP_MINIMUM_VERSION) {
    return hip::NoDriver(std::string(library_name) + " is HIP " + DriverVersionText(version_) +
                         ", and HIP " + DriverVersionText(AOTI_HIP_MINIMUM_VERSION) +
                         " or newer is needed");
  }
  return Status();
}

}  // namespace aoti
