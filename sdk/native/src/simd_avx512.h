// Sixteen floats in an AVX-512 register (F and DQ).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

struct Vector {
  static constexpr int lanes = 16;
  __m512 v;

  static Vector set(float x) { return {_mm512_set1_ps(x)}; }
  static Vector load(const float *p) { return {_mm512_loadu_ps(p)}; }
  static void store(float *p, Vector a) { _mm512_storeu_ps(p, a.v); }

  static Vector add(Vector a, Vector b) { return {_mm512_add_ps(a.v, b.v)}; }
  static Vector sub(Vector a, Vector b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static Vector mul(Vector a, Vector b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static Vector div(Vector a, Vector b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Vector fma(Vector a, Vector b, Vector c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static Vector min(Vector a, Vector b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Vector max(Vector a, Vector b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Vector sqrt(Vector a) { return {_mm512_sqrt_ps(a.v)}; }
  static Vector abs(Vector a) { return {_mm512_abs_ps(a.v)}; }
  static Vector copysign(Vector a, Vector sign) {
    const __m512 bit = _mm512_set1_ps(-0.0f);
    return {_mm512_or_ps(_mm512_andnot_ps(bit, a.v), _mm512_and_ps(bit, sign.v))};
  }
  static Vector select_less(Vector a, Vector b, Vector yes, Vector no) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), no.v, yes.v)};
  }
  static Vector round(Vector a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static Vector scale(Vector a, Vector n) { return {_mm512_scalef_ps(a.v, n.v)}; }
  static Vector exponent(Vector a) { return {_mm512_getexp_ps(a.v)}; }
  static Vector mantissa(Vector a) {
    return {_mm512_getmant_ps(a.v, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src)};
  }
  static Vector load_bytes(const std::uint8_t *p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))};
  }
  static Vector load_code(const std::uint16_t *p) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(codes))};
  }
  static void store_code(std::uint16_t *p, Vector a) {
    const __m256i codes = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a.v));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), codes);
  }
};

}  // namespace
