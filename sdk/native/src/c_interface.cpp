// The C interface: checks arguments, turns exceptions into codes.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <utility>

#include "area_mean.h"
#include "clickmask_pixels.h"
#include "dispatch.h"
#include "lerp.h"
#include "options.h"
#include "outlines.h"
#include "pixel_diffusion.h"
#include "runs.h"
#include "threads.h"
#include "value_runs.h"

struct clickmask_affinity {
  Affinity affinity;
};

struct clickmask_runs {
  Runs runs;
};

namespace {

constexpr int kPictureSide = 1 << 20;  // of a picture; larger than any input of a network

int threads_or_all(int threads) { return threads > 0 ? threads : usable_cores(); }

bool holds(const clickmask_canvas &canvas, int height, int width) {
  const bool inside = canvas.top >= 0 && canvas.top <= canvas.height - height;
  return canvas.pixels != nullptr && inside && canvas.left >= 0 && canvas.left <= canvas.width - width;
}

void tell(const Runs &runs, int32_t *found) {
  const RunsBox box = box_of(runs);
  const std::size_t corners = 2 * runs.edges();
  const int facts[] = {box.x0, box.y0, box.x1, box.y1, static_cast<int>(std::min<std::size_t>(corners, INT32_MAX))};
  std::copy(facts, facts + 5, found);
}

}  // namespace

int clickmask_abi(void) { return CLICKMASK_ABI; }

int clickmask_threads(void) { return usable_cores(); }

const char *clickmask_instruction_sets(void) { return usable_kernels().c_str(); }

