#include "runtime/debug/debug.h"

#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

#include "nlohmann/json.hpp"

namespace aoti::debug {
namespace {

// Of the directory that values are written to, which is created.
constexpr char kDirectoryVariable[] = "AOTI_DEBUG_DIR";
constexpr char kDirectory[] = "aoti_debug";

// What floating-point numbers have besides numbers: infinity, where the exponent is all ones and
// the mantissa 0, and NaN, where it is not; NaN alone, where both are all ones; NaN alone, as
// negative 0.
enum class Special { kInfinity, kNan, kNegativeZero };

// How one element is laid out: bytes, and for floating point the bits of exponent and mantissa.
struct Format {
  const char* name;
  size_t size;
  int exponent;
  int mantissa;
  Special special;
};

constexpr Format kFormats[] = {
    {"BOOL", 1, 0, 0, Special::kNan},
    {"U8", 1, 0, 0, Special::kNan},
    {"I8", 1, 0, 0, Special::kNan},
    {"U16", 2, 0, 0, Special::kNan},
    {"I16", 2, 0, 0, Special::kNan},
    {"U32", 4, 0, 0, Special::kNan},
    {"I32", 4, 0, 0, Special::kNan},
    {"U64", 8, 0, 0, Special::kNan},
    {"I64", 8, 0, 0, Special::kNan},
    {"F16", 2, 5, 10, Special::kInfinity},
    {"BF16", 2, 8, 7, Special::kInfinity},
    {"F32", 4, 8, 23, Special::kInfinity},
    {"F64", 8, 11, 52, Special::kInfinity},
    {"F8_E4M3", 1, 4, 3, Special::kNan},
    {"F8_E5M2", 1, 5, 2, Special::kInfinity},
    {"F8_E4M3FNUZ", 1, 4, 3, Special::kNegativeZero},
    {"F8_E5M2FNUZ", 1, 5, 2, Special::kNegativeZero},
};

// Null where there is no such type.
const Format* FindFormat(const char* name) {
  for (const Format& format : kFormats) {
    if (std::strcmp(format.name, name) == 0) return &format;
  }
  return nullptr;
}

uint64_t Bits(const char* element, size_t size) {
  uint64_t bits = 0;
  std::memcpy(&bits, element, size);
  return bits;
}

// The parts of a floating-point number.
struct Parts {
  bool negative;
  uint64_t exponent;
  uint64_t mantissa;
};

Parts Split(const Format& format, const char* element) {
  const uint64_t bits = Bits(element, format.size);
  return {((bits >> (format.mantissa + format.exponent)) & 1) != 0,
          (bits >> format.mantissa) & ((uint64_t{1} << format.exponent) - 1),
          bits & ((uint64_t{1} << format.mantissa) - 1)};
}

bool IsNan(const Format& format, const char* element) {
  if (format.exponent == 0) return false;
  const auto [negative, exponent, mantissa] = Split(format, element);
  const bool ones = exponent == (uint64_t{1} << format.exponent) - 1;
  switch (format.special) {
    case Special::kInfinity:
      return ones && mantissa != 0;
    case Special::kNan:
      return ones && mantissa == (uint64_t{1} << format.mantissa) - 1;
    case Special::kNegativeZero:
      return negative && exponent == 0 && mantissa == 0;
  }
  return false;
}

// The value of a floating-point number of any format.
double Float(const Format& format, const char* element) {
  if (IsNan(format, element)) return NAN;
  const auto [negative, exponent, mantissa] = Split(format, element);
  const double sign = negative ? -1 : 1;
  if (format.special == Special::kInfinity && exponent == (uint64_t{1} << format.exponent) - 1) {
    return sign * INFINITY;
  }
  const int bias =
      (1 << (format.exponent - 1)) - (format.special == Special::kNegativeZero ? 0 : 1);
  // Numbers with an exponent of zero have no leading one.
  const double leading = exponent == 0 ? 0 : 1;
  const double fraction = std::ldexp(static_cast<double>(mantissa), -format.mantissa);
  const int power = exponent == 0 ? 1 : static_cast<int>(exponent);
  return sign * std::ldexp(leading + fraction, power - bias);
}

template <typename T>
std::string Integer(const void* value) {
  T number;
  std::memcpy(&number, value, sizeof number);
  return std::to_string(number);
}

std::string Hexadecimal(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));  // NOLINT
  return text;
}

