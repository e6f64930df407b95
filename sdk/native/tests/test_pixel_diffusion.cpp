// The library against a plain double-precision Pixel Diffusion, for each instruction set of this machine.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "clickmask_native.h"
#include "pixel.h"

namespace {

using Plane = std::vector<double>;

struct Scene {
  std::string name;
  int height, width;
  std::vector<float> image, logits, clicks;
};

struct Reference {
  const Scene &scene;
  const clickmask_diffusion_options &o;
  std::vector<int> dx, dy;

  Reference(const Scene &s, const clickmask_diffusion_options &options) : scene(s), o(options) {
    for (int i = 0; i < o.dilation_count; ++i)
      for (int y = -1; y <= 1; ++y)
        for (int x = -1; x <= 1; ++x)
          if (x != 0 || y != 0) {
            dx.push_back(x * o.dilations[i]);
            dy.push_back(y * o.dilations[i]);
          }
  }

  template <typename T>
  double at(const T *plane, int y, int x) const {
    y = std::min(std::max(y, 0), scene.height - 1);
    x = std::min(std::max(x, 0), scene.width - 1);
    return plane[static_cast<std::size_t>(y) * scene.width + x];
  }

  double divisor(const float *colour, int y, int x) const {
    std::vector<double> samples;
    for (std::size_t k = 0; k < dx.size(); ++k) samples.push_back(at(colour, y + dy[k], x + dx[k]));
    const bool unbiased = o.deviation == CLICKMASK_UNBIASED_36;
    if (unbiased) samples.insert(samples.end(), o.dilation_count, at(colour, y, x));
    double mean = 0, squares = 0;
    for (double s : samples) mean += s / samples.size();
    for (double s : samples) squares += (s - mean) * (s - mean);
    const double variance = squares / (samples.size() - (unbiased ? 1 : 0));
    return std::max<double>(o.affinity == CLICKMASK_PAPER ? variance : 0.1 * std::sqrt(variance), o.eps);
  }

  Plane weights(int y, int x) const {
    Plane l(dx.size(), 0.0);
    for (int c = 0; c < 3; ++c) {
      const float *colour = scene.image.data() + static_cast<std::size_t>(c) * scene.height * scene.width;
      const double d = 3 * divisor(colour, y, x);
      for (std::size_t k = 0; k < l.size(); ++k)
        l[k] -= std::fabs(at(colour, y + dy[k], x + dx[k]) - at(colour, y, x)) / d;
    }
    double peak = l[0], sum = 0;
    for (double v : l) peak = std::max(peak, v);
    for (double &v : l) sum += v = std::exp(v - peak);
    for (double &v : l) v /= sum;
    return l;
  }

  double click_map(int y, int x, float label) const {
    double most = 0;
    for (std::size_t i = 0; i + 2 < scene.clicks.size(); i += 3) {
      if (scene.clicks[i + 2] != label) continue;
      const double squared = std::pow(x - scene.clicks[i], 2) + std::pow(y - scene.clicks[i + 1], 2);
      const double size2 = o.click_map_size * o.click_map_size;
      const bool disk = o.click_map == CLICKMASK_DISK;
      most = std::max(most, disk ? static_cast<double>(squared <= size2) : std::exp(-squared / (2 * size2)));
    }
    return most;
  }

  double m(int y, int x) const {
    const double raw = at(scene.logits.data(), y, x);
    return o.norm == CLICKMASK_TANH_HALF ? std::tanh(raw / 2) : 2 * std::tanh(raw);
  }

