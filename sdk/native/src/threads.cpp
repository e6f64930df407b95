#include "threads.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace {

constexpr int kMaxThreads = 64;
constexpr int kSpins = 64;  // before a waiting thread offers its core to others

class Helpers {
 public:
  void run(int threads, const std::function<void()> &work) {
    std::unique_lock<std::mutex> owner(in_use_, std::try_to_lock);
    if (threads < 2 || !owner.owns_lock()) return work();  // another call has the helpers: cores are busy
    open(threads - 1, work);
    work();
    close();
  }

 private:
  void open(int wanted, const std::function<void()> &work) {
    std::lock_guard<std::mutex> lock(mutex_);
    grow(wanted);
    work_ = &work;
    places_ = std::min(wanted, helpers_);
    wake_.notify_all();
  }

  // Late helpers find no work; those inside are waited for.
  void close() {
    std::unique_lock<std::mutex> lock(mutex_);
    places_ = 0;
    left_.wait(lock, [this] { return inside_ == 0; });
    work_ = nullptr;
  }

  void grow(int wanted) {
    try {
      for (; helpers_ < wanted; ++helpers_) std::thread([this] { help(); }).detach();
    } catch (const std::system_error &) {  // no more threads: those there are do it
    }
  }

  [[noreturn]] void help() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return places_ > 0; });
      --places_;
      ++inside_;
      const std::function<void()> &work = *work_;
      lock.unlock();
      work();
      lock.lock();
      if (--inside_ == 0) left_.notify_one();
    }
  }

  std::mutex in_use_;
  std::mutex mutex_;  // of all below
  std::condition_variable wake_, left_;
  const std::function<void()> *work_ = nullptr;
  int helpers_ = 0, places_ = 0, inside_ = 0;
};

// Never destroyed: helpers sleep in it until the process ends. A forked child has none of its parent's threads
// and begins with new ones.
std::atomic<Helpers *> helpers{nullptr};

void forget_helpers() { helpers.store(new Helpers); }

Helpers &the_helpers() {
  static const bool made = [] {
    forget_helpers();
#if defined(__unix__) || defined(__APPLE__)
    pthread_atfork(nullptr, nullptr, forget_helpers);
#endif
    return true;
  }();
  (void)made;
  return *helpers.load();
}

}  // namespace

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void run_on_threads(int threads, const std::function<void()> &work) {
  the_helpers().run(std::min(threads, kMaxThreads), work);
}

Wave::Wave(int stages, int chunks) : chunks_(chunks), stages_done_(new std::atomic<int>[chunks]) {
  order_.reserve(static_cast<std::size_t>(stages) * chunks);
  for (int step = 0; step < chunks + 2 * (stages - 1); ++step)
    for (int stage = 0; stage < stages; ++stage) {
      const int chunk = step - 2 * stage;
      if (chunk >= 0 && chunk < chunks) order_.emplace_back(stage, chunk);
    }
  for (int c = 0; c < chunks; ++c) stages_done_[c].store(0, std::memory_order_relaxed);
}

void Wave::run(int threads, const std::function<void(int, int)> &item) {
  run_on_threads(threads, [&] {
    for (;;) {
      const std::size_t index = next_.fetch_add(1);
      if (index >= order_.size()) return;
      const auto [stage, chunk] = order_[index];
      for (int c = std::max(0, chunk - 1); c <= std::min(chunks_ - 1, chunk + 1); ++c) wait_until(c, stage);
      item(stage, chunk);
      stages_done_[chunk].store(stage + 1, std::memory_order_release);
    }
  });
}

void Wave::wait_until(int chunk, int stage) const {
  for (int tries = 0; stages_done_[chunk].load(std::memory_order_acquire) < stage; ++tries)
    if (tries >= kSpins) std::this_thread::yield();
}
