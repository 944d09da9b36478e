#include "simulator/objects.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace simulator {
namespace {

int Number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::atoi(text);
}

std::string Text(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? "" : text;
}

}  // namespace

Machine& Machine::Get() {
  static Machine* machine = new Machine;
  return *machine;
}

void Machine::ReadEnvironment() {
  environment_read = true;
  devices = Number("SIMULATOR_DEVICES", 1);
  driver_version = Number("SIMULATOR_DRIVER_VERSION", 12080);
  hidden = Text("SIMULATOR_HIDE");
  major = 9;
  minor = 0;
  std::sscanf(Text("SIMULATOR_CAPABILITY").c_str(), "%d.%d", &major, &minor);
  fail_countdown = 0;
  const std::string fail = Text("SIMULATOR_FAIL");
  const size_t first = fail.find(':');
  const size_t second = fail.find(':', first + 1);
  if (first != std::string::npos && second != std::string::npos) {
    fail_function = fail.substr(0, first) == "*" ? "" : fail.substr(0, first);
    fail_countdown = std::strtoull(fail.c_str() + first + 1, nullptr, 10);
    fail_result = std::atoi(fail.c_str() + second + 1);
  }
}

Result Machine::Misuse(Result result, const std::string& what) {
  misuse += what + "\n";
  return result;
}

bool Machine::CheckRange(DevicePointer address, uint64_t nbytes, const char* what) {
  auto after = device_memory.upper_bound(address);
  if (after != device_memory.begin()) {
    const auto& [base, allocation] = *--after;
    const uint64_t offset = address - base;
    if (offset <= allocation.nbytes && nbytes <= allocation.nbytes - offset) return true;
  }
  Misuse(0, std::string(what) + ": a range is not in device memory");
  return false;
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
    work();
  }
}

void Machine::Execute(const BoundLaunch& launch) {
  std::vector<const void*> params;
  for (const auto& param : launch.params) params.push_back(param.data());
  SimulatorLaunch call = {};
  call.kernel = launch.function->image.name.c_str();
  std::memcpy(call.grid, launch.grid, sizeof call.grid);
  std::memcpy(call.block, launch.block, sizeof call.block);
  call.cluster[0] = launch.cluster;
  call.cluster[1] = 1;
  call.cluster[2] = 1;
  call.shared_memory = launch.shared_memory;
  call.num_params = static_cast<uint32_t>(params.size());
  call.params = params.data();
  if (executor == nullptr) {
    Misuse(0, std::string("no executor for kernel ") + call.kernel);
    return;
  }
  const Result result = executor(&call, user);
  if (result != 0) launch.function->context->sticky = result;
}

void Machine::ExecuteNode(const CUgraphNode_st& node) {
  switch (node.kind) {
    case CUgraphNode_st::kKernel:
      return Execute(node.launch);
    case CUgraphNode_st::kCopy:
      return ExecuteCopy(node.dst, node.src, node.nbytes);
    case CUgraphNode_st::kFill:
      return ExecuteFill(node.dst, node.byte, node.nbytes);
  }
}

void Machine::ExecuteCopy(DevicePointer dst, DevicePointer src, uint64_t nbytes) {
  if (!CheckRange(dst, nbytes, "copy") || !CheckRange(src, nbytes, "copy")) return;
  std::memmove(reinterpret_cast<void*>(dst), reinterpret_cast<const void*>(src), nbytes);
}

void Machine::ExecuteFill(DevicePointer dst, unsigned char byte, uint64_t nbytes) {
  if (!CheckRange(dst, nbytes, "fill")) return;
  std::memset(reinterpret_cast<void*>(dst), byte, nbytes);
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
  machine.contexts_gone = false;
  machine.executor = nullptr;
  machine.user = nullptr;
}

void simulator_set_executor(SimulatorExecutor executor, void* user) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  machine.executor = executor;
  machine.user = user;
}

void simulator_fail(const char* function, uint64_t nth, int result) {
  Machine& machine = Machine::Get();
  const std::lock_guard<std::recursive_mutex> lock(machine.mutex);
  machine.fail_function = function == nullptr ? "" : function;
  machine.contexts_gone = false;
  machine.fail_countdown = nth;
  machine.fail_result = result;
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
  live.device_allocations = machine.device_memory.size();
  for (const auto& [address, memory] : machine.device_memory) live.device_bytes += memory.nbytes;
  live.host_allocations = machine.host_memory.size();
  // Each context has its legacy default stream.
  live.streams = machine.streams.size() - machine.contexts.size();
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
