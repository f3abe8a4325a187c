// Streams, events and graphs.
#pragma once
#include "../emulator/stream.h"
#include "driver.h"

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

namespace driver {

struct Work {
  std::function<void()> act;
  const void *pinned;  // the allocation of pinned memory that it reads or writes; null where there is none
};

// Captured work.
using Nodes = std::shared_ptr<std::vector<std::function<void()>>>;

class Stream final : public emulator::Stream {
 public:
  ~Stream() { work_until(n_taken_); }

  int32_t enqueue(std::function<void()> work) override;

  // The rest is called with the lock held.

  // Takes work that cannot be captured.
  Result take(Work work);
  // Does what was taken, but for what came after the first `n`.
  void work_until(uint64_t n);
  uint64_t n_taken() const { return n_taken_; }
  bool uses(const void *pinned) const;

  bool is_capturing() const { return capture_.has_value(); }
  Result begin_capture();
  Result end_capture(Nodes &nodes);
  // What a stream that captures answers to what it cannot capture; the capture is of no use from then on.
  Result refuse();

 private:
  struct Capture {
    Nodes nodes;
    bool is_broken;
  };

  void progress();

  std::deque<Work> queue_;
  uint64_t n_taken_ = 0, n_done_ = 0;
  std::optional<Capture> capture_;
};

// The stream of which this thread captures; null where it does not.
extern thread_local Stream *captured_here;

struct Event {
  Stream *stream;  // null where nothing was recorded, and where all that was is done
  uint64_t at;
};

struct Graph {
  Nodes nodes;
};
// A graph that can be launched.
struct Executable {
  Nodes nodes;
};

// Objects by the handles that callers have: those that are none are noticed.
template <class T>
class Handles {
 public:
  T *add(T *object) { return *objects_.insert(object).first; }
  // Null where it is none.
  T *find(void *handle) const {
    const auto found = objects_.find(static_cast<T *>(handle));
    return found == objects_.end() ? nullptr : *found;
  }
  bool remove(void *handle) {
    T *const object = find(handle);
    if (!object) return false;
    objects_.erase(object);
    delete object;
    return true;
  }
  const std::set<T *> &all() const { return objects_; }

 private:
  std::set<T *> objects_;
};

// All of a kind.
template <class T>
Handles<T> &handles() {
  static auto *const all = new Handles<T>;
  return *all;
}

// Does all work of all streams.
void work_all();

}  // namespace driver
