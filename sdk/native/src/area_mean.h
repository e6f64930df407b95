// A picture made smaller: the mean over the area that each pixel covers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

// RGB pixels, rows `stride` bytes apart.
struct Picture {
  const std::uint8_t *pixels;
  std::ptrdiff_t stride;
  int height, width;
};

// Three planes; strides in floats.
struct Planes {
  float *data;
  std::ptrdiff_t row_stride, plane_stride;
  int rows, columns;
};

void area_mean(const Kernels &kernels, const Picture &from, const Planes &to, int threads);
