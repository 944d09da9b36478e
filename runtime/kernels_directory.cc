#include "runtime/kernels_directory.h"

#include <dirent.h>

#include <cerrno>
#include <limits>
#include <memory>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "nlohmann/json.hpp"
#include "runtime/driver.h"
#include "runtime/platform.h"
#include "runtime/weights.h"

namespace aoti {
namespace {

using Json = nlohmann::json;

// METADATA_VERSION of wrapgen/codegen/kernels.py.
constexpr uint32_t kMetadataVersion = 2;

Status ReadFile(const std::string& path, std::string* bytes) {
  std::unique_ptr<ByteSource> source;
  AOTI_RETURN_IF_ERROR(OpenFile(path, &source));
  bytes->resize(source->size());
  return source->Read(0, source->size(), bytes->data());
}

// The names of all entries.
Status List(const std::string& directory, std::set<std::string>* names) {
  DIR* opened = opendir(directory.c_str());
  if (opened == nullptr) {
    return Status(Code::kNotFound, "kernels_dir: " + directory + ": cannot be opened: " +
                                       std::generic_category().message(errno));
  }
  const std::unique_ptr<DIR, int (*)(DIR*)> closing(opened, closedir);
  while (const dirent* entry = readdir(opened)) names->insert(entry->d_name);
  return Status();
}

// Whether `name` has this ending; stores what is before it.
bool Ends(const std::string& name, const std::string& ending, std::string* stem) {
  if (name.size() <= ending.size()) return false;
  const size_t at = name.size() - ending.size();
  if (name.compare(at, std::string::npos, ending) != 0) return false;
  *stem = name.substr(0, at);
  return true;
}

const KernelDescription* Find(const TargetDescription& target, const std::string& name) {
  for (const KernelDescription& kernel : target.kernels) {
    if (name == kernel.name) return &kernel;
  }
  return nullptr;
}

// A kernel's metadata, read field by field; the first fault is kept.
class Metadata {
 public:
  Metadata(std::string path, const std::string& text)
      : path_(std::move(path)), json_(Json::parse(text, nullptr, /*allow_exceptions=*/false)) {
    if (!json_.is_object()) status_ = Status(Code::kDataLoss, path_ + ": is not a JSON object");
  }

  uint32_t Number(const char* field) {
    const Json* value = Field(field);
    if (value == nullptr) return 0;
    const bool good = value->is_number_unsigned() &&
                      value->get<uint64_t>() <= std::numeric_limits<uint32_t>::max();
    if (!good) Malformed(field, "a number of 32 bits");
    return good ? value->get<uint32_t>() : 0;
  }

  uint32_t Length(const char* field) {
    const Json* value = Field(field);
    if (value == nullptr) return 0;
    if (!value->is_array()) Malformed(field, "an array");
    return static_cast<uint32_t>(value->size());
  }

  void Expect(const char* field, const std::string& expected) {
    const Json* value = Field(field);
    if (value == nullptr) return;
    if (!value->is_string()) return Malformed(field, "a string");
    Compare(field, expected, value->get_ref<const std::string&>());
  }

  void Expect(const char* field, uint32_t expected, const std::string& why) {
    const uint32_t number = Number(field);
    Compare(field, std::to_string(expected), std::to_string(number), why);
  }

  void ExpectLength(const char* field, uint32_t expected, const std::string& why) {
    const uint32_t length = Length(field);
    Compare(std::string("the number of ") + field, std::to_string(expected), std::to_string(length),
            why);
  }

  // Launch code encodes tensor maps as those of the kernel that was built.
  void ExpectMaps(const Table<TensorMapDescription>& expected) {
    Json maps = Json::array();
    for (const TensorMapDescription& map : expected) {
      maps.push_back({{"param", map.param},
                      {"element", map.element},
                      {"swizzle", map.swizzle},
                      {"box", std::vector<uint32_t>(map.box.begin(), map.box.end())}});
    }
    const Json* value = Field("tensor_maps");
    if (value != nullptr) {
      Compare("tensor_maps", maps.dump(), value->dump(),
              "; a kernel whose tensor maps changed needs the model to be built again");
    }
  }

  void Refuse(Code code, const std::string& what) {
    if (status_.ok()) status_ = Status(code, path_ + ": " + what);
  }

