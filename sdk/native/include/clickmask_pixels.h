/* Between a photograph and the network on the CPU: the part of libclickmask_native that knows no network.
 *
 * Results are clickmask_status; instruction sets and threads are those of clickmask_native.h. Each call equals a
 * slower one in Python but for rounding: encode.image_tensor, blend.blend_into, paste.paste_with_box, outlines.regions.
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

/* 1 / (1 + exp(-x)) of finite logits, (rows, columns); strides in floats. The result may be the logits. */
CLICKMASK_API int clickmask_sigmoid(const float *logits, ptrdiff_t stride, int rows, int columns, float *result,
                                    ptrdiff_t result_stride);

/* Values between those of a grid, bilinearly, rows before columns.
 *
 * values: (height, width), finite; the outer ones extend outwards.
 * rows, columns: where to look, finite fractional indices.
 * result: (row_count, column_count), rows `stride` floats apart.
 */
CLICKMASK_API int clickmask_lerp(const float *values, int height, int width, const double *rows, int row_count,
                                 const double *columns, int column_count, const char *instruction_set,
                                 float *result, ptrdiff_t stride);

/* Blends other values into those of a grid: each goes min(s, t) max(a, b) of the way to the other one, with the shares s
 * of its row and t of its column and how far they are away, a and b, from what stays as it is.
 *
 * values, other: (rows, columns), rows `stride` and `other_stride` floats apart.
 * row_shares, row_away: one for each row; column_shares, column_away: one for each column.
 */
CLICKMASK_API int clickmask_blend(float *values, ptrdiff_t stride, const float *other, ptrdiff_t other_stride, int rows,
                                  int columns, const float *row_shares, const float *column_shares,
                                  const float *row_away, const float *column_away, const char *instruction_set);

/* A mask as the runs of its rows, for clickmask_runs_free. */
typedef struct clickmask_runs clickmask_runs;

/* A mask to paint on.
 *
 * pixels: (height, width) bytes, rows `stride` apart.
 * top, left: the pixel where the first row and column of what is painted are; all of it lies inside.
 * clear: whether pixels that are not painted are set to 0; otherwise they are left as they are.
 */
typedef struct clickmask_canvas {
  uint8_t *pixels;
  ptrdiff_t stride;
  int32_t height, width, top, left, clear;
} clickmask_canvas;

/* The runs of the mask of all pixels where values, interpolated bilinearly, lie above a limit; rows before columns.
 *
 * values: (height, width), finite, rows `stride` floats apart; the outer ones extend outwards.
 * row_step, column_step, centre: mask row y lies at values row (y + centre) row_step - centre; columns likewise.
 * canvas: where its pixels are set to 1, or NULL.
 * found: x0, y0, x1, y1 of the mask's pixels, half-open, all 0 where there are none; and how many corners its
 *   outlines have at most.
 * runs: the mask's.
 */
CLICKMASK_API int clickmask_value_runs(const float *values, ptrdiff_t stride, int height, int width, float limit,
                                       double row_step, double column_step, double centre, int mask_height,
                                       int mask_width, int threads, const clickmask_canvas *canvas, int32_t *found,
                                       clickmask_runs **runs);

/* The runs of a mask, (height, width) bytes, 0 or 1, rows `stride` apart; found as above. */
CLICKMASK_API int clickmask_mask_runs(const uint8_t *mask, ptrdiff_t stride, int height, int width, int threads,
                                      int32_t *found, clickmask_runs **runs);

/* The outlines of a mask along pixel edges, each from its top left corner, in raster order of those; object on
 * the right hand, pixels that meet at a corner only apart.
 *
 * left, top: the pixel where the mask's first row and column are; corners are counted from pixel (0, 0).
 * corners: x, y of all outlines, one after the other, with room for as many as there are at most.
 * ends: where each outline ends there, with room for a quarter as many.
 * owners: the outer outline of the piece that each belongs to, by number: a hole's, or its own; as many.
 * counts: how many corners and outlines there are.
 */
CLICKMASK_API int clickmask_outlines(const clickmask_runs *runs, int32_t left, int32_t top, int32_t *corners,
                                     int32_t *ends, int32_t *owners, int32_t *counts);

CLICKMASK_API void clickmask_runs_free(clickmask_runs *runs);

#ifdef __cplusplus
}
#endif
#endif
