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
  const void *pinned;  // the pinned allocation that it reads or writes, or null
};

// Captured work.
using Nodes = std::shared_ptr<std::vector<std::function<void()>>>;

class Stream final : public emulator::Stream {
 public:
  ~Stream() { work_until(n_taken_); }

  int32_t enqueue(std::function<void()> work) override;

  // Callers of the members below hold the lock.

  // Queues work that cannot be captured; a capturing stream refuses it.
  Result take(Work work);
  // Runs work in order, until `n` of all items taken so far are done.
  void work_until(uint64_t n);
  uint64_t n_taken() const { return n_taken_; }
  bool uses(const void *pinned) const;

  bool is_capturing() const { return capture_.has_value(); }
  Result begin_capture();
  Result end_capture(Nodes &nodes);
  // Returns the error for a call that cannot be captured, and invalidates the capture if the stream is capturing.
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

// The stream that this thread is capturing, or null.
extern thread_local Stream *captured_here;

struct Event {
  Stream *stream;  // null before the first record, and after the stream is destroyed, its work done
  uint64_t at;
};

struct Graph {
  Nodes nodes;
};
// A graph that can be launched.
struct Executable {
  Nodes nodes;
};

// The live objects of a type. A handle that is not one of them is detected.
template <class T>
class Handles {
 public:
  T *add(T *object) { return *objects_.insert(object).first; }
  // Null if the handle is no live object.
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

// All live objects of type T.
template <class T>
Handles<T> &handles() {
  static auto *const all = new Handles<T>;
  return *all;
}

// Runs all queued work of all streams.
void work_all();

}  // namespace driver
