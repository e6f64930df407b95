// The CUDA twin: one thread for each pixel, one launch for each stage.
#include <cuda_runtime.h>

#include "clickmask_native_cuda.h"
#include "options.h"
#include "pixel.h"

namespace {

using Options = clickmask_diffusion_options;
using pixel::Grid;

constexpr int kBlockWidth = 32, kBlockHeight = 8;

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

dim3 blocks_of(Grid grid) {
  return dim3((grid.width + kBlockWidth - 1) / kBlockWidth, (grid.height + kBlockHeight - 1) / kBlockHeight);
}

__device__ bool locate(Grid grid, int *y, int *x) {
  *x = blockIdx.x * kBlockWidth + threadIdx.x;
  *y = blockIdx.y * kBlockHeight + threadIdx.y;
  return *y < grid.height && *x < grid.width;
}

__global__ void weigh(Options o, Grid grid, const float *__restrict__ image, Weights weights) {
  int y, x;
  if (locate(grid, &y, &x))
    weights.inverse_sum[y * grid.width + x] = pixel::weigh(o, grid, image, y, x, weights.codes);
}

__global__ void begin(Options o, Grid grid, const float *__restrict__ logits, const float *__restrict__ clicks,
                      int click_count, float *__restrict__ state) {
  int y, x;
  if (!locate(grid, &y, &x)) return;
  const int here = y * grid.width + x;
  state[here] = pixel::source(o, logits[here], clicks, click_count, y, x);
}

// The last step also forms the result; `logits` is null for the others.
__global__ void step(Options o, Grid grid, Weights weights, const float *__restrict__ from, const float *logits,
                     float *to) {
  int y, x;
  if (!locate(grid, &y, &x)) return;
  const int here = y * grid.width + x;
  const float state = pixel::step(o, grid, weights.codes, weights.inverse_sum, from, y, x);
  to[here] = logits == nullptr ? state : pixel::result(o, state, logits[here]);
}

int launched() {
  // taken away: left in place, it would be every later call's error, too
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? CLICKMASK_OK : 1000 + error;
}

}  // namespace

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
  weigh<<<blocks_of(grid), dim3(kBlockWidth, kBlockHeight), 0, static_cast<cudaStream_t>(stream)>>>(
      *options, grid, image, weights_in(affinity, grid));
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
  const dim3 blocks = blocks_of(grid), threads(kBlockWidth, kBlockHeight);
  const auto queue = static_cast<cudaStream_t>(stream);
  const Weights weights = weights_in(const_cast<void *>(affinity), grid);
  float *from = static_cast<float *>(scratch), *to = from + pixels(grid);
  begin<<<blocks, threads, 0, queue>>>(*options, grid, logits, clicks, click_count, from);
  for (int i = 1; i <= options->iterations; ++i) {
    const bool last = i == options->iterations;
    step<<<blocks, threads, 0, queue>>>(*options, grid, weights, from, last ? logits : nullptr,
                                        last ? result : to);
    float *done = from;
    from = to, to = done;
  }
  return launched();
}
