#include "runtime/graph.h"

#include <string>
#include <utility>

namespace aoti {
namespace {

bool Empty(Grid grid) { return grid.x == 0 || grid.y == 0 || grid.z == 0; }

Status KernelParams(const Kernel& kernel, Grid grid, void** params,
                    cuda::KernelNodeParams* result) {
  Grid blocks;
  AOTI_RETURN_IF_ERROR(kernel.Blocks(grid, &blocks));
  *result = {};
  result->function = kernel.function;
  result->grid_x = blocks.x;
  result->grid_y = blocks.y;
  result->grid_z = blocks.z;
  result->block_x = kernel.threads;
  result->block_y = 1;
  result->block_z = 1;
  result->shared_memory = kernel.shared_memory;
  result->params = params;
  return Status();
}

cuda::Memcpy3D CopyParams(DeviceAddress dst, DeviceAddress src, uint64_t nbytes) {
  cuda::Memcpy3D params = {};
  params.src_memory_type = cuda::kMemoryTypeDevice;
  params.src_device = src;
  params.dst_memory_type = cuda::kMemoryTypeDevice;
  params.dst_device = dst;
  params.width = nbytes;
  params.height = 1;
  params.depth = 1;
  return params;
}

cuda::MemsetNodeParams FillParams(DeviceAddress dst, uint8_t byte, uint64_t nbytes) {
  cuda::MemsetNodeParams params = {};
  params.dst = dst;
  params.value = byte;
  params.element_size = 1;
  params.width = nbytes;
  params.height = 1;
  return params;
}

std::string Building(const std::string& what) { return "adding " + what + " to a CUDA graph"; }

std::string Updating(const std::string& what) { return "updating " + what + " of a CUDA graph"; }

}  // namespace

// Adds a node for each step, behind the one before.
class Graph::Builder final : public Launcher {
 public:
  Builder(const Addresses& addresses, Graph* graph)
      : Launcher(addresses), graph_(*graph), driver_(graph->context_->driver()) {}

  Status Launch(uint32_t index, Grid grid, void** params, Pointers) override {
    if (Empty(grid)) return Status();
    const Kernel* kernel = nullptr;
    AOTI_RETURN_IF_ERROR(graph_.kernels_->Get(index, &kernel));
    cuda::KernelNodeParams node_params;
    AOTI_RETURN_IF_ERROR(KernelParams(*kernel, grid, params, &node_params));
    const std::string doing = Building(std::string("kernel ") + kernel->name);
    cuda::GraphNode node = nullptr;
    AOTI_CUDA_RETURN_IF_ERROR(driver_, doing, GraphAddKernelNode, &node, graph_.graph_, Before(),
                              NumBefore(), &node_params);
    graph_.nodes_.push_back(node);
    if (kernel->cluster == 1) return Status();
    const cuda::LaunchAttributeValue cluster = kernel->ClusterDimension();
    AOTI_CUDA_RETURN_IF_ERROR(driver_, doing, GraphKernelNodeSetAttribute, node,
                              cuda::kLaunchAttributeClusterDimension, &cluster);
    return Status();
  }

  Status Copy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes, Pointers) override {
    if (nbytes == 0) return Status();
    const cuda::Memcpy3D params = CopyParams(dst, src, nbytes);
    cuda::GraphNode node = nullptr;
    AOTI_CUDA_RETURN_IF_ERROR(driver_, Building("a copy"), GraphAddMemcpyNode, &node, graph_.graph_,
                              Before(), NumBefore(), &params, graph_.context_->handle());
    graph_.nodes_.push_back(node);
    return Status();
  }

  Status Fill(DeviceAddress dst, uint8_t byte, uint64_t nbytes, Pointers) override {
    if (nbytes == 0) return Status();
    const cuda::MemsetNodeParams params = FillParams(dst, byte, nbytes);
    cuda::GraphNode node = nullptr;
    AOTI_CUDA_RETURN_IF_ERROR(driver_, Building("a fill"), GraphAddMemsetNode, &node, graph_.graph_,
                              Before(), NumBefore(), &params, graph_.context_->handle());
    graph_.nodes_.push_back(node);
    return Status();
  }

 private:
  const cuda::GraphNode* Before() const {
    return graph_.nodes_.empty() ? nullptr : &graph_.nodes_.back();
  }
  size_t NumBefore() const { return graph_.nodes_.empty() ? 0 : 1; }

