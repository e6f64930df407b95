#include "simd_neon.h"
// clang-format off: the body needs the vector above
#include "kernels_body.h"

const Kernels &neon_kernels() {
  static constexpr Kernels kernels = kernels_named("neon");
  return kernels;
}
