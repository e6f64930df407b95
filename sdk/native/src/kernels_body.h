// The row kernels over `Vector`, the including file's vector of floats.
//
// Each including file is compiled for its own instruction set. Everything here is therefore in an anonymous
// namespace and nothing of the standard library is called: the linker keeps one copy of an inline function, and
// a copy with AVX-512 in it would end up in the portable path.
#pragma once

#include "affinity_body.h"
#include "functions_body.h"
#include "kernels.h"
#include "pixels_body.h"

namespace {

void diffuse_row(const float *const *near, int neighbours, const std::uint16_t *codes, const float *inverse_sum,
                 int blocks, float *out) {
  for (int b = 0; b < blocks; ++b) {
    const int x = b * kBlock;
    Vector even[kVectors], odd[kVectors];  // two sums hide the latency of the additions
    for (int v = 0; v < kVectors; ++v) even[v] = odd[v] = Vector::set(0.0f);
    for (int k = 0; k < neighbours; k += 2, codes += 2 * kBlock)
      for (int v = 0; v < kVectors; ++v) {
        const int i = v * kLanes;
        const Vector first = weight_of(Vector::load_code(codes + i));
        const Vector second = weight_of(Vector::load_code(codes + kBlock + i));
        even[v] = Vector::fma(first, Vector::load(near[k] + x + i), even[v]);
        odd[v] = Vector::fma(second, Vector::load(near[k + 1] + x + i), odd[v]);
      }
    for (int v = 0; v < kVectors; ++v) {
      const int i = x + v * kLanes;
      const Vector sum = Vector::add(even[v], odd[v]);
      Vector::store(out + i, Vector::mul(sum, Vector::load(inverse_sum + i)));
    }
  }
}

// Calls `run(x, pointer to kLanes logits, pointer for kLanes results)` along a row that is not padded.
template <typename Run>
inline void over_row(const float *values, int width, Run run) {
  int x = 0;
  for (; x + kLanes <= width; x += kLanes) run(x, values + x, kLanes);
  if (x < width) {
    float rest[kLanes] = {};
    for (int i = 0; x + i < width; ++i) rest[i] = values[x + i];
    run(x, rest, width - x);
  }
}

bool source_row(const float *logits, int width, const SourceRule &rule, float *out) {
  Vector unsound = Vector::set(0.0f);  // stays 0 while all logits are finite, and is NaN from then on
  over_row(logits, width, [&](int x, const float *values, int) {
    const Vector logit = Vector::load(values), m = normalise(logit, rule.tanh_twice);
    const Vector cut = Vector::set(rule.cutoff);
    Vector::store(out + x, Vector::select_less(cut, Vector::abs(m), m, Vector::set(0.0f)));
    unsound = Vector::add(unsound, Vector::sub(logit, logit));
  });
  float sums[kLanes];
  Vector::store(sums, unsound);
  bool finite = true;
  for (float sum : sums) finite = finite && sum == 0.0f;
  return finite;
}

inline Vector click_map(Vector squared, const SourceRule &rule) {
  if (rule.gaussian) {
    const Vector falloff = Vector::set(-0.5f * kLog2e / (rule.size * rule.size));
    return exp2_nonpositive(Vector::mul(squared, falloff));
  }
  const Vector limit = Vector::set(rule.size * rule.size);
  return Vector::select_less(limit, squared, Vector::set(0.0f), Vector::set(1.0f));
}

void add_clicks(const float *positive, const float *negative, int blocks, const SourceRule &rule, float *out) {
  const Vector amplitude = Vector::set(rule.amplitude);
  for (int x = 0; x < blocks * kBlock; x += kLanes) {
    const Vector foreground = click_map(Vector::load(positive + x), rule);
    const Vector background = click_map(Vector::load(negative + x), rule);
    const Vector sum = Vector::fma(amplitude, Vector::sub(foreground, background), Vector::load(out + x));
    Vector::store(out + x, sum);
  }
}

// The inverse of Eq. 6 at half of y + m, saturating at +-10 as the graph does.
inline Vector to_logits(Vector result, bool tanh_twice) {
  // tanh(10 / gain); for a gain of 1 the nearest float is 1, whose logit is infinite: the one below it.
  const Vector limit = Vector::set(tanh_twice ? 0.99999994f : 0.9999092042625951f);
  const Vector v = Vector::mul(result, Vector::set(tanh_twice ? 0.25f : 0.5f));
  const Vector clamped = Vector::min(Vector::max(v, Vector::sub(Vector::set(0.0f), limit)), limit);
  return Vector::mul(twice_atanh(clamped), Vector::set(tanh_twice ? 0.5f : 1.0f));
}

void result_row(const float *state, const float *logits, int width, bool tanh_twice, bool as_logits, float *out) {
  over_row(logits, width, [&](int x, const float *values, int count) {
    const Vector m = normalise(Vector::load(values), tanh_twice);
    Vector result = Vector::add(Vector::load(state + x), m);
    if (as_logits) result = to_logits(result, tanh_twice);
    if (count == kLanes) return Vector::store(out + x, result);
    float rest[kLanes];
    Vector::store(rest, result);
    for (int i = 0; i < count; ++i) out[x + i] = rest[i];
  });
}

void sigmoid_row(const float *logits, int count, float *out) {
  over_row(logits, count, [&](int x, const float *values, int width) {
    const Vector logit = Vector::load(values), one = Vector::set(1.0f);
    const Vector t = exp2_nonpositive(Vector::mul(Vector::abs(logit), Vector::set(-kLog2e)));  // nothing cancels
    const Vector top = Vector::select_less(logit, Vector::set(0.0f), t, one);
    const Vector result = Vector::div(top, Vector::add(one, t));
    if (width == kLanes) return Vector::store(out + x, result);
    float rest[kLanes];
    Vector::store(rest, result);
    for (int i = 0; i < width; ++i) out[x + i] = rest[i];
  });
}

constexpr Kernels kernels_named(const char *name) {
  return {name,         affinity_row, diffuse_row,  source_row, add_clicks, result_row, sum_rows,
          mean_columns, lerp_rows,    lerp_columns, blend_row,  above_row,  sigmoid_row};
}

}  // namespace
