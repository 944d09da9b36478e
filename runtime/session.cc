#include "runtime/session.h"

#include <utility>

#include "runtime/stream_launcher.h"
#include "runtime/tensor.h"

namespace aoti {

Session::Session(std::shared_ptr<const Model> model, const Options& options)
    : model_(std::move(model)),
      options_(options),
      inputs_(model_->description().inputs.size),
      outputs_(model_->description().outputs.size),
      next_inputs_(inputs_.size()),
      next_outputs_(outputs_.size()) {}

Status Session::Create(std::shared_ptr<const Model> model, const Options& options,
                       std::unique_ptr<Session>* session) {
  std::unique_ptr<Session> created(new Session(std::move(model), options));
  AOTI_RETURN_IF_ERROR(created->Prepare());
  *session = std::move(created);
  return Status();
}

Status Session::Prepare() {
  const std::shared_ptr<const Context>& context = model_->context();
  const ScopedContext scope(*context);
  AOTI_RETURN_IF_ERROR(scope.status());
  AOTI_RETURN_IF_ERROR(
      arena_.Allocate(context, SessionMemory(model_->target()), "a session's temporaries"));
  return finished_.Create(context);
}

Session::~Session() {
  const ScopedContext scope(*model_->context());
  // The last run may still use the arena. Its own errors are for whoever waits for its stream.
  if (scope.ok()) static_cast<void>(finished_.Wait().ok());
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
  return RunLocked(inputs, num_inputs, outputs, num_outputs, stream);
}

Status Session::RunLocked(const DLTensor* const* inputs, size_t num_inputs,
                          const DLTensor* const* outputs, size_t num_outputs, cuda::Stream stream) {
  AOTI_RETURN_IF_ERROR(ReadArguments(inputs, num_inputs, outputs, num_outputs));
  const Context& context = *model_->context();
  const ScopedContext scope(context);
  AOTI_RETURN_IF_ERROR(scope.status());
  int capture = cuda::kCaptureStatusNone;
  AOTI_CUDA_RETURN_IF_ERROR(context.driver(), "examining the stream", StreamIsCapturing, stream,
                            &capture);
  if (capture != cuda::kCaptureStatusNone) {
    // Becomes part of the caller's graph, step by step; its order among other runs is the caller's.
    inputs_.swap(next_inputs_);
    outputs_.swap(next_outputs_);
    graph_is_current_ = false;
    return Issue(stream);
  }
  Status status = Enqueue(stream);
  // Part of the run may be on its way with no event behind it to wait for, and the session may be
  // destroyed next. What this reports would hide the failure that led here.
  if (!status.ok()) context.driver().StreamSynchronize(stream);
  return status;
}

Status Session::Enqueue(cuda::Stream stream) {
  if (options_.use_graph) {
    AOTI_RETURN_IF_ERROR(LaunchGraph(stream));
  } else {
    inputs_.swap(next_inputs_);
    outputs_.swap(next_outputs_);
    // The arena is free once the run before has finished. (Launches of one graph are ordered
    // anyway.)
    AOTI_RETURN_IF_ERROR(finished_.Wait(stream));
    AOTI_RETURN_IF_ERROR(Issue(stream));
  }
  return finished_.Record(stream);
}

Status Session::ReadArguments(const DLTensor* const* inputs, size_t num_inputs,
                              const DLTensor* const* outputs, size_t num_outputs) {
  const ModelDescription& description = model_->description();
  const Check check = options_.check_tensors ? Check::kFull : Check::kTrust;
  const int device = model_->context()->device().ordinal;
  AOTI_RETURN_IF_ERROR(ReadTensors(Side::kInput, description.inputs, inputs, num_inputs, device,
                                   check, next_inputs_.data()));
  AOTI_RETURN_IF_ERROR(ReadTensors(Side::kOutput, description.outputs, outputs, num_outputs, device,
                                   check, next_outputs_.data()));
  if (check == Check::kTrust) return Status();
  return CheckOverlap(description.inputs, next_inputs_.data(), description.outputs,
                      next_outputs_.data());
}

Status Session::Issue(cuda::Stream stream) {
  StreamLauncher launcher(addresses(), model_->context()->driver(), model_->kernels(), stream);
  return model_->target().run(launcher);
}

Status Session::LaunchGraph(cuda::Stream stream) {
  const bool moved = inputs_ != next_inputs_ || outputs_ != next_outputs_;
  inputs_.swap(next_inputs_);
  outputs_.swap(next_outputs_);
  if (graph_ == nullptr) {
    auto graph = std::make_unique<Graph>();
    AOTI_RETURN_IF_ERROR(
        graph->Build(model_->context(), model_->kernels(), model_->target().run, addresses()));
    graph_ = std::move(graph);
  } else if (moved || !graph_is_current_) {
    graph_is_current_ = false;  // until the update has succeeded
    AOTI_RETURN_IF_ERROR(graph_->Update(model_->target().run, addresses()));
  }
  graph_is_current_ = true;
  return graph_->Launch(stream);
}

Addresses Session::addresses() const {
  Addresses addresses = model_->addresses();
  addresses.arena = arena_.address();
  addresses.inputs = inputs_.data();
  addresses.outputs = outputs_.data();
  return addresses;
}

}  // namespace aoti
