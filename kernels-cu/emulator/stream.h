// The interface of a stream that runs launched work later.
#pragma once
#include <cstdint>
#include <functional>

namespace emulator {

// A launcher's stream argument. The emulated driver (../driver), another library, implements it.
class Stream {
 public:
  // Queues work behind all earlier work. Returns 0, or an error code of the CUDA runtime.
  virtual int32_t enqueue(std::function<void()> work) = 0;

 protected:
  ~Stream() = default;
};

}  // namespace emulator
