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

inline Pixel sum_of(const float *sums, const Share &share, int samples) {
  const float *pixel = sums + 3 * share.first;
  Pixel sum = pixel_at(pixel) * share.first_part;
  for (int i = 1; i < samples - 2; ++i) sum += pixel_at(pixel + 3 * i);
  if (samples > 2) sum += pixel_at(pixel + 3 * (samples - 2)) * share.before_last;
  if (samples > 1) sum += pixel_at(pixel + 3 * (samples - 1)) * share.last_part;
  return sum;
}

inline Pixel levels_of(Pixel sums, float part) {
  const Levels levels = __builtin_convertvector(sums * part + 0.5f, Levels);
  return __builtin_convertvector(levels, Pixel) * (1.0f / 255.0f);
}

// With a number of samples that the compiler knows, or 0 for any.
template <int known>
void mean_of(const float *sums, const Share *columns, int count, int samples, float part, float *const *planes) {
  if (known > 0) samples = known;
  int x = 0;
  for (; x + 4 <= count; x += 4) {  // as many as there are lanes: one colour of four pixels is one vector
    Pixel sum[4];
    for (int i = 0; i < 4; ++i) sum[i] = sum_of(sums, columns[x + i], samples);
    for (int c = 0; c < 3; ++c) {
      const Pixel values = levels_of(Pixel{sum[0][c], sum[1][c], sum[2][c], sum[3][c]}, part);
      std::memcpy(planes[c] + x, &values, sizeof values);
    }
  }
  for (; x < count; ++x) {
    const Pixel values = levels_of(sum_of(sums, columns[x], samples), part);
    for (int c = 0; c < 3; ++c) planes[c][x] = values[c];
  }
}

void mean_columns(const float *sums, const Share *columns, int count, int samples, float part,
                  float *const *planes) {
  constexpr decltype(&mean_of<0>) means[] = {mean_of<0>, mean_of<1>, mean_of<2>, mean_of<3>, mean_of<4>,
                                             mean_of<5>, mean_of<6>, mean_of<7>, mean_of<8>, mean_of<9>};
  means[samples < 10 ? samples : 0](sums, columns, count, samples, part, planes);
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

void blend_row(const float *other, float share, const float *shares, float away, const float *aways, int count,
               float *values) {
  for (int x = 0; x < count; ++x) {
    const float most = share < shares[x] ? share : shares[x];
    values[x] += most * (away > aways[x] ? away : aways[x]) * (other[x] - values[x]);
  }
}

void above_row(const float *values, int count, float limit, std::uint8_t *above) {
  for (int x = 0; x < count; ++x) above[x] = values[x] > limit;
}

}  // namespace
