// Classifies an image with a model built by aoti_library, and says how long it takes.
//
//   classify [--weights FILE] [--device N] [--labels FILE] [--runs N] IMAGE
//
// IMAGE is a JPEG or PNG file; or the input itself, as the one tensor of a .safetensors file or as
// raw bytes of the right number. A model with a batch gets the image in every place of it. Weights
// not named are those beside this program, in the file that Bazel makes for the model. Runs are
// timed 100 times if not said otherwise; on the simulator, which has no time to tell, not at all.
//
// The model is the one whose library this program is linked with. Its description function is given
// as AOTI_DESCRIPTION when this file is compiled.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "models/image.h"
#include "runtime/aoti.h"
#include "runtime/context.h"
#include "runtime/cpp.h"
#include "runtime/driver.h"
#include "runtime/memory.h"
#include "runtime/status.h"
#include "runtime/stream.h"
#include "runtime/tensor.h"
#include "runtime/weights.h"
#include "simulator/control.h"

#ifndef AOTI_DESCRIPTION
#define AOTI_DESCRIPTION resnet_aoti_description
#endif

extern "C" const AotiDescription* AOTI_DESCRIPTION(void);

namespace classify {
namespace {

using aoti::Code;
using aoti::Status;

constexpr char kUsage[] =
    "usage: classify [--weights FILE] [--device N] [--labels FILE] [--runs N] IMAGE\n";

struct Arguments {
  std::string weights;
  std::string labels;
  std::string image;
  int device = 0;
  int runs = -1;  // not said
};

Status Invalid(const std::string& message) { return Status(Code::kInvalidArgument, message); }

// `bazel run` starts the program elsewhere than the user stands.
std::string UserPath(const std::string& path) {
  const char* directory = std::getenv("BUILD_WORKING_DIRECTORY");
  if (directory == nullptr || path.empty() || path[0] == '/') return path;
  return std::string(directory) + "/" + path;
}

std::string DefaultWeights(const std::string& model) {
  std::error_code unknown;  // then in the current directory
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", unknown);
  return (program.parent_path() / (model + ".safetensors")).string();
}

Status ParseNumber(const std::string& option, const char* text, int least, int* number) {
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);  // NOLINT(runtime/int)
  if (end == text || *end != '\0' || value < least || value > 1'000'000) {
    return Invalid(option + ": not a number from " + std::to_string(least) + ": " + text);
  }
  *number = static_cast<int>(value);
  return Status();
}

Status ParseArguments(int argc, char** argv, Arguments* arguments) {
  for (int i = 1; i < argc; ++i) {
    const std::string option = argv[i];
    if (option.compare(0, 2, "--") != 0) {
      if (!arguments->image.empty()) return Invalid("more than one image");
      arguments->image = UserPath(option);
      continue;
    }
    if (i + 1 == argc) return Invalid(option + ": unknown, or its value is missing");
    const char* value = argv[++i];
    if (option == "--weights") {
      arguments->weights = UserPath(value);
    } else if (option == "--labels") {
      arguments->labels = UserPath(value);
    } else if (option == "--device") {
      AOTI_RETURN_IF_ERROR(ParseNumber(option, value, 0, &arguments->device));
    } else if (option == "--runs") {
      AOTI_RETURN_IF_ERROR(ParseNumber(option, value, 0, &arguments->runs));
    } else {
      return Invalid(option + ": unknown option");
    }
  }
  return arguments->image.empty() ? Invalid("no image given") : Status();
}

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

Status ReadLabels(const std::string& path, std::vector<std::string>* labels) {
  if (path.empty()) return Status();
  std::ifstream file(path);
  if (!file) return Status(Code::kNotFound, path + ": cannot be opened");
  for (std::string line; std::getline(file, line);) labels->push_back(line);
  return Status();
}

std::string Describe(const AotiTensorInfo& tensor) {
  return aoti::DTypeText(tensor.dtype) + " " +
         aoti::ShapeText(tensor.shape, static_cast<size_t>(tensor.ndim));
}

// One input [N, 3, S, S] and one output [N, classes], each float16 or float32 and contiguous.
Status CheckSignature(const AotiDescription* description, AotiDescriptionInfo* info,
                      AotiTensorInfo* input, AotiTensorInfo* output) {
  AotiStatus status;
  AOTI_RETURN_IF_ERROR(aoti::ToStatus(aoti_description_info(description, info, &status), status));
  if (info->num_inputs != 1 || info->num_outputs != 1) {
    return Invalid("the model is no classifier: it has not one input and one output");
  }
  AOTI_RETURN_IF_ERROR(
      aoti::ToStatus(aoti_description_input(description, 0, input, &status), status));
  AOTI_RETURN_IF_ERROR(
      aoti::ToStatus(aoti_description_output(description, 0, output, &status), status));
  const auto floating = [](const AotiTensorInfo& tensor) {
    uint64_t nbytes = 0;
    return tensor.dtype.code == kDLFloat && (tensor.dtype.bits == 16 || tensor.dtype.bits == 32) &&
           aoti::ContiguousSize(tensor.shape, static_cast<size_t>(tensor.ndim),
                                tensor.dtype.bits / 8, &nbytes) &&
           nbytes == tensor.nbytes;
  };
  if (!floating(*input) || input->ndim != 4 || input->shape[1] != 3 ||
      input->shape[2] != input->shape[3] || !floating(*output) || output->ndim != 2 ||
      output->nbytes == 0) {
    return Invalid("the model is no classifier of images: it takes " + Describe(*input) +
                   " and gives " + Describe(*output));
  }
  return Status();
}

Status ReadSafetensor(const std::string& path, const AotiTensorInfo& input,
                      std::vector<char>* bytes) {
  std::unique_ptr<aoti::ByteSource> source;
  std::unique_ptr<aoti::SafetensorsFile> file;
  AOTI_RETURN_IF_ERROR(aoti::OpenFile(path, &source));
  AOTI_RETURN_IF_ERROR(aoti::SafetensorsFile::Open(std::move(source), path, &file));
  if (file->tensors().size() != 1) return Invalid(path + ": does not hold exactly one tensor");
  const auto& [name, tensor] = *file->tensors().begin();
  const std::vector<int64_t> shape(input.shape, input.shape + input.ndim);
  if (tensor.dtype != aoti::SafetensorsName(input.dtype) || tensor.shape != shape) {
    return Invalid(path + ": tensor " + name + ": expected " + Describe(input) + ", got " +
                   tensor.dtype + " " + aoti::ShapeText(tensor.shape.data(), tensor.shape.size()));
  }
  bytes->resize(tensor.nbytes);
  return file->Read(tensor.offset, tensor.nbytes, bytes->data());
}

// Stores the input's bytes as the model takes them.
Status ReadInput(const std::string& path, const AotiTensorInfo& input, std::vector<char>* bytes) {
  if (EndsWith(path, ".safetensors")) return ReadSafetensor(path, input, bytes);
  std::unique_ptr<aoti::ByteSource> source;
  AOTI_RETURN_IF_ERROR(aoti::OpenFile(path, &source));
  if (source->size() == input.nbytes) {
    bytes->resize(input.nbytes);
    return source->Read(0, input.nbytes, bytes->data());
  }
  Image image;
  const std::string fault = ReadImage(path, &image);
  if (!fault.empty()) {
    return Invalid(fault + " (nor is it a raw tensor of " + std::to_string(input.nbytes) +
                   " bytes, " + Describe(input) + ")");
  }
  const std::vector<float> planes = Preprocess(image, input.shape[2]);
  for (int64_t place = 0; place < input.shape[0]; ++place) {
    for (const float value : planes) {
      const uint16_t half = ToHalf(value);
      const bool wide = input.dtype.bits == 32;
      const void* from = wide ? static_cast<const void*>(&value) : &half;
      const auto* first = static_cast<const char*>(from);
      bytes->insert(bytes->end(), first, first + input.dtype.bits / 8);
    }
  }
  return Status();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// Two events that measure device time.
class Timer {
 public:
  explicit Timer(const aoti::Driver& driver) : driver_(driver) {}
  ~Timer() {
    for (const aoti::cuda::Event event : events_) {
      if (event != nullptr) driver_.EventDestroy(event);
    }
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  Status Create() {
    for (aoti::cuda::Event& event : events_) {
      AOTI_CUDA_RETURN_IF_ERROR(driver_, "creating an event", EventCreate, &event, 0);
    }
    return Status();
  }
  Status Start(aoti::cuda::Stream stream) { return Record(0, stream); }
  Status Stop(aoti::cuda::Stream stream) { return Record(1, stream); }
  // After the stream was waited for. In microseconds.
  Status Elapsed(double* time) {
    float milliseconds = 0;
    AOTI_CUDA_RETURN_IF_ERROR(driver_, "measuring time", EventElapsedTime, &milliseconds,
                              events_[0], events_[1]);
    *time = 1000 * static_cast<double>(milliseconds);
    return Status();
  }

 private:
  Status Record(int which, aoti::cuda::Stream stream) {
    AOTI_CUDA_RETURN_IF_ERROR(driver_, "measuring time", EventRecord, events_[which], stream);
    return Status();
  }

  const aoti::Driver& driver_;
  aoti::cuda::Event events_[2] = {};
};

DLTensor View(const AotiTensorInfo& info, aoti::DeviceAddress address, int device) {
  DLTensor tensor = {};
  tensor.data = reinterpret_cast<void*>(address);
  tensor.device = {kDLCUDA, device};
  tensor.ndim = info.ndim;
  tensor.dtype = info.dtype;
  tensor.shape = const_cast<int64_t*>(info.shape);  // DLPack's fields are not const
  tensor.strides = const_cast<int64_t*>(info.strides);
  return tensor;
}

struct Latency {
  double device = 0;  // medians, in microseconds
  double wall = 0;
};

// A loaded model with memory for one input and one output. A context must be current throughout.
class Classifier {
 public:
  Classifier(std::shared_ptr<const aoti::Context> context, const AotiTensorInfo& input,
             const AotiTensorInfo& output)
      : context_(std::move(context)), input_(input), output_(output) {}

  Status Load(const AotiDescription* description, const std::string& weights) {
    AotiModelOptions options = {};
    options.struct_size = sizeof options;
    options.weights_path = weights.c_str();
    options.device = context_->device().ordinal;
    AOTI_RETURN_IF_ERROR(aoti::Load(description, options, &model_));
    AOTI_RETURN_IF_ERROR(aoti::CreateSession(model_, nullptr, &session_));
    AOTI_RETURN_IF_ERROR(input_memory_.Allocate(context_, input_.nbytes, "the input"));
    AOTI_RETURN_IF_ERROR(output_memory_.Allocate(context_, output_.nbytes, "the output"));
    return stream_.Create(context_);
  }

  // Returns the first row of the output.
  Status Run(const std::vector<char>& bytes, std::vector<float>* logits) {
    const aoti::Driver& driver = context_->driver();
    AOTI_CUDA_RETURN_IF_ERROR(driver, "copying the input", MemcpyHtoDAsync, input_memory_.address(),
                              bytes.data(), bytes.size(), stream_.handle());
    AOTI_RETURN_IF_ERROR(Launch());
    std::vector<char> row(static_cast<size_t>(output_.shape[1]) * output_.dtype.bits / 8);
    AOTI_CUDA_RETURN_IF_ERROR(driver, "copying the output", MemcpyDtoHAsync, row.data(),
                              output_memory_.address(), row.size(), stream_.handle());
    AOTI_RETURN_IF_ERROR(stream_.Synchronize("running the model"));
    logits->resize(static_cast<size_t>(output_.shape[1]));
    for (size_t i = 0; i < logits->size(); ++i) {
      if (output_.dtype.bits == 32) {
        std::memcpy(&(*logits)[i], &row[4 * i], 4);
      } else {
        uint16_t half;
        std::memcpy(&half, &row[2 * i], 2);
        (*logits)[i] = FromHalf(half);
      }
      if (!std::isfinite((*logits)[i])) {
        return Status(Code::kInternal, "the model's output for class " + std::to_string(i) +
                                           " is " + std::to_string((*logits)[i]));
      }
    }
    return Status();
  }

  // The model has run before.
  Status Measure(int runs, Latency* latency) {
    using Clock = std::chrono::steady_clock;
    Timer timer(context_->driver());
    AOTI_RETURN_IF_ERROR(timer.Create());
    std::vector<double> device;
    std::vector<double> wall;
    for (int run = -std::min(kWarmUp, runs); run < runs; ++run) {
      const Clock::time_point start = Clock::now();
      AOTI_RETURN_IF_ERROR(timer.Start(stream_.handle()));
      AOTI_RETURN_IF_ERROR(Launch());
      AOTI_RETURN_IF_ERROR(timer.Stop(stream_.handle()));
      AOTI_RETURN_IF_ERROR(stream_.Synchronize("running the model"));
      const std::chrono::duration<double, std::micro> elapsed = Clock::now() - start;
      double time = 0;
      AOTI_RETURN_IF_ERROR(timer.Elapsed(&time));
      if (run < 0) continue;
      device.push_back(time);
      wall.push_back(elapsed.count());
    }
    *latency = {Median(device), Median(wall)};
    return Status();
  }

  std::string target() const {
    AotiTargetInfo info = {};
    aoti_model_target(model_.get(), &info, nullptr);
    return info.name;
  }

 private:
  static constexpr int kWarmUp = 10;

  Status Launch() {
    const DLTensor input = View(input_, input_memory_.address(), context_->device().ordinal);
    const DLTensor output = View(output_, output_memory_.address(), context_->device().ordinal);
    const DLTensor* inputs[] = {&input};
    const DLTensor* outputs[] = {&output};
    return aoti::Run(session_, inputs, 1, outputs, 1, stream_.handle());
  }

  const std::shared_ptr<const aoti::Context> context_;
  const AotiTensorInfo input_;
  const AotiTensorInfo output_;
  aoti::ModelHandle model_;
  aoti::SessionHandle session_;
  aoti::DeviceMemory input_memory_;
  aoti::DeviceMemory output_memory_;
  aoti::Stream stream_;  // last, so that it is drained before the rest goes
};

void PrintTop(const std::vector<float>& logits, const std::vector<std::string>& labels) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const size_t count = std::min<size_t>(5, order.size());
  std::partial_sort(
      order.begin(), order.begin() + static_cast<ptrdiff_t>(count), order.end(),
      [&](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  double total = 0;
  for (const float logit : logits) {
    total += std::exp(static_cast<double>(logit) - static_cast<double>(logits[order[0]]));
  }
  for (size_t i = 0; i < count; ++i) {
    const size_t index = order[i];
    const double share =
        std::exp(static_cast<double>(logits[index]) - static_cast<double>(logits[order[0]])) /
        total;
    const std::string label =
        index < labels.size() ? labels[index] : "class " + std::to_string(index);
    std::printf("%6.2f %%  %s\n", 100 * share, label.c_str());
  }
}

Status OpenDevice(int ordinal, std::shared_ptr<const aoti::Context>* context) {
  const aoti::Driver* driver = nullptr;
  AOTI_RETURN_IF_ERROR(aoti::Driver::Get(&driver));
  aoti::DeviceProperties device;
  AOTI_RETURN_IF_ERROR(aoti::ReadDevice(*driver, ordinal, &device));
  return aoti::Context::Create(*driver, device, nullptr, context);
}

Status Classify(const Arguments& arguments) {
  AotiDescriptionInfo info = {};
  AotiTensorInfo input = {};
  AotiTensorInfo output = {};
  AOTI_RETURN_IF_ERROR(CheckSignature(AOTI_DESCRIPTION(), &info, &input, &output));
  std::shared_ptr<const aoti::Context> context;
  AOTI_RETURN_IF_ERROR(OpenDevice(arguments.device, &context));
  const aoti::ScopedContext scope(*context);
  AOTI_RETURN_IF_ERROR(scope.status());

  std::vector<std::string> labels;
  std::vector<char> bytes;
  AOTI_RETURN_IF_ERROR(ReadLabels(arguments.labels, &labels));
  AOTI_RETURN_IF_ERROR(ReadInput(arguments.image, input, &bytes));
  Classifier classifier(context, input, output);
  const std::string weights =
      arguments.weights.empty() ? DefaultWeights(info.name) : arguments.weights;
  AOTI_RETURN_IF_ERROR(classifier.Load(AOTI_DESCRIPTION(), weights));
  std::vector<float> logits;
  AOTI_RETURN_IF_ERROR(classifier.Run(bytes, &logits));
  const std::string device = context->device().name;
  const int runs = arguments.runs >= 0 ? arguments.runs : device == SIMULATOR_DEVICE_NAME ? 0 : 100;
  Latency latency;
  if (runs != 0) AOTI_RETURN_IF_ERROR(classifier.Measure(runs, &latency));

  PrintTop(logits, labels);
  if (runs == 0) {
    std::printf("%s, code for %s, batch %lld: not timed\n", device.c_str(),
                classifier.target().c_str(),
                static_cast<long long>(input.shape[0]));  // NOLINT(runtime/int)
    return Status();
  }
  std::printf(
      "%s, code for %s, batch %lld: median of %d runs: %.0f us on the device, %.0f us wall\n",
      device.c_str(), classifier.target().c_str(),
      static_cast<long long>(input.shape[0]),  // NOLINT(runtime/int)
      runs, latency.device, latency.wall);
  return Status();
}

int Main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--help") {
    std::fputs(kUsage, stdout);
    return 0;
  }
  Arguments arguments;
  const Status parsed = ParseArguments(argc, argv, &arguments);
  if (!parsed.ok()) {
    std::fprintf(stderr, "classify: %s\n%s", parsed.message(), kUsage);
    return 2;
  }
  const Status status = Classify(arguments);
  if (status.ok()) return 0;
  const char* hint = status.code() == Code::kUnavailable ? "an NVIDIA GPU is needed: " : "";
  std::fprintf(stderr, "classify: %s%s\n", hint, status.message());
  return 1;
}

}  // namespace
}  // namespace classify

int main(int argc, char** argv) {
  try {
    return classify::Main(argc, argv);
  } catch (const std::exception& error) {  // memory for an image that is too large, say
    std::fprintf(stderr, "classify: %s\n", error.what());
    return 1;
  }
}
