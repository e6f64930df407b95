// The outlines of a mask along pixel edges.
#pragma once

#include <cstdint>
#include <vector>

#include "runs.h"

struct Outlines {
  std::vector<std::int32_t> corners;  // x, y of one outline after the other
  std::vector<std::int32_t> ends;     // of each outline, in corners
  std::vector<std::int32_t> owners;   // of each: the outer outline of its piece of the mask, itself if it is that
};

// Each from its top left corner, object on the right hand, in raster order of those corners; pixels that meet at a
// corner only are apart.
Outlines outlines_of(const Runs &runs);
