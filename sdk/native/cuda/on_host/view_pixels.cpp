// clickmask_view_pixels.h on the processor, for the tests: most machines that build this have no GPU.
#include "view_pixels.h"

namespace {

template <class Element>
int for_each(int height, int width, const Element &element, void *) {
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x) element(y, x);
  return CLICKMASK_OK;
}

}  // namespace

#include "view_calls.h"
