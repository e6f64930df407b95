// Which options the kernels have; the same on the processor and on CUDA.
#pragma once

#include <cmath>
#include <initializer_list>

#include "clickmask_native.h"

inline bool is_supported(const clickmask_diffusion_options &o) {
  if (o.dilation_count < 1 || o.dilation_count > CLICKMASK_MAX_DILATIONS) return false;
  for (int i = 0; i < o.dilation_count; ++i)
    if (o.dilations[i] < 1 || o.dilations[i] > CLICKMASK_MAX_DISTANCE) return false;
  for (int choice : {o.click_map, o.norm, o.affinity, o.deviation, o.output})
    if (choice != 0 && choice != 1) return false;
  return std::isfinite(o.amplitude) && std::isfinite(o.cutoff) && o.click_map_size > 0 &&
         o.click_map_size < 1e4f && o.eps >= 1e-12f && o.eps <= 1.0f && o.iterations >= 1 &&
         o.iterations <= 1000;
}

inline bool is_size(int height, int width, int most = 1 << 15) {
  return height >= 1 && width >= 1 && height <= most && width <= most;
}
