// An image as ImageNet classifiers take it.

#ifndef AOTI_MODELS_IMAGE_H_
#define AOTI_MODELS_IMAGE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace classify {

// Rows of pixels of red, green, blue, each 0 to 255.
struct Image {
  int64_t width = 0;
  int64_t height = 0;
  std::vector<float> pixels;
};

// Reads a JPEG or PNG file. Returns what is wrong with it, or "".
std::string ReadImage(const std::string& path, Image* image);

// Resizes with a triangle filter as wide as a pixel of the coarser of the two images ("bilinear
// with antialiasing").
Image Resize(const Image& image, int64_t width, int64_t height);

// Scales the shorter side to 256/224 of `size`, cuts `size` by `size` pixels from the middle and
// normalizes with ImageNet's mean and deviation: the preprocessing ResNet-50 was trained with
// (https://pytorch.org/vision/stable/models.html). Returns 3 planes of `size` rows.
std::vector<float> Preprocess(const Image& image, int64_t size);

// IEEE 754 binary16, rounded to nearest, ties to even; and back.
uint16_t ToHalf(float value);
float FromHalf(uint16_t half);

}  // namespace classify

#endif  // AOTI_MODELS_IMAGE_H_
