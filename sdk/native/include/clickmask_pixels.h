/* Between a photograph and the network on the CPU: the part of libclickmask_native that knows no network.
 *
 * Results are clickmask_status; instruction sets and threads are those of clickmask_native.h. Each call equals a
 * slower one in Python but for rounding: encode.image_tensor, paste.paste_with_box, outlines.rings.
 */
#ifndef CLICKMASK_PIXELS_H
#define CLICKMASK_PIXELS_H

#include "clickmask_native.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Shrinks a picture: the mean over the area that each pixel covers, in whole grey levels, halves upwards.
 *
 * pixels: (height, width, 3) uint8, rows `stride` bytes apart.
 * planes: (3, rows, columns) float32 in [0, 1], strides in floats; rows <= height, columns <= width.
 */
CLICKMASK_API int clickmask_area_mean(const uint8_t *pixels, ptrdiff_t stride, int height, int width, int rows,
                                      int columns, int threads, const char *instruction_set, float *planes,
                                      ptrdiff_t row_stride, ptrdiff_t plane_stride);

/* 1 / (1 + exp(-x)) of `count` finite logits; result may be logits. */
CLICKMASK_API int clickmask_sigmoid(const float *logits, int count, float *result);

/* Sets the pixels of a mask where values, interpolated bilinearly, lie above a limit; rows before columns.
 *
 * values: (height, width), finite; the outer ones extend outwards.
 * row_step, column_step, centre: mask row y lies at values row (y + centre) row_step - centre; columns likewise.
 * mask: (mask_height, mask_width) bytes, rows `stride` apart, zero before; or NULL, to find the box only.
 * box: x0, y0, x1, y1 of what is set, half-open; all 0 where nothing is.
 */
CLICKMASK_API int clickmask_paint(const float *values, int height, int width, float limit, double row_step,
                                  double column_step, double centre, int mask_height, int mask_width,
                                  uint8_t *mask, ptrdiff_t stride, int32_t *box);

/* The outlines of a mask along pixel edges, each from its top left corner, in raster order of those; object on
 * the right hand, pixels that meet at a corner only apart.
 *
 * mask: (height, width) bytes, 0 or 1, rows `stride` apart.
 * corners: (capacity, 2) x, y of all outlines, one after the other; ends: (capacity,) where each one ends there.
 * counts: how many corners and outlines there are; where corners exceed the capacity nothing else is written.
 */
CLICKMASK_API int clickmask_outlines(const uint8_t *mask, ptrdiff_t stride, int height, int width,
                                     int32_t capacity, int32_t *corners, int32_t *ends, int32_t *counts);

#ifdef __cplusplus
}
#endif
#endif
