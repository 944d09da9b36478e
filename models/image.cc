#include "models/image.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#include "stb/stb_image.h"
#pragma GCC diagnostic pop

namespace classify {
namespace {

constexpr int64_t kChannels = 3;
constexpr float kMean[] = {0.485f, 0.456f, 0.406f};
constexpr float kDeviation[] = {0.229f, 0.224f, 0.225f};

// The source pixels that make one target pixel, and how much each counts.
struct Tap {
  int64_t first = 0;
  std::vector<float> weights;
};

std::vector<Tap> Taps(int64_t from, int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double support = std::max(scale, 1.0);
  std::vector<Tap> taps(static_cast<size_t>(to));
  for (int64_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, std::llround(std::floor(center - support + 0.5)));
    const auto last = std::min<int64_t>(from, std::llround(std::floor(center + support + 0.5)));
    Tap& tap = taps[static_cast<size_t>(i)];
    tap.first = first;
    double total = 0;
    for (int64_t j = first; j < last; ++j) {
      const double distance = std::abs(static_cast<double>(j) + 0.5 - center) / support;
      const double weight = std::max(0.0, 1.0 - distance);
      tap.weights.push_back(static_cast<float>(weight));
      total += weight;
    }
    for (float& weight : tap.weights) weight = static_cast<float>(weight / total);
  }
  return taps;
}

// Resizes along rows of `from` elements, `stride` apart, of `channels` values each.
void ResizeLine(const std::vector<Tap>& taps, const float* from, float* to, int64_t stride) {
  for (size_t i = 0; i < taps.size(); ++i) {
    for (int64_t channel = 0; channel < kChannels; ++channel) {
      float sum = 0;
      const float* source = from + taps[i].first * stride + channel;
      for (const float weight : taps[i].weights) {
        sum += weight * *source;
        source += stride;
      }
      to[static_cast<int64_t>(i) * stride + channel] = sum;
    }
  }
}

}  // namespace

std::string ReadImage(const std::string& path, Image* image) {
  int width = 0;
  int height = 0;
  int channels = 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> bytes(
      stbi_load(path.c_str(), &width, &height, &channels, kChannels), stbi_image_free);
  if (bytes == nullptr) return path + ": cannot be read as JPEG or PNG: " + stbi_failure_reason();
  image->width = width;
  image->height = height;
  image->pixels.assign(bytes.get(), bytes.get() + kChannels * width * height);
  return "";
}

Image Resize(const Image& image, int64_t width, int64_t height) {
  Image wide;
  wide.width = width;
  wide.height = image.height;
  wide.pixels.resize(static_cast<size_t>(kChannels * wide.width * wide.height));
  const std::vector<Tap> columns = Taps(image.width, width);
  for (int64_t y = 0; y < image.height; ++y) {
    ResizeLine(columns, &image.pixels[static_cast<size_t>(y * image.width * kChannels)],
               &wide.pixels[static_cast<size_t>(y * width * kChannels)], kChannels);
  }
  Image result;
  result.width = width;
  result.height = height;
  result.pixels.resize(static_cast<size_t>(kChannels * width * height));
  const std::vector<Tap> rows = Taps(image.height, height);
  for (int64_t x = 0; x < width; ++x) {
    ResizeLine(rows, &wide.pixels[static_cast<size_t>(x * kChannels)],
               &result.pixels[static_cast<size_t>(x * kChannels)], width * kChannels);
  }
  return result;
}

std::vector<float> Preprocess(const Image& image, int64_t size) {
  const int64_t shorter = size * 256 / 224;
  const int64_t least = std::min(image.width, image.height);
  const Image scaled = Resize(image, image.width * shorter / least, image.height * shorter / least);
  const int64_t left = (scaled.width - size) / 2;
  const int64_t top = (scaled.height - size) / 2;
  std::vector<float> planes;
  planes.reserve(static_cast<size_t>(kChannels * size * size));
  for (int64_t channel = 0; channel < kChannels; ++channel) {
    for (int64_t y = top; y < top + size; ++y) {
      for (int64_t x = left; x < left + size; ++x) {
        const auto at = static_cast<size_t>((y * scaled.width + x) * kChannels + channel);
        planes.push_back((scaled.pixels[at] / 255 - kMean[channel]) / kDeviation[channel]);
      }
    }
  }
  return planes;
}

uint16_t ToHalf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00);   // NaN
  if (magnitude >= 0x477FF000) return static_cast<uint16_t>(sign | 0x7C00);  // 65520 and above
  if (magnitude < 0x38800000) {
    // A subnormal: a multiple of 2^-24. nearbyint rounds ties to even.
    const float scaled = std::nearbyint(std::abs(value) * 16777216.0f);
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(scaled));
  }
  const uint32_t rounding = 0xFFF + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | ((magnitude + rounding - 0x38000000) >> 13));
}

float FromHalf(uint16_t half) {
  const int exponent = half >> 10 & 0x1F;
  const auto mantissa = static_cast<float>(half & 0x3FF);
  float value;
  if (exponent == 0x1F) {
    value = mantissa == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    value = std::ldexp(mantissa, -24);
  } else {
    value = std::ldexp(1024 + mantissa, exponent - 25);
  }
  return (half & 0x8000) != 0 ? -value : value;
}

}  // namespace classify
