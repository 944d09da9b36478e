// Which of a model's targets a device runs, and the checks of a description.

#ifndef AOTI_RUNTIME_TARGET_H_
#define AOTI_RUNTIME_TARGET_H_

#include "runtime/context.h"
#include "runtime/description.h"
#include "runtime/status.h"

namespace aoti {

#ifndef AOTI_STANDALONE
// Fails if the description is of another version or platform than this runtime's, or contradicts
// itself in a way that could make the runtime misbehave. Needs no device.
Status CheckDescription(const ModelDescription& description);
#endif  // AOTI_STANDALONE

// Stores the target for `device`: machine code whose capability has the device's major number and
// the greatest minor number that does not exceed the device's; else PTX of the greatest capability
// that does not exceed the device's; of AMD's, the one of its architecture; else fails with a
// message that lists the targets. Fails too if the driver is older than that target needs.
Status ChooseTarget(const ModelDescription& description, const DeviceProperties& device,
                    int driver_version, const TargetDescription** target);

}  // namespace aoti

#endif  // AOTI_RUNTIME_TARGET_H_
