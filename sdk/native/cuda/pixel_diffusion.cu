// The CUDA twin: one thread for each pixel, one launch for each stage.
#include <cuda_runtime.h>

#include "diffusion_weights.h"

namespace {

constexpr int kBlockWidth = 32, kBlockHeight = 8;

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

__global__ void step(Options o, Grid grid, Weights weights, const float *__restrict__ from, const float *logits,
                     float *to) {
  int y, x;
  if (!locate(grid, &y, &x)) return;
  const int here = y * grid.width + x;
  const float state = pixel::step(o, grid, weights.codes, weights.inverse_sum, from, y, x);
  to[here] = logits == nullptr ? state : pixel::result(o, state, logits[here]);
}

const dim3 kThreads(kBlockWidth, kBlockHeight);

void weigh_all(const Options &o, Grid grid, const float *image, Weights weights, void *stream) {
  weigh<<<blocks_of(grid), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(o, grid, image, weights);
}

void begin_all(const Options &o, Grid grid, const float *logits, const float *clicks, int click_count, float *state,
               void *stream) {
  begin<<<blocks_of(grid), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(o, grid, logits, clicks, click_count,
                                                                           state);
}

void step_all(const Options &o, Grid grid, Weights weights, const float *from, const float *logits, float *to,
              void *stream) {
  step<<<blocks_of(grid), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(o, grid, weights, from, logits, to);
}

int launched() {
  // taken away: left in place, it would be every later call's error, too
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? CLICKMASK_OK : 1000 + error;
}

}  // namespace

#include "diffusion_calls.h"
