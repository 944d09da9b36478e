// Answers with a model over TCP: 64 bytes, 16 numbers in float32, are a question; 32 bytes, 8 of
// them, the answer. A connection may ask any number of times.
//
//   server WEIGHTS.safetensors [PORT]
//
// It says "listening on port N" when it is ready. What it needs beside the C and C++ libraries is
// NVIDIA's driver, which the model's runtime finds, and so does this program, for memory.

#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "scorer/model.h"

namespace {

using scorer::Scorer;
using Question = scorer::inputs::X;
using Answer = scorer::outputs::Output;

[[noreturn]] void Die(const char* what, const char* why) {
  std::fprintf(stderr, "server: %s: %s\n", what, why);
  std::exit(1);
}

// The few functions of NVIDIA's driver that it takes to have memory on device 0.
class Device {
 public:
  Device() {
    void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver == nullptr) Die("no driver", dlerror());
    get_ = reinterpret_cast<GetProcAddress>(dlsym(driver, "cuGetProcAddress_v2"));
    if (get_ == nullptr) Die("libcuda.so.1", "the driver is older than CUDA 12.0");
    int device = 0;
    void* context = nullptr;
    Call("cuInit", 0u);
    Call("cuDeviceGet", &device, 0);
    Call("cuDevicePrimaryCtxRetain", &context, device);
    Call("cuCtxPushCurrent", context);
    Call("cuStreamCreate", &stream_, 0u);
  }

  void* Allocate(size_t nbytes) const {
    uint64_t address = 0;
    Call("cuMemAlloc", &address, nbytes);
    return reinterpret_cast<void*>(address);
  }
  void Upload(void* to, const void* from, size_t nbytes) const {
    Call("cuMemcpyHtoDAsync", reinterpret_cast<uint64_t>(to), from, nbytes, stream_);
  }
  // Waits for what was enqueued before.
  void Download(void* to, const void* from, size_t nbytes) const {
    Call("cuMemcpyDtoHAsync", to, reinterpret_cast<uint64_t>(from), nbytes, stream_);
    Call("cuStreamSynchronize", stream_);
  }

  void* stream() const { return stream_; }

 private:
  using GetProcAddress = int (*)(const char* name, void** function, int version, uint64_t flags,
                                 int* found);

  template <typename... Args>
  void Call(const char* name, Args... args) const {
    constexpr int kCuda12 = 12000;
    void* function = nullptr;
    int found = 0;
    if (get_(name, &function, kCuda12, 0, &found) != 0 || function == nullptr) {
      Die(name, "the driver does not have it");
    }
    const int result = reinterpret_cast<int (*)(Args...)>(function)(args...);
    if (result != 0) Die(name, ("CUresult " + std::to_string(result)).c_str());
  }

  GetProcAddress get_ = nullptr;
  void* stream_ = nullptr;
};

void Check(const char* what, const aoti::Status& status) {
  if (!status.ok()) Die(what, status.message());
}

int Listen(uint16_t port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (listener < 0 || bind(listener, generic, size) != 0 || listen(listener, 16) != 0 ||
      getsockname(listener, generic, &size) != 0) {
    Die("cannot listen", std::strerror(errno));
  }
  std::printf("listening on port %d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  return listener;
}

// False at the end of the connection.
bool Receive(int connection, char* bytes, size_t nbytes) {
  for (size_t got = 0; got < nbytes;) {
    const ssize_t more = recv(connection, bytes + got, nbytes - got, 0);
    if (more <= 0) return false;
    got += static_cast<size_t>(more);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) Die("usage", "server WEIGHTS.safetensors [PORT]");
  const Device device;
  AotiModelOptions options = {};
  options.struct_size = sizeof options;
  options.weights_path = argv[1];
  Scorer model;
  Check("loading the model", Scorer::Load(options, &model));
  Scorer::Session session;
  Check("creating a session", model.CreateSession(nullptr, &session));
  DLTensor question = aoti::View<Question>(device.Allocate(Question::kBytes), 0);
  DLTensor answer = aoti::View<Answer>(device.Allocate(Answer::kBytes), 0);

  const int listener = Listen(static_cast<uint16_t>(argc == 3 ? std::atoi(argv[2]) : 8080));
  for (;;) {
    const int connection = accept(listener, nullptr, nullptr);
    if (connection < 0) continue;
    char asked[Question::kBytes];
    char answered[Answer::kBytes];
    while (Receive(connection, asked, sizeof asked)) {
      device.Upload(question.data, asked, sizeof asked);
      Check("running the model", session.Run({&question}, {&answer}, device.stream()));
      device.Download(answered, answer.data, sizeof answered);
      if (send(connection, answered, sizeof answered, MSG_NOSIGNAL) < 0) break;
    }
    close(connection);
  }
}
