// Memory: aligned buffers, and planes padded so that no kernel asks where the border is.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#include "kernels.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(_WIN32)
#include <malloc.h>
#endif

// Uninitialised memory on a cache line; on huge pages where it is large, since a crop's weights are written once
// and small pages would cost as much as the arithmetic.
template <typename T>
class Buffer {
 public:
  explicit Buffer(std::size_t count) : bytes_(count * sizeof(T)) {
    const std::size_t huge = std::size_t{1} << 21;
    const std::size_t alignment = bytes_ >= huge ? huge : 64;
    const std::size_t rounded = (bytes_ + alignment - 1) / alignment * alignment;
#if defined(_WIN32)
    data_ = static_cast<T *>(_aligned_malloc(rounded, 64));
#else
    data_ = static_cast<T *>(std::aligned_alloc(alignment, rounded));
#endif
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == huge) madvise(data_, rounded, MADV_HUGEPAGE);  // a wish: nothing depends on it
#endif
  }
  ~Buffer() {
#if defined(_WIN32)
    _aligned_free(data_);
#else
    std::free(data_);
#endif
  }
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;

  T *data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_;
  T *data_ = nullptr;
};

// The geometry of a padded plane: rows of whole blocks, with room for the farthest neighbour on either side.
// Above and below the image, rows are clamped instead (`row_near`).
class Grid {
 public:
  Grid(int height, int width, int reach)
      : height_(height), width_(width), margin_((reach + 15) / 16 * 16),
        blocks_((width + kBlock - 1) / kBlock) {}

  int height() const { return height_; }
  int width() const { return width_; }
  int blocks() const { return blocks_; }
  std::size_t padded_width() const { return static_cast<std::size_t>(blocks_) * kBlock; }
  std::size_t stride() const { return padded_width() + 2 * margin_; }
  std::size_t size() const { return stride() * height_; }

  // First pixel of a row of the plane that starts at `plane`.
  float *row(float *plane, int y) const { return plane + stride() * y + margin_; }

  // The row, or the nearest that exists.
  float *row_near(float *plane, int y) const {
    return row(plane, y < 0 ? 0 : y >= height_ ? height_ - 1 : y);
  }

  // Repeats the first and last pixel of a row over its margins.
  void extend(float *row) const {
    for (int x = 1; x <= margin_; ++x) row[-x] = row[0];
    const int end = static_cast<int>(padded_width()) + margin_;
    for (int x = width_; x < end; ++x) row[x] = row[width_ - 1];
  }

 private:
  int height_, width_, margin_, blocks_;
};