int clickmask_affinity_create(const clickmask_diffusion_options *options, const float *image, int height,
                              int width, int threads, const char *instruction_set,
                              clickmask_affinity **affinity) {
  if (options == nullptr || image == nullptr || affinity == nullptr) return CLICKMASK_INVALID;
  if (!is_size(height, width)) return CLICKMASK_INVALID;
  const Kernels *kernels = find_kernels(instruction_set);
  if (kernels == nullptr || !is_supported(*options)) return CLICKMASK_UNSUPPORTED;
  try {
    *affinity = new clickmask_affinity{{*options, *kernels, image, height, width, threads_or_all(threads)}};
    return CLICKMASK_OK;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}

int clickmask_diffuse(clickmask_affinity *affinity, const float *logits, const float *clicks, int click_count,
                      int threads, float *result) {
  const bool clicks_given = click_count == 0 || (click_count > 0 && clicks != nullptr);
  if (affinity == nullptr || logits == nullptr || result == nullptr || !clicks_given) return CLICKMASK_INVALID;
  try {
    const bool finite =
        affinity->affinity.diffuse(logits, clicks, click_count, threads_or_all(threads), result);
    return finite ? CLICKMASK_OK : CLICKMASK_NOT_FINITE;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}

size_t clickmask_affinity_bytes(const clickmask_affinity *affinity) { return affinity->affinity.bytes(); }

void clickmask_affinity_free(clickmask_affinity *affinity) { delete affinity; }

int clickmask_area_mean(const uint8_t *pixels, ptrdiff_t stride, int height, int width, int rows, int columns,
                        int threads, const char *instruction_set, float *planes, ptrdiff_t row_stride,
                        ptrdiff_t plane_stride) {
  if (pixels == nullptr || planes == nullptr || !is_size(height, width, kPictureSide)) return CLICKMASK_INVALID;
  if (rows < 1 || columns < 1 || rows > height || columns > width) return CLICKMASK_INVALID;
  const Kernels *kernels = find_kernels(instruction_set);
  if (kernels == nullptr) return CLICKMASK_UNSUPPORTED;
  try {
    area_mean(*kernels, {pixels, stride, height, width}, {planes, row_stride, plane_stride, rows, columns},
              threads_or_all(threads));
    return CLICKMASK_OK;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}

int clickmask_sigmoid(const float *logits, ptrdiff_t stride, int rows, int columns, float *result,
                      ptrdiff_t result_stride) {
  if (logits == nullptr || result == nullptr || rows < 0 || columns < 0) return CLICKMASK_INVALID;
  const Kernels *kernels = find_kernels(nullptr);
  for (int y = 0; y < rows; ++y) kernels->sigmoid_row(logits + stride * y, columns, result + result_stride * y);
  return CLICKMASK_OK;
}

int clickmask_lerp(const float *values, int height, int width, const double *rows, int row_count,
                   const double *columns, int column_count, const char *instruction_set, float *result,
                   ptrdiff_t stride) {
  if (values == nullptr || rows == nullptr || columns == nullptr || result == nullptr) return CLICKMASK_INVALID;
  if (!is_size(height, width) || row_count < 0 || column_count < 0) return CLICKMASK_INVALID;
  const Kernels *kernels = find_kernels(instruction_set);
  if (kernels == nullptr) return CLICKMASK_UNSUPPORTED;
  try {
    lerp(*kernels, values, height, width, rows, row_count, columns, column_count, result, stride);
    return CLICKMASK_OK;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}

int clickmask_blend(float *values, ptrdiff_t stride, const float *other, ptrdiff_t other_stride, int rows, int columns,
                    const float *row_shares, const float *column_shares, const float *row_away,
                    const float *column_away, const char *instruction_set) {
  if (values == nullptr || other == nullptr || rows < 0 || columns < 0) return CLICKMASK_INVALID;
  if (row_shares == nullptr || column_shares == nullptr || row_away == nullptr || column_away == nullptr)
    return CLICKMASK_INVALID;
  const Kernels *kernels = find_kernels(instruction_set);
  if (kernels == nullptr) return CLICKMASK_UNSUPPORTED;
  for (int y = 0; y < rows; ++y)
    kernels->blend_row(other + other_stride * y, row_shares[y], column_shares, row_away[y], column_away, columns,
                       values + stride * y);
  return CLICKMASK_OK;
}

int clickmask_value_runs(const float *values, ptrdiff_t stride, int height, int width, float limit,
                         double row_step, double column_step, double centre, int mask_height, int mask_width,
                         int threads, const clickmask_canvas *canvas, int32_t *found, clickmask_runs **runs) {
  if (values == nullptr || found == nullptr || runs == nullptr) return CLICKMASK_INVALID;
  if (!(row_step >= 0) || !(column_step >= 0)) return CLICKMASK_INVALID;
  if (!std::isfinite(row_step) || !std::isfinite(column_step) || !std::isfinite(centre)) return CLICKMASK_INVALID;
  if (!is_size(height, width) || !is_size(mask_height, mask_width, kPictureSide)) return CLICKMASK_INVALID;
  if (canvas != nullptr && !holds(*canvas, mask_height, mask_width)) return CLICKMASK_INVALID;
  try {
    const Positions positions = {row_step, column_step, centre, mask_height, mask_width};
    Runs all = runs_of(*find_kernels(nullptr), {values, stride, height, width, limit}, positions,
                       threads_or_all(threads), canvas);
    tell(all, found);
    *runs = new clickmask_runs{std::move(all)};
    return CLICKMASK_OK;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}

int clickmask_mask_runs(const uint8_t *mask, ptrdiff_t stride, int height, int width, int threads,
                        int32_t *found, clickmask_runs **runs) {
  if (mask == nullptr || found == nullptr || runs == nullptr) return CLICKMASK_INVALID;
  if (!is_size(height, width, kPictureSide)) return CLICKMASK_INVALID;
  try {
    Runs all = runs_of(mask, stride, height, width, threads_or_all(threads));
    tell(all, found);
    *runs = new clickmask_runs{std::move(all)};
    return CLICKMASK_OK;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}

int clickmask_outlines(const clickmask_runs *runs, int32_t left, int32_t top, int32_t *corners, int32_t *ends,
                       int32_t *owners, int32_t *counts) {
  if (runs == nullptr || corners == nullptr || ends == nullptr || owners == nullptr || counts == nullptr)
    return CLICKMASK_INVALID;
  if (runs->runs.edges() > INT32_MAX / 2) return CLICKMASK_OUT_OF_MEMORY;
  try {
    const OutlineCounts found = find_outlines(runs->runs, left, top, {corners, ends, owners});
    counts[0] = found.corners, counts[1] = found.outlines;
    return CLICKMASK_OK;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}

void clickmask_runs_free(clickmask_runs *runs) { delete runs; }
