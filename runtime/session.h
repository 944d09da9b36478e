// What one thread needs to run a model: the arena of its temporaries, and CUDA graphs.

#ifndef AOTI_RUNTIME_SESSION_H_
#define AOTI_RUNTIME_SESSION_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/graph.h"
#include "runtime/memory.h"
#include "runtime/model.h"
#include "runtime/sizes.h"
#include "runtime/status.h"
#include "runtime/stream.h"
#include "runtime/weight_set.h"

namespace aoti {

class Session {
 public:
  struct Options {
    bool use_graph = true;
    bool check_tensors = true;
    size_t max_graphs = 8;  // at least 1
  };

  static Status Create(std::shared_ptr<Model> model, const Options& options,
                       std::unique_ptr<Session>* session);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Enqueues one run. Fails at once if another thread is in this function.
  Status Run(const DLTensor* const* inputs, size_t num_inputs, const DLTensor* const* outputs,
             size_t num_outputs, cuda::Stream stream);

  // For any thread; the context must be current. Lets go of `weights` if the last run with them has
  // finished; else returns what to wait for before another try. Waits for a call of Run in progress
  // to return, not for the device.
  std::shared_ptr<const Event> ReleaseWeights(const WeightSet& weights);

  // The same for all sets but the one with this id, as far as it needs no waiting.
  void ReleaseFinishedWeights(uint64_t active);

 private:
  // The caller's part of a run.
  struct Arguments {
    std::vector<DeviceAddress> inputs;
    std::vector<DeviceAddress> outputs;
    std::vector<int64_t> symbols;

    bool operator==(const Arguments& other) const {
      return inputs == other.inputs && outputs == other.outputs && symbols == other.symbols;
    }
  };

  // A graph for one combination of sizes, and what its nodes hold.
  struct CachedGraph {
    std::vector<int64_t> key;
    uint64_t number = 0;  // in the order in which they were built, from 1
    Graph graph;
    Arguments arguments;
    DeviceAddress arena = 0;
    uint64_t weights = 0;  // the set's id
    bool current = false;  // whether it holds these; else an update failed half-way
  };

  // Weights of earlier runs, and what is reached when the last of those has finished.
  struct EarlierWeights {
    std::shared_ptr<const WeightSet> weights;
    std::shared_ptr<const Event> finished;
  };

  Session(std::shared_ptr<Model> model, const Options& options);

  Status Prepare();
  Status RunLocked(const DLTensor* const* inputs, size_t num_inputs, const DLTensor* const* outputs,
                   size_t num_outputs, cuda::Stream stream);
  Status ReadArguments(const DLTensor* const* inputs, size_t num_inputs,
                       const DLTensor* const* outputs, size_t num_outputs);
  // Holds what the model's runs now use.
  Status TakeWeights();
  // Makes the arena as large as this call needs it.
  Status Reserve(bool capturing);
  Status Enqueue(cuda::Stream stream);
  Status Issue(cuda::Stream stream);
  Status LaunchGraph(cuda::Stream stream);
  // The graph for this call's sizes, holding this call's arguments.
  Status PrepareGraph(CachedGraph** prepared);
  Status RecordFinished(cuda::Stream stream);
  Addresses addresses() const;

  const std::shared_ptr<Model> model_;
  const Options options_;
  std::unique_ptr<Sizes> sizes_;  // null for a model without symbols
  std::unique_ptr<DeviceMemory> arena_;
  uint64_t arena_size_ = 0;
  bool arena_is_captured_ = false;  // whether a graph of the caller's holds its address
  std::vector<std::unique_ptr<DeviceMemory>> captured_arenas_;  // earlier ones that some hold
  std::shared_ptr<const Event> finished_ = std::make_shared<Event>();  // recorded after each run
  std::list<CachedGraph> graphs_;                                      // the latest used first
  uint64_t built_graphs_ = 0;
  uint64_t last_graph_ = 0;  // the number of that of the last run
  Arguments arguments_;      // of the call in progress
  std::atomic<bool> busy_{false};

  std::mutex mutex_;  // of what follows and finished_; held for the whole of a run's issue
  std::shared_ptr<const WeightSet> weights_;  // of the last run; null also once it is let go of
  std::vector<EarlierWeights> earlier_weights_;
  std::vector<std::shared_ptr<const WeightSet>>
      captured_weights_;  // that graphs of the caller hold
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_SESSION_H_
