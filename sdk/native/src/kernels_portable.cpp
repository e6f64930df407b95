#include "simd_portable.h"
// clang-format off: the body needs the vector above
#include "kernels_body.h"

const Kernels &portable_kernels() {
  static constexpr Kernels kernels = kernels_named("portable");
  return kernels;
}
