// A procedure as an instantiated CUDA graph.
//
// The graph is built node by node, not captured, so that each node's handle is known and the nodes
// that hold the caller's addresses can be given others without building anything anew.

#ifndef AOTI_RUNTIME_GRAPH_H_
#define AOTI_RUNTIME_GRAPH_H_

#include <memory>
#include <vector>

#include "runtime/context.h"
#include "runtime/kernels.h"
#include "runtime/launcher.h"
#include "runtime/status.h"

namespace aoti {

class Graph {
 public:
  using Procedure = Status (*)(Launcher& launcher);

  Graph() = default;
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // The context must be current, here and below; `kernels` outlives the graph. The steps run one
  // after another. To be called once; after a failure the graph is only good for destruction.
  Status Build(std::shared_ptr<const Context> context, const KernelSet& kernels,
               Procedure procedure, const Addresses& addresses);

  // Replaces what the steps hold that are marked as holding what is the caller's; or, where `all`
  // says so, of all steps, as other memory than before is not the caller's alone. The procedure
  // must be the one the graph was built of, and issue the same steps. After a failure some steps
  // have new addresses and others old ones: another such update must succeed before a launch.
  // A graph with conditions cannot have all of its steps replaced: what a driver updates is not
  // what is inside conditional nodes.
  Status Update(Procedure procedure, const Addresses& addresses, bool all);

  // Whether there are branches or loops.
  bool has_conditions() const { return has_conditions_; }

  // Ordered after earlier work in the stream and after earlier launches of this graph.
  Status Launch(cuda::Stream stream);

 private:
  class Builder;
  class Updater;

  std::shared_ptr<const Context> context_;
  const KernelSet* kernels_ = nullptr;
  cuda::Graph graph_ = nullptr;
  cuda::GraphExec exec_ = nullptr;
  std::vector<cuda::GraphNode> nodes_;  // in order; none that is inside a conditional one
  bool has_conditions_ = false;
};

}  // namespace aoti

#endif  // AOTI_RUNTIME_GRAPH_H_