  Plane state() const {
    Plane from, to(static_cast<std::size_t>(scene.height) * scene.width);
    std::vector<Plane> w;
    for (int y = 0; y < scene.height; ++y)
      for (int x = 0; x < scene.width; ++x) {
        const double source = std::fabs(m(y, x)) > o.cutoff ? m(y, x) : 0.0;
        from.push_back(source + o.amplitude * (click_map(y, x, 1) - click_map(y, x, 0)));
        w.push_back(weights(y, x));
      }
    for (int i = 0; i < o.iterations; ++i, from.swap(to))
      for (std::size_t p = 0; p < to.size(); ++p) {
        const int y = static_cast<int>(p) / scene.width, x = static_cast<int>(p) % scene.width;
        to[p] = 0;
        for (std::size_t k = 0; k < dx.size(); ++k) to[p] += w[p][k] * at(from.data(), y + dy[k], x + dx[k]);
      }
    for (std::size_t p = 0; p < from.size(); ++p)
      from[p] += m(static_cast<int>(p) / scene.width, static_cast<int>(p) % scene.width);
    return from;
  }
};

Scene make_scene(const char *name, int height, int width, float contrast) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> level(0, 255);
  std::normal_distribution<float> normal;
  Scene scene{name, height, width, {}, {}, {}};
  for (int i = 0; i < 3 * height * width; ++i) scene.image.push_back(0.3f + contrast * level(random) / 255.0f);
  for (int i = 0; i < height * width; ++i) scene.logits.push_back(3 * normal(random));
  scene.clicks = {width / 2.0f, height / 3.0f, 1, 2, height - 2.0f, 0, 9.5f, 1.25f, 1, -1, -1, -1};
  return scene;
}

clickmask_diffusion_options paper() {
  return {10, 4, {1, 2, 4, 8}, 1.0f, CLICKMASK_GAUSSIAN, 10.0f, -1.0f, CLICKMASK_TANH_HALF,
          CLICKMASK_PAPER, CLICKMASK_UNBIASED_36, 1e-4f, CLICKMASK_STATE};
}

clickmask_diffusion_options official() {
  return {5, 4, {1, 2, 4, 8}, 10.0f, CLICKMASK_DISK, 5.0f, 0.25f, CLICKMASK_TANH_HALF,
          CLICKMASK_OFFICIAL, CLICKMASK_UNBIASED_36, 1e-5f, CLICKMASK_STATE};
}

clickmask_diffusion_options unusual() {
  clickmask_diffusion_options o = paper();
  o.iterations = 3, o.dilation_count = 2, o.dilations[0] = 3, o.dilations[1] = 21;
  o.norm = CLICKMASK_TANH_TWICE, o.affinity = CLICKMASK_OFFICIAL, o.deviation = CLICKMASK_BIASED_32;
  return o;
}

using Run = bool (*)(const Scene &, const clickmask_diffusion_options &, const std::string &, int, float *);

bool run_library(const Scene &scene, const clickmask_diffusion_options &o, const std::string &set, int threads,
                 float *result) {
  clickmask_affinity *affinity = nullptr;
  if (clickmask_affinity_create(&o, scene.image.data(), scene.height, scene.width, threads, set.c_str(),
                                &affinity) != CLICKMASK_OK)
    return false;
  const int clicks = static_cast<int>(scene.clicks.size() / 3);
  const int status =
      clickmask_diffuse(affinity, scene.logits.data(), scene.clicks.data(), clicks, threads, result);
  clickmask_affinity_free(affinity);
  return status == CLICKMASK_OK;
}

// What the threads of a GPU do, one after the other.
bool run_cuda_twin(const Scene &scene, const clickmask_diffusion_options &o, const std::string &, int,
                   float *result) {
  const pixel::Grid grid{scene.height, scene.width};
  const int count = scene.height * scene.width, clicks = static_cast<int>(scene.clicks.size() / 3);
  std::vector<std::uint16_t> codes(static_cast<std::size_t>(count) * 8 * o.dilation_count);
  std::vector<float> sums(count), from(count), to(count);
  for (int p = 0; p < count; ++p) {
    const int y = p / scene.width, x = p % scene.width;
    sums[p] = pixel::weigh(o, grid, scene.image.data(), y, x, codes.data());
    from[p] = pixel::source(o, scene.logits[p], scene.clicks.data(), clicks, y, x);
  }
  for (int i = 0; i < o.iterations; ++i, from.swap(to))
    for (int p = 0; p < count; ++p)
      to[p] = pixel::step(o, grid, codes.data(), sums.data(), from.data(), p / scene.width, p % scene.width);
  for (int p = 0; p < count; ++p) result[p] = pixel::result(o, from[p], scene.logits[p]);
  return true;
}

