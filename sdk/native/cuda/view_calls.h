// The functions of clickmask_view_pixels.h. Whoever includes this has declared
//   template <class Element> int for_each(int height, int width, const Element &element, void *stream);
// which calls element(y, x) everywhere and returns a status.
#pragma once

#include <initializer_list>

#include "view_pixels.h"

namespace {

bool in_range(int low, std::initializer_list<int> values, int high) {
  for (int value : values)
    if (value < low || value > high) return false;
  return true;
}

bool is_view(const clickmask_view *v) {
  return v != nullptr && in_range(1, {v->width, v->height}, CLICKMASK_MAX_SIDE) &&
         in_range(1, {v->size}, CLICKMASK_MAX_SIZE) && in_range(1, {v->valid_width, v->valid_height}, v->size) &&
         in_range(0, {v->coordinates}, 1) && in_range(0, {v->x0, v->y0}, CLICKMASK_MAX_SIDE);
}

bool lies_in(const clickmask_view &v, int height, int width) {
  return in_range(1, {height, width}, CLICKMASK_MAX_SIDE) && v.x0 + v.width <= width && v.y0 + v.height <= height;
}

bool are_samples(const clickmask_samples *s, int old_size, int size) {
  return s != nullptr && in_range(0, {s->first}, s->last) && in_range(0, {s->last}, size) &&
         in_range(1, {s->pixels}, old_size) && in_range(1, {s->cells}, s->pixels);
}

}  // namespace

int clickmask_view_abi(void) { return CLICKMASK_VIEW_ABI; }

int clickmask_view_crop(const clickmask_view *view, const clickmask_image *image, const float *pad, float *out,
                        void *stream) {
  if (!is_view(view) || image == nullptr || image->pixels == nullptr || pad == nullptr || out == nullptr ||
      !lies_in(*view, image->height, image->width))
    return CLICKMASK_INVALID;
  return for_each(view->size, view->size, view_pixels::Crop{*view, *image, {pad[0], pad[1], pad[2]}, out}, stream);
}

int clickmask_view_paste(const clickmask_view *view, const float *logits, float limit, int image_height,
                         int image_width, uint8_t *mask, void *stream) {
  if (!is_view(view) || logits == nullptr || mask == nullptr || !lies_in(*view, image_height, image_width))
    return CLICKMASK_INVALID;
  return for_each(image_height, image_width, view_pixels::Paste{*view, logits, limit, image_width, mask}, stream);
}

int clickmask_view_bits(const clickmask_view *view, const float *logits, float limit, uint8_t *bits, void *stream) {
  if (!is_view(view) || logits == nullptr || bits == nullptr) return CLICKMASK_INVALID;
  const int bytes = (view->width + 7) / 8;
  return for_each(view->height, bytes, view_pixels::Bits{{*view, logits, limit, 0, nullptr}, bytes, bits}, stream);
}

int clickmask_view_previous(const float *logits, int old_size, const clickmask_samples *down,
                            const clickmask_samples *across, float *scratch, float *out, int size, void *stream) {
  if (!in_range(1, {old_size, size}, CLICKMASK_MAX_SIZE) || !are_samples(down, old_size, size) ||
      !are_samples(across, old_size, size) || out == nullptr)
    return CLICKMASK_INVALID;
  if (down->first < down->last && across->first < across->last) {
    if (logits == nullptr || scratch == nullptr) return CLICKMASK_INVALID;
    const int status = for_each(down->pixels, across->last - across->first,
                                view_pixels::AlongRows<view_pixels::Probabilities>{{logits, old_size}, *across, scratch},
                                stream);
    if (status != CLICKMASK_OK) return status;
  }
  return for_each(size, size, view_pixels::DownColumns{scratch, *down, *across, size, out}, stream);
}

int clickmask_view_blend(const float *logits, int size, int valid_height, int valid_width, const float *other,
                         int other_size, const clickmask_samples *down, const clickmask_samples *across,
                         const clickmask_blending *blending, float *scratch, float *out, void *stream) {
  if (!in_range(1, {size, other_size}, CLICKMASK_MAX_SIZE) || !are_samples(down, other_size, valid_height) ||
      !are_samples(across, other_size, valid_width) || !in_range(1, {valid_height, valid_width}, size) ||
      logits == nullptr || other == nullptr || blending == nullptr || scratch == nullptr || out == nullptr)
    return CLICKMASK_INVALID;
  using view_pixels::AlongRows;
  const AlongRows<view_pixels::Logits> along{{other, other_size}, *across, scratch};
  const int columns = across->last - across->first;
  const int status = columns > 0 ? for_each(down->pixels, columns, along, stream) : CLICKMASK_OK;
  if (status != CLICKMASK_OK) return status;
  return for_each(
      size, size,
      view_pixels::Blend{logits, scratch, *down, *across, valid_height, valid_width, size, *blending, out}, stream);
}

int clickmask_find_not_finite(const float *values, int rows, int columns, int32_t *found, void *stream) {
  if (values == nullptr || found == nullptr || rows < 1 || columns < 1) return CLICKMASK_INVALID;
  return for_each(rows, columns, view_pixels::FindNotFinite{values, columns, found}, stream);
}
