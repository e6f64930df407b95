// Threads of our own, and the order in which they do the stages of a plane.
//
// Not OpenMP: its threads go on spinning after a parallel region, beside ONNX Runtime's on the same cores; its
// library would have to ship in the wheel beside torch's; and its static schedules wait for whichever thread was
// interrupted. docs/decisions/0013 has the figures.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

// Cores that this process may use.
int usable_cores();

// Runs `work` on the calling thread and up to `threads - 1` helpers at once, and returns when all have left it.
// Helpers come late or not at all (they sleep between calls, and one call has them at a time), so that `work`
// must take its shares from a common counter. It must not throw.
void run_on_threads(int threads, const std::function<void()> &work);

// Stages 0 .. stages-1 of the chunks of a plane, where a chunk of a stage needs the chunk and both its
// neighbours of the stage before.
//
// Chunks are taken from one counter in an order that follows a wave: chunk c of stage s comes after chunk c + 1
// of stage s - 1, at step c + 2 s. What a chunk needs was therefore taken before it, so that waiting always
// ends, no thread waits at the end of a stage, and data that stages share is met again while it is in the cache.
class Wave {
 public:
  Wave(int stages, int chunks);

  // Does everything; `item(stage, chunk)` runs on several threads and must not throw.
  void run(int threads, const std::function<void(int, int)> &item);

 private:
  void wait_until(int chunk, int stage) const;

  int chunks_;
  std::vector<std::pair<int, int>> order_;      // (stage, chunk)
  std::unique_ptr<std::atomic<int>[]> stages_done_;  // of each chunk
  std::atomic<std::size_t> next_{0};
};
