// clickmask_native_cuda.h on the processor, for the tests: most machines that build this have no GPU.
#include "diffusion_weights.h"

namespace {

template <class Element>
void for_each(Grid grid, const Element &element) {
  for (int y = 0; y < grid.height; ++y)
    for (int x = 0; x < grid.width; ++x) element(y, x, y * grid.width + x);
}

void weigh_all(const Options &o, Grid grid, const float *image, Weights weights, void *) {
  for_each(grid, [&](int y, int x, int here) {
    weights.inverse_sum[here] = pixel::weigh(o, grid, image, y, x, weights.codes);
  });
}

void begin_all(const Options &o, Grid grid, const float *logits, const float *clicks, int click_count, float *state,
               void *) {
  for_each(grid, [&](int y, int x, int here) {
    state[here] = pixel::source(o, logits[here], clicks, click_count, y, x);
  });
}

void step_all(const Options &o, Grid grid, Weights weights, const float *from, const float *logits, float *to,
              void *) {
  for_each(grid, [&](int y, int x, int here) {
    const float state = pixel::step(o, grid, weights.codes, weights.inverse_sum, from, y, x);
    to[here] = logits == nullptr ? state : pixel::result(o, state, logits[here]);
  });
}

int launched() { return CLICKMASK_OK; }

}  // namespace

#include "diffusion_calls.h"
