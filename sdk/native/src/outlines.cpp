// A sweep from row to row. The runs of a row of pixels begin and end at upright edges. An edge that the row above
// has too goes on; one that begins or ends makes a corner, and along a grid line the corners pair up to level edges.
#include "outlines.h"

#include <cstring>
#include <utility>

namespace {

// Where the object begins, ends, begins ... along a row.
void find_edges(const std::uint8_t *row, int width, std::vector<int> &edges) {
  edges.clear();
  for (int x = 0, next = 1; x < width; next = 1 - next) {
    const void *found = std::memchr(row + x, next, width - x);
    if (found == nullptr) break;
    x = static_cast<int>(static_cast<const std::uint8_t *>(found) - row);
    edges.push_back(x);
  }
  if (edges.size() % 2 == 1) edges.push_back(width);
}

class Sweep {
 public:
  // The grid line at `y`, between a row of pixels and the next, with the edges of both.
  void line(int y, const std::vector<int> &above, const std::vector<int> &below) {
    const std::size_t first = corners_.size();
    std::size_t a = 0, b = 0;  // odd: the object is there, above or below
    next_.resize(below.size());
    while (a < above.size() || b < below.size()) {
      const bool ends = b == below.size() || (a < above.size() && above[a] <= below[b]);
      const bool begins = a == above.size() || (b < below.size() && below[b] <= above[a]);
      const int x = ends ? above[a] : below[b];
      if (ends && begins && a % 2 == b % 2) {
        next_[b++] = open_[a++];
        continue;
      }
      // Where pixels meet at a corner it is two, and the one whose level edge goes to the left comes first.
      const bool end_first = a % 2 == 1;
      if (ends && end_first) end(x, y, open_[a]);
      if (begins) next_[b] = add(x, y);
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
    std::vector<bool> seen(corners_.size());
    for (std::size_t start = 0; start < corners_.size(); ++start) {
      if (seen[start]) continue;
      for (std::size_t at = start; !seen[at]; at = following(at)) {
        seen[at] = true;
        found.corners.push_back(corners_[at].x);
        found.corners.push_back(corners_[at].y);
      }
      found.ends.push_back(static_cast<std::int32_t>(found.corners.size() / 2));
    }
    return found;
  }

 private:
  struct Corner {
    std::int32_t x, y;
    bool object_below;  // to the right of it
    bool leaves_level;  // rather than along its upright edge
    std::size_t level, upright;  // the corners at the other ends
  };

  std::size_t add(int x, int y) {
    corners_.push_back({x, y, false, false, 0, 0});
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

Outlines outlines_of(const std::uint8_t *mask, std::ptrdiff_t stride, int height, int width) {
  Sweep sweep;
  std::vector<int> above, below;
  for (int y = 0; y <= height; ++y) {
    below.clear();
    if (y < height) find_edges(mask + stride * y, width, below);
    sweep.line(y, above, below);
    above.swap(below);
  }
  return sweep.cycles();
}
