// Where the weights of a crop lie in the memory that the caller gives for them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "clickmask_native_cuda.h"
#include "pixel.h"

namespace {

using Options = clickmask_diffusion_options;
using pixel::Grid;

struct Weights {
  std::uint16_t *codes;
  float *inverse_sum;
};

std::size_t pixels(Grid grid) { return static_cast<std::size_t>(grid.height) * grid.width; }

// The sums come first: floats need the stricter alignment.
Weights weights_in(void *memory, Grid grid) {
  float *sums = static_cast<float *>(memory);
  return {reinterpret_cast<std::uint16_t *>(sums + pixels(grid)), sums};
}

}  // namespace
