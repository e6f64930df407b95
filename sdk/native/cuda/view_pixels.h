// The arithmetic of clickmask_view_pixels.h, one output element at a time: the same code for a thread of the GPU and
// for a loop on the processor, where the tests compare it with clickmask/encode.py.
//
// Where a sample lies is a fraction of whole numbers, kept as such: both compilers then agree on it exactly.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "clickmask_view_pixels.h"

#if defined(__CUDACC__)
#define CLICKMASK_ON_BOTH __host__ __device__ inline
#else
#define CLICKMASK_ON_BOTH inline
#endif

namespace view_pixels {

// Between samples `low` and `high`: low + weight * (high - low).
struct Place {
  int low, high;
  float weight;
};

CLICKMASK_ON_BOTH Place place_of(std::int64_t numerator, std::int64_t denominator, int count) {
  if (numerator <= 0) return {0, 0, 0.0f};
  const int low = static_cast<int>(numerator / denominator);
  if (low >= count - 1) return {count - 1, count - 1, 0.0f};
  return {low, low + 1, static_cast<float>(numerator - low * denominator) / static_cast<float>(denominator)};
}

// Where sample i of `fine` lies among `count`: by edges, or with aligned corners.
CLICKMASK_ON_BOTH Place place(int i, int fine, int count, bool corners) {
  const std::int64_t n = count, m = fine;
  if (!corners) return place_of((2 * i + 1) * n - m, 2 * m, count);
  return m > 1 ? place_of(i * (n - 1), m - 1, count) : Place{0, 0, 0.0f};
}

CLICKMASK_ON_BOTH float between(float low, float high, float weight) { return low + weight * (high - low); }

CLICKMASK_ON_BOTH float sigmoid(float logit) { return 0.5f + 0.5f * tanhf(0.5f * logit); }

// The samples of `count` that cell r of `cells` covers; cells are no more than samples. Lengths are in units of
// 1 / cells of a sample, so that a whole sample has length `cells` and a cell has length `count`.
struct Cover {
  std::int64_t start, end, cells;
  CLICKMASK_ON_BOTH Cover(int r, int count, int cells_)
      : start(static_cast<std::int64_t>(r) * count), end(start + count), cells(cells_) {}
  CLICKMASK_ON_BOTH int first() const { return static_cast<int>(start / cells); }
  CLICKMASK_ON_BOTH int last() const { return static_cast<int>((end - 1) / cells); }
  CLICKMASK_ON_BOTH int length(int sample) const {
    const std::int64_t low = sample * cells, high = low + cells;
    return static_cast<int>((high < end ? high : end) - (low > start ? low : start));
  }
};

// image_tensor.
struct Crop {
  clickmask_view view;
  clickmask_image image;
  float pad[3];
  float *out;

  CLICKMASK_ON_BOTH void operator()(int y, int x) const {
    const bool shown = y < view.valid_height && x < view.valid_width;
    const std::size_t plane = static_cast<std::size_t>(view.size) * view.size;
    for (int colour = 0; colour < 3; ++colour)
      out[colour * plane + static_cast<std::size_t>(y) * view.size + x] = shown ? value(y, x, colour) : pad[colour];
  }

  CLICKMASK_ON_BOTH float value(int y, int x, int colour) const {
    const bool corners = view.coordinates == CLICKMASK_PUBLIC;
    // an axis that shrinks is averaged to its new length first, unless corners are aligned
    const int rows = corners ? view.height : least(view.height, view.valid_height);
    const int columns = corners ? view.width : least(view.width, view.valid_width);
    const Place down = place(y, view.valid_height, rows, corners);
    const Place across = place(x, view.valid_width, columns, corners);
    const float left = mixed(down, across.low, rows, columns, colour);
    if (across.weight == 0.0f) return left * (1.0f / 255.0f);
    return between(left, mixed(down, across.high, rows, columns, colour), across.weight) * (1.0f / 255.0f);
  }

