// The weights of Eq. 8 over `Vector`; a part of kernels_body.h, whose rules hold here.
//
// The three steps are each done for all vectors of a block before the next: none then waits for the results of the
// one before. Differences of colours are made twice, which takes less time than their way through memory.
#pragma once

#include "functions_body.h"
#include "kernels.h"

namespace {

constexpr int kLanes = Vector::lanes;
constexpr int kVectors = kBlock / kLanes;

// A vector of pixels and its neighbours; the planes of the colours lie `plane` floats apart.
struct Place {
  const float *const *near;
  const float *centre;
  std::ptrdiff_t plane;
  int x;

  Vector middle(int colour) const { return Vector::load(centre + colour * plane + x); }
  Vector neighbour(int k, int colour) const { return Vector::load(near[k] + colour * plane + x); }
};

// Of one colour's differences from the middle.
struct Moments {
  Vector sum = Vector::set(0.0f), squares = Vector::set(0.0f);

  void add(Vector d) {
    sum = Vector::add(sum, d);
    squares = Vector::fma(d, d, squares);
  }
};

// With the centre among the samples, one pass about the centre is as exact as two: the mean lies within
// sqrt(8) deviations of it, so that at most three bits cancel.
inline Vector variance(const Place &at, int colour, const Moments &of, const AffinityRule &rule) {
  const auto neighbours = static_cast<float>(rule.neighbours);
  const float samples = rule.unbiased ? neighbours * 9.0f / 8.0f : neighbours;
  const Vector mean = Vector::mul(of.sum, Vector::set(1.0f / samples));
  if (rule.unbiased) {
    const Vector rest = Vector::sub(of.squares, Vector::mul(of.sum, mean));
    return Vector::mul(Vector::max(rest, Vector::set(0.0f)), Vector::set(1.0f / (samples - 1.0f)));
  }
  Vector rest = Vector::set(0.0f);
  for (int k = 0; k < rule.neighbours; ++k) {
    const Vector d = Vector::sub(Vector::sub(at.middle(colour), at.neighbour(k, colour)), mean);
    rest = Vector::fma(d, d, rest);
  }
  return Vector::mul(rest, Vector::set(1.0f / samples));
}

// Softmax logits of Eq. 8 are -2 sum over the colours of |Ii - Ij| times these, in units of log2.
inline void find_scales(const Place &at, const AffinityRule &rule, Vector *scales) {
  const Vector middle[3] = {at.middle(0), at.middle(1), at.middle(2)};
  Moments moments[3];
  for (int k = 0; k < rule.neighbours; ++k)
    for (int c = 0; c < 3; ++c) moments[c].add(Vector::sub(middle[c], at.neighbour(k, c)));
  for (int c = 0; c < 3; ++c) {
    const Vector v = variance(at, c, moments[c], rule);
    const Vector divisor = rule.paper ? v : Vector::mul(Vector::sqrt(v), Vector::set(0.1f));
    scales[c] = Vector::div(Vector::set(0.5f * kLog2e / 3.0f), Vector::max(divisor, Vector::set(rule.eps)));
  }
}

// Minus half of those logits, and the least of them.
inline Vector find_costs(const Place &at, int neighbours, const Vector *scales, Vector *costs) {
  const Vector middle[3] = {at.middle(0), at.middle(1), at.middle(2)};
  Vector low = Vector::set(1e30f);
  for (int k = 0; k < neighbours; ++k) {
    const auto distance = [&](int c) { return Vector::abs(Vector::sub(middle[c], at.neighbour(k, c))); };
    Vector cost = Vector::mul(distance(0), scales[0]);
    for (int c = 1; c < 3; ++c) cost = Vector::fma(distance(c), scales[c], cost);
    low = Vector::min(low, cost);
    costs[k] = cost;
  }
  return low;
}

// What a code stands for, in units of 1 / kOne^2.
inline Vector weight_of(Vector code) { return Vector::mul(code, code); }

// The codes, and 1 / the sum of the rounded weights, so that those that are used add up to 1: they are added as
// diffuse_row adds them, with the same roundings.
inline Vector store_codes(const Vector *costs, Vector low, int neighbours, std::uint16_t *codes) {
  Vector even = Vector::set(0.0f), odd = Vector::set(0.0f);
  const auto store = [&](int k) {
    const Vector code = Vector::round(exp2_nonpositive(Vector::sub(low, costs[k]), kOne));
    Vector::store_code(codes + k * kBlock, code);
    return weight_of(code);
  };
  for (int k = 0; k < neighbours; k += 2) {
    even = Vector::add(even, store(k));
    odd = Vector::add(odd, store(k + 1));
  }
  return Vector::div(Vector::set(1.0f), Vector::add(even, odd));
}

void affinity_row(const float *const *near, const float *centre, std::ptrdiff_t plane, const AffinityRule &rule,
                  int blocks, std::uint16_t *codes, float *inverse_sum) {
  Vector scales[kVectors][3], costs[kVectors][kMaxNeighbours], low[kVectors];
  for (int b = 0; b < blocks; ++b, codes += rule.neighbours * kBlock) {
    const auto place = [&](int v) { return Place{near, centre, plane, b * kBlock + v * kLanes}; };
    for (int v = 0; v < kVectors; ++v) find_scales(place(v), rule, scales[v]);
    for (int v = 0; v < kVectors; ++v) low[v] = find_costs(place(v), rule.neighbours, scales[v], costs[v]);
    for (int v = 0; v < kVectors; ++v)
      Vector::store(inverse_sum + place(v).x, store_codes(costs[v], low[v], rule.neighbours, codes + v * kLanes));
  }
}

}  // namespace
