// The row kernels over `Vector`, the including file's vector of floats.
//
// Each including file is compiled for its own instruction set. Everything here is therefore in an anonymous
// namespace and nothing of the standard library is called: the linker keeps one copy of an inline function, and
// a copy with AVX-512 in it would end up in the portable path.
#pragma once

#include "kernels.h"
#include "pixels_body.h"

namespace {

constexpr int kLanes = Vector::lanes;
constexpr int kVectors = kBlock / kLanes;
constexpr float kLog2e = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

// 2^x for x <= 0, relative error 1e-7; exactly 1 at 0.
inline Vector exp2_nonpositive(Vector x) {
  x = Vector::max(x, Vector::set(-126.0f));
  const Vector whole = Vector::round(x);
  const Vector f = Vector::sub(x, whole);
  Vector p = Vector::set(0.00132647273f);
  p = Vector::fma(p, f, Vector::set(0.00967151299f));
  p = Vector::fma(p, f, Vector::set(0.0555073358f));
  p = Vector::fma(p, f, Vector::set(0.240222424f));
  p = Vector::fma(p, f, Vector::set(0.693147004f));
  p = Vector::fma(p, f, Vector::set(1.0f));
  return Vector::scale(p, whole);
}

// Eq. 6: tanh(x / 2), or 2 tanh(x).
inline Vector normalise(Vector x, bool tanh_twice) {
  const Vector exponent = Vector::mul(Vector::abs(x), Vector::set(tanh_twice ? -2.0f * kLog2e : -kLog2e));
  const Vector t = exp2_nonpositive(exponent);
  const Vector one = Vector::set(1.0f);
  const Vector magnitude = Vector::div(Vector::sub(one, t), Vector::add(one, t));
  return Vector::copysign(Vector::mul(magnitude, Vector::set(tanh_twice ? 2.0f : 1.0f)), x);
}

// 2 atanh(v) for |v| < 1, with the sign of v: ln((1 + |v|) / (1 - |v|)).
inline Vector twice_atanh(Vector v) {
  const Vector one = Vector::set(1.0f), root2 = Vector::set(1.41421356f);
  const Vector magnitude = Vector::abs(v);
  const Vector ratio = Vector::div(Vector::add(one, magnitude), Vector::sub(one, magnitude));
  const Vector mantissa = Vector::mantissa(ratio);  // [1, 2)
  // ln(2^e k) = (e + 1/2) ln 2 + 2 atanh((k - sqrt 2) / (k + sqrt 2)). Small v take the series themselves, so
  // that nothing cancels and the sign is safe.
  const Vector far = Vector::div(Vector::sub(mantissa, root2), Vector::add(mantissa, root2));
  const Vector base = Vector::fma(Vector::exponent(ratio), Vector::set(kLn2), Vector::set(0.5f * kLn2));
  const Vector limit = Vector::set(0.17f);
  const Vector s = Vector::select_less(magnitude, limit, magnitude, far);
  const Vector s2 = Vector::mul(s, s);
  Vector series = Vector::fma(s2, Vector::set(2.0f / 9.0f), Vector::set(2.0f / 7.0f));
  series = Vector::fma(series, s2, Vector::set(2.0f / 5.0f));
  series = Vector::fma(series, s2, Vector::set(2.0f / 3.0f));
  series = Vector::fma(series, s2, Vector::set(2.0f));
  const Vector offset = Vector::select_less(magnitude, limit, Vector::set(0.0f), base);
  return Vector::copysign(Vector::fma(series, s, offset), v);
}

// Softmax logits of Eq. 8 are -sum over the colours of |Ii - Ij| times this, in units of log2.
//
// With the centre among the samples, one pass about the centre is as exact as two: the mean lies within
// sqrt(8) deviations of it, so that at most three bits cancel.
inline Vector affinity_scale(const Vector *differences, Vector sum, Vector squares, const AffinityRule &rule) {
  const auto neighbours = static_cast<float>(rule.neighbours);
  Vector variance;
  if (rule.unbiased) {
    const float samples = neighbours * 9.0f / 8.0f;
    const Vector mean = Vector::mul(sum, Vector::set(1.0f / samples));
    const Vector rest = Vector::sub(squares, Vector::mul(sum, mean));
    variance = Vector::mul(Vector::max(rest, Vector::set(0.0f)), Vector::set(1.0f / (samples - 1.0f)));
  } else {
    const Vector mean = Vector::mul(sum, Vector::set(1.0f / neighbours));
    Vector rest = Vector::set(0.0f);
    for (int k = 0; k < rule.neighbours; ++k) {
      const Vector d = Vector::sub(differences[k], mean);
      rest = Vector::fma(d, d, rest);
    }
    variance = Vector::mul(rest, Vector::set(1.0f / neighbours));
  }
  const Vector divisor = rule.paper ? variance : Vector::mul(Vector::sqrt(variance), Vector::set(0.1f));
  return Vector::div(Vector::set(kLog2e / 3.0f), Vector::max(divisor, Vector::set(rule.eps)));
}

inline Vector smallest(const Vector *values, int count) {
  Vector low = values[0];
  for (int k = 1; k < count; ++k) low = Vector::min(low, values[k]);
  return low;
}

// What a code stands for, in units of 1 / kOne^2.
inline Vector weight_of(Vector code) { return Vector::mul(code, code); }

// The weights of one vector of pixels, from `costs` (l = -cost). The sum is that of the rounded weights, so that
// those that are used add up to 1.
inline Vector store_weights(const Vector *costs, int neighbours, std::uint16_t *codes) {
  const Vector low = smallest(costs, neighbours), half = Vector::set(0.5f);
  Vector sum[2] = {Vector::set(0.0f), Vector::set(0.0f)};
  for (int k = 0; k < neighbours; ++k) {
    const Vector root = exp2_nonpositive(Vector::mul(half, Vector::sub(low, costs[k])));
    const Vector code = Vector::round(Vector::mul(root, Vector::set(kOne)));
    Vector::store_code(codes + k * kBlock, code);
    sum[k & 1] = Vector::add(sum[k & 1], weight_of(code));
  }
  return Vector::div(Vector::set(1.0f), Vector::add(sum[0], sum[1]));
}

inline Vector affinity_vector(const float *const *near, const float *centre, std::ptrdiff_t plane, int x,
                              const AffinityRule &rule, std::uint16_t *codes) {
  Vector differences[3][kMaxNeighbours];
  Vector scales[3];
  for (int c = 0; c < 3; ++c) {
    const std::ptrdiff_t start = c * plane + x;
    const Vector middle = Vector::load(centre + start);
    Vector sum[2] = {Vector::set(0.0f), Vector::set(0.0f)};
    Vector squares[2] = {Vector::set(0.0f), Vector::set(0.0f)};
    for (int k = 0; k < rule.neighbours; ++k) {
      const Vector d = Vector::sub(Vector::load(near[k] + start), middle);
      differences[c][k] = d;
      sum[k & 1] = Vector::add(sum[k & 1], d);
      squares[k & 1] = Vector::fma(d, d, squares[k & 1]);
    }
    scales[c] = affinity_scale(differences[c], Vector::add(sum[0], sum[1]),
                               Vector::add(squares[0], squares[1]), rule);
  }
  for (int k = 0; k < rule.neighbours; ++k) {
    Vector cost = Vector::mul(Vector::abs(differences[0][k]), scales[0]);
    cost = Vector::fma(Vector::abs(differences[1][k]), scales[1], cost);
    differences[0][k] = Vector::fma(Vector::abs(differences[2][k]), scales[2], cost);
  }
  return store_weights(differences[0], rule.neighbours, codes);
}

void affinity_row(const float *const *near, const float *centre, std::ptrdiff_t plane, const AffinityRule &rule,
                  int blocks, std::uint16_t *codes, float *inverse_sum) {
  for (int b = 0; b < blocks; ++b, codes += rule.neighbours * kBlock)
    for (int i = 0; i < kBlock; i += kLanes) {
      const int x = b * kBlock + i;
      Vector::store(inverse_sum + x, affinity_vector(near, centre, plane, x, rule, codes + i));
    }
}

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
  return {name,     affinity_row, diffuse_row, source_row,   add_clicks, result_row,
          sum_rows, mean_columns, lerp_rows,   lerp_columns, above_row,  sigmoid_row};
}

}  // namespace