std::string ValueText(const Argument& argument) {
  if (argument.dtype[0] == '*')
    return Hexadecimal(Bits(static_cast<const char*>(argument.value), 8));
  const Format* format = FindFormat(argument.dtype);
  if (format == nullptr) return "?";
  if (format->exponent != 0) {
    char text[32];
    std::snprintf(text, sizeof text, "%.9g",
                  Float(*format, static_cast<const char*>(argument.value)));
    return text;
  }
  const bool is_signed = format->name[0] == 'I';
  switch (format->size) {
    case 1:
      return is_signed ? Integer<int8_t>(argument.value) : Integer<uint8_t>(argument.value);
    case 2:
      return is_signed ? Integer<int16_t>(argument.value) : Integer<uint16_t>(argument.value);
    case 4:
      return is_signed ? Integer<int32_t>(argument.value) : Integer<uint32_t>(argument.value);
    default:
      return is_signed ? Integer<int64_t>(argument.value) : Integer<uint64_t>(argument.value);
  }
}

// One call a line, so that lines of several threads do not mix.
void PrintLine(std::string line) {
  line += '\n';
  std::fwrite(line.data(), 1, line.size(), stderr);
}

std::string SiteText(const Site& site) {
  std::string text = std::string(site.model) + " " + site.step;
  if (site.source[0] != '\0') text += std::string(" (") + site.source + ")";
  return text;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

uint64_t Count(const Tensor& tensor) {
  uint64_t count = 1;
  for (const int64_t size : tensor.shape) count *= static_cast<uint64_t>(size);
  return count;
}

// A tensor's elements in row-major order, on the host.
Status Gather(Inspector& inspector, const Tensor& tensor, const Format& format,
              std::vector<char>* elements) {
  const uint64_t count = Count(tensor);
  elements->clear();
  if (count == 0) return Status();
  uint64_t last = 0;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    last += static_cast<uint64_t>(tensor.shape[i] - 1) * static_cast<uint64_t>(tensor.strides[i]);
  }
  std::vector<char> memory((last + 1) * format.size);
  AOTI_RETURN_IF_ERROR(inspector.Fetch(memory.data(), tensor.address, memory.size()));
  elements->resize(count * format.size);
  std::vector<int64_t> index(tensor.shape.size(), 0);
  uint64_t offset = 0;
  for (uint64_t i = 0; i < count; ++i) {
    std::memcpy(elements->data() + i * format.size, memory.data() + offset * format.size,
                format.size);
    for (size_t d = index.size(); d-- != 0;) {
      offset += static_cast<uint64_t>(tensor.strides[d]);
      if (++index[d] < tensor.shape[d]) break;
      offset -= static_cast<uint64_t>(tensor.strides[d]) * static_cast<uint64_t>(tensor.shape[d]);
      index[d] = 0;
    }
  }
  return Status();
}

// NaN among a tensor's elements: how many, and the index of the first.
struct Nans {
  uint64_t count = 0;
  std::vector<int64_t> first;
};

Status FindNans(Inspector& inspector, const Tensor& tensor, Nans* nans) {
  *nans = {};
  const Format* format = FindFormat(tensor.dtype);
  if (format == nullptr || format->exponent == 0) return Status();
  std::vector<char> elements;
  AOTI_RETURN_IF_ERROR(Gather(inspector, tensor, *format, &elements));
  for (uint64_t i = 0; i < elements.size() / format->size; ++i) {
    if (!IsNan(*format, elements.data() + i * format->size)) continue;
    if (nans->count++ != 0) continue;
    nans->first.assign(tensor.shape.size(), 0);
    uint64_t rest = i;
    for (size_t d = tensor.shape.size(); d-- != 0;) {
      nans->first[d] = static_cast<int64_t>(rest % static_cast<uint64_t>(tensor.shape[d]));
      rest /= static_cast<uint64_t>(tensor.shape[d]);
    }
  }
  return Status();
}

// Creates the directory and names a file in it: what is written later sorts behind what was before.
Status NextFile(const Site& site, std::string* path) {
  static std::atomic<uint64_t> number{0};
  const char* named = std::getenv(kDirectoryVariable);
  const std::string directory = named == nullptr || named[0] == '\0' ? kDirectory : named;
  if (mkdir(directory.c_str(), 0777) != 0 && errno != EEXIST) {
    return Status(Code::kNotFound, "cannot create " + directory +
                                       " for the values of steps: " + std::strerror(errno) + "; " +
                                       kDirectoryVariable + " names another directory");
  }
  char digits[32];
  std::snprintf(digits, sizeof digits, "%06llu",
                static_cast<unsigned long long>(number.fetch_add(1)));  // NOLINT
  *path = directory + "/" + digits + "_" + site.model + "_";
  for (const char* c = site.step; *c != '\0'; ++c) {
    const bool plain = std::isalnum(static_cast<unsigned char>(*c)) != 0;
    if (plain || path->back() != '_') *path += plain ? *c : '_';
  }
  *path += ".safetensors";
  return Status();
}

}  // namespace

