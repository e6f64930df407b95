#include "area_mean.h"

#include <algorithm>
#include <atomic>
#include <vector>

#include "planes.h"
#include "threads.h"

namespace {

constexpr int kRows = 8;      // that a thread takes at once
constexpr int kColumns = 16;  // means of a row, between which the next row is fetched
constexpr int kLine = 64;     // bytes of the cache

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

int most_of(const std::vector<Cover> &covers) {
  return std::max_element(covers.begin(), covers.end(), [](const Cover &a, const Cover &b) {
           return a.count < b.count;
         })->count;
}

// Covers of one row of cells have as many samples as each other, or one less.
std::vector<Share> shares(const std::vector<Cover> &covers, int samples) {
  std::vector<Share> found;
  for (const Cover &cover : covers) {
    const bool all = cover.count == samples;
    found.push_back({cover.first, cover.first_part, all ? 1.0f : cover.last_part, all ? cover.last_part : 0.0f});
  }
  return found;
}

// Has bytes `begin` to `end - 1` of some rows of a picture come into the cache.
void fetch(const Picture &from, const Cover &rows, int begin, int end) {
  for (int r = 0; r < rows.count; ++r) {
    const std::uint8_t *row = from.pixels + from.stride * (rows.first + r);
    for (int i = begin; i < end; i += kLine) __builtin_prefetch(row + i, 0, 2);
  }
}

}  // namespace

void area_mean(const Kernels &kernels, const Picture &from, const Planes &to, int threads) {
  const std::vector<Cover> rows = covers(from.height, to.rows), across = covers(from.width, to.columns);
  const int samples = most_of(across);
  const std::vector<Share> columns = shares(across, samples);
  const double area = static_cast<double>(from.height) * from.width / (static_cast<double>(to.rows) * to.columns);
  const int length = 3 * from.width, padded = (length + 3 + 1 + 63) / 64 * 64;
  threads = std::max(1, std::min(threads, (to.rows + kRows - 1) / kRows));
  Buffer<float> sums(static_cast<std::size_t>(padded) * threads);
  std::fill(sums.data(), sums.data() + sums.bytes() / sizeof(float), 0.0f);  // what is read beyond a row
  std::atomic<int> workers{0}, next{0};
  run_on_threads(threads, [&] {
    float *sum = sums.data() + static_cast<std::ptrdiff_t>(padded) * workers.fetch_add(1);
    for (int y = next.fetch_add(kRows), following; y < to.rows; y = following) {
      following = (y + 1) % kRows != 0 ? y + 1 : next.fetch_add(kRows);
      kernels.sum_rows(from.pixels + from.stride * rows[y].first, from.stride, rows[y], length, sum);
      for (int x = 0; x < to.columns; x += kColumns) {
        const int count = std::min(kColumns, to.columns - x), end = x + count;
        if (following < to.rows)
          fetch(from, rows[following], 3 * columns[x].first, end < to.columns ? 3 * columns[end].first : length);
        float *out = to.data + to.row_stride * y + x;
        float *const planes[] = {out, out + to.plane_stride, out + 2 * to.plane_stride};
        kernels.mean_columns(sum, columns.data() + x, count, samples, static_cast<float>(1.0 / area), planes);
      }
    }
  });
}
