// clickmask_pixels.h against its definition in double precision, for each instruction set of this machine.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "clickmask_pixels.h"

namespace {

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  std::stringstream sets(clickmask_instruction_sets());
  for (std::string set; std::getline(sets, set, ',');) names.push_back(set);
  return names;
}

// The mean of one colour over the part of the picture that pixel (y, x) of the smaller one covers.
double area(const std::vector<std::uint8_t> &picture, int height, int width, int rows, int columns, int y, int x,
            int c) {
  const double down = static_cast<double>(height) / rows, across = static_cast<double>(width) / columns;
  double sum = 0;
  for (int r = 0; r < height; ++r)
    for (int k = 0; k < width; ++k) {
      const double tall = std::min((y + 1) * down, r + 1.0) - std::max(y * down, static_cast<double>(r));
      const double wide = std::min((x + 1) * across, k + 1.0) - std::max(x * across, static_cast<double>(k));
      if (tall > 0 && wide > 0) sum += tall * wide * picture[(r * width + k) * 3 + c];
    }
  return sum / (down * across);
}

bool shrinks(int height, int width, int rows, int columns, const std::string &set, int threads) {
  std::mt19937 random(5);
  std::vector<std::uint8_t> picture(3 * height * width);
  for (auto &level : picture) level = static_cast<std::uint8_t>(random());
  std::vector<float> planes(3 * rows * columns);
  if (clickmask_area_mean(picture.data(), 3 * width, height, width, rows, columns, threads, set.c_str(),
                          planes.data(), columns, rows * columns) != CLICKMASK_OK)
    return false;
  for (int c = 0; c < 3; ++c)
    for (int y = 0; y < rows; ++y)
      for (int x = 0; x < columns; ++x) {
        const double level = 255.0 * planes[(c * rows + y) * columns + x];
        const double expected = area(picture, height, width, rows, columns, y, x, c);
        if (std::fabs(level - expected) > 0.501 || std::fabs(level - std::round(level)) > 1e-4) return false;
      }
  return true;
}

double between(const std::vector<float> &values, int height, int width, double row, double column) {
  row = std::min(std::max(row, 0.0), height - 1.0), column = std::min(std::max(column, 0.0), width - 1.0);
  const int y = static_cast<int>(row), x = static_cast<int>(column);
  const int below = std::min(y + 1, height - 1), right = std::min(x + 1, width - 1);
  const double v = row - y, u = column - x;
  const double left_side = values[y * width + x] * (1 - v) + values[below * width + x] * v;
  const double right_side = values[y * width + right] * (1 - v) + values[below * width + right] * v;
  return left_side * (1 - u) + right_side * u;
}

bool paints(int height, int width, int tall, int wide) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  std::vector<float> values(height * width), padded(height * (width + 5), std::nanf(""));
  for (auto &value : values) value = normal(random);
  for (int y = 0; y < height; ++y)
    std::copy_n(values.data() + y * width, width, padded.data() + y * (width + 5));
  const float limit = 0.25f;
  const double row_step = static_cast<double>(height) / tall, column_step = static_cast<double>(width) / wide;
  const int stride = wide + 3;
  std::vector<std::uint8_t> mask(stride * tall, 0);
  int32_t found[5];
  const auto paint = [&](const clickmask_canvas &canvas, int threads) {
    clickmask_runs *runs = nullptr;
    const int status = clickmask_value_runs(padded.data(), width + 5, height, width, limit, row_step, column_step,
                                            0.5, tall, wide, threads, &canvas, found, &runs);
    clickmask_runs_free(runs);
    return status;
  };
  if (paint({mask.data(), stride, tall, wide, 0, 1, 0}, 1) != CLICKMASK_INVALID) return false;
  if (paint({mask.data(), stride, tall, wide, 0, 0, 0}, 3) != CLICKMASK_OK) return false;
  for (const bool margin : {true, false}) {  // over whatever was there; with bytes beyond the rows, which stay
    const int high = tall + 150, broad = wide + 2 * margin, pitch = broad + margin, top = 70, left = margin;
    std::vector<std::uint8_t> painted(pitch * high, 7);
    if (paint({painted.data(), pitch, high, broad, top, left, 1}, 3) != CLICKMASK_OK) return false;
    for (int y = 0; y < high; ++y)
      for (int x = 0; x < pitch; ++x) {
        const bool inside = y >= top && y < top + tall && x >= left && x < left + wide;
        const int now = x >= broad ? 7 : inside ? mask[(y - top) * stride + x - left] : 0;
        if (painted[y * pitch + x] != now) return false;
      }
  }
  int expected[] = {wide, tall, 0, 0};
  for (int y = 0; y < tall; ++y)
    for (int x = 0; x < stride; ++x) {
      const bool set_here = mask[y * stride + x] != 0;
      if (x >= wide && set_here) return false;
      if (set_here) {
        expected[0] = std::min(expected[0], x), expected[1] = std::min(expected[1], y);
        expected[2] = std::max(expected[2], x + 1), expected[3] = std::max(expected[3], y + 1);
      }
      if (x >= wide) continue;
      const double value =
          between(values, height, width, (y + 0.5) * row_step - 0.5, (x + 0.5) * column_step - 0.5);
      if (std::fabs(value - limit) > 1e-5 && set_here != (value > limit)) return false;
    }
  if (expected[2] == 0) expected[0] = expected[1] = 0;
  return std::equal(found, found + 4, expected);
}

