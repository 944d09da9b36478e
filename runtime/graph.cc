#include "runtime/graph.h"

#include <string>
#include <utility>

#include "runtime/platform.h"

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

// "CUDA graph"
std::string Named() { return std::string(kPlatform.name) + " graph"; }

std::string Building(const std::string& what) { return "adding " + what + " to a " + Named(); }

std::string Updating(const std::string& what) { return "updating " + what + " of a " + Named(); }

}  // namespace

// Adds a node for each step, behind the one before.
class Graph::Builder final : public Launcher {
 public:
  Builder(const Addresses& addresses, Graph* owner)
      : Launcher(addresses),
        owner_(*owner),
        driver_(owner->context_->driver()),
        graph_(owner->graph_) {}

  Status Launch(uint32_t index, Grid grid, void** params, Pointers) override {
    if (Empty(grid)) return Status();
    const Kernel* kernel = nullptr;
    AOTI_RETURN_IF_ERROR(owner_.kernels_->Get(index, &kernel));
    cuda::KernelNodeParams node_params;
    AOTI_RETURN_IF_ERROR(KernelParams(*kernel, grid, params, &node_params));
    const std::string doing = Building(std::string("kernel ") + kernel->name);
    cuda::GraphNode node = nullptr;
    // Without the function, or behind what is no kernel, it starts when all before it has ended.
    const bool early =
        kernel->dependent() && after_kernel_ && driver_.GraphAddDependencies != nullptr;
    AOTI_CUDA_RETURN_IF_ERROR(driver_, doing, GraphAddKernelNode, &node, graph_,
                              early ? nullptr : Before(), early ? 0 : NumBefore(), &node_params);
    if (early) {
      cuda::GraphEdgeData edge = {};
      edge.from_port = cuda::kKernelNodePortProgrammatic;
      edge.type = cuda::kDependencyTypeProgrammatic;
      AOTI_CUDA_RETURN_IF_ERROR(driver_, doing, GraphAddDependencies, graph_, Before(), &node,
                                &edge, 1);
    }
    Added(node);
    after_kernel_ = true;
    for (const cuda::LaunchAttribute& attribute : kernel->Attributes()) {
      AOTI_CUDA_RETURN_IF_ERROR(driver_, doing, GraphKernelNodeSetAttribute, node, attribute.id,
                                &attribute.value);
    }
    return Status();
  }

  Status Encode(uint32_t index, uint32_t param, const MappedTensor& tensor,
                TensorMap* map) override {
    const Kernel* kernel = nullptr;
    AOTI_RETURN_IF_ERROR(owner_.kernels_->Get(index, &kernel));
    return kernel->Encode(driver_, param, tensor, map);
  }

