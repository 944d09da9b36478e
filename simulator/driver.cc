// The simulated driver's functions. Each is declared by the table in runtime/cuda_driver.h, which
// tests/runtime/cuda_driver_test.cc compares with cuda.h.

#include "runtime/driver.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <type_traits>
#include <utility>

#include "simulator/limits.h"
#include "simulator/objects.h"
#include "simulator/tensor_map.h"

namespace simulator {

using namespace aoti::cuda;  // NOLINT(google-build-using-namespace): these are its functions

namespace {

constexpr Result kErrorFileNotFound = 301;
constexpr Result kErrorNotSupported = 801;
constexpr Result kErrorUnknown = 999;

// The major number of the first compute capability that has them.
constexpr int kDependentLaunchMajor = 9;
constexpr int kTensorMapMajor = 9;

constexpr int kAttributeStaticSharedMemory = 1;
constexpr int kAttributeRegisters = 4;

thread_local std::vector<CUctx_st*> current;

CUctx_st* Current() { return current.empty() ? nullptr : current.back(); }

// Of drivers, too, these work whatever has happened in a context.
bool WorksAfterFault(const char* function) {
  for (const char* prefix : {"cuInit", "cuDriver", "cuDevice", "cuCtx"}) {
    if (std::strncmp(function, prefix, std::strlen(prefix)) == 0) return true;
  }
  return false;
}

// What every function does first: it takes the lock, counts the call and sees whether it is to
// fail.
class Call {
 public:
  explicit Call(const char* function) : machine_(Machine::Get()), lock_(machine_.mutex) {
    injected_ = machine_.Count(function);
    if (injected_ != kSuccess || std::strcmp(function, "cuInit") == 0) return;
    if (!machine_.initialized) {
      injected_ = kErrorNotInitialized;
    } else if (machine_.process != getpid()) {
      injected_ = machine_.Misuse(kErrorNotInitialized,
                                  "a process forked from one that uses the driver cannot use it");
    } else if (Current() != nullptr && !WorksAfterFault(function)) {
      injected_ = Current()->sticky;
    }
  }

  // Not 0 where the call is to fail.
  Result injected() const { return injected_; }
  Machine& machine() const { return machine_; }

