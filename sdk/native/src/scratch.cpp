#include "scratch.h"

#include <atomic>
#include <cstdint>

namespace {

// The newest, also of calls at once. Never destroyed: a call may be running when the process ends. No lock: a fork
// would copy it held.
template <typename T>
std::atomic<Buffer<T> *> idle{nullptr};

}  // namespace

template <typename T>
Scratch<T>::Scratch(std::size_t count, std::size_t most) : buffer_(idle<T>.exchange(nullptr)) {
  if (buffer_ != nullptr && buffer_->bytes() >= count * sizeof(T) && buffer_->bytes() / sizeof(T) <= most) return;
  buffer_.reset();
  buffer_ = std::make_unique<Buffer<T>>(count);
}

template <typename T>
Scratch<T>::~Scratch() {
  buffer_.reset(idle<T>.exchange(buffer_.release()));
}

template class Scratch<float>;          // the planes of a call
template class Scratch<std::uint16_t>;  // the weights of a crop
