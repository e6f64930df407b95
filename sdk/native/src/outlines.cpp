// A sweep from row to row. The runs of a row of pixels begin and end at upright edges. An edge that the row above
// has too goes on; one that begins or ends makes a corner, and along a grid line the corners pair up to level edges.
#include "outlines.h"

#include <utility>

namespace {

class Sweep {
 public:
  // The grid line at `y`, between a row of pixels and the next, with the edges of both.
  void line(int y, const Row &above, const Row &below) {
    const std::size_t first = corners_.size();
    std::size_t a = 0, b = 0;  // odd: the object is there, above or below
    next_.resize(below.count);
    while (a < above.count || b < below.count) {
      const bool ends = b == below.count || (a < above.count && above.edges[a] <= below.edges[b]);
      const bool begins = a == above.count || (b < below.count && below.edges[b] <= above.edges[a]);
      const int x = ends ? above.edges[a] : below.edges[b];
      if (ends && begins && a % 2 == b % 2) {
        next_[b++] = open_[a++];
        continue;
      }
      // Where pixels meet at a corner it is two, and the one whose level edge goes to the left comes first.
      const bool end_first = a % 2 == 1;
      if (ends && end_first) end(x, y, open_[a]);
      if (begins) {
        next_[b] = add(x, y);
        if (b % 2 == 1) corners_.back().left = next_[b - 1];
      }
      if (ends && !end_first) end(x, y, open_[a]);
      a += ends, b += begins;
      corners_.back().object_below = b % 2 == 1;
    }
    for (std::size_t left = first; left < corners_.size(); left += 2) join(left, left + 1);
    open_.swap(next_);
  }

  Outlines cycles() const {
    Outlines found;
    found.corners.reserve(2 * corners_.size());
    std::vector<std::int32_t> outlines(corners_.size(), -1);  // of each corner
    for (std::size_t start = 0; start < corners_.size(); ++start) {
      if (outlines[start] >= 0) continue;
      const std::int32_t outline = static_cast<std::int32_t>(found.ends.size());
      for (std::size_t at = start; outlines[at] < 0; at = following(at)) {
        outlines[at] = outline;
        found.corners.push_back(corners_[at].x);
        found.corners.push_back(corners_[at].y);
      }
      found.ends.push_back(static_cast<std::int32_t>(found.corners.size() / 2));
      // A hole's top left corner has the object to its left, which begins at an edge of an outline met before.
      const bool outer = corners_[start].leaves_level;
      found.owners.push_back(outer ? outline : found.owners[outlines[corners_[start].left]]);
    }
    return found;
  }

 private:
  struct Corner {
    std::int32_t x, y;
    bool object_below;  // to the right of it
    bool leaves_level;  // rather than along its upright edge
    std::size_t level, upright;  // the corners at the other ends
    std::size_t left;            // where the object ends below: at the top of the edge where that run begins
  };

  std::size_t add(int x, int y) {
    corners_.push_back({x, y, false, false, 0, 0, 0});
    return corners_.size() - 1;
  }

  void end(int x, int y, std::size_t top) {
    const std::size_t bottom = add(x, y);
    corners_[bottom].upright = top, corners_[top].upright = bottom;
  }

  // A level edge is walked to the right where the object is below it, and to the left where it is above.
  void join(std::size_t left, std::size_t right) {
    corners_[left].level = right, corners_[right].level = left;
    corners_[corners_[left].object_below ? left : right].leaves_level = true;
  }

  std::size_t following(std::size_t at) const {
    return corners_[at].leaves_level ? corners_[at].level : corners_[at].upright;
  }

  std::vector<Corner> corners_;           // in raster order
  std::vector<std::size_t> open_, next_;  // the corner at the top of each upright edge
};

}  // namespace

Outlines outlines_of(const Runs &runs) {
  Sweep sweep;
  const Row none{nullptr, 0};
  for (int y = 0; y <= runs.height(); ++y)
    sweep.line(y, y > 0 ? runs.row(y - 1) : none, y < runs.height() ? runs.row(y) : none);
  return sweep.cycles();
}