 private:
  Machine& machine_;
  const std::lock_guard<std::recursive_mutex> lock_;
  Result injected_ = kSuccess;
};

#define SIMULATOR_CALL(name)         \
  const Call call(name);             \
  Machine& machine = call.machine(); \
  static_cast<void>(machine);        \
  if (call.injected() != kSuccess) return call.injected()

// For functions that release something or wait: they do so even where they report a failure.
#define SIMULATOR_RELEASING_CALL(name) \
  const Call call(name);               \
  Machine& machine = call.machine()

#define SIMULATOR_NEED_CONTEXT(name)                                                 \
  CUctx_st* const context = Current();                                               \
  if (context == nullptr) {                                                          \
    return machine.Misuse(kErrorInvalidContext, std::string(name) + ": no context"); \
  }

template <typename T>
bool Live(const Table<T>& table, T* handle) {
  return table.count(handle) != 0;
}

// The stream a handle means, or null with a misuse recorded.
CUstream_st* Resolve(Machine& machine, Stream handle, const char* function) {
  CUctx_st* context = Current();
  if (context == nullptr) {
    machine.Misuse(0, std::string(function) + ": no context");
    return nullptr;
  }
  const auto number = reinterpret_cast<uintptr_t>(handle);
  if (number == 0 || number == kStreamLegacy) return context->legacy;
  if (number == kStreamPerThread) return machine.PerThread(context);
  if (!Live(machine.streams, handle) || handle->context != context) {
    machine.Misuse(0, std::string(function) + ": a stream that is not of the current context");
    return nullptr;
  }
  return handle;
}

template <typename T>
T* Create(Table<T>* table, CUctx_st* context) {
  auto object = std::make_unique<T>();
  object->context = context;
  T* handle = object.get();
  table->emplace(handle, std::move(object));
  return handle;
}

CUctx_st* NewContext(Machine& machine, int device, bool primary) {
  auto object = std::make_unique<CUctx_st>();
  CUctx_st* context = object.get();
  context->device = device;
  context->primary = primary;
  context->references = 1;
  machine.contexts.emplace(context, std::move(object));
  context->legacy = Create(&machine.streams, context);
  context->legacy->is_default = true;
  return context;
}

// Destroys what is left in a context, which is a misuse.
template <typename T>
void Clear(Machine& machine, Table<T>* table, CUctx_st* context, const char* what) {
  for (auto entry = table->begin(); entry != table->end();) {
    if (entry->second->context != context) {
      ++entry;
      continue;
    }
    machine.Misuse(0, std::string("a context is destroyed before its ") + what);
    entry = table->erase(entry);
  }
}

void ClearMemory(Machine& machine, CUctx_st* context) {
  std::vector<DevicePointer> left;
  for (const auto& [address, block] : machine.memory.blocks()) {
    if (block.context == context) left.push_back(address);
  }
  for (const DevicePointer address : left) {
    machine.Misuse(0, "a context is destroyed before its device memory: " +
                          machine.memory.blocks().at(address).Name());
    machine.memory.Free(address);
  }
  for (auto entry = machine.host_memory.begin(); entry != machine.host_memory.end();) {
    if (entry->second.context != context) {
      ++entry;
      continue;
    }
    machine.Misuse(0, "a context is destroyed before its host memory");
    std::free(entry->first);
    entry = machine.host_memory.erase(entry);
  }
}

void DestroyContext(Machine& machine, CUctx_st* context) {
  // These belong to the context and not to the caller.
  machine.Drain(context->legacy);
  machine.streams.erase(context->legacy);
  for (const auto& [thread, stream] : context->per_thread) {
    machine.Drain(stream);
    machine.streams.erase(stream);
  }
  Clear(machine, &machine.streams, context, "streams");
  Clear(machine, &machine.events, context, "events");
  Clear(machine, &machine.graph_execs, context, "graph executables");
  Clear(machine, &machine.graphs, context, "graphs");
  Clear(machine, &machine.modules, context, "modules");
  ClearMemory(machine, context);
  machine.contexts.erase(context);
}

// What the caller gives as a kernel's parameters: a pointer to each, or one buffer.
struct GivenParameters {
  void** each;
  void** extra;
};

constexpr uintptr_t kExtraBuffer = 1;  // CU_LAUNCH_PARAM_BUFFER_POINTER
constexpr uintptr_t kExtraSize = 2;    // CU_LAUNCH_PARAM_BUFFER_SIZE

// "3 parameters of 24 bytes: in_ptr0 (8), out_ptr0 (8), xnumel (4)".
std::string Layout(const KernelImage& image) {
  std::string text = std::to_string(image.params.size()) + " parameters of " +
                     std::to_string(image.ParameterBytes()) + " bytes";
  for (size_t i = 0; i < image.params.size(); ++i) {
    const Parameter& parameter = image.params[i];
    text += i == 0 ? ": " : ", ";
    text += parameter.name.empty() ? std::to_string(i) : parameter.name;
    text += " (" + std::to_string(parameter.size) + ")";
  }
  return text;
}

// Copies the parameters, "" or what is wrong with them.
std::string CopyParameters(Machine& machine, const KernelImage& image, GivenParameters given,
                           std::vector<std::vector<unsigned char>>* values) {
  values->clear();
  if (given.extra != nullptr) {
    const unsigned char* buffer = nullptr;
    size_t nbytes = 0;
    for (void** entry = given.extra; *entry != nullptr; entry += 2) {
      const auto key = reinterpret_cast<uintptr_t>(entry[0]);
      if (key == kExtraBuffer) buffer = static_cast<const unsigned char*>(entry[1]);
      if (key == kExtraSize) nbytes = *static_cast<const size_t*>(entry[1]);
    }
    if (given.each != nullptr) return "parameters are given twice, one by one and as a buffer";
    if (nbytes != image.ParameterBytes() || buffer == nullptr) {
      return "the parameter buffer has " + std::to_string(nbytes) + " bytes, the kernel takes " +
             Layout(image);
    }
    for (const Parameter& parameter : image.params) {
      values->emplace_back(buffer + parameter.offset, buffer + parameter.offset + parameter.size);
    }
    return "";
  }
  for (size_t i = 0; i < image.params.size(); ++i) {
    void* from = nullptr;
    values->emplace_back(image.params[i].size);
    if (given.each == nullptr || !machine.ReadHost(given.each + i, &from, sizeof from) ||
        !machine.ReadHost(from, values->back().data(), image.params[i].size)) {
      return image.Argument(i) + " is not there to be read; the kernel takes " + Layout(image);
    }
  }
  return "";
}

// A pointer that no device memory can be at, which is to say, arguments in a wrong order or one too
// few; or one to another device's memory.
std::string CheckPointers(const Machine& machine, const BoundLaunch& launch) {
  const KernelImage& image = launch.function->image;
  for (size_t i = 0; i < image.params.size(); ++i) {
    DevicePointer address = 0;
    if (!image.params[i].pointer || launch.params[i].size() != sizeof address) continue;
    std::memcpy(&address, launch.params[i].data(), sizeof address);
    if (address == 0) continue;
    if (!machine.memory.Owns(address)) {
      return image.Argument(i) + " is a pointer, and its value is no address of device memory; " +
             "the kernel takes " + Layout(image);
    }
    const Block* block = machine.memory.Find(address);
    const int device = launch.context->device;
    if (block == nullptr || block->context->device == device) continue;
    return image.Argument(i) + " points into " + block->Name() + " of device " +
           std::to_string(block->context->device) + ", and the kernel runs on device " +
           std::to_string(device);
  }
  return "";
}

// Checks a launch, which reports call `origin`, and copies its parameters.
Result Bind(Machine& machine, Function function, const Shape& shape, GivenParameters given,
            const std::string& origin, BoundLaunch* launch) {
  if (!machine.IsLoaded(function) || function->context != Current()) {
    return machine.Misuse(kErrorInvalidHandle,
                          origin +
                              ": the function is of no module that is loaded in the current "
                              "context");
  }
  const KernelImage& image = function->image;
  const auto fault = [&](Result result, const std::string& what) {
    return machine.Misuse(result, "kernel " + image.name + ", " + origin + ": " + what);
  };
  const Excess excess = CheckShape(LimitsOf(machine.major, machine.minor), image, shape,
                                   function->max_shared, function->any_cluster);
  if (excess.result != kSuccess) return fault(excess.result, excess.what);
  launch->function = function;
  launch->context = function->context;
  launch->kernel = image.name;
  std::memcpy(launch->grid, shape.grid, sizeof launch->grid);
  std::memcpy(launch->block, shape.block, sizeof launch->block);
  launch->cluster = shape.cluster;
  launch->shared_memory = shape.shared;
  launch->cooperative = shape.cooperative;
  launch->dependent = shape.dependent;
  std::string wrong = CopyParameters(machine, image, given, &launch->params);
  if (wrong.empty()) wrong = CheckPointers(machine, *launch);
  return wrong.empty() ? kSuccess : fault(kErrorInvalidValue, wrong);
}

// Binds the parameters of a node whose attributes are those of `like`.
Result BindNode(Machine& machine, const KernelNodeParams& params, const BoundLaunch& like,
                BoundLaunch* launch) {
  if (params.kernel != nullptr || params.context != nullptr) {
    return machine.Misuse(kErrorInvalidValue, "kernel node: only functions are supported");
  }
  const Shape shape = {{params.grid_x, params.grid_y, params.grid_z},
                       {params.block_x, params.block_y, params.block_z},
                       like.cluster,
                       params.shared_memory,
                       like.cooperative,
                       like.dependent};
  return Bind(machine, params.function, shape, {params.params, params.extra},
              "as the node of a graph", launch);
}

Result Launch(Machine& machine, Stream handle, const char* name, Function function,
              const Shape& shape, GivenParameters given) {
  CUstream_st* stream = Resolve(machine, handle, name);
  if (stream == nullptr) return kErrorInvalidHandle;
  BoundLaunch launch;
  launch.number = ++machine.launches;
  launch.origin = "launch " + std::to_string(launch.number);
  const Result result = Bind(machine, function, shape, given, launch.origin, &launch);
  if (result != kSuccess) return result;
  machine.Enqueue(stream, [&machine, launch = std::move(launch)] { machine.Execute(launch); });
  return kSuccess;
}

// Adds a node behind its dependencies; nodes run in the order they were added, which is one of the
// orders that the dependencies allow.
Result AddNode(Machine& machine, GraphNode* node, Graph graph, const GraphNode* dependencies,
               size_t num_dependencies, CUgraphNode_st contents) {
  if (!Live(machine.graphs, graph)) {
    return machine.Misuse(kErrorInvalidHandle, "a node for a graph that is not live");
  }
  for (size_t i = 0; i < num_dependencies; ++i) {
    if (dependencies[i] == nullptr || dependencies[i]->graph != graph) {
      return machine.Misuse(kErrorInvalidValue, "a node depends on one of another graph");
    }
  }
  // A node without dependencies may get one afterwards.
  contents.chained = num_dependencies != 0 || graph->nodes.empty();
  if (num_dependencies > 1 ||
      (num_dependencies == 1 && dependencies[0] != graph->nodes.back().get())) {
    return machine.Misuse(kErrorInvalidValue, "only graphs that are chains are supported");
  }
  contents.graph = graph;
  contents.index = graph->nodes.size();
  graph->nodes.push_back(std::make_unique<CUgraphNode_st>(std::move(contents)));
  *node = graph->nodes.back().get();
  return kSuccess;
}

Result CopyNode(Machine& machine, const Memcpy3D& params, CUgraphNode_st* node) {
  if (params.src_memory_type != kMemoryTypeDevice || params.dst_memory_type != kMemoryTypeDevice ||
      params.height != 1 || params.depth != 1 || params.src_x != 0 || params.dst_x != 0 ||
      params.width == 0) {
    return machine.Misuse(kErrorInvalidValue, "copy node: only one row on the device is supported");
  }
  node->kind = CUgraphNode_st::kCopy;
  node->dst = params.dst_device;
  node->src = params.src_device;
  node->nbytes = params.width;
  if (!machine.CheckRange(node->dst, node->nbytes, "copy node") ||
      !machine.CheckRange(node->src, node->nbytes, "copy node")) {
    return kErrorInvalidValue;
  }
  return kSuccess;
}

Result FillNode(Machine& machine, const MemsetNodeParams& params, CUgraphNode_st* node) {
  if (params.element_size != 1 || params.height != 1 || params.value > 255 || params.width == 0) {
    return machine.Misuse(kErrorInvalidValue, "fill node: only one row of bytes is supported");
  }
  node->kind = CUgraphNode_st::kFill;
  node->dst = params.dst;
  node->byte = static_cast<unsigned char>(params.value);
  node->nbytes = params.width;
  return machine.CheckRange(node->dst, node->nbytes, "fill node") ? kSuccess : kErrorInvalidValue;
}

// The nodes of a graph, those inside conditional ones with it.
// NOLINTNEXTLINE(misc-no-recursion): graphs are inside graphs
std::vector<CUgraphNode_st> CopyNodes(const CUgraph_st& graph) {
  std::vector<CUgraphNode_st> nodes;
  for (const auto& node : graph.nodes) {
    nodes.push_back(*node);
    if (node->inside != nullptr) nodes.back().steps = CopyNodes(*node->inside);
  }
  return nodes;
}

// NOLINTNEXTLINE(misc-no-recursion): graphs are inside graphs
bool HasWrongCluster(const std::vector<CUgraphNode_st>& nodes) {
  for (const CUgraphNode_st& node : nodes) {
    const bool wrong = node.kind == CUgraphNode_st::kKernel &&
                       node.launch.cluster != node.launch.function->image.cluster;
    if (wrong || HasWrongCluster(node.steps)) return true;
  }
  return false;
}

// NOLINTNEXTLINE(misc-no-recursion): graphs are inside graphs
bool IsNoChain(const std::vector<CUgraphNode_st>& nodes) {
  return std::any_of(nodes.begin(), nodes.end(), [](const CUgraphNode_st& node) {
    return !node.chained || IsNoChain(node.steps);
  });
}

bool HasConditions(const std::vector<CUgraphNode_st>& nodes) {
  return std::any_of(nodes.begin(), nodes.end(), [](const CUgraphNode_st& node) {
    return node.kind == CUgraphNode_st::kConditional;
  });
}

// Makes the conditions of a graph known, none of them set.
// NOLINTNEXTLINE(misc-no-recursion): graphs are inside graphs
void Forget(const std::vector<CUgraphNode_st>& nodes,
            std::map<ConditionalHandle, std::optional<bool>>* conditions) {
  for (const CUgraphNode_st& node : nodes) {
    if (node.kind != CUgraphNode_st::kConditional) continue;
    (*conditions)[node.handle] = std::nullopt;
    Forget(node.steps, conditions);
  }
}

// With the graphs inside its conditional nodes.
// NOLINTNEXTLINE(misc-no-recursion): graphs are inside graphs
void DestroyGraph(Machine& machine, CUgraph_st* graph) {
  for (const auto& node : graph->nodes) {
    if (node->inside != nullptr) DestroyGraph(machine, node->inside);
  }
  machine.graphs.erase(graph);
}

// The node of an executable that was made of `node`, or null with a misuse recorded.
CUgraphNode_st* ExecNode(Machine& machine, GraphExec exec, GraphNode node,
                         CUgraphNode_st::Kind kind) {
  if (!Live(machine.graph_execs, exec) || !Live(machine.graphs, exec->graph) || node == nullptr ||
      node->graph != exec->graph || exec->nodes[node->index].kind != kind) {
    machine.Misuse(0, "an update of a node that the graph executable does not have");
    return nullptr;
  }
  return &exec->nodes[node->index];
}

// Told once, so that nobody takes what follows for a GPU's work.
void Announce(Machine& machine) {
  const char* quiet = std::getenv("SIMULATOR_QUIET");
  if (machine.announced || (quiet != nullptr && std::strcmp(quiet, "1") == 0)) return;
  machine.announced = true;
  std::fprintf(stderr,
               "simulator: there is no GPU at work: kernels for compute capability %d.%d are "
               "simulated on the CPU\n",
               machine.major, machine.minor);
}

// Whether memory to copy from or to is the host's; a misuse was recorded if it is the device's.
bool IsHost(Machine& machine, const void* pointer, const char* function) {
  if (!machine.memory.Owns(reinterpret_cast<DevicePointer>(pointer))) return true;
  machine.Misuse(0, std::string(function) + ": the host's memory is an address of the device");
  return false;
}

// Lets the executor process read machine code or PTX; reads a text by itself.
Result ReadModule(Machine& machine, const void* image, std::vector<KernelImage>* kernels,
                  std::string* fault) {
  size_t nbytes = 0;
  const ImageKind kind = Identify(image, &nbytes);
  const std::string bytes(static_cast<const char*>(image), nbytes);
  if (kind == ImageKind::kText) {
    return ParseImage(bytes, kernels, fault) ? kSuccess : kErrorInvalidImage;
  }
  if (kind == ImageKind::kUnknown) {
    *fault = "neither machine code (ELF) nor PTX";
    return kErrorInvalidImage;
  }
  Announce(machine);
  const std::string head = "module " + std::to_string(++machine.modules_loaded);
  const ExecutorProcess::Reply reply = machine.process_executor.Ask(&machine.memory, head, bytes);
  if (reply.head == "module" && ParseImage(reply.body, kernels, fault)) return kSuccess;
  *fault = reply.head == "module" ? "the executor's answer: " + *fault : reply.body;
  // Not wrong in the caller's eyes, so it is told what the caller may not pass on.
  if (reply.head != "refused") machine.Misuse(0, "loading a module: " + *fault);
  if (reply.head == "refused") return kErrorInvalidImage;
  return reply.head == "failed" ? kErrorFileNotFound : kErrorUnknown;
}

void WriteLog(const std::string& text, unsigned num_options, const int* options, void** values) {
  char* log = nullptr;
  size_t size = 0;
  for (unsigned i = 0; i < num_options; ++i) {
    if (options[i] == kJitErrorLogBuffer) log = static_cast<char*>(values[i]);
    if (options[i] == kJitErrorLogBufferSize) size = reinterpret_cast<size_t>(values[i]);
  }
  if (log == nullptr || size == 0) return;
  std::strncpy(log, text.c_str(), size - 1);
  log[size - 1] = '\0';
}

}  // namespace

namespace entry {

Result Init(unsigned) {
  SIMULATOR_CALL("cuInit");
  if (!machine.environment_fault.empty()) {
    return machine.Misuse(kErrorInvalidValue, machine.environment_fault);
  }
  if (machine.devices == 0) return kErrorNoDevice;
  if (machine.initialized && machine.process != getpid()) return kErrorNotInitialized;
  machine.initialized = true;
  machine.process = getpid();
  return kSuccess;
}

Result DriverGetVersion(int* version) {
  SIMULATOR_CALL("cuDriverGetVersion");
  *version = machine.driver_version;
  return kSuccess;
}

Result GetErrorName(Result error, const char** text) {
  const ErrorText* row = FindError(error);
  return row == nullptr ? (*text = nullptr, kErrorInvalidValue) : (*text = row->name, kSuccess);
}

Result GetErrorString(Result error, const char** text) {
  const ErrorText* row = FindError(error);
  return row == nullptr ? (*text = nullptr, kErrorInvalidValue) : (*text = row->text, kSuccess);
}

Result DeviceGet(Device* device, int ordinal) {
  SIMULATOR_CALL("cuDeviceGet");
  if (ordinal < 0 || ordinal >= machine.devices) return kErrorInvalidDevice;
  *device = ordinal;
  return kSuccess;
}

Result DeviceGetCount(int* count) {
  SIMULATOR_CALL("cuDeviceGetCount");
  *count = machine.devices;
  return kSuccess;
}

Result DeviceGetName(char* name, int size, Device) {
  SIMULATOR_CALL("cuDeviceGetName");
  std::strncpy(name, SIMULATOR_DEVICE_NAME, static_cast<size_t>(size));
  return kSuccess;
}

Result DeviceGetAttribute(int* value, int attribute, Device) {
  SIMULATOR_CALL("cuDeviceGetAttribute");
  if (attribute == kDeviceAttributeMajor) return *value = machine.major, kSuccess;
  if (attribute == kDeviceAttributeMinor) return *value = machine.minor, kSuccess;
  if (attribute == kDeviceAttributeCooperativeLaunch) return *value = 1, kSuccess;
  if (attribute == kDeviceAttributeMultiprocessors) {
    const uint32_t count = LimitsOf(machine.major, machine.minor).multiprocessors;
    return *value = static_cast<int>(count), kSuccess;
  }
  return machine.Misuse(kErrorInvalidValue, "cuDeviceGetAttribute: an unknown attribute");
}

Result DevicePrimaryCtxRetain(Context* context, Device device) {
  SIMULATOR_CALL("cuDevicePrimaryCtxRetain");
  if (device < 0 || device >= machine.devices) return kErrorInvalidDevice;
  CUctx_st*& primary = machine.primary[device];
  if (primary == nullptr) {
    primary = NewContext(machine, device, true);
  } else {
    ++primary->references;
  }
  *context = primary;
  return kSuccess;
}

Result DevicePrimaryCtxRelease(Device device) {
  SIMULATOR_RELEASING_CALL("cuDevicePrimaryCtxRelease");
  CUctx_st*& primary = machine.primary[device];
  if (primary == nullptr) {
    return machine.Misuse(kErrorInvalidContext, "a primary context is released too often");
  }
  if (--primary->references == 0) {
    DestroyContext(machine, primary);
    primary = nullptr;
  }
  return call.injected();
}

Result CtxPushCurrent(Context context) {
  SIMULATOR_CALL("cuCtxPushCurrent");
  if (!Live(machine.contexts, context)) {
    return machine.Misuse(kErrorInvalidContext, "cuCtxPushCurrent: the context is not live");
  }
  current.push_back(context);
  return kSuccess;
}

Result CtxPopCurrent(Context* context) {
  SIMULATOR_RELEASING_CALL("cuCtxPopCurrent");
  if (current.empty()) return machine.Misuse(kErrorInvalidContext, "cuCtxPopCurrent: no context");
  *context = current.back();
  current.pop_back();
  return call.injected();
}

Result CtxGetDevice(Device* device) {
  SIMULATOR_CALL("cuCtxGetDevice");
  SIMULATOR_NEED_CONTEXT("cuCtxGetDevice");
  *device = context->device;
  return kSuccess;
}

Result ModuleLoadDataEx(Module* module, const void* image, unsigned num_options, int* options,
                        void** values) {
  SIMULATOR_CALL("cuModuleLoadDataEx");
  SIMULATOR_NEED_CONTEXT("cuModuleLoadDataEx");
  std::vector<KernelImage> kernels;
  std::string fault;
  const Result result = ReadModule(machine, image, &kernels, &fault);
  if (result != kSuccess) {
    WriteLog(fault, num_options, options, values);
    return result;
  }
  for (const KernelImage& kernel : kernels) {
    if (!Runs(kernel, machine.major, machine.minor)) return kErrorNoBinaryForGpu;
  }
  const Limits limits = LimitsOf(machine.major, machine.minor);
  *module = Create(&machine.modules, context);
  for (KernelImage& kernel : kernels) {
    auto function = std::make_unique<CUfunc_st>();
    function->context = context;
    function->max_shared = limits.shared_default - std::min(limits.shared_default, kernel.shared);
    function->image = std::move(kernel);
    (*module)->functions.push_back(std::move(function));
  }
  return kSuccess;
}

Result ModuleUnload(Module module) {
  SIMULATOR_RELEASING_CALL("cuModuleUnload");
  if (!Live(machine.modules, module) || module->context != Current()) {
    return machine.Misuse(kErrorInvalidHandle, "cuModuleUnload: not a module of this context");
  }
  for (const auto& function : module->functions) {
    if (!function->image.id.empty()) {
      machine.process_executor.Tell("unload " + function->image.id);
    }
  }
  machine.modules.erase(module);
  return call.injected();
}

Result ModuleGetFunction(Function* function, Module module, const char* name) {
  SIMULATOR_CALL("cuModuleGetFunction");
  if (!Live(machine.modules, module)) {
    return machine.Misuse(kErrorInvalidHandle, "cuModuleGetFunction: not a module");
  }
  for (const auto& candidate : module->functions) {
    if (candidate->image.name == name) return *function = candidate.get(), kSuccess;
  }
  return kErrorNotFound;
}

Result FuncGetAttribute(int* value, int attribute, Function function) {
  SIMULATOR_CALL("cuFuncGetAttribute");
  switch (attribute) {
    case kFunctionAttributeMaxThreads:
      return *value = static_cast<int>(function->image.threads), kSuccess;
    case kFunctionAttributeMaxDynamicSharedMemory:
      return *value = static_cast<int>(function->max_shared), kSuccess;
    case kAttributeStaticSharedMemory:
      return *value = static_cast<int>(function->image.shared), kSuccess;
    case kAttributeRegisters:
      return *value = static_cast<int>(function->image.registers), kSuccess;
    default:
      return machine.Misuse(kErrorInvalidValue, "cuFuncGetAttribute: an unknown attribute");
  }
}

Result FuncSetAttribute(Function function, int attribute, int value) {
  SIMULATOR_CALL("cuFuncSetAttribute");
  if (attribute == kFunctionAttributeNonPortableClusters) {
    function->any_cluster = value != 0;
    return kSuccess;
  }
  if (attribute != kFunctionAttributeMaxDynamicSharedMemory) {
    return machine.Misuse(kErrorInvalidValue, "cuFuncSetAttribute: an unknown attribute");
  }
  const uint32_t most = LimitsOf(machine.major, machine.minor).shared_optin;
  if (value < 0 || static_cast<uint32_t>(value) + function->image.shared > most) {
    return kErrorInvalidValue;  // without a report: it is a way to ask
  }
  function->max_shared = static_cast<uint32_t>(value);
  return kSuccess;
}

Result FuncGetParamInfo(Function function, size_t index, size_t* offset, size_t* nbytes) {
  SIMULATOR_CALL("cuFuncGetParamInfo");
  const std::vector<Parameter>& params = function->image.params;
  if (index >= params.size()) return kErrorInvalidValue;  // without a report: a way to count them
  *offset = params[index].offset;
  if (nbytes != nullptr) *nbytes = params[index].size;
  return kSuccess;
}

Result FuncLoad(Function) {
  SIMULATOR_CALL("cuFuncLoad");
  return kSuccess;
}

Result LaunchKernel(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                    unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_memory,
                    Stream stream, void** params, void** extra) {
  SIMULATOR_CALL("cuLaunchKernel");
  const Shape shape = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, 1, shared_memory};
  return Launch(machine, stream, "cuLaunchKernel", function, shape, {params, extra});
}

Result OccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Function function, int threads,
                                                 size_t shared_memory) {
  SIMULATOR_CALL("cuOccupancyMaxActiveBlocksPerMultiprocessor");
  if (threads <= 0) return machine.Misuse(kErrorInvalidValue, "occupancy of an empty block");
  const Limits limits = LimitsOf(machine.major, machine.minor);
  *blocks = static_cast<int>(
      ResidentBlocks(limits, function->image, static_cast<uint64_t>(threads), shared_memory));
  return kSuccess;
}

