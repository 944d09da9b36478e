#include "simulator/objects.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace simulator {
namespace {

constexpr Result kErrorIllegalAddress = 700;
constexpr Result kErrorLaunchFailed = 719;

int Number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::atoi(text);
}

std::string Text(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

bool ParseNumber(const std::string& text, uint64_t* number) {
  char* end = nullptr;
  *number = std::strtoull(text.c_str(), &end, 10);
  return !text.empty() && text[0] >= '0' && text[0] <= '9' && *end == '\0';
}

// FUNCTION:N:CODE, FUNCTION:N+:CODE.
std::string ParseFault(const std::string& text, InjectedFault* fault) {
  const size_t first = text.find(':');
  const size_t second = text.find(':', first + 1);
  if (first == std::string::npos || second == std::string::npos) {
    return "expected FUNCTION:N:CODE";
  }
  fault->function = text.substr(0, first);
  std::string nth = text.substr(first + 1, second - first - 1);
  const std::string code = text.substr(second + 1);
  fault->onwards = !nth.empty() && nth.back() == '+';
  if (fault->onwards) nth.pop_back();
  if (!ParseNumber(nth, &fault->nth) || fault->nth == 0) {
    return "\"" + nth + "\" is no number from 1";
  }
  if (fault->function == "*") {
    fault->function.clear();
  } else if (!IsFunction(fault->function)) {
    return "there is no function \"" + fault->function + "\"";
  }
  uint64_t number = 0;
  if (const ErrorText* error = FindError(code)) {
    fault->result = error->code;
  } else if (ParseNumber(code, &number) && number > 0 && number < 1000) {
    fault->result = static_cast<Result>(number);
  } else {
    return "\"" + code + "\" is no CUDA error";
  }
  return "";
}

}  // namespace

Machine& Machine::Get() {
  static auto* machine = new Machine;
  return *machine;
}

std::string Machine::ReadEnvironment() {
  environment_read = true;
  environment_fault.clear();
  const auto refuse = [this](const char* variable, const std::string& why) {
    environment_fault += std::string(variable) + "=" + Text(variable) + ": " + why + "\n";
  };
  devices = Number("SIMULATOR_DEVICES", 1);
  driver_version = Number("SIMULATOR_DRIVER_VERSION", 12080);
  hidden = Text("SIMULATOR_HIDE");
  major = 9;
  minor = 0;
  const std::string capability = Text("SIMULATOR_CAPABILITY");
  char rest = 0;
  if (!capability.empty() &&
      std::sscanf(capability.c_str(), "%d.%d%c", &major, &minor, &rest) != 2) {
    refuse("SIMULATOR_CAPABILITY", "expected a compute capability, such as 9.0");
  }
  memory.capacity = uint64_t{80} << 30;  // what wrapgen/target.py declares for its devices
  const std::string bytes = Text("SIMULATOR_MEMORY");
  if (!bytes.empty() && !ParseNumber(bytes, &memory.capacity)) {
    refuse("SIMULATOR_MEMORY", "expected a number of bytes");
  }
  faults.clear();
  std::istringstream list(Text("SIMULATOR_FAIL"));
  for (std::string each; std::getline(list, each, ',');) {
    InjectedFault fault;
    const std::string why = ParseFault(each, &fault);
    if (!why.empty()) refuse("SIMULATOR_FAIL", each + ": " + why);
    faults.push_back(fault);
  }
  return environment_fault;
}

Result Machine::Misuse(Result result, const std::string& what) {
  // Each once: what is wrong in a loop is wrong every time.
  if (("\n" + misuse).find("\n" + what + "\n") == std::string::npos) {
    std::fprintf(stderr, "simulator: %s\n", what.c_str());
    misuse += what + "\n";
  }
  return result;
}

bool Machine::CheckRange(DevicePointer address, uint64_t nbytes, const char* what) {
  const std::string fault = memory.Fault(address, nbytes);
  if (fault.empty()) return true;
  Misuse(0, std::string(what) + ": a range of " + std::to_string(nbytes) + " bytes " + fault);
  return false;
}

Result Machine::Count(const char* function) {
  if (!environment_read) ReadEnvironment();
  ++calls[function];
  const bool enters = std::strcmp(function, "cuCtxPushCurrent") == 0;
  Result injected = 0;
  for (InjectedFault& fault : faults) {
    if (fault.nth == 0 || !(fault.function.empty() || fault.function == function)) continue;
    if (--fault.nth != 0) continue;
    if (fault.onwards) fault.nth = 1;
    injected = fault.result;
    failed = function;
    if (enters) contexts_gone = injected;
  }
  return injected == 0 && enters ? contexts_gone : injected;
}

