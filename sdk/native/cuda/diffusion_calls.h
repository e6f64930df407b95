// The functions of clickmask_native_cuda.h. Whoever includes this has declared
//   void weigh_all(const Options &, Grid, const float *image, Weights, void *stream);
//   void begin_all(const Options &, Grid, const float *logits, const float *clicks, int click_count, float *state,
//                  void *stream);
//   void step_all(const Options &, Grid, Weights, const float *from, const float *logits, float *to, void *stream);
//   int launched();
// of which the first three do a stage at every pixel, and the last says how the stages since it was asked were begun:
// a status. `logits` of a step is null for all but the last, which also forms the result.
#pragma once

#include "diffusion_weights.h"
#include "options.h"

size_t clickmask_cuda_affinity_bytes(const Options *options, int height, int width) {
  if (options == nullptr || !is_supported(*options) || !is_size(height, width)) return 0;
  return pixels({height, width}) * (sizeof(float) + 8 * options->dilation_count * sizeof(std::uint16_t));
}

size_t clickmask_cuda_scratch_bytes(int height, int width) {
  return is_size(height, width) ? 2 * pixels({height, width}) * sizeof(float) : 0;
}

int clickmask_cuda_affinity(const Options *options, const float *image, int height, int width, void *affinity,
                            void *stream) {
  if (options == nullptr || image == nullptr || affinity == nullptr || !is_size(height, width))
    return CLICKMASK_INVALID;
  if (!is_supported(*options)) return CLICKMASK_UNSUPPORTED;
  const Grid grid{height, width};
  weigh_all(*options, grid, image, weights_in(affinity, grid), stream);
  return launched();
}

int clickmask_cuda_diffuse(const Options *options, const void *affinity, const float *logits, const float *clicks,
                           int click_count, int height, int width, void *scratch, float *result, void *stream) {
  const bool clicks_given = click_count == 0 || (click_count > 0 && clicks != nullptr);
  if (options == nullptr || affinity == nullptr || logits == nullptr || scratch == nullptr || result == nullptr ||
      !clicks_given || !is_size(height, width))
    return CLICKMASK_INVALID;
  if (!is_supported(*options)) return CLICKMASK_UNSUPPORTED;
  const Grid grid{height, width};
  const Weights weights = weights_in(const_cast<void *>(affinity), grid);
  float *from = static_cast<float *>(scratch), *to = from + pixels(grid);
  begin_all(*options, grid, logits, clicks, click_count, from, stream);
  for (int i = 1; i <= options->iterations; ++i) {
    const bool last = i == options->iterations;
    step_all(*options, grid, weights, from, last ? logits : nullptr, last ? result : to, stream);
    float *done = from;
    from = to, to = done;
  }
  return launched();
}