Result LaunchKernelEx(const LaunchConfig* config, Function function, void** params, void** extra) {
  SIMULATOR_CALL("cuLaunchKernelEx");
  Shape shape = {{config->grid_x, config->grid_y, config->grid_z},
                 {config->block_x, config->block_y, config->block_z},
                 1,
                 config->shared_memory};
  for (unsigned i = 0; i < config->num_attributes; ++i) {
    const LaunchAttribute& attribute = config->attributes[i];
    if (attribute.id == kLaunchAttributeClusterDimension) {
      shape.cluster = attribute.value.cluster.x;
    } else if (attribute.id == kLaunchAttributeCooperative) {
      shape.cooperative = attribute.value.cooperative != 0;
    } else if (attribute.id == kLaunchAttributeProgrammaticStreamSerialization) {
      shape.dependent = attribute.value.programmatic != 0;
    } else {
      return machine.Misuse(kErrorInvalidValue, "cuLaunchKernelEx: an unknown attribute");
    }
  }
  if (shape.dependent && machine.major < kDependentLaunchMajor) {
    return machine.Misuse(kErrorNotSupported,
                          "cuLaunchKernelEx: the device has no programmatic dependent launch");
  }
  return Launch(machine, config->stream, "cuLaunchKernelEx", function, shape, {params, extra});
}

