#include "runtime/context.h"

#include <string>

#include "runtime/platform.h"

namespace aoti {

Status ReadDevice(const Driver& driver, int ordinal, DeviceProperties* properties) {
  int count = 0;
  AOTI_CUDA_RETURN_IF_ERROR(driver, "counting devices", DeviceGetCount, &count);
  if (count == 0) {
    return Status(Code::kUnavailable,
                  std::string("the ") + kPlatform.name + " driver reports no device");
  }
  if (ordinal < 0 || ordinal >= count) {
    return Status(Code::kInvalidArgument, "device " + std::to_string(ordinal) +
                                              " does not exist: the devices are 0 to " +
                                              std::to_string(count - 1));
  }
  const std::string doing = "reading the properties of device " + std::to_string(ordinal);
  char name[256] = "";
  properties->ordinal = ordinal;
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, DeviceGet, &properties->device, ordinal);
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, DeviceGetAttribute, &properties->major,
                            cuda::kDeviceAttributeMajor, properties->device);
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, DeviceGetAttribute, &properties->minor,
                            cuda::kDeviceAttributeMinor, properties->device);
  AOTI_CUDA_RETURN_IF_ERROR(driver, doing, DeviceGetName, name, static_cast<int>(sizeof name) - 1,
                            properties->device);
  properties->name = name;
  return ReadArchitecture(driver, properties->device, &properties->architecture);
}

Status Context::Create(const Driver& driver, const DeviceProperties& device, cuda::Context handle,
                       std::shared_ptr<const Context>* context) {
  std::shared_ptr<Context> created(new Context(driver, device));
  if (handle == nullptr) {
    AOTI_CUDA_RETURN_IF_ERROR(driver, "opening device " + std::to_string(device.ordinal),
                              DevicePrimaryCtxRetain, &created->handle_, device.device);
    created->retained_ = true;
  } else {
    created->handle_ = handle;
    const ScopedContext scope(*created);
    AOTI_RETURN_IF_ERROR(scope.status());
    cuda::Device actual = 0;
    AOTI_CUDA_RETURN_IF_ERROR(driver, "reading the device of the given context", CtxGetDevice,
                              &actual);
    if (actual != device.device) {
      return Status(Code::kInvalidArgument,
                    "the given context is not of device " + std::to_string(device.ordinal));
    }
  }
  *context = std::move(created);
  return Status();
}

Context::~Context() {
  if (retained_) driver_.DevicePrimaryCtxRelease(device_.device);
}

ScopedContext::ScopedContext(const Context& context)
    : driver_(context.driver()), result_(driver_.CtxPushCurrent(context.handle())) {}

ScopedContext::~ScopedContext() {
  cuda::Context popped = nullptr;
  if (ok()) driver_.CtxPopCurrent(&popped);
}

Status ScopedContext::status() const {
  if (ok()) return Status();
  return driver_.Failure(result_, "cuCtxPushCurrent", "entering the model's context");
}

}  // namespace aoti
