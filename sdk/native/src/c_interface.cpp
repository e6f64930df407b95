// The C interface: checks arguments, turns exceptions into codes.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>

#include "area_mean.h"
#include "clickmask_pixels.h"
#include "dispatch.h"
#include "options.h"
#include "outlines.h"
#include "paint.h"
#include "pixel_diffusion.h"
#include "threads.h"

struct clickmask_affinity {
  Affinity affinity;
};

namespace {

constexpr int kPictureSide = 1 << 20;  // of a picture; larger than any input of a network

int threads_or_all(int threads) { return threads > 0 ? threads : usable_cores(); }

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

int clickmask_sigmoid(const float *logits, int count, float *result) {
  if (logits == nullptr || result == nullptr || count < 0) return CLICKMASK_INVALID;
  find_kernels(nullptr)->sigmoid_row(logits, count, result);
  return CLICKMASK_OK;
}

int clickmask_paint(const float *values, int height, int width, float limit, double row_step, double column_step,
                    double centre, int mask_height, int mask_width, uint8_t *mask, ptrdiff_t stride, int32_t *box) {
  if (values == nullptr || box == nullptr || !(row_step >= 0) || !(column_step >= 0)) return CLICKMASK_INVALID;
  if (!std::isfinite(row_step) || !std::isfinite(column_step) || !std::isfinite(centre)) return CLICKMASK_INVALID;
  if (!is_size(height, width) || !is_size(mask_height, mask_width, kPictureSide)) return CLICKMASK_INVALID;
  try {
    const PaintedBox painted = paint({values, height, width, limit},
                                     {row_step, column_step, centre, mask_height, mask_width}, mask, stride);
    const int edges[] = {painted.x0, painted.y0, painted.x1, painted.y1};
    for (int i = 0; i < 4; ++i) box[i] = edges[i];
    return CLICKMASK_OK;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}

int clickmask_outlines(const uint8_t *mask, ptrdiff_t stride, int height, int width, int32_t capacity,
                       int32_t *corners, int32_t *ends, int32_t *counts) {
  if (mask == nullptr || corners == nullptr || ends == nullptr || counts == nullptr) return CLICKMASK_INVALID;
  if (!is_size(height, width, kPictureSide)) return CLICKMASK_INVALID;
  try {
    const Outlines found = outlines_of(mask, stride, height, width);
    if (found.corners.size() / 2 > INT32_MAX) return CLICKMASK_OUT_OF_MEMORY;
    counts[0] = static_cast<int32_t>(found.corners.size() / 2);
    counts[1] = static_cast<int32_t>(found.ends.size());
    if (counts[0] > capacity) return CLICKMASK_OK;
    std::copy(found.corners.begin(), found.corners.end(), corners);
    std::copy(found.ends.begin(), found.ends.end(), ends);
    return CLICKMASK_OK;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}
