// The simulator's state: what handles point to, and the machine that owns it all.

#ifndef AOTI_SIMULATOR_OBJECTS_H_
#define AOTI_SIMULATOR_OBJECTS_H_

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/cuda_driver.h"
#include "simulator/control.h"
#include "simulator/executor.h"
#include "simulator/image.h"
#include "simulator/memory.h"

namespace simulator {

using aoti::cuda::Result;

// One kernel launch with its own copy of the parameters.
struct BoundLaunch {
  CUfunc_st* function = nullptr;
  CUctx_st* context = nullptr;
  std::string kernel;  // its name, for when the function is gone
  uint32_t grid[3] = {};
  uint32_t block[3] = {};
  uint32_t cluster = 1;
  uint32_t shared_memory = 0;
  bool cooperative = false;
  bool dependent = false;
  std::vector<std::vector<unsigned char>> params;
  uint64_t number = 0;  // of all launches of the process, from 1
  std::string origin;   // "launch 7", or which node of which graph launch it is
};

// A position in a stream: the work enqueued before it.
struct Position {
  CUstream_st* stream = nullptr;
  uint64_t sequence = 0;
};

}  // namespace simulator

// The handle types of cuda.h.
struct CUctx_st {
  int device = 0;
  bool primary = false;
  uint64_t references = 0;
  aoti::cuda::Result sticky = 0;  // of a kernel that failed: nothing works in the context any more
  CUstream_st* legacy = nullptr;
  std::map<std::thread::id, CUstream_st*> per_thread;  // of threads that have used theirs
};

struct CUmod_st {
  CUctx_st* context = nullptr;
  std::vector<std::unique_ptr<CUfunc_st>> functions;
};

struct CUfunc_st {
  CUctx_st* context = nullptr;
  simulator::KernelImage image;
  uint32_t max_shared = 0;   // dynamic
  bool any_cluster = false;  // clusters that not every device can do
};

struct CUstream_st {
  CUctx_st* context = nullptr;
  bool is_default = false;  // the legacy one, or a thread's: no handle of the caller's
  bool blocking = false;    // ordered with the legacy default stream
  bool capturing = false;
  uint64_t enqueued = 0;
  uint64_t executed = 0;
  std::deque<std::function<void()>> pending;
};

struct CUevent_st {
  CUctx_st* context = nullptr;
  simulator::Position position;
};

// NOLINTNEXTLINE(misc-no-recursion): graphs are inside graphs
struct CUgraphNode_st {
  CUgraph_st* graph = nullptr;
  size_t index = 0;
  bool chained = false;  // ordered behind the node before it
  enum Kind { kKernel, kCopy, kFill, kConditional } kind = kKernel;
  simulator::BoundLaunch launch;
  simulator::DevicePointer dst = 0;
  simulator::DevicePointer src = 0;
  unsigned char byte = 0;
  size_t nbytes = 0;
  // Of a conditional node.
  aoti::cuda::ConditionalHandle handle = 0;
  bool loops = false;
  CUgraph_st* inside = nullptr;
  std::vector<CUgraphNode_st> steps;  // of an executable: the nodes of `inside`
};

struct CUgraph_st {
  CUctx_st* context = nullptr;
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
  CUgraphNode_st* within = nullptr;                       // the conditional node whose graph it is
  std::map<aoti::cuda::ConditionalHandle, bool> handles;  // whether a node has it
};

struct CUgraphExec_st {
  CUctx_st* context = nullptr;
  CUgraph_st* graph = nullptr;
  std::vector<CUgraphNode_st> nodes;
  simulator::Position last;
};

namespace simulator {

struct HostAllocation {
  CUctx_st* context;
  uint64_t nbytes;
};

// The `nth` next call of `function` (any if empty), counted from 1, returns `result`.
struct InjectedFault {
  std::string function;
  uint64_t nth = 0;
  Result result = 0;
  bool onwards = false;  // and every call of it after that
};

// All live objects of one type, by handle.
template <typename T>
using Table = std::map<T*, std::unique_ptr<T>>;

// Every failure a function may be told to report, and what cuGetErrorName says of it.
struct ErrorText {
  Result code;
  const char* name;
  const char* text;
};
const ErrorText* FindError(Result code);
const ErrorText* FindError(const std::string& name);

// Whether cuGetProcAddress knows the function.
bool IsFunction(const std::string& name);

// Everything. Functions are called with `mutex` held.
class Machine {
 public:
  // Never destroyed: other static objects may call the driver when the process ends.
  static Machine& Get();

