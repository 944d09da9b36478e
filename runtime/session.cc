#include "runtime/session.h"

#include <algorithm>
#include <utility>

#include "runtime/stream_launcher.h"
#include "runtime/tensor.h"

namespace aoti {

Session::Session(std::shared_ptr<Model> model, const Options& options)
    : model_(std::move(model)), options_(options) {
  const ModelDescription& description = model_->description();
  arguments_.inputs.resize(description.inputs.size);
  arguments_.outputs.resize(description.outputs.size);
  if (description.symbols.size != 0) {
    sizes_ = std::make_unique<Sizes>(description, &model_->target());
  }
}

Status Session::Create(std::shared_ptr<Model> model, const Options& options,
                       std::unique_ptr<Session>* session) {
  std::unique_ptr<Session> created(new Session(std::move(model), options));
  AOTI_RETURN_IF_ERROR(created->Prepare());
  created->model_->Add(created.get());
  *session = std::move(created);
  return Status();
}

Status Session::Prepare() {
  const std::shared_ptr<const Context>& context = model_->context();
  const ScopedContext scope(*context);
  AOTI_RETURN_IF_ERROR(scope.status());
  arena_ = std::make_unique<DeviceMemory>();
  // Where the sizes decide, the first run does.
  if (model_->target().arena == kFixed) AOTI_RETURN_IF_ERROR(Reserve(false));
  const auto finished = std::make_shared<Event>();
  AOTI_RETURN_IF_ERROR(finished->Create(context));
  finished_ = finished;
  return Status();
}

Session::~Session() {
  model_->Remove(this);
  const ScopedContext scope(*model_->context());
  // The last run may still use the arena and weights. Its own errors are for whoever waits for its
  // stream.
  if (scope.ok()) static_cast<void>(finished_->Wait().ok());
}

Status Session::Run(const DLTensor* const* inputs, size_t num_inputs,
                    const DLTensor* const* outputs, size_t num_outputs, cuda::Stream stream) {
  if (busy_.exchange(true, std::memory_order_acquire)) {
    return Status(Code::kInvalidArgument,
                  "the session is in use by another thread; create one session a thread");
  }
  // Released on every way out, exceptions included.
  struct Release {
    std::atomic<bool>& busy;
    ~Release() { busy.store(false, std::memory_order_release); }
  } release{busy_};
  const std::lock_guard<std::mutex> lock(mutex_);
  return RunLocked(inputs, num_inputs, outputs, num_outputs, stream);
}

Status Session::RunLocked(const DLTensor* const* inputs, size_t num_inputs,
                          const DLTensor* const* outputs, size_t num_outputs, cuda::Stream stream) {
  AOTI_RETURN_IF_ERROR(ReadArguments(inputs, num_inputs, outputs, num_outputs));
  const Context& context = *model_->context();
  const ScopedContext scope(context);
  AOTI_RETURN_IF_ERROR(scope.status());
  AOTI_RETURN_IF_ERROR(TakeWeights());
  int capture = cuda::kCaptureStatusNone;
  AOTI_CUDA_RETURN_IF_ERROR(context.driver(), "examining the stream", StreamIsCapturing, stream,
                            &capture);
  if (capture != cuda::kCaptureStatusNone) {
    if (model_->description().debug != 0) {
      return Status(Code::kInvalidArgument,
                    "the stream is being captured, which a model built with --//aoti:debug does "
                    "not allow: build it without");
    }
    for (const KernelDescription& kernel : model_->target().kernels) {
      if ((kernel.flags & kSetsCondition) == 0) continue;
      return Status(Code::kInvalidArgument,
                    "the stream is being captured, and the model has branches or loops that depend "
                    "on what it computes, which become no part of a caller's graph: run it outside "
                    "of the capture; it is a graph of its own");
    }
    // Becomes part of the caller's graph, step by step; its order among other runs is the caller's.
    AOTI_RETURN_IF_ERROR(Reserve(true));
    arena_is_captured_ = true;
    if (captured_weights_.empty() || captured_weights_.back() != weights_) {
      captured_weights_.push_back(weights_);
    }
    return Issue(stream);
  }
  Status status = Enqueue(stream);
  // Part of the run may be on its way with no event behind it to wait for, and the session may be
  // destroyed next. What this reports would hide the failure that led here.
  if (!status.ok()) context.driver().StreamSynchronize(stream);
  return status;
}

Status Session::TakeWeights() {
  // The model's weights may change in any moment; this run is one with those of this moment.
  if (weights_ != nullptr && weights_->id() == model_->weights_id()) return Status();
  std::shared_ptr<const WeightSet> weights = model_->weights();
  if (weights == nullptr) {
    return Status(Code::kInvalidArgument,
                  std::string("model ") + model_->description().name +
                      " has no weights yet: load some and give them to aoti_model_swap_weights");
  }
  if (weights_ != nullptr) earlier_weights_.push_back({std::move(weights_), finished_});
  weights_ = std::move(weights);
  return Status();
}

std::shared_ptr<const Event> Session::ReleaseWeights(const WeightSet& weights) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto earlier = earlier_weights_.begin(); earlier != earlier_weights_.end();) {
    if (earlier->weights.get() != &weights) {
      ++earlier;
    } else if (!earlier->finished->Reached()) {
      return earlier->finished;
    } else {
      earlier = earlier_weights_.erase(earlier);
    }
  }
  if (weights_.get() != &weights) return nullptr;
  if (!finished_->Reached()) return finished_;
  weights_ = nullptr;
  return nullptr;
}