Result MemAlloc(DevicePointer* address, size_t nbytes) {
  SIMULATOR_CALL("cuMemAlloc");
  SIMULATOR_NEED_CONTEXT("cuMemAlloc");
  if (nbytes == 0) return machine.Misuse(kErrorInvalidValue, "cuMemAlloc: 0 bytes");
  const std::string fault = machine.memory.Reserve();
  if (!fault.empty()) return machine.Misuse(kErrorOutOfMemory, fault);
  *address = machine.memory.Allocate(context, nbytes);
  return *address == 0 ? kErrorOutOfMemory : kSuccess;
}

Result MemFree(DevicePointer address) {
  SIMULATOR_RELEASING_CALL("cuMemFree");
  const auto found = machine.memory.blocks().find(address);
  if (found == machine.memory.blocks().end()) {
    std::string what = machine.memory.Fault(address, 1);
    if (what.empty()) what = "is not the beginning of an allocation";
    return machine.Misuse(kErrorInvalidValue, "cuMemFree: the address " + what);
  }
  if (found->second.context != Current()) {
    return machine.Misuse(kErrorInvalidValue,
                          "cuMemFree: " + found->second.Name() + " is not of the current context");
  }
  machine.memory.Free(address);
  return call.injected();
}

Result MemHostAlloc(void** pointer, size_t nbytes, unsigned) {
  SIMULATOR_CALL("cuMemHostAlloc");
  SIMULATOR_NEED_CONTEXT("cuMemHostAlloc");
  *pointer = std::malloc(nbytes);
  if (*pointer == nullptr) return kErrorOutOfMemory;
  machine.host_memory[*pointer] = {context, nbytes};
  return kSuccess;
}

