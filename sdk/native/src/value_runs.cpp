#include "value_runs.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "lerp.h"

namespace {

// Where the columns of the mask lie: which come after each value, and how far.
struct Columns {
  Columns(const Values &values, const Positions &positions)
      : first(values.width + 1, positions.width), weights(positions.width) {
    for (int x = positions.width - 1; x >= 0; --x) {
      const Place place = place_of(positions.column(x), values.width);
      weights[x] = place.weight;
      first[place.low] = x;
    }
    for (int j = values.width - 1; j >= 0; --j) first[j] = std::min(first[j], first[j + 1]);
  }

  std::vector<int> first;      // of the columns of each place, and the width
  std::vector<float> weights;  // of each column
};

// Columns of values between two rows: all outside, of both kinds, or all inside.
struct Segment {
  int begin, end;
  std::uint8_t inside;  // how many of the two rows are above the limit
};

// Finds the edges of rows; quickest for one row after the other.
class Finder {
 public:
  Finder(const Values &values, const Positions &positions, const Columns &columns)
      : values_(values), positions_(positions), columns_(columns), inside_(values.width) {}

  void find(int y, Runs::Edges &edges) {
    const Place place = place_of(positions_.row(y), values_.height);
    const float *above = values_.data + static_cast<std::ptrdiff_t>(place.low) * values_.width;
    const Line line{above, place.low + 1 < values_.height ? above + values_.width : above, place.weight};
    if (place.low != known_) find_segments(line);
    known_ = place.low;
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
  void find_edges(const Line &line, Runs::Edges &edges) const {
    const std::uint8_t first = segments_.front().inside;
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

  // The first column between values j and j + 1 that is on the other side than value j.
  int crossing(const Line &line, int j, bool inside) const {
    const float left = line.at(j), difference = line.at(j + 1) - left;
    int x = columns_.first[j];
    const int end = columns_.first[j + 1];
    while (x < end && (left + columns_.weights[x] * difference > values_.limit) == inside) ++x;
    return x;
  }

  const Values &values_;
  const Positions &positions_;
  const Columns &columns_;
  std::vector<std::uint8_t> inside_;
  std::vector<Segment> segments_;
  int known_ = -1;
};

}  // namespace

Runs runs_of(const Values &values, const Positions &positions, int threads) {
  const Columns columns(values, positions);
  Runs runs(positions.height, positions.width);
  runs.fill(threads, [&]() -> Runs::Find {
    return [finder = Finder(values, positions, columns)](int y, Runs::Edges &edges) mutable {
      finder.find(y, edges);
    };
  });
  return runs;
}
