// The preprocessing of models/classify.

#include "models/image.h"

#include <cmath>
#include <cstring>

#include "gtest/gtest.h"

namespace classify {
namespace {

TEST(Half, RoundTripsEveryValue) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = FromHalf(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(FromHalf(ToHalf(value))));
    } else {
      EXPECT_EQ(ToHalf(value), half);
    }
  }
}

TEST(Half, RoundsToNearestTiesToEven) {
  EXPECT_EQ(ToHalf(1.0f), 0x3C00);
  EXPECT_EQ(ToHalf(1.0f + 1.0f / 2048), 0x3C00);  // halfway, down to even
  EXPECT_EQ(ToHalf(1.0f + 3.0f / 2048), 0x3C02);  // halfway, up to even
  EXPECT_EQ(ToHalf(1.0f + 1.01f / 2048), 0x3C01);
  EXPECT_EQ(ToHalf(65519.0f), 0x7BFF);
  EXPECT_EQ(ToHalf(65520.0f), 0x7C00);
  EXPECT_EQ(ToHalf(-1e10f), 0xFC00);
  EXPECT_EQ(ToHalf(std::ldexp(1.0f, -25)), 0x0000);  // half of the least, to even
  EXPECT_EQ(ToHalf(std::ldexp(1.5f, -24)), 0x0002);
  EXPECT_EQ(ToHalf(std::ldexp(1.0f, -14) * 0.99999f), 0x0400);
}

Image Gradient(int64_t width, int64_t height) {
  Image image{width, height, {}};
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      image.pixels.push_back(static_cast<float>(x));
      image.pixels.push_back(static_cast<float>(y));
      image.pixels.push_back(100);
    }
  }
  return image;
}

TEST(Resize, KeepsAnImageOfTheSameSize) {
  const Image image = Gradient(7, 5);
  EXPECT_EQ(Resize(image, 7, 5).pixels, image.pixels);
}

TEST(Resize, AveragesWhenShrinking) {
  const Image half = Resize(Gradient(8, 8), 4, 4);
  ASSERT_EQ(half.pixels.size(), 48u);
  // In the middle of a gradient, a symmetric filter gives the value at the pixel's centre.
  EXPECT_NEAR(half.pixels[3 * 5], 2.5, 1e-5);
  EXPECT_NEAR(half.pixels[3 * 5 + 1], 2.5, 1e-5);
  for (size_t i = 2; i < half.pixels.size(); i += 3) EXPECT_NEAR(half.pixels[i], 100, 1e-4);
}

TEST(Resize, InterpolatesWhenGrowing) {
  const Image twice = Resize(Gradient(4, 4), 8, 8);
  EXPECT_NEAR(twice.pixels[0], 0, 1e-5);
  EXPECT_NEAR(twice.pixels[3 * 1], 0.25, 1e-5);
  EXPECT_NEAR(twice.pixels[3 * 2], 0.75, 1e-5);
}

TEST(Preprocess, CutsTheMiddleAndNormalizes) {
  // Scaled to 512 x 256, cut at x = 144, y = 16.
  const std::vector<float> planes = Preprocess(Gradient(512, 256), 224);
  ASSERT_EQ(planes.size(), 3u * 224 * 224);
  EXPECT_NEAR(planes[0], (144 / 255.0 - 0.485) / 0.229, 1e-4);
  EXPECT_NEAR(planes[224 * 224], (16 / 255.0 - 0.456) / 0.224, 1e-4);
  EXPECT_NEAR(planes[2 * 224 * 224], (100 / 255.0 - 0.406) / 0.225, 1e-4);
}

TEST(ReadImage, ExplainsAFileThatIsNone) {
  Image image;
  EXPECT_EQ(ReadImage("/nonexistent.png", &image),
            "/nonexistent.png: cannot be read as JPEG or PNG: can't fopen");
}

}  // namespace
}  // namespace classify
