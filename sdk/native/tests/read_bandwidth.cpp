// Prints how fast this machine reads memory: `read_bandwidth MEGABYTES THREADS` -> GB/s of the best of 20 rounds.
// Each thread reads its part of one buffer, as the iterations of Pixel Diffusion read the weights.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

std::atomic<int> waiting{0}, finished{0};
std::atomic<std::uint64_t> kept{0};  // or the loop would be removed

std::uint64_t sum_of(const std::uint64_t *data, std::size_t count) {
  std::uint64_t sums[32] = {};
  for (std::size_t i = 0; i + 32 <= count; i += 32)
    for (int k = 0; k < 32; ++k) sums[k] += data[i + k];
  std::uint64_t sum = 0;
  for (std::uint64_t s : sums) sum += s;
  return sum;
}

void read_rounds(const std::uint64_t *data, std::size_t count, int rounds, int threads) {
  for (int round = 0; round < rounds; ++round) {
    waiting.fetch_add(1);
    while (waiting.load() < threads * (round + 1)) std::this_thread::yield();
    kept.fetch_add(sum_of(data, count));
    finished.fetch_add(1);
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: read_bandwidth MEGABYTES THREADS\n"), EXIT_FAILURE;
  const std::size_t count = static_cast<std::size_t>(std::atof(argv[1]) * 1e6 / sizeof(std::uint64_t));
  const int threads = std::atoi(argv[2]), rounds = 21;
  const std::vector<std::uint64_t> data(count, 1);
  const std::size_t share = count / threads;
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t)
    others.emplace_back(read_rounds, data.data() + t * share, share, rounds, threads);
  double best = 1e9;
  for (int round = 0; round < rounds; ++round) {
    waiting.fetch_add(1);
    while (waiting.load() < threads * (round + 1)) std::this_thread::yield();
    const auto start = std::chrono::steady_clock::now();
    kept.fetch_add(sum_of(data.data(), share));
    finished.fetch_add(1);
    while (finished.load() < threads * (round + 1)) std::this_thread::yield();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    if (round > 0 && seconds.count() < best) best = seconds.count();
  }
  for (std::thread &other : others) other.join();
  std::printf("%.2f\n", 1e-9 * sizeof(std::uint64_t) * share * threads / best);
  return kept.load() > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
