// Four floats in a register of 64-bit Arm.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace {

struct Vector {
  static constexpr int lanes = 4;
  float32x4_t v;

  static Vector set(float x) { return {vdupq_n_f32(x)}; }
  static Vector load(const float *p) { return {vld1q_f32(p)}; }
  static void store(float *p, Vector a) { vst1q_f32(p, a.v); }

  static Vector add(Vector a, Vector b) { return {vaddq_f32(a.v, b.v)}; }
  static Vector sub(Vector a, Vector b) { return {vsubq_f32(a.v, b.v)}; }
  static Vector mul(Vector a, Vector b) { return {vmulq_f32(a.v, b.v)}; }
  static Vector div(Vector a, Vector b) { return {vdivq_f32(a.v, b.v)}; }
  static Vector fma(Vector a, Vector b, Vector c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
  static Vector min(Vector a, Vector b) { return {vminq_f32(a.v, b.v)}; }
  static Vector max(Vector a, Vector b) { return {vmaxq_f32(a.v, b.v)}; }
  static Vector sqrt(Vector a) { return {vsqrtq_f32(a.v)}; }
  static Vector abs(Vector a) { return {vabsq_f32(a.v)}; }
  static Vector copysign(Vector a, Vector sign) {
    return {vbslq_f32(vdupq_n_u32(0x80000000u), sign.v, a.v)};
  }
  static Vector select_less(Vector a, Vector b, Vector yes, Vector no) {
    return {vbslq_f32(vcltq_f32(a.v, b.v), yes.v, no.v)};
  }
  static Vector round(Vector a) { return {vrndnq_f32(a.v)}; }
  static Vector scale(Vector a, Vector n) {
    const int32x4_t biased = vaddq_s32(vcvtq_s32_f32(n.v), vdupq_n_s32(127));
    return {vmulq_f32(a.v, vreinterpretq_f32_s32(vshlq_n_s32(biased, 23)))};
  }
  static Vector exponent(Vector a) {
    const int32x4_t biased = vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_f32(a.v), 23));
    return {vcvtq_f32_s32(vsubq_s32(biased, vdupq_n_s32(127)))};
  }
  static Vector mantissa(Vector a) {
    const uint32x4_t fraction = vandq_u32(vreinterpretq_u32_f32(a.v), vdupq_n_u32(0x007fffffu));
    return {vreinterpretq_f32_u32(vorrq_u32(fraction, vdupq_n_u32(0x3f800000u)))};
  }
  static Vector load_bytes(const std::uint8_t *p) {
    const std::uint32_t four = p[0] | p[1] << 8 | p[2] << 16 | static_cast<std::uint32_t>(p[3]) << 24;
    const uint8x8_t bytes = vcreate_u8(four);
    return {vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))};
  }
  static Vector load_code(const std::uint16_t *p) { return {vcvtq_f32_u32(vmovl_u16(vld1_u16(p)))}; }
  static void store_code(std::uint16_t *p, Vector a) { vst1_u16(p, vmovn_u32(vcvtnq_u32_f32(a.v))); }
};

}  // namespace
