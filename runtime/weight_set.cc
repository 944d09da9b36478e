#include "runtime/weight_set.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <utility>

#include "runtime/stream.h"
#include "runtime/stream_launcher.h"
#include "runtime/tensor.h"

namespace aoti {
namespace {

uint64_t NextId() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

bool SameTensor(const WeightDescription& a, const WeightDescription& b) {
  return std::memcmp(&a.dtype, &b.dtype, sizeof a.dtype) == 0 &&
         std::equal(a.shape.begin(), a.shape.end(), b.shape.begin(), b.shape.end());
}

Status OpenWeights(const WeightSources& sources, std::unique_ptr<SafetensorsFile>* file) {
  std::unique_ptr<ByteSource> source;
  std::string label = "weights in memory";
  if (sources.path != nullptr) {
    label = sources.path;
    AOTI_RETURN_IF_ERROR(OpenFile(label, &source));
  } else if (sources.data != nullptr) {
    source = WrapMemory(sources.data, sources.size);
  } else {
    return Status();
  }
  return SafetensorsFile::Open(std::move(source), std::move(label), file);
}

}  // namespace

WeightSet::WeightSet(const TargetDescription& target, std::shared_ptr<const Context> context)
    : id_(NextId()),
      target_(target),
      context_(std::move(context)),
      places_(target.weights.size),
      addresses_(target.weights.size) {}

Addresses WeightSet::addresses() const {
  Addresses addresses = {};
  addresses.weights = addresses_.data();
  addresses.constants = constants_->address();
  return addresses;
}

WeightLoader::WeightLoader(const ModelDescription& model, const TargetDescription& target,
                           const WeightSources& sources)
    : model_(model), target_(target), sources_(sources), found_(target.weights.size) {}

Status WeightLoader::Find(int ordinal) {
  AOTI_RETURN_IF_ERROR(FindTensors(ordinal));
  if (SharesConstants()) base_ = sources_.from.front().get();
  FindShared();
  return FindInFile();
}

Status WeightLoader::FindTensors(int ordinal) {
  std::map<std::string, size_t> indices;
  for (size_t i = 0; i < target_.weights.size; ++i) indices.emplace(target_.weights[i].name, i);
  for (size_t i = 0; i < sources_.tensors.size; ++i) {
    const AotiNamedTensor& given = sources_.tensors[i];
    if (given.name == nullptr) {
      return Status(Code::kInvalidArgument, "tensor " + std::to_string(i) + " has no name");
    }
    const auto fault = [&](const std::string& what) {
      return Status(Code::kInvalidArgument, std::string("weight ") + given.name + ": " + what);
    };
    const auto index = indices.find(given.name);
    if (index == indices.end()) {
      return fault(std::string("model ") + model_.name + " has no such weight");
    }
    Source& source = found_[index->second];
    if (source.origin != Origin::kNone) return fault("is given twice");
    if (given.tensor == nullptr) return fault("its tensor is a null pointer");
    if ((given.flags & ~uint64_t{AOTI_WEIGHT_IN_PLACE}) != 0) {
      return fault("AotiNamedTensor.flags has an unknown bit set");
    }
    const bool in_place = (given.flags & AOTI_WEIGHT_IN_PLACE) != 0;
    bool on_host = false;
    AOTI_RETURN_IF_ERROR(ReadWeight(target_.weights[index->second], *given.tensor, ordinal,
                                    in_place, &source.address, &on_host));
    source.origin = in_place ? Origin::kInPlace : on_host ? Origin::kHost : Origin::kDevice;
  }
  for (size_t i = 0; i < found_.size(); ++i) {
    const WeightDescription& weight = target_.weights[i];
    if (!weight.folding && !weight.main) found_[i].origin = Origin::kNotNeeded;
  }
  return Status();
}

bool WeightLoader::SharesConstants() const {
  if (sources_.from.empty()) return false;
  const WeightSet& first = *sources_.from.front();
  if (&first.target() != &target_) return false;
  for (size_t i = 0; i < found_.size(); ++i) {
    const WeightDescription& weight = target_.weights[i];
    if (!weight.folding) continue;
    if (found_[i].origin != Origin::kNone) return false;
    if (sources_.keep_all && !first.place(i).kept) return false;
  }
  return true;
}

void WeightLoader::FindShared() {
  std::map<std::string, size_t> wanted;
  for (size_t i = 0; i < found_.size(); ++i) {
    Source& source = found_[i];
    if (source.origin != Origin::kNone) continue;
    wanted.emplace(target_.weights[i].name, i);
  }
  for (const std::shared_ptr<const WeightSet>& set : sources_.from) {
    const Table<WeightDescription>& theirs = set->target().weights;
    for (size_t j = 0; j < theirs.size; ++j) {
      const auto index = wanted.find(theirs[j].name);
      if (index == wanted.end() || !SameTensor(theirs[j], target_.weights[index->second])) continue;
      Source& source = found_[index->second];
      if (set->place(j).kept) {
        source.origin = Origin::kShared;
        source.place = &set->place(j);
      } else if (set.get() == base_) {
        source.origin = Origin::kNotNeeded;
      } else {
        source.forgotten = true;
        continue;
      }
      wanted.erase(index);
    }
  }
}

Status WeightLoader::FindInFile() {
  AOTI_RETURN_IF_ERROR(OpenWeights(sources_, &file_));
  for (size_t i = 0; i < found_.size(); ++i) {
    Source& source = found_[i];
    if (source.origin != Origin::kNone) continue;
    if (file_ == nullptr) return Missing(i);
    const SafetensorsFile::Tensor* tensor = nullptr;
    AOTI_RETURN_IF_ERROR(file_->Find(target_.weights[i], &tensor));
    source.origin = Origin::kFile;
    source.offset = tensor->offset;
  }
  return Status();
}

Status WeightLoader::Missing(size_t index) const {
  if (sources_.tensors.size == 0 && sources_.from.empty()) {
    return Status(Code::kInvalidArgument,
                  std::string("model ") + model_.name + " needs " +
                      std::to_string(target_.weights.size) +
                      " weights: name a safetensors file, or give them as tensors");
  }
  const WeightDescription& weight = target_.weights[index];
  std::string message = std::string("weight ") + weight.name + " (" + TensorText(weight) + ")";
  if (found_[index].forgotten) {
    message +=
        ": only constants are made of it, and the weights to share with no longer have it: give it "
        "as a tensor or in a file, or load those with AOTI_WEIGHTS_KEEP_ALL";
  } else {
    message +=
        " is neither among the tensors nor in the weights to share with, and no file is named";
  }
  return Status(Code::kNotFound, std::move(message));
}

bool WeightLoader::IsCopied(size_t index) const {
  const Origin origin = found_[index].origin;
  return origin == Origin::kFile || origin == Origin::kHost || origin == Origin::kDevice;
}

bool WeightLoader::IsKept(size_t index) const {
  return target_.weights[index].main || sources_.keep_all;
}

bool WeightLoader::ReadsCallersDeviceMemory() const {
  return std::any_of(found_.begin(), found_.end(), [](const Source& source) {
    return source.origin == Origin::kDevice || source.origin == Origin::kInPlace;
  });
}

Status WeightLoader::Load(const std::shared_ptr<const Context>& context, const KernelSet& kernels,
                          std::shared_ptr<const WeightSet>* set) {
  AOTI_RETURN_IF_ERROR(CheckContexts(*context));
  const auto loaded = std::make_shared<WeightSet>(target_, context);
  AOTI_RETURN_IF_ERROR(Allocate(loaded.get()));
  // Destroyed, and so drained, before the temporary memory: it is not a member.
  Stream stream;
  AOTI_RETURN_IF_ERROR(stream.Create(context));
  if (ReadsCallersDeviceMemory()) {
    int capture = cuda::kCaptureStatusNone;
    AOTI_CUDA_RETURN_IF_ERROR(context->driver(), "examining the stream", StreamIsCapturing,
                              sources_.stream, &capture);
    if (capture != cuda::kCaptureStatusNone) {
      return Status(Code::kInvalidArgument,
                    "the stream that weights are ordered after is being captured: load them "
                    "outside of the capture");
    }
    Event ready;
    AOTI_RETURN_IF_ERROR(ready.Create(context));
    AOTI_RETURN_IF_ERROR(ready.Record(sources_.stream));
    AOTI_RETURN_IF_ERROR(ready.Wait(stream.handle()));
  }
  AOTI_RETURN_IF_ERROR(Copy(loaded.get(), stream.handle()));
  if (base_ == nullptr) AOTI_RETURN_IF_ERROR(Fold(*loaded, kernels, stream.handle()));
  AOTI_RETURN_IF_ERROR(stream.Synchronize("computing constants from the weights"));
  // What only folding read is gone with this loader, or the caller's again.
  for (size_t i = 0; i < found_.size(); ++i) {
    WeightSet::Place& place = loaded->places_[i];
    place.kept = IsKept(i) && found_[i].origin != Origin::kNotNeeded;
    if (place.kept) continue;
    place = {};
    loaded->addresses_[i] = 0;
  }
  *set = loaded;
  return Status();
}

Status WeightLoader::CheckContexts(const Context& context) const {
  for (const std::shared_ptr<const WeightSet>& set : sources_.from) {
    if (set->context()->handle() == context.handle()) continue;
    return Status(Code::kInvalidArgument,
                  "the weights to share with are in another context, of device " +
                      std::to_string(set->context()->device().ordinal) +
                      ": weights are shared within one context");
  }
  return Status();
}

Status WeightLoader::Allocate(WeightSet* set) {
  const std::shared_ptr<const Context>& context = set->context();
  uint64_t own = 0;
  for (size_t i = 0; i < found_.size(); ++i) {
    if (IsCopied(i)) (IsKept(i) ? own : staging_) += Align(target_.weights[i].nbytes);
  }
  const uint64_t constants = base_ == nullptr ? Align(target_.memory.constants) : 0;
  const uint64_t arena = base_ == nullptr ? Align(target_.memory.folding_arena) : 0;
  const auto memory = std::make_shared<DeviceMemory>();
  AOTI_RETURN_IF_ERROR(memory->Allocate(context, own, "weights"));
  if (base_ == nullptr) {
    const auto made = std::make_shared<DeviceMemory>();
    AOTI_RETURN_IF_ERROR(made->Allocate(context, constants, "constants"));
    set->constants_ = made;
  } else {
    set->constants_ = base_->constants_;
    set->info_.shared_memory += Align(target_.memory.constants);
  }
  AOTI_RETURN_IF_ERROR(temporary_.Allocate(context, staging_ + arena, "loading weights"));
  set->info_.own_memory = own + constants;
  Place(memory, set);
  return Status();
}

void WeightLoader::Place(const std::shared_ptr<const DeviceMemory>& memory, WeightSet* set) const {
  uint64_t kept_end = 0;
  uint64_t staging_end = 0;
  for (size_t i = 0; i < found_.size(); ++i) {
    const Source& source = found_[i];
    const uint64_t nbytes = target_.weights[i].nbytes;
    WeightSet::Place& place = set->places_[i];
    if (source.origin == Origin::kShared) {
      place = *source.place;
      // The other set may read it in place.
      if (place.memory == nullptr) set->info_.callers_memory += nbytes;
      if (place.memory != nullptr) set->info_.shared_memory += Align(nbytes);
    } else if (source.origin == Origin::kInPlace) {
      place.address = source.address;
      if (IsKept(i)) set->info_.callers_memory += nbytes;
    } else if (IsCopied(i)) {
      uint64_t& end = IsKept(i) ? kept_end : staging_end;
      place.address = (IsKept(i) ? memory->address() : temporary_.address()) + end;
      if (IsKept(i)) place.memory = memory;
      end += Align(nbytes);
    }
    set->addresses_[i] = place.address;
  }
}

Status WeightLoader::Copy(WeightSet* set, cuda::Stream stream) {
  std::vector<Transfer> from_file;
  std::vector<Transfer> from_host;
  std::vector<std::unique_ptr<ByteSource>> tensors;
  for (size_t i = 0; i < found_.size(); ++i) {
    const Source& source = found_[i];
    const uint64_t nbytes = target_.weights[i].nbytes;
    const DeviceAddress to = set->addresses_[i];
    if (nbytes == 0) continue;
    if (source.origin == Origin::kFile) {
      from_file.push_back({&file_->source(), source.offset, nbytes, to});
    } else if (source.origin == Origin::kHost) {
      tensors.push_back(WrapMemory(reinterpret_cast<const void*>(source.address), nbytes));
      from_host.push_back({tensors.back().get(), 0, nbytes, to});
    } else if (source.origin == Origin::kDevice) {
      AOTI_CUDA_RETURN_IF_ERROR(set->context()->driver(),
                                std::string("copying weight ") + target_.weights[i].name,
                                MemcpyDtoDAsync, to, source.address, nbytes, stream);
    }
  }
  // In the order of the file, which is the fastest to read.
  std::sort(from_file.begin(), from_file.end(),
            [](const Transfer& a, const Transfer& b) { return a.offset < b.offset; });
  from_file.insert(from_file.end(), from_host.begin(), from_host.end());
  return Upload(set->context(), from_file);
}

Status WeightLoader::Fold(const WeightSet& set, const KernelSet& kernels,
                          cuda::Stream stream) const {
  Addresses addresses = set.addresses();
  addresses.arena = temporary_.address() + staging_;
  StreamLauncher launcher(addresses, set.context()->driver(), kernels, stream);
  return target_.fold(launcher);
}

}  // namespace aoti
