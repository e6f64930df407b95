// The runs of a mask from values on a coarser grid, at the cost of its outline rather than of every pixel.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"
#include "runs.h"

struct Values {
  const float *data;  // rows `stride` floats apart
  std::ptrdiff_t stride;
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

// Painted as well, where there is a canvas.
Runs runs_of(const Kernels &kernels, const Values &values, const Positions &positions, int threads,
             const Canvas *canvas);
