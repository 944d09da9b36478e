// The simulator's state: what handles point to, and the machine that owns it all.

#ifndef AOTI_SIMULATOR_OBJECTS_H_
#define AOTI_SIMULATOR_OBJECTS_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/cuda_driver.h"
#include "simulator/control.h"
#include "simulator/image.h"

namespace simulator {

using aoti::cuda::DevicePointer;
using aoti::cuda::Result;

// One kernel launch with its own copy of the parameters.
struct BoundLaunch {
  CUfunc_st* function = nullptr;
  uint32_t grid[3] = {};
  uint32_t block[3] = {};
  uint32_t cluster = 1;
  uint32_t shared_memory = 0;
  std::vector<std::vector<unsigned char>> params;
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
  aoti::cuda::Result sticky = 0;  // of a kernel that failed
  CUstream_st* legacy = nullptr;
};

struct CUmod_st {
  CUctx_st* context = nullptr;
  std::vector<std::unique_ptr<CUfunc_st>> functions;
};

struct CUfunc_st {
  CUctx_st* context = nullptr;
  simulator::KernelImage image;
  uint32_t max_shared = 48 * 1024;
};

struct CUstream_st {
  CUctx_st* context = nullptr;
  bool blocking = false;  // ordered with the legacy default stream
  bool capturing = false;
  uint64_t enqueued = 0;
  uint64_t executed = 0;
  std::deque<std::function<void()>> pending;
};

struct CUevent_st {
  CUctx_st* context = nullptr;
  simulator::Position position;
};

struct CUgraphNode_st {
  CUgraph_st* graph = nullptr;
  size_t index = 0;
  enum Kind { kKernel, kCopy, kFill } kind = kKernel;
  simulator::BoundLaunch launch;
  simulator::DevicePointer dst = 0;
  simulator::DevicePointer src = 0;
  unsigned char byte = 0;
  size_t nbytes = 0;
};

struct CUgraph_st {
  CUctx_st* context = nullptr;
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
};

struct CUgraphExec_st {
  CUctx_st* context = nullptr;
  CUgraph_st* graph = nullptr;
  std::vector<CUgraphNode_st> nodes;
  simulator::Position last;
};

namespace simulator {

struct Allocation {
  CUctx_st* context;
  uint64_t nbytes;
};

// All live objects of one type, by handle.
template <typename T>
using Table = std::map<T*, std::unique_ptr<T>>;

// Everything. Functions are called with `mutex` held.
class Machine {
 public:
  // Never destroyed: other static objects may call the driver when the process ends.
  static Machine& Get();

  void ReadEnvironment();

  // Records a misuse and returns `result`.
  Result Misuse(Result result, const std::string& what);

  // True, or a misuse was recorded.
  bool CheckRange(DevicePointer address, uint64_t nbytes, const char* what);

  Position Enqueue(CUstream_st* stream, std::function<void()> work);
  // Executes the work before the position.
  void Drain(Position position);
  void Drain(CUstream_st* stream) { Drain({stream, stream->enqueued}); }

  void Execute(const BoundLaunch& launch);
  void ExecuteNode(const CUgraphNode_st& node);
  void ExecuteCopy(DevicePointer dst, DevicePointer src, uint64_t nbytes);
  void ExecuteFill(DevicePointer dst, unsigned char byte, uint64_t nbytes);

  std::recursive_mutex mutex;
  bool environment_read = false;
  bool initialized = false;

  int devices = 1;
  int major = 9;
  int minor = 0;
  int driver_version = 12080;
  std::string hidden;

  SimulatorExecutor executor = nullptr;
  void* user = nullptr;

  std::string fail_function;
  uint64_t fail_countdown = 0;
  Result fail_result = 0;
  const char* failed = nullptr;  // a literal
  bool contexts_gone = false;
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
  std::map<uint64_t, Allocation> device_memory;
  std::map<void*, Allocation> host_memory;
};

}  // namespace simulator

#endif  // AOTI_SIMULATOR_OBJECTS_H_