// Fills outlines by counting the upright edges to the left of each pixel.
bool outlines_fill_back(int height, int width, double share) {
  std::mt19937 random(7);
  std::vector<std::uint8_t> mask(height * width);
  for (auto &pixel : mask) pixel = std::bernoulli_distribution(share)(random);
  int32_t found[5], counts[2];
  clickmask_runs *runs = nullptr;
  if (clickmask_mask_runs(mask.data(), width, height, width, 3, found, &runs) != CLICKMASK_OK) return false;
  const int most = found[4], left = 5, top = 3;
  std::vector<int32_t> corners(2 * most + 1), ends(most / 4 + 1), owners(most / 4 + 1);
  const int status = clickmask_outlines(runs, left, top, corners.data(), ends.data(), owners.data(), counts);
  clickmask_runs_free(runs);
  if (status != CLICKMASK_OK || counts[0] > most || counts[1] > most / 4) return false;
  for (int k = 0; k < counts[0]; ++k) corners[2 * k] -= left, corners[2 * k + 1] -= top;
  std::vector<int> crossings(height * (width + 1));
  int begin = 0;
  for (int i = 0; i < counts[1]; begin = ends[i], ++i)
    for (int k = begin; k < ends[i]; ++k) {
      const int32_t *from = &corners[2 * k], *to = &corners[2 * (k + 1 < ends[i] ? k + 1 : begin)];
      if ((from[0] == to[0]) == (from[1] == to[1])) return false;
      for (int y = std::min(from[1], to[1]); y < std::max(from[1], to[1]); ++y)
        crossings[y * (width + 1) + from[0]] += 1;
    }
  for (int y = 0; y < height; ++y)
    for (int x = 0, count = 0; x < width; ++x) {
      count += crossings[y * (width + 1) + x];
      if (count % 2 != mask[y * width + x]) return false;
    }
  return (counts[1] == 0 ? 0 : ends[counts[1] - 1]) == counts[0];
}

bool sigmoid_is_right() {
  std::vector<float> logits, result;
  for (float x = -40; x <= 40; x += 0.37f) logits.push_back(x);
  result.resize(logits.size());
  const int columns = static_cast<int>(logits.size()) / 2;  // two rows, as everywhere of some stride
  if (clickmask_sigmoid(logits.data(), columns, 2, columns, result.data(), columns) != CLICKMASK_OK) return false;
  logits.resize(2 * columns);
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (std::fabs(result[i] - 1 / (1 + std::exp(-static_cast<double>(logits[i])))) > 2e-7) return false;
  return true;
}

bool blends(const std::string &set) {
  const int rows = 7, columns = 37, stride = 40;
  std::mt19937 random(8);
  std::uniform_real_distribution<float> share(0, 1), value(-9, 9);
  std::vector<float> values(stride * rows), other(columns * rows), row(2 * rows), column(2 * columns);
  for (auto *levels : {&values, &other}) for (auto &level : *levels) level = value(random);
  for (auto *shares : {&row, &column}) for (auto &one : *shares) one = share(random);
  std::vector<float> blended = values;
  if (clickmask_blend(blended.data(), stride, other.data(), columns, rows, columns, row.data(), column.data(),
                      row.data() + rows, column.data() + columns, set.c_str()) != CLICKMASK_OK)
    return false;
  for (int y = 0; y < rows; ++y)
    for (int x = 0; x < stride; ++x) {
      const double own = values[y * stride + x];
      double expected = own;
      if (x < columns)
        expected += static_cast<double>(std::min(row[y], column[x])) *
                    std::max(row[rows + y], column[columns + x]) * (other[y * columns + x] - own);
      if (std::fabs(blended[y * stride + x] - expected) > 1e-5) return false;
    }
  return true;
}

bool refuses_what_it_cannot_do() {
  const std::uint8_t pixels[12] = {};
  float plane[12] = {};
  int32_t found[5];
  clickmask_runs *runs = nullptr;
  return clickmask_area_mean(pixels, 6, 2, 2, 3, 2, 1, nullptr, plane, 2, 4) == CLICKMASK_INVALID &&
         clickmask_area_mean(pixels, 6, 2, 2, 1, 1, 1, "none", plane, 2, 4) == CLICKMASK_UNSUPPORTED &&
         clickmask_value_runs(plane, 1, 1, 1, 0, std::nan(""), 1, 0, 1, 1, 1, nullptr, found, nullptr) == CLICKMASK_INVALID &&
         clickmask_mask_runs(pixels, 2, 0, 2, 1, found, &runs) == CLICKMASK_INVALID &&
         clickmask_blend(plane, 1, plane, 1, 1, 1, plane, plane, plane, nullptr, nullptr) == CLICKMASK_INVALID &&
         clickmask_outlines(nullptr, 0, 0, found, found, found, found) == CLICKMASK_INVALID;
}

}  // namespace

int main() {
  bool right = refuses_what_it_cannot_do() && sigmoid_is_right();
  const int sizes[][4] = {{40, 70, 17, 31}, {33, 31, 33, 7}, {50, 1, 9, 1}, {1, 67, 1, 67}, {64, 48, 32, 24}, {50, 120, 5, 9}};
  for (const std::string &set : instruction_sets())
    for (const auto &s : sizes)
      for (int threads : {1, 3}) {
        const bool same = shrinks(s[0], s[1], s[2], s[3], set, threads);
        std::printf("%-10s %d x %d, %d threads: %s\n", set.c_str(), s[0], s[1], threads, same ? "same" : "DIFFERENT");
        right = right && same;
      }
  for (const std::string &set : instruction_sets()) right = blends(set) && right;
  for (const auto &s : sizes)
    right = paints(s[2], s[3], s[0], s[1]) && paints(s[0], s[1], s[2], s[3]) && paints(s[2], s[3], 900, 700) && right;
  for (const auto &s : sizes)
    for (double share : {0.0, 0.05, 0.5, 0.95, 1.0}) right = outlines_fill_back(s[0], s[1], share) && right;
  std::puts(right ? "passed" : "FAILED");
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}
