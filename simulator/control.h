// A libcuda.so.1 for machines with no GPU: how a test sets it up and looks into it.
//
// The simulator implements the functions of runtime/cuda_driver.h on host memory. Kernels of
// machine code and PTX are run by the executor process (simulator/executor.h). Those of text images
// (simulator/image.h) are run by a function that a test sets here; device memory can then be used
// by the process at its own addresses.
//
// It is lazy where a GPU is fast: work enqueued on a stream is executed only when something waits
// for it (a synchronization, an event another stream waits for). So a test sees each missing wait,
// the same way every time: memory that is reused or freed too early is then still to be read.
//
// It is strict where a driver is lenient or crashes: a wrong handle, a range outside any
// allocation, or a call without the right context returns an error and is reported as misuse, on
// stderr and by simulator_misuse.
//
// These functions are exported from libcuda.so.1 next to the driver's own. docs/simulator.md lists
// the environment variables, which are read when the first driver function is called and by
// simulator_reset.

#ifndef AOTI_SIMULATOR_CONTROL_H_
#define AOTI_SIMULATOR_CONTROL_H_

#include <stddef.h>
#include <stdint.h>

// What cuDeviceGetName gives.
#define SIMULATOR_DEVICE_NAME "rules_aoti simulator"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct SimulatorLaunch {
  const char* kernel;
  uint32_t grid[3];   // in blocks
  uint32_t block[3];  // in threads
  uint32_t cluster[3];
  uint32_t shared_memory;
  uint32_t cooperative;  // whether all blocks run at a time
  uint32_t dependent;    // whether it may start before the kernel ahead of it has ended
  uint32_t num_params;
  const void* const* params;  // one pointer to the value of each
} SimulatorLaunch;

// Runs a kernel and returns 0; or the CUresult that from then on every wait in its context returns.
typedef int (*SimulatorExecutor)(const SimulatorLaunch* launch, void* user);

typedef struct SimulatorLive {
  uint64_t contexts;
  uint64_t modules;
  uint64_t device_allocations;
  uint64_t device_bytes;
  uint64_t host_allocations;
  uint64_t streams;
  uint64_t events;
  uint64_t graphs;
  uint64_t graph_execs;
} SimulatorLive;

// Forgets counts, misuse, faults to inject and the executor, and reads the environment again. What
// is live stays.
void simulator_reset(void);

// Sets what runs the kernels of text images.
void simulator_set_executor(SimulatorExecutor executor, void* user);

// Lets the `nth` next call of `function` (any function if null), counted from 1, return `result`.
// Functions that release something or wait do so all the same, as drivers do: what they report may
// be the failure of earlier work. cuCtxPushCurrent then fails every time until the next call of
// this function: a context that is gone does not come back.
void simulator_fail(const char* function, uint64_t nth, int result);

// Calls since the last reset, of all functions if null. cuGetProcAddress and the functions that
// describe errors do not count.
uint64_t simulator_calls(const char* function);

// The function whose call was made to fail since the last reset; null if there is none yet.
const char* simulator_failed(void);

SimulatorLive simulator_live(void);

// Each misuse, and each fault of a kernel, since the last reset on a line, none twice; "" if there
// was none. Valid until the next call.
const char* simulator_misuse(void);

// Reports misuse unless [address, address + nbytes) lies within one live allocation. For executors.
int simulator_check_range(uint64_t address, uint64_t nbytes, const char* what);

// What cuStreamIsCapturing reports. The stream goes on executing.
void simulator_set_capturing(void* stream, int capturing);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // AOTI_SIMULATOR_CONTROL_H_