Result MemFreeHost(void* pointer) {
  SIMULATOR_RELEASING_CALL("cuMemFreeHost");
  if (machine.host_memory.erase(pointer) == 0) {
    return machine.Misuse(kErrorInvalidValue, "cuMemFreeHost: not memory of cuMemHostAlloc");
  }
  std::free(pointer);
  return call.injected();
}

Result MemcpyHtoDAsync(DevicePointer dst, const void* src, size_t nbytes, Stream handle) {
  SIMULATOR_CALL("cuMemcpyHtoDAsync");
  CUstream_st* stream = Resolve(machine, handle, "cuMemcpyHtoDAsync");
  if (stream == nullptr) return kErrorInvalidHandle;
  if (!machine.CheckRange(dst, nbytes, "cuMemcpyHtoDAsync") ||
      !IsHost(machine, src, "cuMemcpyHtoDAsync")) {
    return kErrorInvalidValue;
  }
  machine.Enqueue(stream, [&machine, context = stream->context, dst, src, nbytes] {
    machine.ExecuteStore(context, dst, src, nbytes);
  });
  return kSuccess;
}

Result MemcpyDtoHAsync(void* dst, DevicePointer src, size_t nbytes, Stream handle) {
  SIMULATOR_CALL("cuMemcpyDtoHAsync");
  CUstream_st* stream = Resolve(machine, handle, "cuMemcpyDtoHAsync");
  if (stream == nullptr) return kErrorInvalidHandle;
  if (!machine.CheckRange(src, nbytes, "cuMemcpyDtoHAsync") ||
      !IsHost(machine, dst, "cuMemcpyDtoHAsync")) {
    return kErrorInvalidValue;
  }
  machine.Enqueue(stream, [&machine, context = stream->context, dst, src, nbytes] {
    machine.ExecuteLoad(context, dst, src, nbytes);
  });
  return kSuccess;
}

Result MemcpyDtoDAsync(DevicePointer dst, DevicePointer src, size_t nbytes, Stream handle) {
  SIMULATOR_CALL("cuMemcpyDtoDAsync");
  CUstream_st* stream = Resolve(machine, handle, "cuMemcpyDtoDAsync");
  if (stream == nullptr) return kErrorInvalidHandle;
  if (!machine.CheckRange(dst, nbytes, "cuMemcpyDtoDAsync") ||
      !machine.CheckRange(src, nbytes, "cuMemcpyDtoDAsync")) {
    return kErrorInvalidValue;
  }
  machine.Enqueue(stream, [&machine, context = stream->context, dst, src, nbytes] {
    machine.ExecuteCopy(context, dst, src, nbytes);
  });
  return kSuccess;
}

