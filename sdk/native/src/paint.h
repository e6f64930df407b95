// A mask from values on a coarser grid, at the cost of its outline and its object rather than of every pixel.
#pragma once

#include <cstddef>
#include <cstdint>

struct Values {
  const float *data;
  int height, width;
  float limit;
};

// Row y of the mask lies at row (y + centre) row_step - centre of the values; columns likewise.
struct Positions {
  double row_step, column_step, centre;
  int height, width;

  double row(int y) const { return (y + centre) * row_step - centre; }
  double column(int x) const { return (x + centre) * column_step - centre; }
};

struct PaintedBox {
  int x0 = 0, y0 = 0, x1 = 0, y1 = 0;  // half-open; empty where x0 == x1
};

// The mask must be zero; null for the box alone.
PaintedBox paint(const Values &values, const Positions &positions, std::uint8_t *mask, std::ptrdiff_t stride);
