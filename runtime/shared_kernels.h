// Kernels are loaded once a context, however many models use them.

#ifndef AOTI_RUNTIME_SHARED_KERNELS_H_
#define AOTI_RUNTIME_SHARED_KERNELS_H_

#include <memory>

#include "runtime/context.h"
#include "runtime/description.h"
#include "runtime/kernels.h"
#include "runtime/status.h"

namespace aoti {

// The kernels of a target in a context, with the same replacements: those that some model holds, or
// else loaded now. Any number of threads may call; one of them loads, and those that need the same
// wait for it. What the last holder drops is unloaded. The context must be current.
Status ShareKernels(const std::shared_ptr<const Context>& context, const TargetDescription& target,
                    const KernelReplacements& replacements,
                    std::shared_ptr<const KernelSet>* kernels);

}  // namespace aoti

#endif  // AOTI_RUNTIME_SHARED_KERNELS_H_