bool Machine::ReadHost(const void* from, void* to, size_t nbytes) {
  // The kernel reports what a read by this process would die of.
  if (scratch_file_ < 0) scratch_file_ = memfd_create("simulator parameter", MFD_CLOEXEC);
  return pwrite(scratch_file_, from, nbytes, 0) == static_cast<ssize_t>(nbytes) &&
         pread(scratch_file_, to, nbytes, 0) == static_cast<ssize_t>(nbytes);
}

bool Machine::IsLoaded(const CUfunc_st* function) const {
  for (const auto& [handle, module] : modules) {
    for (const auto& candidate : module->functions) {
      if (candidate.get() == function) return true;
    }
  }
  return false;
}

CUstream_st* Machine::PerThread(CUctx_st* context) {
  // Constructed with the thread's first stream, destroyed with the thread.
  thread_local const struct End {
    ~End() { Machine::Get().EndThread(); }
  } end;
  CUstream_st*& stream = context->per_thread[std::this_thread::get_id()];
  if (stream == nullptr) {
    auto object = std::make_unique<CUstream_st>();
    stream = object.get();
    stream->context = context;
    stream->is_default = true;
    stream->blocking = true;
    streams.emplace(stream, std::move(object));
  }
  return stream;
}

void Machine::EndThread() {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  if (process != getpid()) return;
  for (const auto& [handle, context] : contexts) {
    const auto found = context->per_thread.find(std::this_thread::get_id());
    if (found == context->per_thread.end()) continue;
    Drain(found->second);
    streams.erase(found->second);
    context->per_thread.erase(found);
  }
}

Position Machine::Enqueue(CUstream_st* stream, std::function<void()> work) {
  // The legacy default stream and the blocking streams of its context wait for each other.
  const bool legacy = stream == stream->context->legacy;
  if (legacy) {
    for (auto& [other, owner] : streams) {
      if (other != stream && other->blocking && other->context == stream->context) Drain(other);
    }
  } else if (stream->blocking) {
    Drain(stream->context->legacy);
  }
  stream->pending.push_back(std::move(work));
  return {stream, ++stream->enqueued};
}

void Machine::Drain(Position position) {
  // The stream of an event may be gone; its work was done when it went.
  if (position.stream == nullptr || streams.count(position.stream) == 0) return;
  CUstream_st* stream = position.stream;
  // The handle may be a later stream's, which has less work: executing that early is harmless.
  while (stream->executed < position.sequence && !stream->pending.empty()) {
    const std::function<void()> work = std::move(stream->pending.front());
    stream->pending.pop_front();
    ++stream->executed;
    if (stream->context->sticky == 0) work();  // a fault is the last thing that happens
  }
}

bool Machine::Reached(Position position) const {
  return position.stream == nullptr || streams.count(position.stream) == 0 ||
         position.stream->executed >= position.sequence;
}

void Machine::Execute(const BoundLaunch& launch) {
  if (launch.context->sticky != 0) return;
  if (!IsLoaded(launch.function)) {
    Misuse(0, "kernel " + launch.kernel + ", " + launch.origin +
                  ": its module was unloaded before it had run");
    launch.context->sticky = kErrorLaunchFailed;
    return;
  }
  if (launch.function->image.sets_condition) return SetCondition(launch);
  return launch.function->image.id.empty() ? ExecuteInProcess(launch) : ExecuteElsewhere(launch);
}

void Machine::ExecuteInProcess(const BoundLaunch& launch) {
  std::vector<const void*> params;
  params.reserve(launch.params.size());
  for (const auto& param : launch.params) params.push_back(param.data());
  SimulatorLaunch call = {};
  call.kernel = launch.function->image.name.c_str();
  std::memcpy(call.grid, launch.grid, sizeof call.grid);
  std::memcpy(call.block, launch.block, sizeof call.block);
  call.cluster[0] = launch.cluster;
  call.cluster[1] = 1;
  call.cluster[2] = 1;
  call.shared_memory = launch.shared_memory;
  call.cooperative = launch.cooperative ? 1 : 0;
  call.dependent = launch.dependent ? 1 : 0;
  call.num_params = static_cast<uint32_t>(params.size());
  call.params = params.data();
  if (executor == nullptr) {
    Misuse(0, std::string("no executor for kernel ") + call.kernel);
    return;
  }
  const Result result = executor(&call, user);
  if (result != 0) launch.context->sticky = result;
}