  Graph& graph_;
  const Driver& driver_;
};

// Walks over the nodes, and gives those that hold what is the caller's, or all, what is new.
class Graph::Updater final : public Launcher {
 public:
  Updater(const Addresses& addresses, Graph* graph, bool all)
      : Launcher(addresses), graph_(*graph), driver_(graph->context_->driver()), all_(all) {}

  Status Launch(uint32_t index, Grid grid, void** params, Pointers pointers) override {
    if (Empty(grid)) return Status();
    cuda::GraphNode node = nullptr;
    AOTI_RETURN_IF_ERROR(Next(&node));
    if (!all_ && pointers == Pointers::kOwned) return Status();
    const Kernel* kernel = nullptr;
    AOTI_RETURN_IF_ERROR(graph_.kernels_->Get(index, &kernel));
    cuda::KernelNodeParams node_params;
    AOTI_RETURN_IF_ERROR(KernelParams(*kernel, grid, params, &node_params));
    AOTI_CUDA_RETURN_IF_ERROR(driver_, Updating(std::string("kernel ") + kernel->name),
                              GraphExecKernelNodeSetParams, graph_.exec_, node, &node_params);
    return Status();
  }

  Status Copy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes, Pointers pointers) override {
    if (nbytes == 0) return Status();
    cuda::GraphNode node = nullptr;
    AOTI_RETURN_IF_ERROR(Next(&node));
    if (!all_ && pointers == Pointers::kOwned) return Status();
    const cuda::Memcpy3D params = CopyParams(dst, src, nbytes);
    AOTI_CUDA_RETURN_IF_ERROR(driver_, Updating("a copy"), GraphExecMemcpyNodeSetParams,
                              graph_.exec_, node, &params, graph_.context_->handle());
    return Status();
  }

  Status Fill(DeviceAddress dst, uint8_t byte, uint64_t nbytes, Pointers pointers) override {
    if (nbytes == 0) return Status();
    cuda::GraphNode node = nullptr;
    AOTI_RETURN_IF_ERROR(Next(&node));
    if (!all_ && pointers == Pointers::kOwned) return Status();
    const cuda::MemsetNodeParams params = FillParams(dst, byte, nbytes);
    AOTI_CUDA_RETURN_IF_ERROR(driver_, Updating("a fill"), GraphExecMemsetNodeSetParams,
                              graph_.exec_, node, &params, graph_.context_->handle());
    return Status();
  }

  Status Finish() const { return next_ == graph_.nodes_.size() ? Status() : OtherSteps(); }

 private:
  Status Next(cuda::GraphNode* node) {
    if (next_ == graph_.nodes_.size()) return OtherSteps();
    *node = graph_.nodes_[next_++];
    return Status();
  }

  static Status OtherSteps() {
    return Status(Code::kInternal,
                  "launch code issued other steps than the CUDA graph was built of");
  }

  Graph& graph_;
  const Driver& driver_;
  const bool all_;
  size_t next_ = 0;
};

Graph::~Graph() {
  if (graph_ == nullptr) return;
  const ScopedContext scope(*context_);
  if (!scope.ok()) return;
  if (exec_ != nullptr) context_->driver().GraphExecDestroy(exec_);
  context_->driver().GraphDestroy(graph_);
}

Status Graph::Build(std::shared_ptr<const Context> context, const KernelSet& kernels,
                    Procedure procedure, const Addresses& addresses) {
  context_ = std::move(context);
  kernels_ = &kernels;
  const Driver& driver = context_->driver();
  AOTI_CUDA_RETURN_IF_ERROR(driver, "creating a CUDA graph", GraphCreate, &graph_, 0);
  Builder builder(addresses, this);
  AOTI_RETURN_IF_ERROR(procedure(builder));
  AOTI_CUDA_RETURN_IF_ERROR(
      driver, "instantiating a CUDA graph of " + std::to_string(nodes_.size()) + " nodes",
      GraphInstantiateWithFlags, &exec_, graph_, 0);
  return Status();
}

Status Graph::Update(Procedure procedure, const Addresses& addresses, bool all) {
  Updater updater(addresses, this, all);
  AOTI_RETURN_IF_ERROR(procedure(updater));
  return updater.Finish();
}

Status Graph::Launch(cuda::Stream stream) {
  AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), "launching a CUDA graph", GraphLaunch, exec_,
                            stream);
  return Status();
}

}  // namespace aoti