Result MemsetD8Async(DevicePointer dst, unsigned char byte, size_t nbytes, Stream handle) {
  SIMULATOR_CALL("cuMemsetD8Async");
  CUstream_st* stream = Resolve(machine, handle, "cuMemsetD8Async");
  if (stream == nullptr) return kErrorInvalidHandle;
  if (!machine.CheckRange(dst, nbytes, "cuMemsetD8Async")) return kErrorInvalidValue;
  machine.Enqueue(stream, [&machine, context = stream->context, dst, byte, nbytes] {
    machine.ExecuteFill(context, dst, byte, nbytes);
  });
  return kSuccess;
}

Result StreamCreate(Stream* stream, unsigned flags) {
  SIMULATOR_CALL("cuStreamCreate");
  SIMULATOR_NEED_CONTEXT("cuStreamCreate");
  *stream = Create(&machine.streams, context);
  (*stream)->blocking = (flags & kStreamNonBlocking) == 0;
  return kSuccess;
}

Result StreamDestroy(Stream stream) {
  SIMULATOR_RELEASING_CALL("cuStreamDestroy");
  if (!Live(machine.streams, stream) || stream->is_default) {
    return machine.Misuse(kErrorInvalidHandle, "cuStreamDestroy: not a stream");
  }
  machine.Drain(stream);
  machine.streams.erase(stream);
  return call.injected();
}

Result StreamSynchronize(Stream handle) {
  SIMULATOR_RELEASING_CALL("cuStreamSynchronize");
  CUstream_st* stream = Resolve(machine, handle, "cuStreamSynchronize");
  if (stream == nullptr) return kErrorInvalidHandle;
  machine.Drain(stream);
  return call.injected() != kSuccess ? call.injected() : stream->context->sticky;
}

Result StreamWaitEvent(Stream handle, Event event, unsigned) {
  SIMULATOR_CALL("cuStreamWaitEvent");
  CUstream_st* stream = Resolve(machine, handle, "cuStreamWaitEvent");
  if (stream == nullptr) return kErrorInvalidHandle;
  if (!Live(machine.events, event)) {
    return machine.Misuse(kErrorInvalidHandle, "cuStreamWaitEvent: not an event");
  }
  const Position position = event->position;
  machine.Enqueue(stream, [&machine, position] { machine.Drain(position); });
  return kSuccess;
}

Result StreamIsCapturing(Stream handle, int* status) {
  SIMULATOR_CALL("cuStreamIsCapturing");
  CUstream_st* stream = Resolve(machine, handle, "cuStreamIsCapturing");
  if (stream == nullptr) return kErrorInvalidHandle;
  *status = stream->capturing ? 1 : 0;
  return kSuccess;
}

Result EventCreate(Event* event, unsigned) {
  SIMULATOR_CALL("cuEventCreate");
  SIMULATOR_NEED_CONTEXT("cuEventCreate");
  *event = Create(&machine.events, context);
  return kSuccess;
}

Result EventDestroy(Event event) {
  SIMULATOR_RELEASING_CALL("cuEventDestroy");
  if (machine.events.erase(event) == 0) {
    return machine.Misuse(kErrorInvalidHandle, "cuEventDestroy: not an event");
  }
  return call.injected();
}

Result EventRecord(Event event, Stream handle) {
  SIMULATOR_CALL("cuEventRecord");
  CUstream_st* stream = Resolve(machine, handle, "cuEventRecord");
  if (stream == nullptr) return kErrorInvalidHandle;
  if (!Live(machine.events, event) || event->context != stream->context) {
    return machine.Misuse(kErrorInvalidHandle, "cuEventRecord: not an event of this context");
  }
  event->position = {stream, stream->enqueued};
  return kSuccess;
}

// A stream executes as late as its waits allow, so an event nobody waits for is not reached.
Result EventQuery(Event event) {
  SIMULATOR_CALL("cuEventQuery");
  if (!Live(machine.events, event)) {
    return machine.Misuse(kErrorInvalidHandle, "cuEventQuery: not an event");
  }
  if (event->context->sticky != 0) return event->context->sticky;
  return machine.Reached(event->position) ? kSuccess : kErrorNotReady;
}

Result EventSynchronize(Event event) {
  SIMULATOR_RELEASING_CALL("cuEventSynchronize");
  if (!Live(machine.events, event)) {
    return machine.Misuse(kErrorInvalidHandle, "cuEventSynchronize: not an event");
  }
  machine.Drain(event->position);
  return call.injected() != kSuccess ? call.injected() : event->context->sticky;
}

Result EventElapsedTime(float* milliseconds, Event, Event) {
  SIMULATOR_CALL("cuEventElapsedTime");
  *milliseconds = 0;  // a simulator has no device time
  return kSuccess;
}

Result GraphCreate(Graph* graph, unsigned) {
  SIMULATOR_CALL("cuGraphCreate");
  *graph = Create(&machine.graphs, Current());
  return kSuccess;
}

Result GraphDestroy(Graph graph) {
  SIMULATOR_RELEASING_CALL("cuGraphDestroy");
  if (!Live(machine.graphs, graph) || graph->within != nullptr) {
    return machine.Misuse(kErrorInvalidHandle, "cuGraphDestroy: not a graph");
  }
  DestroyGraph(machine, graph);
  return call.injected();
}

Result GraphAddKernelNode(GraphNode* node, Graph graph, const GraphNode* dependencies,
                          size_t num_dependencies, const KernelNodeParams* params) {
  SIMULATOR_CALL("cuGraphAddKernelNode");
  CUgraphNode_st contents;
  // Attributes are set on the node afterwards; without the kernel's cluster it cannot be bound.
  BoundLaunch like;
  like.cluster = params->function->image.cluster;
  const Result result = BindNode(machine, *params, like, &contents.launch);
  if (result != kSuccess) return result;
  contents.launch.cluster = 1;
  return AddNode(machine, node, graph, dependencies, num_dependencies, std::move(contents));
}

Result GraphAddMemcpyNode(GraphNode* node, Graph graph, const GraphNode* dependencies,
                          size_t num_dependencies, const Memcpy3D* params, Context) {
  SIMULATOR_CALL("cuGraphAddMemcpyNode");
  CUgraphNode_st contents;
  const Result result = CopyNode(machine, *params, &contents);
  if (result != kSuccess) return result;
  return AddNode(machine, node, graph, dependencies, num_dependencies, std::move(contents));
}

Result GraphAddMemsetNode(GraphNode* node, Graph graph, const GraphNode* dependencies,
                          size_t num_dependencies, const MemsetNodeParams* params, Context) {
  SIMULATOR_CALL("cuGraphAddMemsetNode");
  CUgraphNode_st contents;
  const Result result = FillNode(machine, *params, &contents);
  if (result != kSuccess) return result;
  return AddNode(machine, node, graph, dependencies, num_dependencies, std::move(contents));
}

