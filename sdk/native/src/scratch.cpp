#include "scratch.h"

#include <atomic>

namespace {

// One buffer waits for the next call, the newest; calls at once beyond it make their own. Never destroyed: a call
// may be running when the process ends. No lock: a fork would copy it held.
std::atomic<Buffer<float> *> idle{nullptr};

}  // namespace

Scratch::Scratch(std::size_t count) : buffer_(idle.exchange(nullptr)) {
  if (buffer_ == nullptr || buffer_->bytes() < count * sizeof(float)) {
    buffer_.reset();
    buffer_ = std::make_unique<Buffer<float>>(count);
  }
}

Scratch::~Scratch() { buffer_.reset(idle.exchange(buffer_.release())); }
