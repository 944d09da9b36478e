// That the public header is C, and the layout a C compiler gives it: what a binding in another
// language declares.

#include <stddef.h>

#include "runtime/aoti.h"

#define ASSERT_IS(a, b) typedef char aoti_assertion[(a) == (b) ? 1 : -1] __attribute__((unused))

int main(void) {
  ASSERT_IS(sizeof(AotiStatus), 2048);
  {
    ASSERT_IS(offsetof(AotiStatus, message), 4);
  }
  {
    ASSERT_IS(sizeof(AotiTensorInfo), 96);
  }
  {
    ASSERT_IS(offsetof(AotiTensorInfo, dtype), 8);
  }
  {
    ASSERT_IS(offsetof(AotiTensorInfo, ndim), 12);
  }
  {
    ASSERT_IS(offsetof(AotiTensorInfo, shape), 16);
  }
  {
    ASSERT_IS(offsetof(AotiTensorInfo, nbytes), 32);
  }
  {
    ASSERT_IS(offsetof(AotiTensorInfo, flags), 48);
  }
  {
    ASSERT_IS(offsetof(AotiTensorInfo, shape_info), 56);
  }
  {
    ASSERT_IS(offsetof(AotiTensorInfo, value), 72);
  }
  {
    ASSERT_IS(sizeof(AotiDimInfo), 24);
  }
  {
    ASSERT_IS(offsetof(AotiSessionOptions, max_graphs), 16);
  }
  {
    ASSERT_IS(sizeof(AotiDescriptionInfo), 48);
  }
  {
    ASSERT_IS(sizeof(AotiTargetInfo), 48);
  }
  {
    ASSERT_IS(offsetof(AotiTargetInfo, num_kernels), 16);
  }
  {
    ASSERT_IS(sizeof(AotiModelOptions), 64);
  }
  {
    ASSERT_IS(offsetof(AotiModelOptions, weights_path), 8);
  }
  {
    ASSERT_IS(offsetof(AotiModelOptions, context), 32);
  }
  {
    ASSERT_IS(offsetof(AotiModelOptions, device), 40);
  }
  {
    ASSERT_IS(offsetof(AotiModelOptions, weights), 56);
  }
  {
    ASSERT_IS(sizeof(AotiNamedTensor), 24);
  }
  {
    ASSERT_IS(sizeof(AotiWeightsOptions), 80);
  }
  {
    ASSERT_IS(sizeof(AotiWeightsInfo), 24);
  }
  {
    ASSERT_IS(sizeof(AotiWeightInfo), 32);
  }
  {
    ASSERT_IS(sizeof(AotiSessionOptions), 24);
  }
  return aoti_abi_version() == AOTI_ABI_VERSION ? 0 : 1;
}
