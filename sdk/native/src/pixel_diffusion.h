// Fused Pixel Diffusion: what clickmask_native.h offers, in C++.
#pragma once

#include "clickmask_native.h"
#include "planes.h"
#include "scratch.h"

// The weights of one crop (Eq. 8).
class Affinity {
 public:
  Affinity(const clickmask_diffusion_options &options, const Kernels &kernels, const float *image, int height,
           int width, int threads);

  // Whether the logits were finite; the result is worth nothing where they were not.
  bool diffuse(const float *logits, const float *clicks, int click_count, int threads, float *result);
  std::size_t bytes() const;

 private:
  void weigh(const float *image, float *colours, int threads);
  void weigh_row(float *colours, int y);
  bool source_row(const float *logits, const float *clicks, int click_count, int y, float *row) const;
  void step_row(float *from, float *to, int y) const;
  void neighbours_of(float *plane, int y, const float **near) const;
  int chunks() const;

  clickmask_diffusion_options options_;
  const Kernels &kernels_;
  Grid grid_;
  int neighbours_, chunk_rows_;
  Scratch<std::uint16_t> codes_;  // [row][block][neighbour][kBlock]
  Buffer<float> inverse_sums_;    // [row][padded column]
};
