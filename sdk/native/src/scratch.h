// Working memory of one call, which the next one finds warm.
#pragma once

#include <cstddef>
#include <memory>

#include "planes.h"

class Scratch {
 public:
  explicit Scratch(std::size_t count);
  ~Scratch();
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;

  float *data() const { return buffer_->data(); }

 private:
  std::unique_ptr<Buffer<float>> buffer_;
};
