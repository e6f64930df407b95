// clickmask_view_pixels.h on CUDA: one thread for each element, one launch for each stage.
#include <cuda_runtime.h>

#include "view_pixels.h"

namespace {

constexpr int kBlockWidth = 32, kBlockHeight = 8, kMostBlocksDown = 65535;

template <class Element>
__global__ void everywhere(int height, int width, Element element) {
  const int x = blockIdx.x * kBlockWidth + threadIdx.x;
  const int step = gridDim.y * kBlockHeight;
  for (int y = blockIdx.y * kBlockHeight + threadIdx.y; x < width && y < height; y += step) element(y, x);
}

template <class Element>
int for_each(int height, int width, const Element &element, void *stream) {
  const int down = (height + kBlockHeight - 1) / kBlockHeight;
  const dim3 blocks((width + kBlockWidth - 1) / kBlockWidth, down < kMostBlocksDown ? down : kMostBlocksDown);
  everywhere<<<blocks, dim3(kBlockWidth, kBlockHeight), 0, static_cast<cudaStream_t>(stream)>>>(height, width,
                                                                                               element);
  // taken away: left in place, it would be every later call's error, too
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? CLICKMASK_OK : 1000 + error;
}

}  // namespace

#include "view_calls.h"