  Status Copy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes, Pointers) override {
    if (nbytes == 0) return Status();
    const cuda::Memcpy3D params = CopyParams(dst, src, nbytes);
    cuda::GraphNode node = nullptr;
    AOTI_CUDA_RETURN_IF_ERROR(driver_, Building("a copy"), GraphAddMemcpyNode, &node, graph_,
                              Before(), NumBefore(), &params, owner_.context_->handle());
    Added(node);
    return Status();
  }

  Status Fill(DeviceAddress dst, uint8_t byte, uint64_t nbytes, Pointers) override {
    if (nbytes == 0) return Status();
    const cuda::MemsetNodeParams params = FillParams(dst, byte, nbytes);
    cuda::GraphNode node = nullptr;
    AOTI_CUDA_RETURN_IF_ERROR(driver_, Building("a fill"), GraphAddMemsetNode, &node, graph_,
                              Before(), NumBefore(), &params, owner_.context_->handle());
    Added(node);
    return Status();
  }

  Status If(uint32_t kernel, DeviceAddress predicate, uint32_t nbytes, Steps then,
            Steps otherwise) override {
    Condition condition = {kernel, predicate, nbytes};
    AOTI_RETURN_IF_ERROR(CreateHandle(&condition.handle));
    if (otherwise != nullptr) {
      condition.has_otherwise = 1;
      AOTI_RETURN_IF_ERROR(CreateHandle(&condition.otherwise));
    }
    AOTI_RETURN_IF_ERROR(Set(condition));
    AOTI_RETURN_IF_ERROR(Conditional(cuda::kConditionalIf, condition.handle,
                                     [&] { return then == nullptr ? Status() : then(*this); }));
    if (otherwise == nullptr) return Status();
    return Conditional(cuda::kConditionalIf, condition.otherwise, [&] { return otherwise(*this); });
  }

  Status While(uint32_t kernel, DeviceAddress predicate, uint32_t nbytes, Steps condition_steps,
               Steps body) override {
    Condition condition = {kernel, predicate, nbytes};
    AOTI_RETURN_IF_ERROR(CreateHandle(&condition.handle));
    const auto decide = [&] {
      if (condition_steps != nullptr) AOTI_RETURN_IF_ERROR(condition_steps(*this));
      return Set(condition);
    };
    AOTI_RETURN_IF_ERROR(decide());
    return Conditional(cuda::kConditionalWhile, condition.handle, [&] {
      if (body != nullptr) AOTI_RETURN_IF_ERROR(body(*this));
      return decide();
    });
  }

 private:
  // What decides about one or two conditional nodes.
  struct Condition {
    uint32_t kernel;
    DeviceAddress predicate;
    uint32_t nbytes;
    cuda::ConditionalHandle handle = 0;
    cuda::ConditionalHandle otherwise = 0;
    uint32_t has_otherwise = 0;
  };

  const cuda::GraphNode* Before() const { return last_ == nullptr ? nullptr : &last_; }
  size_t NumBefore() const { return last_ == nullptr ? 0 : 1; }

  void Added(cuda::GraphNode node) {
    last_ = node;
    after_kernel_ = false;
    // Nodes inside conditional ones are not to be updated.
    if (graph_ == owner_.graph_) owner_.nodes_.push_back(node);
  }

  Status CreateHandle(cuda::ConditionalHandle* handle) {
    if (driver_.GraphConditionalHandleCreate == nullptr || driver_.GraphAddNode == nullptr) {
      return Status(Code::kInternal,
                    "this driver has no conditional nodes, though it is new enough");
    }
    AOTI_CUDA_RETURN_IF_ERROR(driver_, Building("a condition"), GraphConditionalHandleCreate,
                              handle, graph_, owner_.context_->handle(), 0, 0);
    return Status();
  }

  // Adds the kernel that sets the handles. Its parameters: wrapgen/set_condition.py.
  Status Set(Condition condition) {
    DeviceAddress scratch[2] = {};
    void* params[] = {&condition.predicate, &condition.nbytes,        &condition.handle,
                      &condition.otherwise, &condition.has_otherwise, &scratch[0],
                      &scratch[1]};
    return Launch(condition.kernel, {1, 1, 1}, params, Pointers::kOwned);
  }

  template <typename Build>
  Status Conditional(int type, cuda::ConditionalHandle handle, const Build& build) {
    cuda::GraphNodeParams params = {};
    params.type = cuda::kGraphNodeTypeConditional;
    params.conditional.handle = handle;
    params.conditional.type = type;
    params.conditional.size = 1;
    params.conditional.context = owner_.context_->handle();
    cuda::GraphNode node = nullptr;
    AOTI_CUDA_RETURN_IF_ERROR(driver_, Building("a conditional node"), GraphAddNode, &node, graph_,
                              Before(), NumBefore(), &params);
    Added(node);
    owner_.has_conditions_ = true;
    const cuda::Graph outside = graph_;
    graph_ = params.conditional.graphs[0];
    last_ = nullptr;
    AOTI_RETURN_IF_ERROR(build());
    graph_ = outside;
    last_ = node;
    after_kernel_ = false;
    return Status();
  }

  Graph& owner_;
  const Driver& driver_;
  cuda::Graph graph_;               // that nodes are added to
  cuda::GraphNode last_ = nullptr;  // of it
  bool after_kernel_ = false;       // whether that is a kernel
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

  Status Encode(uint32_t index, uint32_t param, const MappedTensor& tensor,
                TensorMap* map) override {
    const Kernel* kernel = nullptr;
    AOTI_RETURN_IF_ERROR(graph_.kernels_->Get(index, &kernel));
    return kernel->Encode(driver_, param, tensor, map);
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

  // What is inside conditional nodes, and the kernels that decide about them, hold nothing of the
  // caller's; and other memory than before means another graph.
  Status If(uint32_t, DeviceAddress, uint32_t, Steps, Steps otherwise) override {
    return Skip(otherwise == nullptr ? 2 : 3);
  }

  Status While(uint32_t, DeviceAddress, uint32_t, Steps condition, Steps) override {
    if (condition != nullptr) AOTI_RETURN_IF_ERROR(condition(*this));
    return Skip(2);
  }

  Status Finish() const { return next_ == graph_.nodes_.size() ? Status() : OtherSteps(); }

 private:
  Status Next(cuda::GraphNode* node) {
    if (next_ == graph_.nodes_.size()) return OtherSteps();
    *node = graph_.nodes_[next_++];
    return Status();
  }

  Status Skip(int count) {
    cuda::GraphNode node = nullptr;
    for (int i = 0; i < count; ++i) AOTI_RETURN_IF_ERROR(Next(&node));
    return Status();
  }

  static Status OtherSteps() {
    return Status(Code::kInternal,
                  "launch code issued other steps than the " + Named() + " was built of");
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
  AOTI_CUDA_RETURN_IF_ERROR(driver, "creating a " + Named(), GraphCreate, &graph_, 0);
  Builder builder(addresses, this);
  AOTI_RETURN_IF_ERROR(procedure(builder));
  AOTI_CUDA_RETURN_IF_ERROR(
      driver, "instantiating a " + Named() + " of " + std::to_string(nodes_.size()) + " nodes",
      GraphInstantiateWithFlags, &exec_, graph_, 0);
  return Status();
}

Status Graph::Update(Procedure procedure, const Addresses& addresses, bool all) {
  Updater updater(addresses, this, all);
  AOTI_RETURN_IF_ERROR(procedure(updater));
  return updater.Finish();
}

Status Graph::Launch(cuda::Stream stream) {
  AOTI_CUDA_RETURN_IF_ERROR(context_->driver(), "launching a " + Named(), GraphLaunch, exec_,
                            stream);
  return Status();
}

}  // namespace aoti