Result GraphConditionalHandleCreate(ConditionalHandle* handle, Graph graph, Context context,
                                    unsigned, unsigned flags) {
  SIMULATOR_CALL("cuGraphConditionalHandleCreate");
  if (!Live(machine.graphs, graph)) {
    return machine.Misuse(kErrorInvalidHandle, "cuGraphConditionalHandleCreate: not a graph");
  }
  if (context != Current() || flags != 0) {
    return machine.Misuse(kErrorInvalidValue,
                          "cuGraphConditionalHandleCreate: only the current context and no default "
                          "are supported");
  }
  *handle = ++machine.handles;
  graph->handles[*handle] = false;
  return kSuccess;
}

Result GraphAddNode(GraphNode* node, Graph graph, const GraphNode* dependencies,
                    size_t num_dependencies, GraphNodeParams* params) {
  SIMULATOR_CALL("cuGraphAddNode");
  const ConditionalNodeParams& given = params->conditional;
  if (params->type != kGraphNodeTypeConditional || given.size != 1 ||
      (given.type != kConditionalIf && given.type != kConditionalWhile)) {
    return machine.Misuse(kErrorInvalidValue,
                          "cuGraphAddNode: only conditional nodes with one graph are supported");
  }
  if (!Live(machine.graphs, graph)) {
    return machine.Misuse(kErrorInvalidHandle, "cuGraphAddNode: not a graph");
  }
  const auto handle = graph->handles.find(given.handle);
  if (handle == graph->handles.end() || handle->second || given.context != Current()) {
    return machine.Misuse(kErrorInvalidValue,
                          "cuGraphAddNode: a handle that is another graph's or node's, or another "
                          "context");
  }
  CUgraphNode_st contents;
  contents.kind = CUgraphNode_st::kConditional;
  contents.handle = given.handle;
  contents.loops = given.type == kConditionalWhile;
  const Result result =
      AddNode(machine, node, graph, dependencies, num_dependencies, std::move(contents));
  if (result != kSuccess) return result;
  handle->second = true;
  (*node)->inside = Create(&machine.graphs, graph->context);
  (*node)->inside->within = *node;
  params->conditional.graphs = &(*node)->inside;
  return kSuccess;
}

Result GraphKernelNodeSetAttribute(GraphNode node, int attribute,
                                   const LaunchAttributeValue* value) {
  SIMULATOR_CALL("cuGraphKernelNodeSetAttribute");
  if (attribute == kLaunchAttributeClusterDimension) {
    node->launch.cluster = value->cluster.x;
  } else if (attribute == kLaunchAttributeCooperative) {
    Shape shape = {};
    std::memcpy(shape.grid, node->launch.grid, sizeof shape.grid);
    std::memcpy(shape.block, node->launch.block, sizeof shape.block);
    shape.cluster = node->launch.function->image.cluster;
    shape.shared = node->launch.shared_memory;
    shape.cooperative = value->cooperative != 0;
    const CUfunc_st& function = *node->launch.function;
    const Excess excess = CheckShape(LimitsOf(machine.major, machine.minor), function.image, shape,
                                     function.max_shared, function.any_cluster);
    if (excess.result != kSuccess) {
      return machine.Misuse(excess.result, "kernel " + function.image.name +
                                               ", as the node of a graph: " + excess.what);
    }
    node->launch.cooperative = shape.cooperative;
  } else {
    return machine.Misuse(kErrorInvalidValue, "cuGraphKernelNodeSetAttribute: unknown attribute");
  }
  return kSuccess;
}

Result GraphAddDependencies(Graph graph, const GraphNode* from, const GraphNode* to,
                            const GraphEdgeData* edges, size_t num_edges) {
  SIMULATOR_CALL("cuGraphAddDependencies");
  if (!Live(machine.graphs, graph)) {
    return machine.Misuse(kErrorInvalidHandle, "cuGraphAddDependencies: not a graph");
  }
  for (size_t i = 0; i < num_edges; ++i) {
    if (from[i] == nullptr || to[i] == nullptr || from[i]->graph != graph ||
        to[i]->graph != graph || from[i]->index + 1 != to[i]->index || to[i]->chained) {
      return machine.Misuse(kErrorInvalidValue,
                            "cuGraphAddDependencies: only graphs that are chains are supported");
    }
    const bool early = edges != nullptr && edges[i].type == kDependencyTypeProgrammatic;
    if (early && machine.major < kDependentLaunchMajor) {
      return machine.Misuse(
          kErrorNotSupported,
          "cuGraphAddDependencies: the device has no programmatic dependent launch");
    }
    const bool kernels =
        from[i]->kind == CUgraphNode_st::kKernel && to[i]->kind == CUgraphNode_st::kKernel;
    if (early && (!kernels || edges[i].from_port != kKernelNodePortProgrammatic)) {
      return machine.Misuse(kErrorInvalidValue,
                            "cuGraphAddDependencies: a programmatic edge leads from the "
                            "programmatic port of a kernel to a kernel");
    }
    to[i]->chained = true;
    to[i]->launch.dependent = early;
  }
  return kSuccess;
}

Result GraphInstantiateWithFlags(GraphExec* exec, Graph graph, unsigned long long) {
  SIMULATOR_CALL("cuGraphInstantiateWithFlags");
  SIMULATOR_NEED_CONTEXT("cuGraphInstantiateWithFlags");
  if (!Live(machine.graphs, graph)) {
    return machine.Misuse(kErrorInvalidHandle, "cuGraphInstantiateWithFlags: not a graph");
  }
  std::vector<CUgraphNode_st> nodes = CopyNodes(*graph);
  if (graph->within != nullptr) {
    return machine.Misuse(kErrorInvalidValue,
                          "cuGraphInstantiateWithFlags: a graph inside a conditional node");
  }
  if (IsNoChain(nodes)) {
    return machine.Misuse(kErrorInvalidValue,
                          "cuGraphInstantiateWithFlags: only graphs that are chains are supported");
  }
  if (HasWrongCluster(nodes)) {
    return machine.Misuse(kErrorInvalidValue,
                          "cuGraphInstantiateWithFlags: a node has a wrong cluster");
  }
  // cuda.h on CU_GRAPH_NODE_TYPE_CONDITIONAL.
  for (const auto& [handle, other] : machine.graph_execs) {
    if (other->graph == graph && HasConditions(nodes)) {
      return machine.Misuse(
          kErrorInvalidValue,
          "cuGraphInstantiateWithFlags: a graph with conditional nodes, a second time");
    }
  }
  *exec = Create(&machine.graph_execs, context);
  (*exec)->graph = graph;
  (*exec)->nodes = std::move(nodes);
  return kSuccess;
}

Result GraphExecDestroy(GraphExec exec) {
  SIMULATOR_RELEASING_CALL("cuGraphExecDestroy");
  if (machine.graph_execs.erase(exec) == 0) {
    return machine.Misuse(kErrorInvalidHandle, "cuGraphExecDestroy: not a graph executable");
  }
  return call.injected();
}

Result GraphExecKernelNodeSetParams(GraphExec exec, GraphNode node,
                                    const KernelNodeParams* params) {
  SIMULATOR_CALL("cuGraphExecKernelNodeSetParams");
  CUgraphNode_st* target = ExecNode(machine, exec, node, CUgraphNode_st::kKernel);
  if (target == nullptr) return kErrorInvalidValue;
  const BoundLaunch like = target->launch;
  return BindNode(machine, *params, like, &target->launch);
}

