#include "simulator/image.h"

#include <cstdlib>
#include <sstream>
#include <tuple>

namespace simulator {
namespace {

bool ParseTarget(const std::string& text, KernelImage* kernel) {
  const size_t underscore = text.find('_');
  if (underscore == std::string::npos) return false;
  const std::string kind = text.substr(0, underscore);
  const int capability = std::atoi(text.c_str() + underscore + 1);
  kernel->ptx = kind == "compute";
  kernel->major = capability / 10;
  kernel->minor = capability % 10;
  return (kind == "sm" || kernel->ptx) && capability > 0;
}

bool ParseField(const std::string& field, KernelImage* kernel) {
  const size_t equals = field.find('=');
  if (equals == std::string::npos) return false;
  const std::string key = field.substr(0, equals);
  const std::string value = field.substr(equals + 1);
  if (key == "target") return ParseTarget(value, kernel);
  if (key == "threads") kernel->threads = static_cast<uint32_t>(std::atoi(value.c_str()));
  if (key == "shared") kernel->shared = static_cast<uint32_t>(std::atoi(value.c_str()));
  if (key == "cluster") kernel->cluster = static_cast<uint32_t>(std::atoi(value.c_str()));
  if (key == "params") {
    std::istringstream sizes(value);
    for (std::string size; std::getline(sizes, size, ',');) {
      kernel->params.push_back(static_cast<size_t>(std::atoi(size.c_str())));
    }
  }
  return true;
}

}  // namespace

bool ParseImage(const char* image, std::vector<KernelImage>* kernels, std::string* fault) {
  std::istringstream lines(image);
  std::string line;
  if (!std::getline(lines, line) || line != "simulator module") {
    *fault = "line 1: not a simulator module";
    return false;
  }
  for (int number = 2; std::getline(lines, line); ++number) {
    std::istringstream words(line);
    std::string word;
    KernelImage kernel;
    bool good = words >> word && word == "kernel" && words >> kernel.name;
    while (good && words >> word) good = ParseField(word, &kernel);
    if (!good || kernel.threads == 0 || kernel.major == 0) {
      *fault = "line " + std::to_string(number) + ": malformed: " + line;
      return false;
    }
    kernels->push_back(kernel);
  }
  return true;
}

bool Runs(const KernelImage& kernel, int major, int minor) {
  if (kernel.ptx) return std::tie(kernel.major, kernel.minor) <= std::tie(major, minor);
  return kernel.major == major && kernel.minor <= minor;
}

}  // namespace simulator
