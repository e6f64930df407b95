/* Fused Pixel Diffusion on CUDA: the C interface of libclickmask_native_cuda.
 *
 * The contract is clickmask_native.h's, on device memory. Nothing is allocated, copied or waited for: the caller
 * owns all memory, and calls only queue kernels on a stream, so that they can be captured in a CUDA graph.
 */
#ifndef CLICKMASK_NATIVE_CUDA_H
#define CLICKMASK_NATIVE_CUDA_H

#include "clickmask_native.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of device memory for the weights of a crop, and for the working planes of one call on them. 0 where the
 * options or sizes are not supported. */
CLICKMASK_API size_t clickmask_cuda_affinity_bytes(const clickmask_diffusion_options *options, int height,
                                                   int width);
CLICKMASK_API size_t clickmask_cuda_scratch_bytes(int height, int width);

/* All pointers but `options` are to device memory; `stream` is a cudaStream_t. Results: clickmask_status, or
 * 1000 + cudaError_t where a launch failed. */
CLICKMASK_API int clickmask_cuda_affinity(const clickmask_diffusion_options *options, const float *image,
                                          int height, int width, void *affinity, void *stream);

CLICKMASK_API int clickmask_cuda_diffuse(const clickmask_diffusion_options *options, const void *affinity,
                                         const float *logits, const float *clicks, int click_count, int height,
                                         int width, void *scratch, float *result, void *stream);

#ifdef __cplusplus
}
#endif
#endif
