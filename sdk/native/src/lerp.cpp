#include "lerp.h"

#include <algorithm>
#include <cstdint>
#include <vector>

Place place_of(double position, int count) {  // what is no number is 0: max gives its first argument then
  const int low = static_cast<int>(std::min(std::max(0.0, position), count - 1.0));
  return {low, static_cast<float>(std::min(std::max(0.0, position - low), 1.0))};
}

void lerp(const Kernels &kernels, const float *values, int height, int width, const double *rows, int row_count,
          const double *columns, int column_count, float *out, std::ptrdiff_t stride) {
  std::vector<std::int32_t> low(column_count);
  std::vector<float> weights(column_count), row(width + 1);
  for (int x = 0; x < column_count; ++x) {
    const Place place = place_of(columns[x], width);
    low[x] = place.low, weights[x] = place.weight;
  }
  for (int y = 0; y < row_count; ++y) {
    const Place place = place_of(rows[y], height);
    const float *above = values + static_cast<std::ptrdiff_t>(place.low) * width;
    const float *below = place.low + 1 < height ? above + width : above;
    kernels.lerp_rows(above, below, place.weight, width, row.data());
    row[width] = row[width - 1];
    kernels.lerp_columns(row.data(), low.data(), weights.data(), column_count, out + stride * y);
  }
}
