// The row kernels that every instruction set implements; kernels_body.h holds their one source.
#pragma once

#include <cstddef>
#include <cstdint>

// Pixels of one block of weights, and the multiple that padded rows are made of.
constexpr int kBlock = 32;
constexpr int kMaxNeighbours = 64;

// Weights are stored as 16-bit codes of the square root of exp(l - max): round(sqrt(exp(l - max)) x kOne). At the
// same size as half precision the state is 6 to 10 times nearer to float64's (docs/decisions/0013): half precision
// spends its bits on tiny weights and has 11 for the large ones, linear codes the other way round.
constexpr float kOne = 65535.0f;

struct AffinityRule {
  int neighbours;  // a multiple of 8
  bool paper;      // divisor sigma^2, otherwise 0.1 sigma
  bool unbiased;   // sample deviation with one centre per dilation, otherwise of the neighbours alone
  float eps;
};

struct SourceRule {
  bool tanh_twice;
  float cutoff;
  bool gaussian;
  float size;
  float amplitude;
};

// Which samples of a row one sample of a shorter row covers: `count` of them from `first`. Those at the ends count
// by the part that is covered (a single one by `first_part`), the others wholly.
struct Cover {
  int first, count;
  float first_part, last_part;
};

// The same of a row whose samples all count `samples` from `first`, those beyond what is covered by 0: of three or
// more, all but the first and the last two wholly; of two, the first and the last; of one, the first.
struct Share {
  int first;
  float first_part, before_last, last_part;
};

// One row at a time. `near` has, for each neighbour, the plane's value at that neighbour of the row's first
// pixel; whole blocks are read and written, so that planes are padded (planes.h).
struct Kernels {
  const char *name;

  // Codes (blocks, neighbours, kBlock), and 1 / the sum of their squares. The planes of the three colours lie
  // `plane` floats apart.
  void (*affinity_row)(const float *const *near, const float *centre, std::ptrdiff_t plane,
                       const AffinityRule &rule, int blocks, std::uint16_t *codes, float *inverse_sum);

  // One step of Eq. 7.
  void (*diffuse_row)(const float *const *near, int neighbours, const std::uint16_t *codes,
                      const float *inverse_sum, int blocks, float *out);

  // m of Eq. 6 where |m| > cutoff, otherwise 0. Reads `width` logits, writes whole blocks; whether the logits
  // are finite.
  bool (*source_row)(const float *logits, int width, const SourceRule &rule, float *out);

  // Adds amplitude (G_F - G_B), given the squared distances to the nearest click of each label.
  void (*add_clicks)(const float *positive, const float *negative, int blocks, const SourceRule &rule,
                     float *out);

  // y + m, or the logit it stands for. Reads and writes `width` values; out may be logits.
  void (*result_row)(const float *state, const float *logits, int width, bool tanh_twice, bool as_logits,
                     float *out);

  // The sum of the bytes of some rows, `stride` bytes apart, that one row covers; rows.first is not looked at.
  void (*sum_rows)(const std::uint8_t *first, std::ptrdiff_t stride, const Cover &rows, int length, float *out);

  // Grey levels in [0, 1] of `count` pixels, each the rounded mean of `samples` RGB pixels in a row of sums; `part`
  // is 1 / the area that a pixel covers. Reads one float beyond the samples.
  void (*mean_columns)(const float *sums, const Share *columns, int count, int samples, float part,
                       float *const *planes);

  // Between two rows: above + weight (below - above).
  void (*lerp_rows)(const float *above, const float *below, float weight, int count, float *out);

  // Between each value and the next of a row, one beyond which is read as well: value `low` + weight of the way.
  void (*lerp_columns)(const float *row, const std::int32_t *low, const float *weights, int count, float *out);

  // Each value goes min(share, shares) max(away, aways) of the way to the other one.
  void (*blend_row)(const float *other, float share, const float *shares, float away, const float *aways, int count,
                    float *values);

  // Which values of a row lie above a limit: 1, or 0.
  void (*above_row)(const float *values, int count, float limit, std::uint8_t *above);

  // 1 / (1 + exp(-x)).
  void (*sigmoid_row)(const float *logits, int count, float *out);
};

// The tables of the instruction sets that this library was built with.
const Kernels &portable_kernels();
#if defined(CLICKMASK_X86)
const Kernels &avx2_kernels();
const Kernels &avx512_kernels();
#elif defined(CLICKMASK_NEON)
const Kernels &neon_kernels();
#endif