void Session::ReleaseFinishedWeights(uint64_t active) {
  // A run that is being issued takes the new weights, or did so last.
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  const auto finished = [](const EarlierWeights& earlier) { return earlier.finished->Reached(); };
  earlier_weights_.erase(std::remove_if(earlier_weights_.begin(), earlier_weights_.end(), finished),
                         earlier_weights_.end());
  if (weights_ != nullptr && weights_->id() != active && finished_->Reached()) weights_ = nullptr;
}

Status Session::Reserve(bool capturing) {
  const uint64_t needed = sizes_ == nullptr ? SessionMemory(model_->target()) : sizes_->arena();
  if (needed <= arena_size_) return Status();
  if (capturing) {
    return Status(Code::kInvalidArgument,
                  "the stream is being captured, and the session's memory must grow from " +
                      std::to_string(arena_size_) + " to " + std::to_string(needed) +
                      " bytes for these sizes, which a capture does not allow: run the session "
                      "at these sizes once before");
  }
  // Earlier runs still use the memory there is; so may graphs that the caller has captured.
  AOTI_RETURN_IF_ERROR(finished_->Wait());
  arena_size_ = 0;
  if (arena_is_captured_) {
    captured_arenas_.push_back(std::move(arena_));
    arena_is_captured_ = false;
  }
  // Before the new memory is there, so that both need not fit.
  arena_ = std::make_unique<DeviceMemory>();
  AOTI_RETURN_IF_ERROR(arena_->Allocate(model_->context(), needed, "a session's temporaries"));
  arena_size_ = needed;
  return Status();
}

Status Session::Enqueue(cuda::Stream stream) {
  AOTI_RETURN_IF_ERROR(Reserve(false));
  if (options_.use_graph && model_->description().debug == 0) {
    AOTI_RETURN_IF_ERROR(LaunchGraph(stream));
  } else {
    // The arena is free once the run before has finished.
    AOTI_RETURN_IF_ERROR(finished_->Wait(stream));
    AOTI_RETURN_IF_ERROR(Issue(stream));
  }
  return RecordFinished(stream);
}

Status Session::RecordFinished(cuda::Stream stream) {
  // Whoever waits for weights to be free waits for runs that have been, and for no later one.
  if (finished_.use_count() != 1) {
    const auto fresh = std::make_shared<Event>();
    AOTI_RETURN_IF_ERROR(fresh->Create(model_->context()));
    AOTI_RETURN_IF_ERROR(fresh->Record(stream));
    finished_ = fresh;
    return Status();
  }
  return finished_->Record(stream);
}

