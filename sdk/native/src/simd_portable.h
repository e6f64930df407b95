// Four floats in the vector extension of GCC and Clang, for any processor.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

struct Vector {
  static constexpr int lanes = 4;
  typedef float Floats __attribute__((vector_size(16)));
  typedef std::int32_t Ints __attribute__((vector_size(16)));
  typedef std::uint16_t Codes __attribute__((vector_size(8)));
  Floats v;

  static Vector set(float x) { return {Floats{x, x, x, x}}; }
  static Vector load(const float *p) {
    Vector a;
    std::memcpy(&a.v, p, sizeof a.v);
    return a;
  }
  static void store(float *p, Vector a) { std::memcpy(p, &a.v, sizeof a.v); }

  static Vector add(Vector a, Vector b) { return {a.v + b.v}; }
  static Vector sub(Vector a, Vector b) { return {a.v - b.v}; }
  static Vector mul(Vector a, Vector b) { return {a.v * b.v}; }
  static Vector div(Vector a, Vector b) { return {a.v / b.v}; }
  static Vector fma(Vector a, Vector b, Vector c) { return {a.v * b.v + c.v}; }  // two roundings here
  static Vector min(Vector a, Vector b) { return select_less(a, b, a, b); }
  static Vector max(Vector a, Vector b) { return select_less(b, a, a, b); }
  static Vector sqrt(Vector a) {
    for (int i = 0; i < lanes; ++i) a.v[i] = std::sqrt(a.v[i]);
    return a;
  }
  static Vector abs(Vector a) { return floats(ints(a) & 0x7fffffff); }
  static Vector copysign(Vector a, Vector sign) {
    return floats((ints(a) & 0x7fffffff) | (ints(sign) & ~0x7fffffff));
  }
  static Vector select_less(Vector a, Vector b, Vector yes, Vector no) {
    const Ints less = a.v < b.v;
    return floats((less & ints(yes)) | (~less & ints(no)));
  }

  // To the nearest integer, |a| < 2^22: adding 1.5 x 2^23 leaves no bits for a fraction.
  static Vector round(Vector a) { return sub(add(a, set(12582912.0f)), set(12582912.0f)); }
  // a 2^n for whole n in [-126, 127].
  static Vector scale(Vector a, Vector n) { return mul(a, floats((whole(n) + 127) << 23)); }
  // a = mantissa x 2^exponent with the mantissa in [1, 2), for positive normal a.
  static Vector exponent(Vector a) { return {__builtin_convertvector((ints(a) >> 23) - 127, Floats)}; }
  static Vector mantissa(Vector a) { return floats((ints(a) & 0x007fffff) | 0x3f800000); }

  static Vector load_bytes(const std::uint8_t *p) {
    typedef std::uint8_t Bytes __attribute__((vector_size(4)));
    Bytes bytes;
    std::memcpy(&bytes, p, sizeof bytes);
    return {__builtin_convertvector(__builtin_convertvector(bytes, Ints), Floats)};
  }
  static Vector load_code(const std::uint16_t *p) {
    Codes codes;
    std::memcpy(&codes, p, sizeof codes);
    return {__builtin_convertvector(__builtin_convertvector(codes, Ints), Floats)};
  }
  static void store_code(std::uint16_t *p, Vector a) {
    const Codes codes = __builtin_convertvector(whole(a), Codes);
    std::memcpy(p, &codes, sizeof codes);
  }

 private:
  static Ints whole(Vector a) { return __builtin_convertvector(a.v, Ints); }
  static Ints ints(Vector a) { return reinterpret_cast<Ints>(a.v); }
  static Vector floats(Ints a) { return {reinterpret_cast<Floats>(a)}; }
};

}  // namespace