  CLICKMASK_ON_BOTH float mixed(Place down, int column, int rows, int columns, int colour) const {
    const float low = cell(down.low, column, rows, columns, colour);
    if (down.weight == 0.0f) return low;
    return between(low, cell(down.high, column, rows, columns, colour), down.weight);
  }

  // Of the box averaged to rows x columns: in whole levels, as OpenCV gives it.
  CLICKMASK_ON_BOTH float cell(int row, int column, int rows, int columns, int colour) const {
    if (rows == view.height && columns == view.width) return level(row, column, colour);
    const Cover down(row, view.height, rows), across(column, view.width, columns);
    std::int64_t sum = 0;
    for (int r = down.first(); r <= down.last(); ++r) {
      std::int64_t line = 0;
      for (int c = across.first(); c <= across.last(); ++c)
        line += across.length(c) * static_cast<std::int64_t>(level(r, c, colour));
      sum += down.length(r) * line;
    }
    const std::int64_t whole = static_cast<std::int64_t>(view.height) * view.width;
    return static_cast<float>((2 * sum + whole) / (2 * whole));
  }

  CLICKMASK_ON_BOTH int level(int row, int column, int colour) const {
    return image.pixels[(view.y0 + row) * image.strides[0] + (view.x0 + column) * image.strides[1] +
                        colour * image.strides[2]];
  }

  CLICKMASK_ON_BOTH static int least(int a, int b) { return a < b ? a : b; }
};

// paste_with_box.
struct Paste {
  clickmask_view view;
  const float *logits;
  float limit;
  int image_width;
  std::uint8_t *mask;

  CLICKMASK_ON_BOTH void operator()(int y, int x) const {
    mask[static_cast<std::size_t>(y) * image_width + x] = object(y, x) ? 1 : 0;
  }

  CLICKMASK_ON_BOTH bool object(int y, int x) const {
    const int row = y - view.y0, column = x - view.x0;
    if (row < 0 || column < 0 || row >= view.height || column >= view.width) return false;
    const bool corners = view.coordinates == CLICKMASK_PUBLIC;
    const Place down = place(row, view.height, view.valid_height, corners);
    const Place across = place(column, view.width, view.valid_width, corners);
    const float left = between(value(down.low, across.low), value(down.high, across.low), down.weight);
    const float right = between(value(down.low, across.high), value(down.high, across.high), down.weight);
    return between(left, right, across.weight) > limit;
  }

  CLICKMASK_ON_BOTH float value(int row, int column) const {
    const float logit = logits[static_cast<std::size_t>(row) * view.size + column];
    return view.coordinates == CLICKMASK_PUBLIC ? sigmoid(logit) : logit;
  }
};

// paste_with_box of the box alone, packed.
struct Bits {
  Paste paste;
  int bytes;  // of a row
  std::uint8_t *bits;

