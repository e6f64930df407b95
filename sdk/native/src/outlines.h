// The outlines of a mask along pixel edges.
#pragma once

#include <cstdint>

#include "runs.h"

// Room for the most corners that a mask has, two for each edge of its runs, and for a quarter as many outlines.
struct Outlines {
  std::int32_t *corners;  // x, y of one outline after the other
  std::int32_t *ends;     // of each outline, in corners
  std::int32_t *owners;   // of each: the outer outline of its piece of the mask, itself if it is that
};

struct OutlineCounts {
  std::int32_t corners, outlines;
};

// Of a mask whose first pixel is at (left, top) of an image: each from its top left corner, object on the right
// hand, in raster order of those corners; pixels that meet at a corner only are apart.
OutlineCounts find_outlines(const Runs &runs, std::int32_t left, std::int32_t top, const Outlines &found);
