/* Fused Pixel Diffusion (CDNet, Eq. 5-8) on the CPU: the C interface of libclickmask_native.
 *
 * Planes are float32, row-major and contiguous. Calls are safe from any thread, also on one affinity.
 * Each option is PixelDiffusionConfig's of the same name (models/clickmask_models/pixel_diffusion.py).
 */
#ifndef CLICKMASK_NATIVE_H
#define CLICKMASK_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define CLICKMASK_API __declspec(dllexport)
#else
#define CLICKMASK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a struct or a signature below changes; the binding refuses any other. */
#define CLICKMASK_ABI 7

#define CLICKMASK_MAX_DILATIONS 8
#define CLICKMASK_MAX_DISTANCE 128 /* pixels, of one dilation */

enum clickmask_click_map { CLICKMASK_DISK = 0, CLICKMASK_GAUSSIAN = 1 };
enum clickmask_norm { CLICKMASK_TANH_HALF = 0, CLICKMASK_TANH_TWICE = 1 };
enum clickmask_affinity_form { CLICKMASK_PAPER = 0, CLICKMASK_OFFICIAL = 1 };
enum clickmask_deviation { CLICKMASK_UNBIASED_36 = 0, CLICKMASK_BIASED_32 = 1 };
enum clickmask_output { CLICKMASK_LOGITS = 0, CLICKMASK_STATE = 1 };

typedef struct clickmask_diffusion_options {
  int32_t iterations;
  int32_t dilation_count;
  int32_t dilations[CLICKMASK_MAX_DILATIONS];
  float amplitude;
  int32_t click_map;
  float click_map_size; /* pixels: radius of the disk, sigma of the Gaussian */
  float cutoff;         /* negative: every pixel is a source */
  int32_t norm;
  int32_t affinity;
  int32_t deviation;
  float eps;
  int32_t output;
} clickmask_diffusion_options;

enum clickmask_status {
  CLICKMASK_OK = 0,
  CLICKMASK_INVALID = 1,       /* a null pointer, a side or a count that is not positive, or a side too large */
  CLICKMASK_UNSUPPORTED = 2,   /* options or instruction set that this library does not have */
  CLICKMASK_OUT_OF_MEMORY = 3,
  CLICKMASK_NOT_FINITE = 4,    /* a logit is NaN or infinite */
};

typedef struct clickmask_affinity clickmask_affinity;

CLICKMASK_API int clickmask_abi(void);

/* Cores that this process may use: what `threads = 0` means. */
CLICKMASK_API int clickmask_threads(void);

/* Instruction sets that this library has and this machine runs, best first: "avx512,avx2,portable". */
CLICKMASK_API const char *clickmask_instruction_sets(void);

/* The weights of one crop.
 *
 * image: (3, height, width) RGB in [0, 1], finite; only read during the call.
 * instruction_set: one of the above, or NULL for the best.
 */
CLICKMASK_API int clickmask_affinity_create(const clickmask_diffusion_options *options, const float *image,
                                            int height, int width, int threads,
                                            const char *instruction_set, clickmask_affinity **affinity);

/* Refines logits.
 *
 * logits, result: (height, width); may be the same plane. Where a logit is not finite the result is worth nothing.
 * clicks: (click_count, 3) rows (x, y, label); label 1 positive, 0 negative, else absent.
 */
CLICKMASK_API int clickmask_diffuse(clickmask_affinity *affinity, const float *logits, const float *clicks,
                                    int click_count, int threads, float *result);

/* Memory that the affinity holds. */
CLICKMASK_API size_t clickmask_affinity_bytes(const clickmask_affinity *affinity);

/* No call on it may be running; NULL is allowed. */
CLICKMASK_API void clickmask_affinity_free(clickmask_affinity *affinity);

#ifdef __cplusplus
}
#endif
#endif
