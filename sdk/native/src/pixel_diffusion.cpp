#include "pixel_diffusion.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "threads.h"

namespace {

constexpr int kPlanes = 3;       // the colours first, then the states
constexpr int kMinRows = 8;      // of a chunk: enough work to be worth taking
constexpr int kSegment = 256;    // columns whose squared distances to clicks are held at once
constexpr float kNoClick = 2e9f;

// The working planes of one call, in any memory that is large enough.
Scratch<float> planes_of(const Grid &grid) { return {kPlanes * grid.size(), std::numeric_limits<std::size_t>::max()}; }

// In just as much memory as is needed: weights are kept, and counted, for as long as their crop.
Scratch<std::uint16_t> codes_of(const Grid &grid, int neighbours) {
  const std::size_t count = grid.padded_width() * grid.height() * neighbours;
  return {count, count};
}

int reach_of(const clickmask_diffusion_options &options) {
  return *std::max_element(options.dilations, options.dilations + options.dilation_count);
}

// Squared distance beyond which a click leaves no trace: exp(-60) is below any float that it is added to.
float reach_squared(const clickmask_diffusion_options &options) {
  const float size2 = options.click_map_size * options.click_map_size;
  return options.click_map == CLICKMASK_GAUSSIAN ? 120.0f * size2 : size2;
}

// Lowers `nearest` to the squared distances to one click.
void meet_click(float x, float dy2, float reach, int first, int count, float *nearest) {
  const float low = std::ceil(x - reach) - 1.0f, high = std::floor(x + reach) + 1.0f;
  const float begin = std::max(low, static_cast<float>(first));
  const float end = std::min(high, static_cast<float>(first + count - 1));
  if (!(begin <= end)) return;
  for (int column = static_cast<int>(begin); column <= static_cast<int>(end); ++column) {
    const float dx = static_cast<float>(column) - x;
    const float squared = dy2 + dx * dx;
    float &slot = nearest[column - first];
    slot = squared < slot ? squared : slot;
  }
}

// Squared distances, of a row's columns from `first`, to the nearest click of each label; whether any is near.
bool meet_clicks(const clickmask_diffusion_options &options, const float *clicks, int click_count, int y,
                 int first, float (*nearest)[kSegment]) {
  const float limit = reach_squared(options);
  bool met = false;
  for (int i = 0; i < click_count; ++i) {
    const float *click = clicks + 3 * i;
    const float x = click[0], dy = static_cast<float>(y) - click[1];
    const bool positive = click[2] == 1.0f;
    if (!(positive || click[2] == 0.0f) || !(dy * dy <= limit)) continue;
    if (!met) std::fill(nearest[0], nearest[0] + 2 * kSegment, kNoClick);
    met = true;
    meet_click(x, dy * dy, std::sqrt(limit), first, kSegment, nearest[positive ? 0 : 1]);
  }
  return met;
}

SourceRule source_rule(const clickmask_diffusion_options &options) {
  return {options.norm == CLICKMASK_TANH_TWICE, options.cutoff, options.click_map == CLICKMASK_GAUSSIAN,
          options.click_map_size, options.amplitude};
}

}  // namespace

Affinity::Affinity(const clickmask_diffusion_options &options, const Kernels &kernels, const float *image,
                   int height, int width, int threads)
    : options_(options),
      kernels_(kernels),
      grid_(height, width, reach_of(options)),
      neighbours_(8 * options.dilation_count),
      chunk_rows_(std::max(kMinRows, reach_of(options))),
      codes_(codes_of(grid_, neighbours_)),
      inverse_sums_(grid_.padded_width() * height) {
  const Scratch<float> planes = planes_of(grid_);
  weigh(image, planes.data(), threads);
}

void Affinity::weigh(const float *image, float *colours, int threads) {
  const std::size_t plane = static_cast<std::size_t>(grid_.height()) * grid_.width();
  Wave(2, chunks()).run(threads, [&](int stage, int chunk) {
    const int end = std::min(grid_.height(), (chunk + 1) * chunk_rows_);
    for (int y = chunk * chunk_rows_; y < end; ++y) {
      if (stage == 1) {
        weigh_row(colours, y);
        continue;
      }
      for (int c = 0; c < 3; ++c) {
        float *row = grid_.row(colours + c * grid_.size(), y);
        std::memcpy(row, image + c * plane + static_cast<std::size_t>(y) * grid_.width(),
                    grid_.width() * sizeof(float));
        grid_.extend(row);
      }
    }
  });
}

