/* Pixels between an image and the network: a C interface that libclickmask_native_cuda has for device memory.
 *
 * Each function does what one of clickmask/encode.py or paste.py does, for a view (clickmask/view.py). Memory is the
 * caller's; calls only queue kernels on `stream`, a cudaStream_t, so that they can be captured in a CUDA graph. Results:
 * clickmask_status, or 1000 + cudaError_t where a launch failed.
 */
#ifndef CLICKMASK_VIEW_PIXELS_H
#define CLICKMASK_VIEW_PIXELS_H

#include "clickmask_native.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a struct or a signature below changes; the binding refuses any other. */
#define CLICKMASK_VIEW_ABI 3

#define CLICKMASK_MAX_SIDE (1 << 17) /* of an image */
#define CLICKMASK_MAX_SIZE (1 << 12) /* of the network's input */

enum clickmask_coordinates { CLICKMASK_HALF_PIXEL = 0, CLICKMASK_PUBLIC = 1 };

/* uint8 RGB: element (row, column, colour) is `row * strides[0] + column * strides[1] + colour * strides[2]` bytes
 * after `pixels`. */
typedef struct clickmask_image {
  const uint8_t *pixels;
  int64_t strides[3];
  int32_t height, width;
} clickmask_image;

/* A box of the image, and the part of the network's square, of side `size`, that shows it. */
typedef struct clickmask_view {
  int32_t x0, y0, width, height;
  int32_t valid_width, valid_height, size;
  int32_t coordinates;
} clickmask_view;

CLICKMASK_API int clickmask_view_abi(void);

/* image_tensor. pad: three floats of the host; out: (3, size, size). */
CLICKMASK_API int clickmask_view_crop(const clickmask_view *view, const clickmask_image *image, const float *pad,
                                      float *out, void *stream);

/* paste.py: paste_mask. logits: (valid_height, valid_width), the view's valid part; limit: what the object is above, a
 * logit or with public coordinates a probability; mask: (image_height, image_width) of 0 and 1. */
CLICKMASK_API int clickmask_view_paste(const clickmask_view *view, const float *logits, float limit, int image_height,
                                       int image_width, uint8_t *mask, void *stream);

/* The view's box of that mask, eight pixels a byte: bits: (height, (width + 7) / 8) of the view, the first pixel of a
 * byte in its highest bit, 0 beyond the last. */
CLICKMASK_API int clickmask_view_bits(const clickmask_view *view, const float *logits, float limit, uint8_t *bits,
                                      void *stream);

#ifdef __cplusplus
}
#endif
#endif
