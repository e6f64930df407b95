#include "scratch.h"

#include <mutex>
#include <utility>

namespace {

// One buffer waits for the next call, the newest; calls at once beyond it make their own. Never destroyed: a call
// may be running when the process ends.
std::mutex mutex;
auto &idle = *new std::unique_ptr<Buffer<float>>;

}  // namespace

Scratch::Scratch(std::size_t count) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    buffer_ = std::move(idle);
  }
  if (buffer_ == nullptr || buffer_->bytes() < count * sizeof(float)) {
    buffer_.reset();
    buffer_ = std::make_unique<Buffer<float>>(count);
  }
}

Scratch::~Scratch() {
  std::lock_guard<std::mutex> lock(mutex);
  idle.swap(buffer_);
}
