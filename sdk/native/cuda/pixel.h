// Pixel Diffusion of one pixel, for a thread of the GPU. Also compiles for the processor, where the ctest compares
// it with the reference, since most machines that build this have no GPU.
//
// Planes are row-major without padding. Weights are the codes of kernels.h, but [neighbour][pixel], so that the
// threads of a warp read them side by side.
#pragma once

#include <cmath>
#include <cstdint>

#include "clickmask_native.h"

#if defined(__CUDACC__)
#define CLICKMASK_ON_BOTH __host__ __device__ inline
#else
#define CLICKMASK_ON_BOTH inline
#endif

namespace pixel {

constexpr float kOne = 65535.0f;  // kernels.h

struct Grid {
  int height, width;
};

CLICKMASK_ON_BOTH int clamped(int value, int end) { return value < 0 ? 0 : value >= end ? end - 1 : value; }

// Index of neighbour k of (y, x); beyond the border the edge repeats.
CLICKMASK_ON_BOTH int neighbour(const clickmask_diffusion_options &o, Grid grid, int y, int x, int k) {
  const int d = o.dilations[k / 8];
  const int cell = k % 8 + (k % 8 >= 4 ? 1 : 0);  // of 3 x 3, without the centre
  return clamped(y + d * (cell / 3 - 1), grid.height) * grid.width + clamped(x + d * (cell % 3 - 1), grid.width);
}

// 1 / (3 divisor) of Eq. 8 for one colour. The deviation is taken about the centre: kernels_body.h says why one
// pass is enough where the centre is a sample; otherwise there are two.
CLICKMASK_ON_BOTH float scale_of(const clickmask_diffusion_options &o, Grid grid, const float *colour, int y,
                                 int x) {
  const int count = 8 * o.dilation_count;
  const float centre = colour[y * grid.width + x];
  float sum = 0.0f, squares = 0.0f;
  for (int k = 0; k < count; ++k) {
    const float d = colour[neighbour(o, grid, y, x, k)] - centre;
    sum += d;
    squares += d * d;
  }
  float variance;
  if (o.deviation == CLICKMASK_UNBIASED_36) {
    const float samples = count * 9.0f / 8.0f;
    variance = fmaxf(squares - sum * (sum / samples), 0.0f) / (samples - 1.0f);
  } else {
    const float mean = sum / count;
    squares = 0.0f;
    for (int k = 0; k < count; ++k) {
      const float d = colour[neighbour(o, grid, y, x, k)] - centre - mean;
      squares += d * d;
    }
    variance = squares / count;
  }
  const float divisor = o.affinity == CLICKMASK_PAPER ? variance : 0.1f * sqrtf(variance);
  return 1.0f / (3.0f * fmaxf(divisor, o.eps));
}

// -l of Eq. 8.
CLICKMASK_ON_BOTH float cost(const float *image, std::size_t plane, int here, int there, const float *scales) {
  float sum = 0.0f;
  for (int c = 0; c < 3; ++c) sum += fabsf(image[c * plane + there] - image[c * plane + here]) * scales[c];
  return sum;
}

// Writes the codes of one pixel and returns 1 / the sum of their squares.
CLICKMASK_ON_BOTH float weigh(const clickmask_diffusion_options &o, Grid grid, const float *image, int y, int x,
                              std::uint16_t *codes) {
  const std::size_t plane = static_cast<std::size_t>(grid.height) * grid.width;
  const int here = y * grid.width + x, count = 8 * o.dilation_count;
  float scales[3];
  for (int c = 0; c < 3; ++c) scales[c] = scale_of(o, grid, image + c * plane, y, x);
  float low = cost(image, plane, here, neighbour(o, grid, y, x, 0), scales), sum = 0.0f;
  for (int k = 1; k < count; ++k) low = fminf(low, cost(image, plane, here, neighbour(o, grid, y, x, k), scales));
  for (int k = 0; k < count; ++k) {
    const float root = expf(0.5f * (low - cost(image, plane, here, neighbour(o, grid, y, x, k), scales)));
    const float code = rintf(root * kOne);
    codes[k * plane + here] = static_cast<std::uint16_t>(code);
    sum += code * code;
  }
  return 1.0f / sum;
}

// Eq. 6.
CLICKMASK_ON_BOTH float normalised(const clickmask_diffusion_options &o, float logit) {
  return o.norm == CLICKMASK_TANH_HALF ? tanhf(0.5f * logit) : 2.0f * tanhf(logit);
}

CLICKMASK_ON_BOTH float click_map(const clickmask_diffusion_options &o, float squared) {
  const float size2 = o.click_map_size * o.click_map_size;
  if (o.click_map == CLICKMASK_DISK) return squared <= size2 ? 1.0f : 0.0f;
  return expf(-0.5f / size2 * squared);
}

// Eq. 5.
CLICKMASK_ON_BOTH float source(const clickmask_diffusion_options &o, float logit, const float *clicks,
                               int click_count, int y, int x) {
  const float m = normalised(o, logit);
  float nearest[2] = {2e9f, 2e9f};  // squared distances to a negative and to a positive click
  for (int i = 0; i < click_count; ++i) {
    const float label = clicks[3 * i + 2];
    if (label != 0.0f && label != 1.0f) continue;
    const float dx = x - clicks[3 * i], dy = y - clicks[3 * i + 1];
    float &slot = nearest[label == 1.0f ? 1 : 0];
    slot = fminf(slot, dy * dy + dx * dx);
  }
  const float kept = fabsf(m) > o.cutoff ? m : 0.0f;
  return kept + o.amplitude * (click_map(o, nearest[1]) - click_map(o, nearest[0]));
}

// One step of Eq. 7.
CLICKMASK_ON_BOTH float step(const clickmask_diffusion_options &o, Grid grid, const std::uint16_t *codes,
                             const float *inverse_sum, const float *state, int y, int x) {
  const std::size_t plane = static_cast<std::size_t>(grid.height) * grid.width;
  const int here = y * grid.width + x;
  float sum = 0.0f;
  for (int k = 0; k < 8 * o.dilation_count; ++k) {
    const float code = codes[k * plane + here];
    sum += code * code * state[neighbour(o, grid, y, x, k)];
  }
  return sum * inverse_sum[here];
}

// y + m, or the logit it stands for.
CLICKMASK_ON_BOTH float result(const clickmask_diffusion_options &o, float state, float logit) {
  const float sum = state + normalised(o, logit);
  if (o.output == CLICKMASK_STATE) return sum;
  const bool half = o.norm == CLICKMASK_TANH_HALF;
  const float limit = half ? 0.9999092042625951f : 0.99999994f;  // kernels_body.h
  return (half ? 2.0f : 1.0f) * atanhf(fminf(fmaxf(sum * (half ? 0.5f : 0.25f), -limit), limit));
}

}  // namespace pixel
