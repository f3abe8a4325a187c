// Grids: the checks of a launch, and the OS threads that run the blocks.
#include "blocks.h"
#include "settings.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

namespace emulator {
namespace {

std::mutex allowances_lock;
std::unordered_map<const void *, size_t> &allowances() {
  static auto *const map = new std::unordered_map<const void *, size_t>;
  return *map;
}

struct Job {
  const Blocks &blocks;
  const uint64_t n_blocks;
  std::atomic<uint64_t> next;
  unsigned n_helpers = 0;  // under the lock of the helpers

  void work() {
    begin_blocks(blocks);
    for (uint64_t which; (which = next.fetch_add(1)) < n_blocks;) run_block(blocks, which);
  }
  bool has_more() const { return next.load() < n_blocks; }
};

// OS threads that help to run the blocks of a launch. They live as long as the process.
class Helpers {
 public:
  static Helpers &all() {
    static Helpers *const helpers = new Helpers;
    return *helpers;
  }

  // Works on the job until it is done.
  void share(Job &job) {
    {
      std::lock_guard<std::mutex> hold(lock_);
      jobs_.push_back(&job);
      n_jobs_.store(jobs_.size());
    }
    came_.notify_all();
    job.work();
    std::unique_lock<std::mutex> hold(lock_);
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    n_jobs_.store(jobs_.size());
    left_.wait(hold, [&] { return job.n_helpers == 0; });
  }

 private:
  Helpers() {
    for (unsigned i = 1; i < settings().n_threads; i++) std::thread([this] { help(); }).detach();
  }

  void help() {
    for (;;) {
      // Launches follow each other closely: polling for a while costs less than a wake-up.
      for (int i = 0; i < 2000 && !n_jobs_.load(); i++) {
#ifdef __x86_64__
        __builtin_ia32_pause();
#endif
      }
      std::unique_lock<std::mutex> hold(lock_);
      Job *job = nullptr;
      came_.wait(hold, [&] {
        for (Job *open : jobs_) {
          if (open->has_more()) job = open;
        }
        return job != nullptr;
      });
      job->n_helpers++;
      hold.unlock();
      job->work();
      hold.lock();
      if (--job->n_helpers == 0) left_.notify_all();
    }
  }

  std::mutex lock_;
  std::condition_variable came_, left_;
  std::vector<Job *> jobs_;
  std::atomic<size_t> n_jobs_{0};
};

}  // namespace

const char *error_name(int32_t error) {
  switch (error) {
    case INVALID_VALUE:
      return "more dynamic shared memory than the kernel was allowed (GK_ALLOW_SHARED; at most 227 KiB)";
    case INVALID_CONFIGURATION:
      return "a grid or a block that is empty or too large";
    case 400:
      return "no context of the stream's on this thread";
    case 900:
    case 901:
      return "a call that cannot be captured was made on a stream that is captured";
    default:
      return "an unknown error of the emulation";
  }
}

size_t shared_bytes_limit() { return settings().shared_bytes; }

int32_t allow_shared(const void *kernel, size_t bytes) {
  if (bytes > settings().shared_bytes) return INVALID_VALUE;
  std::lock_guard<std::mutex> hold(allowances_lock);
  allowances()[kernel] = bytes;
  return 0;
}

int32_t check(const Grid &grid) {
  const dim3 &n = grid.n_blocks, &block = grid.block;
  const bool grid_fits = n.x && n.y && n.z && n.x <= 0x7fffffffu && n.y <= 65535 && n.z <= 65535;
  const bool block_fits = block.x && block.y && block.z && block.x <= 1024 && block.y <= 1024 && block.z <= 64;
  if (!grid_fits || !block_fits || (uint64_t)block.x * block.y * block.z > 1024) return INVALID_CONFIGURATION;
  if (grid.shared_bytes > MAX_UNASKED_SHARED) {
    std::lock_guard<std::mutex> hold(allowances_lock);
    const auto found = allowances().find(grid.kernel);
    if (found == allowances().end() || grid.shared_bytes > found->second) return INVALID_VALUE;
  }
  return 0;
}

void run(const Grid &grid, Body body, const void *argument) {
  if (current) fail("a kernel launches a kernel");
  const Blocks blocks = {grid, body, argument};
  const uint64_t n_blocks = (uint64_t)grid.n_blocks.x * grid.n_blocks.y * grid.n_blocks.z;
  begin_blocks(blocks);
  if (n_blocks == 1 || settings().n_threads == 1) {
    for (uint64_t which = 0; which < n_blocks; which++) run_block(blocks, which);
    return;
  }
  // The time of the first block tells whether waking the helpers is worth its cost.
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  run_block(blocks, 0);
  Job job = {blocks, n_blocks, {1}};
  const bool worth_it = (Clock::now() - start) * (int64_t)(n_blocks - 1) > std::chrono::microseconds(40);
  if (worth_it) {
    Helpers::all().share(job);
  } else {
    job.work();
  }
}

}  // namespace emulator
