// What one thread needs to run a model: the arena of its temporaries, and a CUDA graph.

#ifndef AOTI_RUNTIME_SESSION_H_
#define AOTI_RUNTIME_SESSION_H_

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

#include "runtime/graph.h"
#include "runtime/memory.h"
#include "runtime/model.h"
#include "runtime/status.h"
#include "runtime/stream.h"

namespace aoti {

class Session {
 public:
  struct Options {
    bool use_graph = true;
    bool check_tensors = true;
  };

  static Status Create(std::shared_ptr<const Model> model, const Options& options,
                       std::unique_ptr<Session>* session);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Enqueues one run. Fails at once if another thread is in this function.
  Status Run(const DLTensor* const* inputs, size_t num_inputs, const DLTensor* const* outputs,
             size_t num_outputs, cuda::Stream stream);

 private:
  Session(std::shared_ptr<const Model> model, const Options& options);

  Status Prepare();
  Status RunLocked(const DLTensor* const* inputs, size_t num_inputs, const DLTensor* const* outputs,
                   size_t num_outputs, cuda::Stream stream);
  Status ReadArguments(const DLTensor* const* inputs, size_t num_inputs,
                       const DLTensor* const* outputs, size_t num_outputs);
  Status Enqueue(cuda::Stream stream);
  Status Issue(cuda::Stream stream);
  Status LaunchGraph(cuda::Stream stream);
  Addresses addresses() const;

  const std::shared_ptr<const Model> model_;
  const Options options_;
  DeviceMemory arena_;
  Event finished_;  // recorded after each run
  std::unique_ptr<Graph> graph_;
  bool graph_is_current_ = false;  // whether it holds `inputs_` and `outputs_`
  std::vector<DeviceAddress> inputs_;
  std::vector<DeviceAddress> outputs_;
  std::vector<DeviceAddress> next_inputs_;  // of the call in progress
  std::vector<DeviceAddress> next_outputs_;
  std::atomic<bool> busy_{false};
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_SESSION_H_
