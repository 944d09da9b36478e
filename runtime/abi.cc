#include "runtime/abi.h"

namespace aoti {

int32_t Report(Code code, const char* message, AotiStatus* status) noexcept {
  if (status == nullptr) return static_cast<int32_t>(code);
  constexpr char kCut[] = "...";
  constexpr size_t kRoom = sizeof status->message - 1;
  size_t length = std::strlen(message);
  const bool cut = length > kRoom;
  if (cut) {
    length = kRoom - (sizeof kCut - 1);
    // Not within a UTF-8 sequence.
    while (length > 0 && (static_cast<unsigned char>(message[length]) & 0xC0) == 0x80) --length;
  }
  status->code = static_cast<int32_t>(code);
  std::memcpy(status->message, message, length);
  std::memcpy(status->message + length, kCut, cut ? sizeof kCut : 0);
  if (!cut) status->message[length] = '\0';
  return status->code;
}

Status IsNull(const char* argument) {
  return Status(Code::kInvalidArgument, std::string(argument) + " is a null pointer");
}

Status CheckIndex(const char* sort, uint64_t index, size_t count) {
  if (index < count) return Status();
  return Status(Code::kInvalidArgument, std::string("there is no ") + sort + " " +
                                            std::to_string(index) + ": the model has " +
                                            std::to_string(count));
}

}  // namespace aoti
