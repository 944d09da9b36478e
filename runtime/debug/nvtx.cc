#include <string>

#include "nvtx3/nvToolsExt.h"
#include "runtime/debug/debug.h"

namespace aoti::debug {
namespace {

// Ranges of one library are told from those of others by their domain.
nvtxDomainHandle_t Domain() {
  static const nvtxDomainHandle_t domain = nvtxDomainCreateA("rules_aoti");
  return domain;
}

}  // namespace

Range::Range(const Site& site) {
  std::string name = std::string(site.model) + " " + site.step;
  if (site.source[0] != '\0') name += std::string(" (") + site.source + ")";
  nvtxEventAttributes_t attributes = {};
  attributes.version = NVTX_VERSION;
  attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
  attributes.message.ascii = name.c_str();
  nvtxDomainRangePushEx(Domain(), &attributes);
}

Range::~Range() { nvtxDomainRangePop(Domain()); }

}  // namespace aoti::debug
