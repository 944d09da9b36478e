#include "simulator/link.h"

#include <dlfcn.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace simulator {
namespace {

constexpr char kKernels[] = "SIMULATOR_KERNELS";
constexpr char kExecutor[] = "SIMULATOR_EXECUTOR";

[[noreturn]] void Die(const std::string& model, const std::string& why) {
  std::fprintf(stderr, "model %s was linked for the simulator (--//aoti:simulator): %s\n",
               model.c_str(), why.c_str());
  std::exit(1);
}

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string Absolute(const std::string& path) {
  char resolved[PATH_MAX];
  return realpath(path.c_str(), resolved) == nullptr ? path : resolved;
}

// Where the runfiles may be: beside the program, around it, or where a test is told they are.
std::vector<std::string> Candidates() {
  char program[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program);
  std::vector<std::string> names;
  if (length > 0) names.emplace_back(program, static_cast<size_t>(length));
  const auto* started_as = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
  if (started_as != nullptr) names.emplace_back(started_as);
  std::vector<std::string> roots;
  constexpr char kSuffix[] = ".runfiles";
  for (const std::string& name : names) {
    roots.push_back(name + kSuffix);
    const size_t inside = name.rfind(std::string(kSuffix) + "/");
    if (inside != std::string::npos) roots.push_back(name.substr(0, inside) + kSuffix);
  }
  for (const char* variable : {"RUNFILES_DIR", "TEST_SRCDIR"}) {
    if (!Environment(variable).empty()) roots.push_back(Environment(variable));
  }
  return roots;
}

std::string FindRunfiles(const std::string& model, const std::string& driver) {
  std::string seen;
  for (const std::string& root : Candidates()) {
    if (access((root + "/" + driver).c_str(), R_OK) == 0) return Absolute(root);
    seen += "\n  " + root;
  }
  Die(model,
      "its runfiles were not found; run it where Bazel built it, or set RUNFILES_DIR. There "
      "is no " +
          driver + " in" + seen);
}

// As a word of a shell.
std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char character : text) {
    if (character == '\'') {
      quoted += "'\\''";
    } else {
      quoted += character;
    }
  }
  return quoted + "'";
}

void LoadDriver(const std::string& model, const std::string& path) {
  void* driver = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) Die(model, dlerror());
  // By its soname, which is how the runtime asks for it.
  if (dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD) != driver) {
    Die(model, "another libcuda.so.1 is loaded already");
  }
}

}  // namespace

LinkedModel::LinkedModel(const char* name, const char* driver, const char* executor,
                         const char* const* directories, size_t num_directories) {
  static const bool given = !Environment(kKernels).empty();
  static const std::string root = FindRunfiles(name, driver);
  LoadDriver(name, root + "/" + driver);
  if (Environment(kExecutor).empty()) {
    setenv(kExecutor, Quoted(root + "/" + executor).c_str(), 1);
  }
  if (given) return;
  std::string kernels = Environment(kKernels);
  for (size_t i = 0; i < num_directories; ++i) {
    if (!kernels.empty()) kernels += ':';
    kernels += root + "/" + directories[i];
  }
  setenv(kKernels, kernels.c_str(), 1);
}

}  // namespace simulator
