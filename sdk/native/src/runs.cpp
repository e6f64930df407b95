#include "runs.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include "threads.h"

void Runs::fill(int threads, const std::function<Find()> &make_find) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  run_on_threads(std::min<int>(threads, static_cast<int>(parts_.size())), [&] {
    try {
      const Find find = make_find();
      for (std::size_t index; (index = next.fetch_add(1)) < parts_.size();) {
        Part &part = parts_[index];
        part.edges.reserve(4 * kRows), part.ends.reserve(kRows);
        const int begin = static_cast<int>(index) * kRows;
        for (int y = begin; y < std::min(begin + kRows, height_); ++y) {
          find(y, part.edges);
          part.ends.push_back(part.edges.size());
        }
      }
    } catch (const std::bad_alloc &) {
      failed = true;
    }
  });
  if (failed) throw std::bad_alloc();
}

RunsBox box_of(const Runs &runs) {
  RunsBox box;
  for (int y = 0; y < runs.height(); ++y) {
    const Row row = runs.row(y);
    if (row.count == 0) continue;
    const int first = row.edges[0], last = row.edges[row.count - 1];
    if (box.x0 == box.x1) box = {first, y, last, y + 1};
    box.x0 = std::min(box.x0, first), box.x1 = std::max(box.x1, last), box.y1 = y + 1;
  }
  return box;
}

void paint(const Runs &runs, std::uint8_t *mask, std::ptrdiff_t stride) {
  for (int y = 0; y < runs.height(); ++y) {
    const Row row = runs.row(y);
    for (std::size_t i = 0; i < row.count; i += 2)
      std::memset(mask + stride * y + row.edges[i], 1, row.edges[i + 1] - row.edges[i]);
  }
}

Runs runs_of(const std::uint8_t *mask, std::ptrdiff_t stride, int height, int width, int threads) {
  Runs runs(height, width);
  runs.fill(threads, [=]() -> Runs::Find {
    return [=](int y, Runs::Edges &edges) {
      const std::uint8_t *row = mask + stride * y;
      int next = 1;
      for (int x = 0; x < width; next = 1 - next) {
        const void *found = std::memchr(row + x, next, width - x);
        if (found == nullptr) break;
        x = static_cast<int>(static_cast<const std::uint8_t *>(found) - row);
        edges.push_back(x);
      }
      if (next == 0) edges.push_back(width);
    };
  });
  return runs;
}