  // "", or what is wrong with a variable.
  std::string ReadEnvironment();

  // Records a misuse, tells it on stderr and returns `result`.
  Result Misuse(Result result, const std::string& what);

  // The calling thread's own default stream in a context.
  CUstream_st* PerThread(CUctx_st* context);
  // Those of the calling thread end with it, when their work is done.
  void EndThread();

  // True, or a misuse was recorded.
  bool CheckRange(DevicePointer address, uint64_t nbytes, const char* what);

  // Counts a call of a function, and says what it is to return instead of doing its work; 0 if it
  // is to do it.
  Result Count(const char* function);

  // Reads memory of the process; false if it is not there to be read.
  bool ReadHost(const void* from, void* to, size_t nbytes);

  // Whether a function's module is loaded.
  bool IsLoaded(const CUfunc_st* function) const;

  Position Enqueue(CUstream_st* stream, std::function<void()> work);
  // Executes the work before the position.
  void Drain(Position position);
  // Whether that work has been executed.
  bool Reached(Position position) const;
  void Drain(CUstream_st* stream) { Drain({stream, stream->enqueued}); }

  void Execute(const BoundLaunch& launch);
  // Executes nodes; `where` begins what launches are called: "of graph launch 3".
  void ExecuteNodes(CUctx_st* context, const std::vector<CUgraphNode_st>& nodes,
                    const std::string& where);
  void ExecuteCopy(CUctx_st* context, DevicePointer dst, DevicePointer src, uint64_t nbytes);
  void ExecuteFill(CUctx_st* context, DevicePointer dst, unsigned char byte, uint64_t nbytes);
  void ExecuteStore(CUctx_st* context, DevicePointer dst, const void* src, uint64_t nbytes);
  void ExecuteLoad(CUctx_st* context, void* dst, DevicePointer src, uint64_t nbytes);

  std::recursive_mutex mutex;
  bool environment_read = false;
  std::string environment_fault;
  bool initialized = false;
  bool announced = false;
  pid_t process = 0;  // that initialized the driver

  int devices = 1;
  int major = 9;
  int minor = 0;
  int driver_version = 12080;
  std::string hidden;

  SimulatorExecutor executor = nullptr;  // of kernels of text images
  void* user = nullptr;

  std::vector<InjectedFault> faults;
  const char* failed = nullptr;  // a literal
  Result contexts_gone = 0;      // what cuCtxPushCurrent returns from now on
  std::map<std::string, uint64_t> calls;
  std::string misuse;
  std::string misuse_returned;

  std::map<int, CUctx_st*> primary;
  Table<CUctx_st> contexts;
  Table<CUmod_st> modules;
  Table<CUstream_st> streams;
  Table<CUevent_st> events;
  Table<CUgraph_st> graphs;
  Table<CUgraphExec_st> graph_execs;
  std::map<void*, HostAllocation> host_memory;
  DeviceMemory memory;
  ExecutorProcess process_executor;
  uint64_t launches = 0;
  uint64_t graph_launches = 0;
  uint64_t handles = 0;  // of conditional nodes
  // Of the graph that is executed, by handle: what a kernel has set, if one has.
  std::map<aoti::cuda::ConditionalHandle, std::optional<bool>> conditions;
  uint64_t modules_loaded = 0;

 private:
  bool Accessible(CUctx_st* context, DevicePointer address, uint64_t nbytes, const char* what);
  void ExecuteConditional(CUctx_st* context, const CUgraphNode_st& node, const std::string& where);
  void SetCondition(const BoundLaunch& launch);
  void ExecuteInProcess(const BoundLaunch& launch);
  void ExecuteElsewhere(const BoundLaunch& launch);

  int scratch_file_ = -1;
};

}  // namespace simulator

#endif  // AOTI_SIMULATOR_OBJECTS_H_
