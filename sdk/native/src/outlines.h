// The outlines of a mask along pixel edges.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

struct Outlines {
  std::vector<std::int32_t> corners;  // x, y of one outline after the other
  std::vector<std::int32_t> ends;     // of each outline, in corners
};

// Each from its top left corner, object on the right hand, in raster order of those corners; pixels that meet at a
// corner only are apart.
Outlines outlines_of(const std::uint8_t *mask, std::ptrdiff_t stride, int height, int width);