Result GraphExecMemcpyNodeSetParams(GraphExec exec, GraphNode node, const Memcpy3D* params,
                                    Context) {
  SIMULATOR_CALL("cuGraphExecMemcpyNodeSetParams");
  CUgraphNode_st* target = ExecNode(machine, exec, node, CUgraphNode_st::kCopy);
  if (target == nullptr) return kErrorInvalidValue;
  return CopyNode(machine, *params, target);
}

Result GraphExecMemsetNodeSetParams(GraphExec exec, GraphNode node, const MemsetNodeParams* params,
                                    Context) {
  SIMULATOR_CALL("cuGraphExecMemsetNodeSetParams");
  CUgraphNode_st* target = ExecNode(machine, exec, node, CUgraphNode_st::kFill);
  if (target == nullptr) return kErrorInvalidValue;
  return FillNode(machine, *params, target);
}

Result TensorMapEncodeTiled(TensorMap* map, int type, uint32_t rank, void* address,
                            const uint64_t* shape, const uint64_t* strides, const uint32_t* box,
                            const uint32_t* element_strides, int interleave, int swizzle,
                            int l2_promotion, int fill) {
  SIMULATOR_CALL("cuTensorMapEncodeTiled");
  if (machine.major < kTensorMapMajor) {
    return machine.Misuse(kErrorNotSupported, "cuTensorMapEncodeTiled: the device has no TMA");
  }
  const auto start = reinterpret_cast<DevicePointer>(address);
  const TiledTensor tensor = {
      type,       rank,    start,        shape, strides, box, element_strides,
      interleave, swizzle, l2_promotion, fill};
  std::string fault = CheckTensorMap(tensor);
  if (fault.empty() && !machine.memory.Owns(start)) fault = "no address of device memory";
  if (!fault.empty()) {
    return machine.Misuse(kErrorInvalidValue, "cuTensorMapEncodeTiled: " + fault);
  }
  WriteTensorMap(tensor, map);
  return kSuccess;
}

Result GraphLaunch(GraphExec exec, Stream handle) {
  SIMULATOR_CALL("cuGraphLaunch");
  CUstream_st* stream = Resolve(machine, handle, "cuGraphLaunch");
  if (stream == nullptr) return kErrorInvalidHandle;
  if (!Live(machine.graph_execs, exec)) {
    return machine.Misuse(kErrorInvalidHandle, "cuGraphLaunch: not a graph executable");
  }
  // A launch keeps the parameters of its time, and follows the launch before it.
  const Position before = exec->last;
  std::vector<CUgraphNode_st> nodes = exec->nodes;
  const std::string where = "of graph launch " + std::to_string(++machine.graph_launches);
  exec->last = machine.Enqueue(
      stream, [&machine, before, context = stream->context, nodes = std::move(nodes), where] {
        machine.Drain(before);
        machine.conditions.clear();
        Forget(nodes, &machine.conditions);
        machine.ExecuteNodes(context, nodes, where);
      });
  return kSuccess;
}

}  // namespace entry

namespace {

struct Entry {
  const char* name;
  int version;
  void* function;
};

// The types must be exactly those the runtime calls.
#define SIMULATOR_CHECK(name, version, parameters) \
  static_assert(std::is_same_v<decltype(&entry::name), decltype(Functions::name)>);
AOTI_CUDA_FUNCTIONS(SIMULATOR_CHECK)
AOTI_CUDA_OPTIONAL_FUNCTIONS(SIMULATOR_CHECK)

#define SIMULATOR_ENTRY(name, version, parameters) \
  {"cu" #name, version, reinterpret_cast<void*>(&entry::name)},

const Entry kEntries[] = {AOTI_CUDA_FUNCTIONS(SIMULATOR_ENTRY)
                              AOTI_CUDA_OPTIONAL_FUNCTIONS(SIMULATOR_ENTRY)};

constexpr ErrorText kErrors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
    {34, "CUDA_ERROR_STUB_LIBRARY", "CUDA driver is a stub library"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU",
     "no kernel image is available for execution on the device"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"},
    {218, "CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain."},
    {301, "CUDA_ERROR_FILE_NOT_FOUND", "file not found"},
    {304, "CUDA_ERROR_OPERATING_SYSTEM", "OS call failed or operation not supported on this OS"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {401, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"},
    {709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {710, "CUDA_ERROR_ASSERT", "device-side assert triggered"},
    {714, "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error"},
    {715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"},
    {716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {717, "CUDA_ERROR_INVALID_ADDRESS_SPACE",
     "operation not supported on global/shared address space"},
    {718, "CUDA_ERROR_INVALID_PC", "invalid program counter"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {802, "CUDA_ERROR_SYSTEM_NOT_READY", "system not yet initialized"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
     "system has unsupported display driver / cuda driver combination"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {912, "CUDA_ERROR_INVALID_CLUSTER_SIZE", "misconfigured or unsupported cluster size"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

}  // namespace

const ErrorText* FindError(Result code) {
  for (const ErrorText& row : kErrors) {
    if (row.code == code) return &row;
  }
  return nullptr;
}

const ErrorText* FindError(const std::string& name) {
  for (const ErrorText& row : kErrors) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

bool IsFunction(const std::string& name) {
  for (const Entry& entry : kEntries) {
    if (entry.name == name) return true;
  }
  return false;
}

}  // namespace simulator

extern "C" {

#pragma GCC visibility push(default)

simulator::Result cuGetProcAddress_v2(const char* symbol, void** function, int version, uint64_t,
                                      int* status) {
  simulator::Machine& machine = simulator::Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  if (!machine.environment_read) machine.ReadEnvironment();
  *function = nullptr;
  *status = 1;  // CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
  for (const simulator::Entry& entry : simulator::kEntries) {
    if (std::strcmp(entry.name, symbol) != 0 || machine.hidden == symbol) continue;
    if (entry.version > version || entry.version > machine.driver_version) {
      *status = aoti::cuda::kProcAddressVersionNotSufficient;
      continue;
    }
    *function = entry.function;
    *status = aoti::cuda::kProcAddressFound;
  }
  return *function == nullptr ? aoti::cuda::kErrorNotFound : aoti::cuda::kSuccess;
}

// Not needed by the runtime, but by its tests.

simulator::Result cuCtxCreate_v2(CUctx_st** context, unsigned, int device) {
  simulator::Machine& machine = simulator::Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  *context = simulator::NewContext(machine, device, false);
  simulator::current.push_back(*context);
  return aoti::cuda::kSuccess;
}

simulator::Result cuCtxDestroy_v2(CUctx_st* context) {
  simulator::Machine& machine = simulator::Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  if (context == nullptr) return simulator::kErrorInvalidContext;
  if (simulator::Current() == context) simulator::current.pop_back();
  simulator::DestroyContext(machine, context);
  return aoti::cuda::kSuccess;
}

simulator::Result cuCtxGetCurrent(CUctx_st** context) {
  *context = simulator::Current();
  return aoti::cuda::kSuccess;
}

#pragma GCC visibility pop

}  // extern "C"
