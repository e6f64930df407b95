// A sweep from row to row. The runs of a row of pixels begin and end at upright edges. An edge that the row above
// has too goes on; one that begins or ends makes a corner, and along a grid line the corners pair up to level edges.
#include "outlines.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace {

class Sweep {
 public:
  // For so many corners in all, and so many edges in a row.
  Sweep(std::size_t most, std::size_t widest) : corners_(new Corner[most]), open_(widest), next_(widest) {}

  // The grid line at `y`, between a row of pixels and the next, with the edges of both.
  void line(int y, const Row &above, const Row &below) {
    const std::int32_t first = count_;
    std::size_t a = 0, b = 0;  // odd: the object is there, above or below
    for (;;) {
      for (; a < above.count && b < below.count && above.edges[a] == below.edges[b] && a % 2 == b % 2; ++a, ++b)
        next_[b] = open_[a];  // most do
      if (a == above.count && b == below.count) break;
      const bool ends = b == below.count || (a < above.count && above.edges[a] <= below.edges[b]);
      const bool begins = a == above.count || (b < below.count && below.edges[b] <= above.edges[a]);
      const int x = ends ? above.edges[a] : below.edges[b];
      // Where pixels meet at a corner it is two, and the one whose level edge goes to the left comes first.
      const bool end_first = a % 2 == 1;
      if (ends && end_first) end(x, y, open_[a]);
      if (begins) {
        next_[b] = add(x, y);
        if (b % 2 == 1) corners_[count_ - 1].left = next_[b - 1];
      }
      if (ends && !end_first) end(x, y, open_[a]);
      a += ends, b += begins;
      corners_[count_ - 1].object_below = b % 2 == 1;
    }
    for (std::int32_t left = first; left < count_; left += 2) join(left, left + 1);
    open_.swap(next_);
  }

  OutlineCounts cycles(std::int32_t left, std::int32_t top, const Outlines &found) {
    std::int32_t written = 0, outline = 0;
    for (std::int32_t i = 0; i < count_; ++i) {
      Corner &start = corners_[i];
      if (start.outline >= 0) continue;
      for (Corner *at = &start; at->outline < 0; at = &corners_[following(*at)]) {
        at->outline = outline;
        std::int32_t *corner = found.corners + 2 * static_cast<std::size_t>(written++);
        corner[0] = left + at->x, corner[1] = top + at->y;
      }
      found.ends[outline] = written;
      // A hole's top left corner has the object to its left, which begins at an edge of an outline met before.
      found.owners[outline] = start.leaves_level ? outline : found.owners[corners_[start.left].outline];
      ++outline;
    }
    return {written, outline};
  }

 private:
  struct Corner {
    std::int32_t x, y;
    std::int32_t level, upright;  // the corners at the other ends
    std::int32_t left;            // where the object ends below: at the top of the edge where that run begins
    std::int32_t outline;         // that it is on, -1 until that is known
    bool object_below;            // to the right of it
    bool leaves_level;            // rather than along its upright edge
  };

  std::int32_t add(int x, int y) {
    corners_[count_] = {x, y, 0, 0, 0, -1, false, false};
    return count_++;
  }

  void end(int x, int y, std::int32_t top) {
    const std::int32_t bottom = add(x, y);
    corners_[bottom].upright = top, corners_[top].upright = bottom;
  }

  // A level edge is walked to the right where the object is below it, and to the left where it is above.
  void join(std::int32_t left, std::int32_t right) {
    corners_[left].level = right, corners_[right].level = left;
    corners_[corners_[left].object_below ? left : right].leaves_level = true;
  }

  static std::int32_t following(const Corner &at) { return at.leaves_level ? at.level : at.upright; }

  std::unique_ptr<Corner[]> corners_;      // in raster order
  std::int32_t count_ = 0;                 // of those
  std::vector<std::int32_t> open_, next_;  // the corner at the top of each upright edge
};

}  // namespace

OutlineCounts find_outlines(const Runs &runs, std::int32_t left, std::int32_t top, const Outlines &found) {
  std::size_t widest = 0;
  for (int y = 0; y < runs.height(); ++y) widest = std::max(widest, runs.row(y).count);
  Sweep sweep(2 * runs.edges(), widest);
  const Row none{nullptr, 0};
  for (int y = 0; y <= runs.height(); ++y)
    sweep.line(y, y > 0 ? runs.row(y - 1) : none, y < runs.height() ? runs.row(y) : none);
  return sweep.cycles(left, top, found);
}
