// A mask as the runs of its rows: where the object begins, ends, begins ... in each.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "clickmask_pixels.h"

using Canvas = clickmask_canvas;

// The edges of one row, ascending; an even number of them.
struct Row {
  const std::int32_t *edges;
  std::size_t count;
};

class Runs {
 public:
  Runs(int height, int width) : height_(height), width_(width), parts_((height + kRows - 1) / kRows) {}

  int height() const { return height_; }
  int width() const { return width_; }
  Row row(int y) const {
    const Part &part = parts_[y / kRows];
    const std::size_t begin = y % kRows == 0 ? 0 : part.ends[y % kRows - 1];
    return {part.edges.data() + begin, part.ends[y % kRows] - begin};
  }

  // Of all rows.
  std::size_t edges() const;

  // Has the edges of each row appended by `find(y, edges)`, on some threads that take parts of the mask in turn,
  // each with a `make_find()` of its own; and each row painted, where there is a canvas that it lies on.
  using Edges = std::vector<std::int32_t>;
  using Find = std::function<void(int y, Edges &edges)>;
  using MakeFind = std::function<Find()>;
  void fill(int threads, const MakeFind &make_find, const Canvas *canvas = nullptr);

 private:
  void find_part(int index, const Find &find);
  void paint_part(int index, const Canvas &canvas) const;

  static constexpr int kRows = 64;
  struct Part {
    Edges edges;
    std::array<std::size_t, kRows> ends;  // of each row, in edges
  };

  int height_, width_;
  std::vector<Part> parts_;
};

// Tight and half-open; empty where x0 == x1.
struct RunsBox {
  int x0 = 0, y0 = 0, x1 = 0, y1 = 0;
};
RunsBox box_of(const Runs &runs);

// Of a mask of 0 and 1, its rows `stride` bytes apart.
Runs runs_of(const std::uint8_t *mask, std::ptrdiff_t stride, int height, int width, int threads);
