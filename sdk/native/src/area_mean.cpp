#include "area_mean.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "planes.h"
#include "threads.h"

namespace {

constexpr int kRows = 8;  // that a thread takes at once

// Lengths are in units of 1 / cells of a sample, so that they are whole: a sample has `cells`, a cell `count`.
Cover cover_of(int cell, int count, int cells) {
  const std::int64_t start = static_cast<std::int64_t>(cell) * count, end = start + count;
  const std::int64_t first = start / cells, last = (end - 1) / cells;
  const auto part = [&](std::int64_t sample) {
    const std::int64_t length = std::min(end, (sample + 1) * cells) - std::max(start, sample * cells);
    return static_cast<float>(static_cast<double>(length) / cells);
  };
  return {static_cast<int>(first), static_cast<int>(last - first + 1), part(first), part(last)};
}

std::vector<Cover> covers(int count, int cells) {
  std::vector<Cover> found(cells);
  for (int cell = 0; cell < cells; ++cell) found[cell] = cover_of(cell, count, cells);
  return found;
}

}  // namespace

void area_mean(const Kernels &kernels, const Picture &from, const Planes &to, int threads) {
  const std::vector<Cover> rows = covers(from.height, to.rows), columns = covers(from.width, to.columns);
  const double area = static_cast<double>(from.height) * from.width / (static_cast<double>(to.rows) * to.columns);
  const int length = 3 * from.width, padded = (length + 1 + 63) / 64 * 64;
  threads = std::max(1, std::min(threads, (to.rows + kRows - 1) / kRows));
  Buffer<float> sums(static_cast<std::size_t>(padded) * threads);
  std::fill(sums.data(), sums.data() + sums.bytes() / sizeof(float), 0.0f);  // what is read beyond a row
  std::atomic<int> workers{0}, next{0};
  run_on_threads(threads, [&] {
    float *sum = sums.data() + static_cast<std::ptrdiff_t>(padded) * workers.fetch_add(1);
    for (int begin; (begin = next.fetch_add(kRows)) < to.rows;)
      for (int y = begin; y < std::min(begin + kRows, to.rows); ++y) {
        kernels.sum_rows(from.pixels + from.stride * rows[y].first, from.stride, rows[y], length, sum);
        float *out = to.data + to.row_stride * y;
        float *const planes[] = {out, out + to.plane_stride, out + 2 * to.plane_stride};
        kernels.mean_columns(sum, columns.data(), to.columns, static_cast<float>(1.0 / area), planes);
      }
  });
}