void Affinity::weigh_row(float *colours, int y) {
  const float *near[kMaxNeighbours];
  neighbours_of(colours, y, near);
  const AffinityRule rule = {neighbours_, options_.affinity == CLICKMASK_PAPER,
                             options_.deviation == CLICKMASK_UNBIASED_36, options_.eps};
  const std::size_t pixel = grid_.padded_width() * y;
  kernels_.affinity_row(near, grid_.row(colours, y), static_cast<std::ptrdiff_t>(grid_.size()), rule,
                        grid_.blocks(), codes_.data() + pixel * neighbours_, inverse_sums_.data() + pixel);
}

bool Affinity::diffuse(const float *logits, const float *clicks, int click_count, int threads, float *result) {
  const Scratch<float> planes = planes_of(grid_);
  float *states[2] = {planes.data(), planes.data() + grid_.size()};
  const int last = options_.iterations;
  std::atomic<bool> finite{true};
  Wave(last + 1, chunks()).run(threads, [&](int stage, int chunk) {
    float *to = states[stage % 2], *from = states[1 - stage % 2];
    const int end = std::min(grid_.height(), (chunk + 1) * chunk_rows_);
    for (int y = chunk * chunk_rows_; y < end; ++y) {
      const std::size_t pixel = static_cast<std::size_t>(grid_.width()) * y;
      if (stage > 0)
        step_row(from, to, y);
      else if (!source_row(logits + pixel, clicks, click_count, y, grid_.row(to, y)))
        finite.store(false, std::memory_order_relaxed);
      if (stage == last)
        kernels_.result_row(grid_.row(to, y), logits + pixel, grid_.width(),
                            options_.norm == CLICKMASK_TANH_TWICE, options_.output == CLICKMASK_LOGITS,
                            result + pixel);
    }
  });
  return finite.load();
}

// Eq. 5: what diffusion starts from; whether the logits are finite.
bool Affinity::source_row(const float *logits, const float *clicks, int click_count, int y, float *row) const {
  const SourceRule rule = source_rule(options_);
  const bool finite = kernels_.source_row(logits, grid_.width(), rule, row);
  const int padded = static_cast<int>(grid_.padded_width());
  float nearest[2][kSegment];
  for (int first = 0; first < padded; first += kSegment)
    if (meet_clicks(options_, clicks, click_count, y, first, nearest)) {
      const int blocks = std::min(kSegment, padded - first) / kBlock;
      kernels_.add_clicks(nearest[0], nearest[1], blocks, rule, row + first);
    }
  grid_.extend(row);
  return finite;
}

void Affinity::step_row(float *from, float *to, int y) const {
  const float *near[kMaxNeighbours];
  neighbours_of(from, y, near);
  const std::size_t pixel = grid_.padded_width() * y;
  float *row = grid_.row(to, y);
  kernels_.diffuse_row(near, neighbours_, codes_.data() + pixel * neighbours_, inverse_sums_.data() + pixel,
                       grid_.blocks(), row);
  grid_.extend(row);
}

// Where each neighbour of a row's first pixel is; beyond the border the edge repeats.
void Affinity::neighbours_of(float *plane, int y, const float **near) const {
  for (int i = 0; i < options_.dilation_count; ++i) {
    const int d = options_.dilations[i];
    for (int dy = -d; dy <= d; dy += d)
      for (int dx = -d; dx <= d; dx += d)
        if (dy != 0 || dx != 0) *near++ = grid_.row_near(plane, y + dy) + dx;
  }
}

int Affinity::chunks() const { return (grid_.height() + chunk_rows_ - 1) / chunk_rows_; }

std::size_t Affinity::bytes() const { return codes_.bytes() + inverse_sums_.bytes(); }