// Logits are compared as the confidences in [-1, 1] that they stand for: half of the sum of two states (Eq. 6),
// undone by the normalisation's own inverse. The bound is absolute, also where clicks lift the state to 12.
bool agrees(Run run, const Scene &scene, const clickmask_diffusion_options &o, const std::string &set,
            int threads) {
  std::vector<float> got(scene.logits.size());
  if (!run(scene, o, set, threads, got.data())) return false;
  const Plane expected = Reference(scene, o).state();
  const bool logits = o.output == CLICKMASK_LOGITS, half = o.norm == CLICKMASK_TANH_HALF;
  double error = 0;
  for (std::size_t p = 0; p < got.size(); ++p) {
    const double found = logits ? std::tanh(half ? 0.5 * got[p] : 1.0 * got[p]) : got[p];
    const double wanted = logits ? std::min(std::max(expected[p] * (half ? 0.5 : 0.25), -1.0), 1.0) : expected[p];
    if (!(std::fabs(found - wanted) <= error)) error = std::fabs(found - wanted);  // and so NaN
  }
  std::printf("%-10s %-14s %s %d threads: %.1e\n", set.c_str(), scene.name.c_str(), logits ? "logits" : "state ",
              threads, error);
  return error <= 2e-4;
}

// NaN and infinity anywhere in the logits, also in the part of a row that fills no vector.
bool notices_what_is_not_finite(const Scene &scene, const clickmask_diffusion_options &o, const std::string &set) {
  for (std::size_t at : {std::size_t{0}, scene.logits.size() / 2, scene.logits.size() - 1})
    for (float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      Scene broken = scene;
      broken.logits[at] = value;
      clickmask_affinity *affinity = nullptr;
      if (clickmask_affinity_create(&o, scene.image.data(), scene.height, scene.width, 2, set.c_str(), &affinity) !=
          CLICKMASK_OK)
        return false;
      std::vector<float> result(scene.logits.size());
      const int status = clickmask_diffuse(affinity, broken.logits.data(), nullptr, 0, 2, result.data());
      clickmask_affinity_free(affinity);
      if (status != CLICKMASK_NOT_FINITE) return false;
    }
  return true;
}

bool refuses_what_it_cannot_do() {
  clickmask_affinity *affinity = nullptr;
  const float image[3] = {};
  clickmask_diffusion_options many = paper(), none = paper();
  many.dilation_count = CLICKMASK_MAX_DILATIONS + 1;
  none.dilations[0] = 0;
  return clickmask_affinity_create(&many, image, 1, 1, 1, nullptr, &affinity) == CLICKMASK_UNSUPPORTED &&
         clickmask_affinity_create(&none, image, 1, 1, 1, nullptr, &affinity) == CLICKMASK_UNSUPPORTED &&
         clickmask_affinity_create(&none, image, 0, 1, 1, nullptr, &affinity) == CLICKMASK_INVALID &&
         clickmask_diffuse(nullptr, image, image, 0, 1, nullptr) == CLICKMASK_INVALID;
}

}  // namespace

int main() {
  const Scene scenes[] = {make_scene("textured", 40, 70, 0.7f), make_scene("flat", 33, 31, 0.0f),
                          make_scene("one column", 50, 1, 0.5f), make_scene("one row", 1, 67, 0.5f)};
  bool right = refuses_what_it_cannot_do();
  for (const Scene &scene : scenes)
    for (auto options : {paper(), official(), unusual()})
      for (int output : {CLICKMASK_STATE, CLICKMASK_LOGITS}) {
        options.output = output;
        std::stringstream sets(clickmask_instruction_sets());
        for (std::string set; std::getline(sets, set, ',');) {
          for (int threads : {1, 3}) right = agrees(run_library, scene, options, set, threads) && right;
          right = notices_what_is_not_finite(scene, options, set) && right;
        }
        right = agrees(run_cuda_twin, scene, options, "cuda twin", 1) && right;
      }
  std::puts(right ? "passed" : "FAILED");
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
