#include "value_runs.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "lerp.h"

namespace {

// Where the columns of the mask lie: which come after each value, and how far.
struct Columns {
  Columns(const Values &values, const Positions &positions)
      : first(values.width + 1, positions.width), weights(positions.width),
        step(positions.column_step > 0 ? static_cast<float>(1 / positions.column_step) : 0.0f),
        start(static_cast<float>(positions.centre) * (step - 1)) {
    for (int x = positions.width - 1; x >= 0; --x) {
      const Place place = place_of(positions.column(x), values.width);
      weights[x] = place.weight;
      first[place.low] = x;
    }
    for (int j = values.width - 1; j >= 0; --j) first[j] = std::min(first[j], first[j + 1]);
  }

  // Near the column that lies a part of the way from a value to the next: rounding may move it by some.
  int about(int value, float part) const {
    const float column = (static_cast<float>(value) + part) * step + start + 1;
    return column > static_cast<float>(first[value]) ? static_cast<int>(std::min(column, 2e9f)) : first[value];
  }

  std::vector<int> first;      // of the columns of each place, and the width
  std::vector<float> weights;  // of each column
  float step, start;           // columns from one value to the next, and where value 0 lies
};

// On which side of the limit the values of a row are.
struct Sides {
  explicit Sides(int width) : inside(width) {}

  void look(const Kernels &kernels, const float *values, float limit) {
    const int width = static_cast<int>(inside.size());
    const std::uint8_t *in = inside.data();
    kernels.above_row(values, width, limit, inside.data());
    changes.clear();
    int j = 1;
    for (std::uint64_t eight, before; j + 8 <= width; j += 8) {  // few of them hold a change
      std::memcpy(&eight, in + j, sizeof eight), std::memcpy(&before, in + j - 1, sizeof before);
      if (eight != before) look_between(j, j + 8);
    }
    look_between(j, width);
  }

  std::vector<std::uint8_t> inside;
  std::vector<int> changes;  // the values that are on another side than the one before

 private:
  void look_between(int begin, int end) {
    for (int j = begin; j < end; ++j)
      if (inside[j] != inside[j - 1]) changes.push_back(j);
  }
};

// Columns of values between two rows: all outside, of both kinds, or all inside.
struct Segment {
  int begin, end, inside;  // how many of the two rows are above the limit
};

// Finds the edges of rows; quickest for one row after the other.
class Finder {
 public:
  Finder(const Kernels &kernels, const Values &values, const Positions &positions, const Columns &columns)
      : kernels_(kernels), values_(values), positions_(positions), columns_(columns), above_(values.width),
        below_(values.width) {}

  void find(int y, Runs::Edges &edges) {
    const Place place = place_of(positions_.row(y), values_.height);
    const float *above = values_.data + values_.stride * place.low;
    const Line line{above, place.low + 1 < values_.height ? above + values_.stride : above, place.weight};
    if (place.low != known_) {
      if (known_ >= 0 && place.low == known_ + 1) std::swap(above_, below_);
      else above_.look(kernels_, line.above, values_.limit);
      below_.look(kernels_, line.below, values_.limit);
      find_segments();
      known_ = place.low;
    }
    find_edges(line, edges);
  }

 private:
  // Between two rows of values.
  struct Line {
    const float *above, *below;
    float weight;
    float at(int j) const { return above[j] + weight * (below[j] - above[j]); }
  };

  bool is_inside(const Line &line, int j) const { return line.at(j) > values_.limit; }

  void find_segments() {
    const int width = values_.width;
    std::size_t a = 0, b = 0;  // changes so far: each is one to the other side
    segments_.clear();
    for (int begin = 0; begin < width; begin = segments_.back().end) {
      const int above = a < above_.changes.size() ? above_.changes[a] : width;
      const int below = b < below_.changes.size() ? below_.changes[b] : width;
      const int end = std::min(above, below);
      segments_.push_back({begin, end, above_.inside[begin] + below_.inside[begin]});
      a += above == end, b += below == end;
    }
  }

  // Only where the two rows of values differ is a value interpolated.
  void find_edges(const Line &line, Runs::Edges &edges) const {
    const int first = segments_.front().inside;
    bool inside = first == 1 ? is_inside(line, 0) : first == 2;
    const std::size_t begin = edges.size();
    const auto turn = [&](int x) {  // twice at the same pixel: a run of none, or two that meet
      if (edges.size() > begin && edges.back() == x) edges.pop_back();
      else edges.push_back(x);
    };
    const auto cross = [&](int j) {
      turn(crossing(line, j - 1, inside));
      inside = !inside;
    };
    if (inside) turn(0);
    for (const Segment &segment : segments_) {
      if (segment.inside != 1) {
        if (inside != (segment.inside == 2)) cross(segment.begin);
        continue;
      }
      for (int j = segment.begin; j < segment.end; ++j)
        if (is_inside(line, j) != inside) cross(j);
    }
    if (inside) turn(positions_.width);
  }

  // The first column between values j and j + 1 that is on the other side than value j; once there, all are.
  int crossing(const Line &line, int j, bool inside) const {
    const float left = line.at(j), difference = line.at(j + 1) - left;
    const auto same = [&](int x) { return (left + columns_.weights[x] * difference > values_.limit) == inside; };
    const int begin = columns_.first[j], end = columns_.first[j + 1];
    int x = std::min(columns_.about(j, (values_.limit - left) / difference), end);
    while (x > begin && !same(x - 1)) --x;
    while (x < end && same(x)) ++x;
    return x;
  }

  const Kernels &kernels_;
  const Values &values_;
  const Positions &positions_;
  const Columns &columns_;
  Sides above_, below_;  // of the values around the row before
  std::vector<Segment> segments_;
  int known_ = -1;  // where that row lies
};

}  // namespace

Runs runs_of(const Kernels &kernels, const Values &values, const Positions &positions, int threads,
             const Canvas *canvas) {
  const Columns columns(values, positions);
  Runs runs(positions.height, positions.width);
  const Runs::MakeFind make_find = [&]() -> Runs::Find {
    return [finder = Finder(kernels, values, positions, columns)](int y, Runs::Edges &edges) mutable {
      finder.find(y, edges);
    };
  };
  runs.fill(threads, make_find, canvas);
  return runs;
}
