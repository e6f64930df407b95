// The C interface: checks arguments, turns exceptions into codes.
#include <new>

#include "dispatch.h"
#include "options.h"
#include "pixel_diffusion.h"
#include "threads.h"

struct clickmask_affinity {
  Affinity affinity;
};

namespace {

int threads_or_all(int threads) { return threads > 0 ? threads : usable_cores(); }

}  // namespace

int clickmask_abi(void) { return CLICKMASK_ABI; }

int clickmask_threads(void) { return usable_cores(); }

const char *clickmask_instruction_sets(void) { return usable_kernels().c_str(); }

int clickmask_affinity_create(const clickmask_diffusion_options *options, const float *image, int height,
                              int width, int threads, const char *instruction_set,
                              clickmask_affinity **affinity) {
  if (options == nullptr || image == nullptr || affinity == nullptr) return CLICKMASK_INVALID;
  if (!is_size(height, width)) return CLICKMASK_INVALID;
  const Kernels *kernels = find_kernels(instruction_set);
  if (kernels == nullptr || !is_supported(*options)) return CLICKMASK_UNSUPPORTED;
  try {
    *affinity = new clickmask_affinity{{*options, *kernels, image, height, width, threads_or_all(threads)}};
    return CLICKMASK_OK;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}

int clickmask_diffuse(clickmask_affinity *affinity, const float *logits, const float *clicks, int click_count,
                      int threads, float *result) {
  const bool clicks_given = click_count == 0 || (click_count > 0 && clicks != nullptr);
  if (affinity == nullptr || logits == nullptr || result == nullptr || !clicks_given) return CLICKMASK_INVALID;
  try {
    affinity->affinity.diffuse(logits, clicks, click_count, threads_or_all(threads), result);
    return CLICKMASK_OK;
  } catch (const std::bad_alloc &) {
    return CLICKMASK_OUT_OF_MEMORY;
  }
}

size_t clickmask_affinity_bytes(const clickmask_affinity *affinity) { return affinity->affinity.bytes(); }

void clickmask_affinity_free(clickmask_affinity *affinity) { delete affinity; }
