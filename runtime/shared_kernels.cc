#include "runtime/shared_kernels.h"

#include <map>
#include <mutex>
#include <tuple>

namespace aoti {
namespace {

// A target is known by its address: a description is never moved, and outlives its models. A
// handle is a context's for as long as kernels live in it. Replacements count by content: a
// directory may have others the next time.
using Key = std::tuple<const TargetDescription*, cuda::Context, KernelReplacements>;

struct Entry {
  std::mutex loading;
  std::weak_ptr<const KernelSet> kernels;
};

class Registry {
 public:
  // Never destroyed: other static objects may drop their models when the process ends.
  static Registry& Get() {
    static auto* registry = new Registry;
    return *registry;
  }

  std::shared_ptr<Entry> Find(const Key& key) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // Of what was unloaded, and what nobody is about to load.
    for (auto entry = entries_.begin(); entry != entries_.end();) {
      const bool gone = entry->second.use_count() == 1 && entry->second->kernels.expired();
      entry = gone ? entries_.erase(entry) : std::next(entry);
    }
    std::shared_ptr<Entry>& entry = entries_[key];
    if (entry == nullptr) entry = std::make_shared<Entry>();
    return entry;
  }

 private:
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<Entry>> entries_;
};

}  // namespace

Status ShareKernels(const std::shared_ptr<const Context>& context, const TargetDescription& target,
                    const KernelReplacements& replacements,
                    std::shared_ptr<const KernelSet>* kernels) {
  const std::shared_ptr<Entry> entry =
      Registry::Get().Find({&target, context->handle(), replacements});
  const std::lock_guard<std::mutex> lock(entry->loading);
  *kernels = entry->kernels.lock();
  if (*kernels != nullptr) return Status();
  const auto loaded = std::make_shared<KernelSet>();
  AOTI_RETURN_IF_ERROR(loaded->Load(context, target, replacements));
  entry->kernels = loaded;
  *kernels = loaded;
  return Status();
}

}  // namespace aoti
