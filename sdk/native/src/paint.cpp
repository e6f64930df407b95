#include "paint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace {

// Between samples `low` and the next one.
struct Place {
  int low;
  float weight;
};

Place place_of(double position, int count) {
  const double low = std::min(std::max(std::floor(position), 0.0), count - 1.0);
  return {static_cast<int>(low), static_cast<float>(std::min(std::max(position - low, 0.0), 1.0))};
}

// Columns of values between two rows: all outside, of both kinds, or all inside.
struct Segment {
  int begin, end;
  std::uint8_t inside;  // how many of the two rows are above the limit
};

class Painter {
 public:
  Painter(const Values &values, const Positions &positions, std::uint8_t *mask, std::ptrdiff_t stride)
      : values_(values),
        positions_(positions),
        mask_(mask),
        stride_(stride),
        first_(values.width + 1, positions.width),
        weights_(positions.width),
        inside_(values.width) {
    for (int x = positions.width - 1; x >= 0; --x) {
      const Place place = place_of(positions.column(x), values.width);
      weights_[x] = place.weight;
      first_[place.low] = x;
    }
    for (int j = values.width - 1; j >= 0; --j) first_[j] = std::min(first_[j], first_[j + 1]);
  }

  PaintedBox paint() {
    for (int y = 0, known = -1; y < positions_.height; ++y) {
      const Place place = place_of(positions_.row(y), values_.height);
      const float *above = values_.data + static_cast<std::ptrdiff_t>(place.low) * values_.width;
      const Line line{above, place.low + 1 < values_.height ? above + values_.width : above, place.weight};
      if (place.low != known) find_segments(line);
      known = place.low;
      paint_row(y, line);
    }
    return box_;
  }

 private:
  // Between two rows of values.
  struct Line {
    const float *above, *below;
    float weight;
    float at(int j) const { return above[j] + weight * (below[j] - above[j]); }
  };

  bool is_inside(const Line &line, int j) const { return line.at(j) > values_.limit; }

  void find_segments(const Line &line) {
    const int width = values_.width;
    const float limit = values_.limit;
    std::uint8_t *inside = inside_.data();
    for (int j = 0; j < width; ++j) inside[j] = (line.above[j] > limit) + (line.below[j] > limit);
    segments_.clear();
    for (int begin = 0; begin < width; begin = segments_.back().end)
      segments_.push_back({begin, same_until(inside, begin, width), inside[begin]});
  }

  // The first place after j that is not like it, or `width`.
  static int same_until(const std::uint8_t *inside, int j, int width) {
    const std::uint8_t same = inside[j];
    const std::uint64_t pattern = 0x0101010101010101u * same;
    for (std::uint64_t eight; j + 8 <= width; j += 8) {
      std::memcpy(&eight, inside + j, sizeof eight);
      if (eight != pattern) break;
    }
    while (j < width && inside[j] == same) ++j;
    return j;
  }

  // Only where the two rows of values differ is a value interpolated.
  void paint_row(int y, const Line &line) {
    const std::uint8_t first = segments_.front().inside;
    bool inside = first == 1 ? is_inside(line, 0) : first == 2;
    int start = 0;
    const auto turn = [&](int j) {
      const int end = crossing(line, j - 1, inside);
      if (inside) set(y, start, end);
      start = end, inside = !inside;
    };
    for (const Segment &segment : segments_) {
      if (segment.inside != 1) {
        if (inside != (segment.inside == 2)) turn(segment.begin);
        continue;
      }
      for (int j = segment.begin; j < segment.end; ++j)
        if (is_inside(line, j) != inside) turn(j);
    }
    if (inside) set(y, start, positions_.width);
  }

  // The first column between values j and j + 1 that is on the other side than value j.
  int crossing(const Line &line, int j, bool inside) const {
    const float left = line.at(j), difference = line.at(j + 1) - left;
    int x = first_[j];
    while (x < first_[j + 1] && (left + weights_[x] * difference > values_.limit) == inside) ++x;
    return x;
  }

  void set(int y, int start, int end) {
    if (start == end) return;
    if (mask_ != nullptr) std::memset(mask_ + stride_ * y + start, 1, end - start);
    if (box_.x0 == box_.x1) box_ = {start, y, end, y + 1};
    box_.x0 = std::min(box_.x0, start), box_.x1 = std::max(box_.x1, end), box_.y1 = y + 1;
  }

  const Values &values_;
  const Positions &positions_;
  std::uint8_t *mask_;
  std::ptrdiff_t stride_;
  std::vector<int> first_;      // of the columns of each place, and the width
  std::vector<float> weights_;  // of each column
  std::vector<std::uint8_t> inside_;
  std::vector<Segment> segments_;
  PaintedBox box_;
};

}  // namespace

PaintedBox paint(const Values &values, const Positions &positions, std::uint8_t *mask, std::ptrdiff_t stride) {
  return Painter(values, positions, mask, stride).paint();
}
