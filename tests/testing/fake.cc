// A driver and a model in one library, on host memory: y = 2 * x, for 4 floats each. The
// environment variable FAKE says what it does wrong.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

bool Does(const char* what) {
  const char* text = std::getenv("FAKE");
  return text != nullptr && std::string(text) == what;
}

int Zero() { return 0; }
int Alloc(uint64_t* address, size_t nbytes) {
  *address = reinterpret_cast<uint64_t>(std::malloc(nbytes));
  return Does("no memory") ? 2 : 0;
}
int Free(uint64_t address) {
  std::free(reinterpret_cast<void*>(address));
  return 0;
}
int Upload(uint64_t dst, const void* src, size_t nbytes, void*) {
  std::memcpy(reinterpret_cast<void*>(dst), src, nbytes);
  return 0;
}
int Download(void* dst, uint64_t src, size_t nbytes, void*) {
  std::memcpy(dst, reinterpret_cast<void*>(src), nbytes);
  return 0;
}
int Retain(void** context, int) {
  *context = &*context;
  return 0;
}
int Name(int, const char** text) {
  *text = "CUDA_ERROR_OUT_OF_MEMORY";
  return 0;
}

struct Tensor {
  float* data;
  int32_t device[2];
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  const int64_t* shape;
  const int64_t* strides;
  uint64_t byte_offset;
};

struct Status {
  int32_t code;
  char message[2044];
};

int runs = 0;
int graphless;

}  // namespace

extern "C" {

int cuGetProcAddress_v2(const char* name, void** function, int, uint64_t, int*) {
  const std::string called = name;
  if (called == "cuMemAlloc")
    *function = reinterpret_cast<void*>(Alloc);
  else if (called == "cuMemFree")
    *function = reinterpret_cast<void*>(Free);
  else if (called == "cuMemcpyHtoDAsync")
    *function = reinterpret_cast<void*>(Upload);
  else if (called == "cuMemcpyDtoHAsync")
    *function = reinterpret_cast<void*>(Download);
  else if (called == "cuDevicePrimaryCtxRetain")
    *function = reinterpret_cast<void*>(Retain);
  else if (called == "cuGetErrorName")
    *function = reinterpret_cast<void*>(Name);
  else
    *function = reinterpret_cast<void*>(Zero);
  return 0;
}

const void* aoti_model_description() { return &runs; }

int aoti_model_load(const void*, const void*, void** model, Status* status) {
  *model = &runs;
  if (!Does("refuse")) return 0;
  std::strcpy(status->message, "no code for this device");
  return status->code = 2;
}

int aoti_model_target(const void*, const char** name, Status*) {
  *name = "sm_90";
  return 0;
}

int aoti_session_create(void*, const uint64_t* options, void** session, Status*) {
  *session = options[1] != 0 ? &graphless : &runs;
  return 0;
}

void aoti_session_destroy(void*) {}
void aoti_model_destroy(void*) {}

int aoti_session_run(void* session, Tensor* const* inputs, uint64_t, Tensor* const* outputs,
                     uint64_t, void*, Status*) {
  float* x = inputs[0]->data;
  float* y = outputs[0]->data;
  ++runs;
  for (int i = 0; i < 4; ++i) {
    if (Does("skip") && i == 2) continue;
    y[i] = 2 * x[i];
  }
  if (Does("overrun")) y[4] = 1;
  if (Does("underrun")) y[-1] = 1;
  if (Does("change input")) x[3] = 7;
  if (Does("count")) y[1] = static_cast<float>(runs);
  if (Does("graph") && session == &graphless) y[0] = 0;
  if (Does("crash")) std::abort();
  return 0;
}
}