Status Session::ReadArguments(const DLTensor* const* inputs, size_t num_inputs,
                              const DLTensor* const* outputs, size_t num_outputs) {
  const ModelDescription& description = model_->description();
  const Check check = options_.check_tensors ? Check::kFull : Check::kTrust;
  const int device = model_->context()->device().ordinal;
  Table<TensorDescription> input_descriptions = description.inputs;
  Table<TensorDescription> output_descriptions = description.outputs;
  if (sizes_ != nullptr) {
    AOTI_RETURN_IF_ERROR(sizes_->Read(inputs, num_inputs));
    arguments_.symbols = sizes_->symbols();
    input_descriptions = sizes_->inputs();
    output_descriptions = sizes_->outputs();
  }
  AOTI_RETURN_IF_ERROR(ReadTensors(Side::kInput, input_descriptions, inputs, num_inputs, device,
                                   check, arguments_.inputs.data(), sizes_.get()));
  AOTI_RETURN_IF_ERROR(ReadTensors(Side::kOutput, output_descriptions, outputs, num_outputs, device,
                                   check, arguments_.outputs.data(), sizes_.get()));
  if (check == Check::kTrust) return Status();
  return CheckOverlap(input_descriptions, arguments_.inputs.data(), output_descriptions,
                      arguments_.outputs.data());
}

Status Session::Issue(cuda::Stream stream) {
  StreamLauncher launcher(addresses(), model_->context()->driver(), model_->kernels(), stream);
  return model_->target().run(launcher);
}

Status Session::LaunchGraph(cuda::Stream stream) {
  CachedGraph* prepared = nullptr;
  AOTI_RETURN_IF_ERROR(PrepareGraph(&prepared));
  // Launches of one graph follow one another anyway.
  if (last_graph_ != prepared->number) AOTI_RETURN_IF_ERROR(finished_->Wait(stream));
  last_graph_ = prepared->number;
  return prepared->graph.Launch(stream);
}

Status Session::PrepareGraph(CachedGraph** prepared) {
  static const std::vector<int64_t> kNoKey;
  const std::vector<int64_t>& key = sizes_ == nullptr ? kNoKey : sizes_->key();
  auto found = graphs_.begin();
  while (found != graphs_.end() && found->key != key) ++found;
  const auto moved = [this](const CachedGraph& graph) {
    return graph.arena != arena_->address() || graph.weights != weights_->id();
  };
  if (found != graphs_.end() && found->graph.has_conditions() && moved(*found)) {
    // It cannot be updated. A launch in progress keeps its graph until it has finished.
    graphs_.erase(found);
    found = graphs_.end();
  }
  if (found == graphs_.end()) {
    std::list<CachedGraph> made(1);
    CachedGraph& graph = made.front();
    graph.key = key;
    graph.arguments = arguments_;
    graph.arena = arena_->address();
    graph.weights = weights_->id();
    AOTI_RETURN_IF_ERROR(
        graph.graph.Build(model_->context(), model_->kernels(), model_->target().run, addresses()));
    graph.current = true;
    graph.number = ++built_graphs_;
    graphs_.splice(graphs_.begin(), made);
    *prepared = &graphs_.front();
    // A launch in progress keeps its graph until it has finished.
    if (graphs_.size() > options_.max_graphs) graphs_.pop_back();
    return Status();
  }
  if (found != graphs_.begin()) graphs_.splice(graphs_.begin(), graphs_, found);
  CachedGraph& graph = graphs_.front();
  *prepared = &graph;
  const bool all = moved(graph);
  if (graph.current && !all && graph.arguments == arguments_) return Status();
  graph.current = false;       // until the update has succeeded
  if (all) graph.weights = 0;  // and until then, which of its nodes hold what is not known
  AOTI_RETURN_IF_ERROR(graph.graph.Update(model_->target().run, addresses(), all));
  graph.arguments = arguments_;
  graph.arena = arena_->address();
  graph.weights = weights_->id();
  graph.current = true;
  return Status();
}

Addresses Session::addresses() const {
  Addresses addresses = weights_->addresses();
  addresses.arena = arena_->address();
  addresses.inputs = arguments_.inputs.data();
  addresses.outputs = arguments_.outputs.data();
  if (sizes_ != nullptr) addresses.values = sizes_->values();
  return addresses;
}

}  // namespace aoti
