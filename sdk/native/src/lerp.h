// Places between the samples of a grid, and values there.
#pragma once

#include <cstddef>

#include "kernels.h"

// Between samples `low` and the next one; the outer ones extend outwards.
struct Place {
  int low;
  float weight;
};
Place place_of(double position, int count);

// Values of a grid at some rows and columns, in fractional indices.
void lerp(const Kernels &kernels, const float *values, int height, int width, const double *rows, int row_count,
          const double *columns, int column_count, float *out, std::ptrdiff_t stride);