void PrintLaunch(const char* kernel, Grid grid, std::initializer_list<Argument> arguments) {
  std::string line = std::string("  launch ") + kernel + " over " + std::to_string(grid.x) + " x " +
                     std::to_string(grid.y) + " x " + std::to_string(grid.z) + ":";
  for (const Argument& argument : arguments) {
    line += std::string(argument.name == arguments.begin()->name ? " " : ", ") + argument.name +
            " = " + ValueText(argument);
  }
  PrintLine(line);
}

void PrintCopy(DeviceAddress dst, DeviceAddress src, uint64_t nbytes) {
  PrintLine("  copy " + std::to_string(nbytes) + " bytes to " + Hexadecimal(dst) + " from " +
            Hexadecimal(src));
}

void PrintFill(DeviceAddress dst, uint8_t byte, uint64_t nbytes) {
  PrintLine("  fill " + std::to_string(nbytes) + " bytes at " + Hexadecimal(dst) + " with " +
            std::to_string(byte));
}

Step::Step(Launcher& launcher, uint32_t modes, const Site& site)
    : launcher_(launcher), modes_(modes), site_(site) {
  if ((modes_ & kLaunches) != 0) PrintLine(SiteText(site_));
}

Status Step::Clear(DeviceAddress address, uint64_t nbytes) {
  return launcher_.Fill(address, 0, nbytes, Pointers::kOwned);
}

Status Step::Finish(std::initializer_list<Tensor> tensors) {
  if ((modes_ & kWaiting) == 0) return Status();
  Inspector* inspector = launcher_.inspector();
  if (inspector == nullptr) {
    return Status(Code::kInternal, SiteText(site_) +
                                       ": steps of a debug build that waits for them "
                                       "must be issued to a stream");
  }
  AOTI_RETURN_IF_ERROR(inspector->Synchronize(SiteText(site_)));
  if ((modes_ & kValues) != 0) AOTI_RETURN_IF_ERROR(Write(tensors));
  if ((modes_ & kNan) != 0) AOTI_RETURN_IF_ERROR(CheckNan(tensors));
  return Status();
}

Status Step::CheckNan(const std::vector<Tensor>& tensors) {
  Inspector& inspector = *launcher_.inspector();
  for (const Tensor& tensor : tensors) {
    if (!tensor.written) continue;
    Nans nans;
    AOTI_RETURN_IF_ERROR(FindNans(inspector, tensor, &nans));
    if (nans.count == 0) continue;
    std::string message = SiteText(site_) + ": " + tensor.name + ", " + tensor.dtype + " " +
                          ShapeText(tensor.shape) + ", has " + std::to_string(nans.count) +
                          " NaN, the first at " + ShapeText(nans.first);
    // What it reads and does not write still is as it was.
    std::string others;
    for (const Tensor& other : tensors) {
      if (other.written) continue;
      AOTI_RETURN_IF_ERROR(FindNans(inspector, other, &nans));
      if (nans.count != 0) others += std::string(others.empty() ? "" : ", ") + other.name;
    }
    message += others.empty() ? "; what it only reads has none" : "; there is NaN in " + others;
    return Status(Code::kInvalidArgument, std::move(message));
  }
  return Status();
}

Status Step::Write(const std::vector<Tensor>& tensors) {
  // In the order of the file: https://github.com/huggingface/safetensors.
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"model", site_.model}, {"step", site_.step}, {"source", site_.source}};
  std::vector<char> data;
  bool any = false;
  for (const Tensor& tensor : tensors) {
    if (!tensor.written) continue;
    const Format* format = FindFormat(tensor.dtype);
    if (format == nullptr) continue;
    std::vector<char> elements;
    AOTI_RETURN_IF_ERROR(Gather(*launcher_.inspector(), tensor, *format, &elements));
    // A step can write a block in several places.
    std::string name = tensor.name;
    for (int i = 2; header.contains(name); ++i) name = tensor.name + (" " + std::to_string(i));
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + elements.size()}}};
    data.insert(data.end(), elements.begin(), elements.end());
    any = true;
  }
  if (!any) return Status();
  std::string text = header.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data is aligned
  std::string path;
  AOTI_RETURN_IF_ERROR(NextFile(site_, &path));
  const uint64_t length = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.write(data.data(), static_cast<std::streamsize>(data.size()));
  file.close();
  if (!file.good()) {
    return Status(Code::kNotFound,
                  "cannot write " + path + " for the values of a step: " + std::strerror(errno));
  }
  return Status();
}

}  // namespace aoti::debug
