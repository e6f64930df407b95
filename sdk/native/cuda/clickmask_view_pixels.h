/* Pixels between an image and the network: a C interface that libclickmask_native_cuda has for device memory.
 *
 * Each function does what one of clickmask/encode.py, paste.py or pixels.py does, for a view (clickmask/view.py).
 * Memory is the caller's; calls only queue kernels on `stream`, a cudaStream_t, so that they can be captured in a
 * CUDA graph. Results: clickmask_status, or 1000 + cudaError_t where a launch failed.
 */
#ifndef CLICKMASK_VIEW_PIXELS_H
#define CLICKMASK_VIEW_PIXELS_H

#include "clickmask_native.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The library's: raised whenever a struct or a signature below or of clickmask_native_cuda.h changes. The binding
 * refuses any other. */
#define CLICKMASK_VIEW_ABI 6

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

/* paste.py: paste_with_box. logits: (size, size), as the network gives them; limit: what the object is above, a logit
 * or with public coordinates a probability; mask: (image_height, image_width) of 0 and 1. */
CLICKMASK_API int clickmask_view_paste(const clickmask_view *view, const float *logits, float limit, int image_height,
                                       int image_width, uint8_t *mask, void *stream);

/* The view's box of that mask, eight pixels a byte: bits: (height, (width + 7) / 8) of the view, the first pixel of a
 * byte in its highest bit, 0 beyond the last. */
CLICKMASK_API int clickmask_view_bits(const clickmask_view *view, const float *logits, float limit, uint8_t *bits,
                                      void *stream);

/* encode.py: Samples. Along an axis of a new view, pixels first .. last - 1 lie in an old one's box, and pixel i of
 * them at `start + step * i` on its grid: of its `pixels`, or where they are finer than the new ones of `cells`, their
 * means. */
typedef struct clickmask_samples {
  double start, step;
  int32_t first, last, pixels, cells;
} clickmask_samples;

/* pixels.py: HostPixels.previous_mask. logits: (old_size, old_size) as an old view's network gave them, not read where
 * nothing of the new view lies in the old one; down, across: of rows and columns; scratch: old_size * size floats;
 * out: (size, size) probabilities. */
CLICKMASK_API int clickmask_view_previous(const float *logits, int old_size, const clickmask_samples *down,
                                          const clickmask_samples *across, float *scratch, float *out, int size,
                                          void *stream);

/* blend.py: the largest share of what is blended in, and the click, in network pixels, within whose `reach` it is less;
 * a reach of 0 for no click. */
typedef struct clickmask_blending {
  float largest, x, y, reach;
} clickmask_blending;

/* blend.py: blend_into, to other memory. logits: (size, size) of a view, of which (valid_height, valid_width) show it;
 * other: (other_size, other_size) of the view they were seen in; down, across, scratch: as above, with that for the old
 * view; blending: of the host; out: (size, size). */
CLICKMASK_API int clickmask_view_blend(const float *logits, int size, int valid_height, int valid_width,
                                       const float *other, int other_size, const clickmask_samples *down,
                                       const clickmask_samples *across, const clickmask_blending *blending,
                                       float *scratch, float *out, void *stream);

/* Sets *found, also in pinned memory of the host, to 1 if one of (rows, columns) values is NaN or infinite. */
CLICKMASK_API int clickmask_find_not_finite(const float *values, int rows, int columns, int32_t *found, void *stream);

#ifdef __cplusplus
}
#endif
#endif
