// Memory that is used again: fresh pages cost as much as what is done with them.
#pragma once

#include <cstddef>
#include <memory>

#include "planes.h"

// One buffer of each type waits for the next that has `count` to `most` values.
template <typename T>
class Scratch {
 public:
  Scratch(std::size_t count, std::size_t most);
  ~Scratch();
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;

  T *data() const { return buffer_->data(); }
  std::size_t bytes() const { return buffer_->bytes(); }

 private:
  std::unique_ptr<Buffer<T>> buffer_;
};