void Machine::ExecuteElsewhere(const BoundLaunch& launch) {
  const KernelImage& image = launch.function->image;
  std::string buffer(image.ParameterBytes(), '\0');
  for (size_t i = 0; i < image.params.size(); ++i) {
    std::memcpy(&buffer[image.params[i].offset], launch.params[i].data(), image.params[i].size);
  }
  std::ostringstream head;
  head << "launch " << image.id << " " << launch.number;
  for (const uint32_t extent : launch.grid) head << " " << extent;
  for (const uint32_t extent : launch.block) head << " " << extent;
  head << " " << launch.cluster << " " << launch.shared_memory << " " << launch.origin;
  const ExecutorProcess::Reply reply = process_executor.Ask(&memory, head.str(), buffer);
  if (reply.head == "done") return;
  Result result = kErrorLaunchFailed;
  if (reply.head.compare(0, 6, "fault ") == 0) {
    result = std::atoi(reply.head.c_str() + 6);
    Misuse(0, reply.body);
  } else {
    Misuse(0, "kernel " + image.name + ", " + launch.origin + ": " + reply.body);
  }
  launch.context->sticky = result;
}

// NOLINTNEXTLINE(misc-no-recursion): graphs are inside graphs
void Machine::ExecuteNodes(CUctx_st* context, const std::vector<CUgraphNode_st>& nodes,
                           const std::string& where) {
  for (size_t i = 0; i < nodes.size() && context->sticky == 0; ++i) {
    const CUgraphNode_st& node = nodes[i];
    const std::string place = "node " + std::to_string(i + 1) + " " + where;
    switch (node.kind) {
      case CUgraphNode_st::kKernel: {
        BoundLaunch launch = node.launch;
        launch.number = ++launches;
        launch.origin = "launch " + std::to_string(launch.number) + " (" + place + ")";
        Execute(launch);
        break;
      }
      case CUgraphNode_st::kCopy:
        ExecuteCopy(context, node.dst, node.src, node.nbytes);
        break;
      case CUgraphNode_st::kFill:
        ExecuteFill(context, node.dst, node.byte, node.nbytes);
        break;
      case CUgraphNode_st::kConditional:
        ExecuteConditional(context, node, place);
        break;
    }
  }
}

// NOLINTNEXTLINE(misc-no-recursion): graphs are inside graphs
void Machine::ExecuteConditional(CUctx_st* context, const CUgraphNode_st& node,
                                 const std::string& where) {
  for (uint64_t round = 1; context->sticky == 0; ++round) {
    const std::optional<bool> condition = conditions[node.handle];
    if (!condition.has_value()) {
      Misuse(0, "a conditional node, " + where + ": no kernel has set its condition");
      return;
    }
    if (!*condition) return;
    const std::string rounds = node.loops ? ", round " + std::to_string(round) + "," : "";
    ExecuteNodes(context, node.steps, "inside" + rounds + " of " + where);
    if (!node.loops) return;
  }
}

// What the kernel of wrapgen/set_condition.py does.
void Machine::SetCondition(const BoundLaunch& launch) {
  DevicePointer predicate = 0;
  uint32_t nbytes = 0;
  aoti::cuda::ConditionalHandle handles[2] = {};
  uint32_t has_otherwise = 0;
  const std::string who = "kernel " + launch.kernel + ", " + launch.origin;
  const auto read = [&](size_t i, void* to, size_t size) {
    if (i >= launch.params.size() || launch.params[i].size() != size) return false;
    std::memcpy(to, launch.params[i].data(), size);
    return true;
  };
  if (!read(0, &predicate, sizeof predicate) || !read(1, &nbytes, sizeof nbytes) ||
      !read(2, &handles[0], sizeof handles[0]) || !read(3, &handles[1], sizeof handles[1]) ||
      !read(4, &has_otherwise, sizeof has_otherwise)) {
    Misuse(0, who + ": its parameters are not those of a kernel that sets conditions");
    launch.context->sticky = kErrorLaunchFailed;
    return;
  }
  if (!Accessible(launch.context, predicate, nbytes, (who + ": the condition").c_str())) return;
  const std::string unwritten = memory.Unwritten(predicate, nbytes);
  if (!unwritten.empty()) Misuse(0, who + ": the condition: " + unwritten);
  std::string bytes(nbytes, '\0');
  memory.Load(bytes.data(), predicate, nbytes);
  const bool holds = bytes.find_first_not_of('\0') != std::string::npos;
  for (uint32_t i = 0; i < 1 + has_otherwise; ++i) {
    const auto condition = conditions.find(handles[i]);
    if (condition == conditions.end()) {
      Misuse(0, who + ": a handle of no conditional node of the graph that is executed");
      launch.context->sticky = kErrorLaunchFailed;
      return;
    }
    condition->second = holds == (i == 0);
  }
}

