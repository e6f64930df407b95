#include "simd_avx512.h"
// clang-format off: the body needs the vector above
#include "kernels_body.h"

const Kernels &avx512_kernels() {
  static constexpr Kernels kernels = kernels_named("avx512");
  return kernels;
}