  // To be called once, at the end.
  Status TakeStatus() { return std::move(status_); }

 private:
  const Json* Field(const char* field) {
    if (!status_.ok()) return nullptr;
    const auto found = json_.find(field);
    if (found != json_.end()) return &*found;
    Refuse(Code::kDataLoss, std::string("has no ") + field);
    return nullptr;
  }

  void Malformed(const char* field, const char* expected) {
    Refuse(Code::kDataLoss, std::string(field) + " is not " + expected);
  }

  void Compare(const std::string& what, const std::string& expected, const std::string& got,
               const std::string& why = "") {
    if (expected == got) return;
    Refuse(Code::kInvalidArgument, what + " is " + got + ", expected " + expected + why);
  }

  std::string path_;
  Json json_;
  Status status_;
};

Status ReadKernel(const std::string& stem, const KernelDescription& kernel,
                  const TargetDescription& target, int driver_version,
                  KernelReplacement* replacement) {
  std::string text;
  AOTI_RETURN_IF_ERROR(ReadFile(stem + ".json", &text));
  const std::string format = target.ptx ? "ptx" : kPlatform.machine_code;
  Metadata metadata(stem + ".json", text);
  metadata.Expect("schema_version", kMetadataVersion, "; compile it with this release's wrapgen");
  metadata.Expect("name", kernel.name);
  metadata.Expect("target", target.name);
  metadata.Expect("format", format);
  metadata.ExpectLength("params", kernel.num_params,
                        ", which launch code passes; a kernel whose parameters changed needs the "
                        "model to be built again");
  const uint32_t scratch = metadata.Number("global_scratch");
  if (scratch > kernel.scratch) {
    metadata.Refuse(Code::kInvalidArgument,
                    "global_scratch is " + std::to_string(scratch) + ", the library provides " +
                        std::to_string(kernel.scratch) + " bytes a block; build the model again");
  }
  metadata.Expect("profile_scratch", 0, "; the library provides none");
  metadata.ExpectMaps(kernel.tensor_maps);
  replacement->threads = metadata.Number("threads");
  replacement->shared_memory = metadata.Number("shared_memory");
  replacement->cluster = metadata.Number("num_ctas");
  if (replacement->threads == 0 || replacement->cluster == 0) {
    metadata.Refuse(Code::kDataLoss, "threads and num_ctas must not be 0");
  }
  const auto driver = static_cast<int>(metadata.Number("driver"));
  if (driver > driver_version) {
    metadata.Refuse(Code::kUnavailable, std::string("needs a driver for ") + kPlatform.name + " " +
                                            DriverVersionText(driver) +
                                            " or newer; this one supports " + kPlatform.name + " " +
                                            DriverVersionText(driver_version));
  }
  AOTI_RETURN_IF_ERROR(metadata.TakeStatus());
  replacement->path = stem + "." + format;
  return ReadFile(replacement->path, &replacement->image);
}

}  // namespace

Status ReadKernelsDirectory(const std::string& directory, const char* model,
                            const TargetDescription& target, int driver_version,
                            KernelReplacements* replacements) {
  const std::string place = directory + "/" + target.name;
  std::set<std::string> names;
  AOTI_RETURN_IF_ERROR(List(place, &names));
  for (const std::string& name : names) {
    std::string stem;
    const bool image =
        Ends(name, ".cubin", &stem) || Ends(name, ".ptx", &stem) || Ends(name, ".hsaco", &stem);
    if (!image && !Ends(name, ".json", &stem)) continue;
    const std::string path = place + "/" + stem;
    const KernelDescription* kernel = Find(target, stem);
    // Passed over, it would look like an edit without effect.
    if (kernel == nullptr) {
      return Status(Code::kInvalidArgument, place + "/" + name + ": model " + model +
                                                " has no kernel " + stem + " for " + target.name +
                                                "; remove the file, or build the model again");
    }
    if (image) {
      if (names.count(stem + ".json") != 0) continue;
      return Status(Code::kNotFound, path + ".json is missing: it is beside " + name +
                                         " where wrapgen compile writes the two");
    }
    AOTI_RETURN_IF_ERROR(ReadKernel(path, *kernel, target, driver_version, &(*replacements)[stem]));
  }
  return Status();
}

}  // namespace aoti
