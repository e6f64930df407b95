#include "runs.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <new>

#include "threads.h"

namespace {

void clear_rows(const Canvas &canvas, int begin, int end) {
  if (begin >= end) return;
  std::uint8_t *pixels = canvas.pixels + canvas.stride * begin;
  const std::size_t width = canvas.width, rows = end - begin;
  if (canvas.stride == canvas.width) {  // at once: a row at a time takes half as long again
    std::memset(pixels, 0, rows * width);
    return;
  }
  for (std::size_t y = 0; y < rows; ++y) std::memset(pixels + canvas.stride * y, 0, width);
}

}  // namespace

void Runs::fill(int threads, const MakeFind &make_find, const Canvas *canvas) {
  std::atomic<int> next{0};
  std::atomic<bool> failed{false};
  for (Part &part : parts_) part.edges.reserve(4 * kRows);  // here: what a helper allocates costs page faults
  const int parts = static_cast<int>(parts_.size());
  const int outside = canvas != nullptr && canvas->clear ? canvas->height - height_ : 0;  // rows above and below
  const int shares = parts + (outside + kRows - 1) / kRows;
  run_on_threads(std::min(threads, shares), [&] {
    try {
      const Find find = make_find();
      for (int index; (index = next.fetch_add(1)) < shares;) {
        if (index < parts) {
          find_part(index, find);
          if (canvas != nullptr) paint_part(index, *canvas);
        } else {
          const int begin = (index - parts) * kRows, end = std::min(begin + kRows, outside), top = canvas->top;
          clear_rows(*canvas, begin, std::min(end, top));
          clear_rows(*canvas, std::max(begin, top) + height_, end + height_);
        }
      }
    } catch (const std::bad_alloc &) {
      failed = true;
    }
  });
  if (failed) throw std::bad_alloc();
}

void Runs::find_part(int index, const Find &find) {
  Part &part = parts_[index];
  const int begin = index * kRows;
  for (int y = begin; y < std::min(begin + kRows, height_); ++y) {
    find(y, part.edges);
    part.ends[y - begin] = part.edges.size();
  }
}

void Runs::paint_part(int index, const Canvas &canvas) const {
  const int begin = index * kRows, end = std::min(begin + kRows, height_);
  if (canvas.clear) clear_rows(canvas, canvas.top + begin, canvas.top + end);
  for (int y = begin; y < end; ++y) {
    std::uint8_t *pixels = canvas.pixels + canvas.stride * (canvas.top + y) + canvas.left;
    const Row line = row(y);
    for (std::size_t i = 0; i < line.count; i += 2)
      std::memset(pixels + line.edges[i], 1, line.edges[i + 1] - line.edges[i]);
  }
}

std::size_t Runs::edges() const {
  std::size_t count = 0;
  for (const Part &part : parts_) count += part.edges.size();
  return count;
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
