// Streams, and the time at which their work runs.
#include "streams.h"

#include "../emulator/settings.h"
#include "memory.h"

#include <algorithm>
#include <random>
#include <utility>

namespace driver {

thread_local Stream *captured_here = nullptr;

int32_t Stream::enqueue(std::function<void()> work) {
  std::lock_guard<std::mutex> hold(lock());
  // The CUDA runtime would use another context, and refuse a stream that does not belong to it.
  if (!current_context) return INVALID_HANDLE;
  if (capture_) {
    if (capture_->is_broken) return CAPTURE_INVALIDATED;
    capture_->nodes->push_back(std::move(work));
    return SUCCESS;
  }
  return take({std::move(work), nullptr});
}

Result Stream::take(Work work) {
  if (capture_) return refuse();
  queue_.push_back(std::move(work));
  n_taken_++;
  progress();
  return SUCCESS;
}

void Stream::progress() {
  using emulator::When;
  switch (emulator::settings().work) {
    case When::Late:
      return;
    case When::Early:
      return work_until(n_taken_);
    case When::Random: {
      static std::mt19937_64 random(emulator::settings().seed);
      return work_until(std::min(n_taken_, n_done_ + random() % 3));
    }
  }
}

void Stream::work_until(uint64_t n) {
  if (n_done_ >= n) return;
  const Access access;
  for (; n_done_ < n; n_done_++) {
    queue_.front().act();
    queue_.pop_front();
  }
}

bool Stream::uses(const void *pinned) const {
  return std::any_of(queue_.begin(), queue_.end(), [&](const Work &work) { return work.pinned == pinned; });
}

Result Stream::begin_capture() {
  if (capture_ || captured_here) return refuse();
  capture_ = Capture{std::make_shared<Nodes::element_type>(), false};
  captured_here = this;
  return SUCCESS;
}

Result Stream::end_capture(Nodes &nodes) {
  if (!capture_) return CAPTURE_UNMATCHED;
  if (captured_here != this) return CAPTURE_WRONG_THREAD;
  captured_here = nullptr;
  const Capture ended = *std::exchange(capture_, std::nullopt);
  if (ended.is_broken) return CAPTURE_INVALIDATED;
  nodes = ended.nodes;
  return SUCCESS;
}

Result Stream::refuse() {
  if (capture_) capture_->is_broken = true;
  return CAPTURE_UNSUPPORTED;
}

void work_all() {
  for (Stream *stream : handles<Stream>().all()) stream->work_until(stream->n_taken());
}

}  // namespace driver