bool Machine::Accessible(CUctx_st* context, DevicePointer address, uint64_t nbytes,
                         const char* what) {
  if (context->sticky != 0) return false;
  if (CheckRange(address, nbytes, what)) return true;
  context->sticky = kErrorIllegalAddress;
  return false;
}

void Machine::ExecuteCopy(CUctx_st* context, DevicePointer dst, DevicePointer src,
                          uint64_t nbytes) {
  if (Accessible(context, dst, nbytes, "destination of a copy on the device") &&
      Accessible(context, src, nbytes, "source of a copy on the device")) {
    memory.Copy(dst, src, nbytes);
  }
}

void Machine::ExecuteFill(CUctx_st* context, DevicePointer dst, unsigned char byte,
                          uint64_t nbytes) {
  if (Accessible(context, dst, nbytes, "a fill")) memory.Fill(dst, byte, nbytes);
}

void Machine::ExecuteStore(CUctx_st* context, DevicePointer dst, const void* src, uint64_t nbytes) {
  if (Accessible(context, dst, nbytes, "a copy to the device")) memory.Store(dst, src, nbytes);
}

void Machine::ExecuteLoad(CUctx_st* context, void* dst, DevicePointer src, uint64_t nbytes) {
  if (!Accessible(context, src, nbytes, "a copy to the host")) return;
  // Not an error, as nothing happens on a GPU either; but what came is nothing anybody computed.
  const std::string unwritten = memory.Unwritten(src, nbytes);
  if (!unwritten.empty()) Misuse(0, "a copy to the host: " + unwritten);
  memory.Load(dst, src, nbytes);
}

}  // namespace simulator

using simulator::Machine;

extern "C" {

#pragma GCC visibility push(default)

void simulator_reset(void) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  machine.ReadEnvironment();
  machine.calls.clear();
  machine.misuse.clear();
  machine.failed = nullptr;
  machine.contexts_gone = 0;
  machine.executor = nullptr;
  machine.user = nullptr;
}

void simulator_set_executor(SimulatorExecutor executor, void* user) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  machine.executor = executor;
  machine.user = user;
  if (executor != nullptr) machine.memory.AllowHost();
}

void simulator_fail(const char* function, uint64_t nth, int result) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  machine.contexts_gone = 0;
  machine.faults = {{function == nullptr ? "" : function, nth, result, false}};
}

uint64_t simulator_calls(const char* function) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  uint64_t count = 0;
  for (const auto& [name, calls] : machine.calls) {
    if (function == nullptr || name == function) count += calls;
  }
  return count;
}

const char* simulator_failed(void) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  return machine.failed;
}

SimulatorLive simulator_live(void) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  SimulatorLive live = {};
  for (const auto& [handle, context] : machine.contexts) live.contexts += context->references;
  live.modules = machine.modules.size();
  live.device_allocations = machine.memory.blocks().size();
  live.device_bytes = machine.memory.allocated();
  live.host_allocations = machine.host_memory.size();
  for (const auto& [handle, stream] : machine.streams) live.streams += stream->is_default ? 0 : 1;
  live.events = machine.events.size();
  live.graphs = machine.graphs.size();
  live.graph_execs = machine.graph_execs.size();
  return live;
}

const char* simulator_misuse(void) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  machine.misuse_returned = machine.misuse;
  return machine.misuse_returned.c_str();
}

int simulator_check_range(uint64_t address, uint64_t nbytes, const char* what) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  return machine.CheckRange(address, nbytes, what) ? 1 : 0;
}

void simulator_set_capturing(void* stream, int capturing) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  static_cast<CUstream_st*>(stream)->capturing = capturing != 0;
}

#pragma GCC visibility pop

}  // extern "C"

// When the process ends in order; if it does not, the executor sees its socket close.
__attribute__((destructor)) static void StopExecutor() {
  Machine& machine = Machine::Get();
  const std::unique_lock<std::recursive_mutex> lock(machine.mutex, std::try_to_lock);
  if (lock.owns_lock() && machine.process == getpid()) machine.process_executor.Stop();
}
