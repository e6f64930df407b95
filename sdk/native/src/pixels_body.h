// The row kernels of clickmask_pixels.h over `Vector`; a part of kernels_body.h, whose rules hold here.
//
// Products are never fused with sums, so that every instruction set gives the same pixels.
#pragma once

#include <cstring>

#include "kernels.h"

namespace {

constexpr int kAtOnce = 4;  // vectors of a row, whose sums stay in registers
constexpr int kAhead = 768;  // bytes: several rows are read side by side, and memory is waited for without

template <int vectors>
inline void sum_vectors(const std::uint8_t *pixels, std::ptrdiff_t stride, const Cover &rows, float *out) {
  constexpr int lanes = Vector::lanes;
  Vector sum[vectors];
  __builtin_prefetch(pixels + kAhead);
  for (int v = 0; v < vectors; ++v)
    sum[v] = Vector::mul(Vector::load_bytes(pixels + v * lanes), Vector::set(rows.first_part));
  for (int r = 1; r < rows.count; ++r) {
    pixels += stride;
    __builtin_prefetch(pixels + kAhead);
    const Vector part = Vector::set(r + 1 < rows.count ? 1.0f : rows.last_part);
    for (int v = 0; v < vectors; ++v)
      sum[v] = Vector::add(sum[v], Vector::mul(Vector::load_bytes(pixels + v * lanes), part));
  }
  for (int v = 0; v < vectors; ++v) Vector::store(out + v * lanes, sum[v]);
}

inline float sum_one(const std::uint8_t *pixels, std::ptrdiff_t stride, const Cover &rows) {
  float sum = static_cast<float>(*pixels) * rows.first_part;
  for (int r = 1; r < rows.count; ++r)
    sum += static_cast<float>(pixels[r * stride]) * (r + 1 < rows.count ? 1.0f : rows.last_part);
  return sum;
}

void sum_rows(const std::uint8_t *first, std::ptrdiff_t stride, const Cover &rows, int length, float *out) {
  constexpr int lanes = Vector::lanes;
  int x = 0;
  for (; x + kAtOnce * lanes <= length; x += kAtOnce * lanes)
    sum_vectors<kAtOnce>(first + x, stride, rows, out + x);
  for (; x + lanes <= length; x += lanes) sum_vectors<1>(first + x, stride, rows, out + x);
  for (; x < length; ++x) out[x] = sum_one(first + x, stride, rows);
}

// Red, green, blue, and the next pixel's red, which nobody looks at.
typedef float Pixel __attribute__((vector_size(16)));
typedef std::int32_t Levels __attribute__((vector_size(16)));

inline Pixel pixel_at(const float *p) {
  Pixel pixel;
  std::memcpy(&pixel, p, sizeof pixel);
  return pixel;
}

void mean_columns(const float *sums, const Cover *columns, int count, float share, float *const *planes) {
  for (int x = 0; x < count; ++x) {
    const Cover &cover = columns[x];
    const float *pixel = sums + 3 * cover.first;
    Pixel sum = pixel_at(pixel) * cover.first_part;
    for (int i = 1; i + 1 < cover.count; ++i) sum += pixel_at(pixel + 3 * i);
    if (cover.count > 1) sum += pixel_at(pixel + 3 * (cover.count - 1)) * cover.last_part;
    const Levels levels = __builtin_convertvector(sum * share + 0.5f, Levels);
    const Pixel values = __builtin_convertvector(levels, Pixel) * (1.0f / 255.0f);
    for (int c = 0; c < 3; ++c) planes[c][x] = values[c];
  }
}

void lerp_rows(const float *above, const float *below, float weight, int count, float *out) {
  for (int x = 0; x < count; ++x) out[x] = above[x] + weight * (below[x] - above[x]);
}

void lerp_columns(const float *row, const std::int32_t *low, const float *weights, int count, float *out) {
  for (int x = 0; x < count; ++x) {
    const float left = row[low[x]];
    out[x] = left + weights[x] * (row[low[x] + 1] - left);
  }
}

}  // namespace
