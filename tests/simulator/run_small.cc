// Runs the small model once a mode, or RUNS times with a graph: run_small WEIGHTS INPUT OUTPUT
// [RUNS].
//
// INPUT and OUTPUT are raw tensors. Writes "ready" once it has run, and waits for standard input to
// end, where RUNS is 0: a test then looks at its processes.

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "runtime/aoti.h"
#include "runtime/context.h"
#include "runtime/driver.h"
#include "runtime/memory.h"
#include "runtime/stream.h"
#include "tests/bazel/small/small/model.h"

namespace {

using aoti::Status;

Status Run(const char* weights, const std::vector<char>& input, int runs,
           std::vector<char>* output) {
  const aoti::Driver* driver = nullptr;
  AOTI_RETURN_IF_ERROR(aoti::Driver::Get(&driver));
  aoti::DeviceProperties device;
  AOTI_RETURN_IF_ERROR(aoti::ReadDevice(*driver, 0, &device));
  std::shared_ptr<const aoti::Context> context;
  AOTI_RETURN_IF_ERROR(aoti::Context::Create(*driver, device, nullptr, &context));
  const aoti::ScopedContext scope(*context);
  AOTI_RETURN_IF_ERROR(scope.status());
  std::printf("on %s\n", device.name.c_str());

  AotiModelOptions options = {};
  options.struct_size = sizeof options;
  options.weights_path = weights;
  small::Small model;
  AOTI_RETURN_IF_ERROR(small::Small::Load(options, &model));
  aoti::DeviceMemory in;
  aoti::DeviceMemory out;
  AOTI_RETURN_IF_ERROR(in.Allocate(context, small::inputs::X::kBytes, "the input"));
  AOTI_RETURN_IF_ERROR(out.Allocate(context, small::outputs::Output::kBytes, "the output"));
  aoti::Stream stream;
  AOTI_RETURN_IF_ERROR(stream.Create(context));
  AOTI_CUDA_RETURN_IF_ERROR(*driver, "copying the input", MemcpyHtoDAsync, in.address(),
                            input.data(), small::inputs::X::kBytes, stream.handle());
  small::Small::Session session;
  AOTI_RETURN_IF_ERROR(model.CreateSession(nullptr, &session));
  const DLTensor x = aoti::View<small::inputs::X>(reinterpret_cast<void*>(in.address()), 0);
  const DLTensor y = aoti::View<small::outputs::Output>(reinterpret_cast<void*>(out.address()), 0);
  for (int i = 0; i < runs; ++i) AOTI_RETURN_IF_ERROR(session.Run({&x}, {&y}, stream.handle()));
  output->resize(small::outputs::Output::kBytes);
  AOTI_CUDA_RETURN_IF_ERROR(*driver, "copying the output", MemcpyDtoHAsync, output->data(),
                            out.address(), output->size(), stream.handle());
  AOTI_RETURN_IF_ERROR(stream.Synchronize("running the model"));
  if (runs == 0) {
    std::printf("ready\n");
    std::fflush(stdout);
    while (std::getchar() != EOF) continue;
  }
  return Status();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  std::ifstream file(argv[2], std::ios::binary);
  const std::vector<char> input((std::istreambuf_iterator<char>(file)), {});
  if (input.size() != small::inputs::X::kBytes) return 2;
  std::vector<char> output;
  const Status status = Run(argv[1], input, argc > 4 ? std::atoi(argv[4]) : 1, &output);
  if (!status.ok()) {
    std::fprintf(stderr, "run_small: %s\n", status.message());
    return 1;
  }
  std::ofstream(argv[3], std::ios::binary).write(output.data(), static_cast<long>(output.size()));
  return 0;
}
