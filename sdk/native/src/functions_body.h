// Functions of `Vector`, the including file's vector of floats; a part of kernels_body.h, whose rules hold here.
#pragma once

namespace {

constexpr float kLog2e = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

// `factor` times 2^x for x <= 0, relative error 1e-7; exactly `factor` at 0.
inline Vector exp2_nonpositive(Vector x, float factor = 1.0f) {
  x = Vector::max(x, Vector::set(-126.0f));
  const Vector whole = Vector::round(x);
  const Vector f = Vector::sub(x, whole);
  Vector p = Vector::set(factor * 0.00132647273f);
  p = Vector::fma(p, f, Vector::set(factor * 0.00967151299f));
  p = Vector::fma(p, f, Vector::set(factor * 0.0555073358f));
  p = Vector::fma(p, f, Vector::set(factor * 0.240222424f));
  p = Vector::fma(p, f, Vector::set(factor * 0.693147004f));
  p = Vector::fma(p, f, Vector::set(factor));
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

}  // namespace
