#include "simd_avx2.h"
// clang-format off: the body needs the vector above
#include "kernels_body.h"

const Kernels &avx2_kernels() {
  static constexpr Kernels kernels = kernels_named("avx2");
  return kernels;
}