  CLICKMASK_ON_BOTH void operator()(int row, int byte) const {
    const clickmask_view &view = paste.view;
    int value = 0;
    for (int column = 8 * byte; column < 8 * byte + 8 && column < view.width; ++column)
      if (paste.object(view.y0 + row, view.x0 + column)) value |= 0x80 >> (column & 7);
    bits[static_cast<std::size_t>(row) * bytes + byte] = static_cast<std::uint8_t>(value);
  }
};

// Of a line of samples: what it is at new pixel i, between two cells, each the mean of the samples it covers.
template <class Line>
CLICKMASK_ON_BOTH float cell_of(const clickmask_samples &s, int cell, const Line &line) {
  if (s.cells == s.pixels) return line(cell);
  const Cover cover(cell, s.pixels, s.cells);
  float sum = 0.0f;
  for (int i = cover.first(); i <= cover.last(); ++i) sum += cover.length(i) * line(i);
  return sum / s.pixels;
}

template <class Line>
CLICKMASK_ON_BOTH float value_at(const clickmask_samples &s, int i, const Line &line) {
  const double place = s.start + s.step * i;  // as encode.py has it
  if (place <= 0.0) return cell_of(s, 0, line);
  if (place >= s.cells - 1) return cell_of(s, s.cells - 1, line);
  const int low = static_cast<int>(place);
  const float weight = static_cast<float>(place - low), below = cell_of(s, low, line);
  return weight == 0.0f ? below : between(below, cell_of(s, low + 1, line), weight);
}

// Samples of a grid's rows, as they are or as probabilities.
struct Logits {
  const float *values;
  int size;
  CLICKMASK_ON_BOTH float operator()(int row, int i) const { return values[static_cast<std::size_t>(row) * size + i]; }
};

struct Probabilities {
  Logits logits;
  CLICKMASK_ON_BOTH float operator()(int row, int i) const { return sigmoid(logits(row, i)); }
};

template <class Grid>
struct Row {
  const Grid &grid;
  int row;
  CLICKMASK_ON_BOTH float operator()(int i) const { return grid(row, i); }
};

struct Column {
  const float *top;
  int pitch;
  CLICKMASK_ON_BOTH float operator()(int i) const { return top[static_cast<std::size_t>(i) * pitch]; }
};

// encode.resample, first along the rows of the old view: its values at the new one's columns ...
template <class Grid>
struct AlongRows {
  Grid grid;
  clickmask_samples across;
  float *out;  // (old rows, last - first)

  CLICKMASK_ON_BOTH void operator()(int row, int x) const {
    const Row<Grid> line{grid, row};
    out[static_cast<std::size_t>(row) * (across.last - across.first) + x] = value_at(across, across.first + x, line);
  }
};

// ... then down those columns; 0 outside the old box, and where there is padding.
struct DownColumns {
  const float *values;  // of AlongRows
  clickmask_samples down, across;
  int size;
  float *out;

  CLICKMASK_ON_BOTH void operator()(int y, int x) const {
    const bool inside = y >= down.first && y < down.last && x >= across.first && x < across.last;
    float value = 0.0f;
    if (inside) value = value_at(down, y, Column{values + (x - across.first), across.last - across.first});
    out[static_cast<std::size_t>(y) * size + x] = value;
  }
};

// How much what is blended in has of pixel i of an axis, one of those where it is seen: blend.py.
CLICKMASK_ON_BOTH float share_of(const clickmask_samples &s, int i, int count) {
  const float fade = 0.125f * (s.last - s.first);
  float share = 1.0f;
  if (s.first > 0) share = fminf(share, (i - s.first + 0.5f) / fade);
  if (s.last < count) share = fminf(share, (s.last - 1 - i + 0.5f) / fade);
  return share;
}

// ... or down those columns into the logits of another view, around a click less of them.
struct Blend {
  const float *logits, *values;  // values: of AlongRows
  clickmask_samples down, across;
  int height, width, size;
  clickmask_blending blending;
  float *out;

  CLICKMASK_ON_BOTH void operator()(int y, int x) const {
    const std::size_t place = static_cast<std::size_t>(y) * size + x;
    float value = logits[place];
    if (y >= down.first && y < down.last && x >= across.first && x < across.last) {
      const float seen = value_at(down, y, Column{values + (x - across.first), across.last - across.first});
      value += fminf(share_of(down, y, height), share_of(across, x, width)) * share_at(y, x) * (seen - value);
    }
    out[place] = value;
  }

  CLICKMASK_ON_BOTH float share_at(int y, int x) const {
    if (blending.reach <= 0.0f) return blending.largest;
    const float away = fmaxf(fabsf(y - blending.y), fabsf(x - blending.x)) / blending.reach;
    return blending.largest * fminf(1.0f, away);
  }
};

struct FindNotFinite {
  const float *values;
  int columns;
  std::int32_t *found;

  CLICKMASK_ON_BOTH void operator()(int y, int x) const {
    const float value = values[static_cast<std::size_t>(y) * columns + x];
    if (!(fabsf(value) <= FLT_MAX)) *found = 1;  // from however many threads
  }
};

}  // namespace view_pixels
