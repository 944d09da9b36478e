#include "simulator/image.h"

#include <elf.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <tuple>

namespace simulator {
namespace {

bool ParseTarget(const std::string& text, KernelImage* kernel) {
  const size_t underscore = text.find('_');
  if (underscore == std::string::npos) return false;
  const std::string kind = text.substr(0, underscore);
  const int capability = std::atoi(text.c_str() + underscore + 1);
  kernel->ptx = kind == "compute";
  kernel->major = capability / 10;
  kernel->minor = capability % 10;
  return (kind == "sm" || kernel->ptx) && capability > 0;
}

std::vector<std::string> Split(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

uint32_t Number(const std::string& text) {
  return static_cast<uint32_t>(std::strtoul(text.c_str(), nullptr, 10));
}

// What is larger, a tensor map, is aligned to this.
constexpr size_t kMaxAlignment = 64;

// A parameter lies at the next multiple of its size.
void PlaceParameters(const std::vector<std::string>& sizes, KernelImage* kernel) {
  size_t end = 0;
  for (const std::string& text : sizes) {
    Parameter parameter;
    parameter.size = std::max<size_t>(1, Number(text));
    const size_t alignment = std::min(parameter.size, kMaxAlignment);
    parameter.offset = (end + alignment - 1) / alignment * alignment;
    end = parameter.offset + parameter.size;
    kernel->params.push_back(parameter);
  }
}

bool NameParameters(const std::vector<std::string>& names, KernelImage* kernel) {
  if (names.size() != kernel->params.size()) return false;
  for (size_t i = 0; i < names.size(); ++i) {
    kernel->params[i].pointer = names[i].compare(0, 1, "*") == 0;
    kernel->params[i].name = names[i].substr(kernel->params[i].pointer ? 1 : 0);
  }
  return true;
}

bool ParseField(const std::string& field, KernelImage* kernel) {
  const size_t equals = field.find('=');
  if (equals == std::string::npos) return false;
  const std::string key = field.substr(0, equals);
  const std::string value = field.substr(equals + 1);
  if (key == "target") return ParseTarget(value, kernel);
  if (key == "names") return NameParameters(Split(value), kernel);
  if (key == "params") {
    PlaceParameters(Split(value), kernel);
  } else if (key == "threads") {
    kernel->threads = Number(value);
  } else if (key == "exact") {
    kernel->exact = value == "1";
  } else if (key == "static") {
    kernel->shared = Number(value);
  } else if (key == "registers") {
    kernel->registers = Number(value);
  } else if (key == "cluster") {
    kernel->cluster = Number(value);
  } else if (key == "id") {
    kernel->id = value;
  } else if (key == "sets_condition") {
    kernel->sets_condition = value == "1";
  } else {
    return false;
  }
  return true;
}

// The end of whatever the headers of an ELF file say it has.
size_t ElfSize(const unsigned char* image) {
  Elf64_Ehdr header;
  std::memcpy(&header, image, sizeof header);
  size_t end = sizeof header;
  const auto extend = [&end](uint64_t offset, uint64_t size) {
    end = std::max<size_t>(end, offset + size);
  };
  extend(header.e_phoff, uint64_t{header.e_phnum} * header.e_phentsize);
  extend(header.e_shoff, uint64_t{header.e_shnum} * header.e_shentsize);
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    std::memcpy(&segment, image + header.e_phoff + size_t{i} * header.e_phentsize, sizeof segment);
    extend(segment.p_offset, segment.p_filesz);
  }
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr section;
    std::memcpy(&section, image + header.e_shoff + size_t{i} * header.e_shentsize, sizeof section);
    if (section.sh_type != SHT_NOBITS) extend(section.sh_offset, section.sh_size);
  }
  return end;
}

// PTX begins with its version, comments aside.
bool LooksLikePtx(const char* text) {
  for (;;) {
    while (*text == ' ' || *text == '\t' || *text == '\r' || *text == '\n') ++text;
    if (text[0] != '/' || text[1] != '/') break;
    while (*text != '\0' && *text != '\n') ++text;
  }
  return std::strncmp(text, ".version", 8) == 0;
}

}  // namespace

size_t KernelImage::ParameterBytes() const {
  return params.empty() ? 0 : params.back().offset + params.back().size;
}

std::string KernelImage::Argument(size_t index) const {
  std::string text = "argument " + std::to_string(index);
  if (!params[index].name.empty()) text += " (" + params[index].name + ")";
  return text;
}

ImageKind Identify(const void* image, size_t* nbytes) {
  const auto* bytes = static_cast<const unsigned char*>(image);
  const auto* text = static_cast<const char*>(image);
  // In turn, since the rest need not exist if the beginning does not fit.
  const auto begins = [text](const char* with) {
    return std::strncmp(text, with, std::strlen(with)) == 0;
  };
  if (begins("\177ELF") && bytes[EI_CLASS] == ELFCLASS64) {
    *nbytes = ElfSize(bytes);
    return ImageKind::kElf;
  }
  *nbytes = std::strlen(text);
  if (begins("simulator module\n")) return ImageKind::kText;
  return LooksLikePtx(text) ? ImageKind::kPtx : ImageKind::kUnknown;
}

bool ParseImage(const std::string& image, std::vector<KernelImage>* kernels, std::string* fault) {
  std::istringstream lines(image);
  std::string line;
  if (!std::getline(lines, line) || line != "simulator module") {
    *fault = "line 1: not a simulator module";
    return false;
  }
  for (int number = 2; std::getline(lines, line); ++number) {
    std::istringstream words(line);
    std::string word;
    KernelImage kernel;
    bool good = words >> word && word == "kernel" && words >> kernel.name;
    while (good && words >> word) good = ParseField(word, &kernel);
    if (!good || kernel.threads == 0 || kernel.major == 0) {
      *fault = "line " + std::to_string(number) + ": malformed: " + line;
      return false;
    }
    kernels->push_back(kernel);
  }
  return true;
}

bool Runs(const KernelImage& kernel, int major, int minor) {
  if (kernel.ptx) return std::tie(kernel.major, kernel.minor) <= std::tie(major, minor);
  if (kernel.major != major) return false;
  // From 9.0 on, Triton's machine code is for one architecture alone (sm_90a, sm_100a).
  return major >= 9 ? kernel.minor == minor : kernel.minor <= minor;
}

}  // namespace simulator
