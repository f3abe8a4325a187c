// Where launched work goes that is not done at once.
#pragma once
#include <cstdint>
#include <functional>

namespace emulator {

// What a launcher may be given as its stream: one of the emulated driver (../driver), in another library.
class Stream {
 public:
  // Takes work, to be done after all that it took before. A code of the CUDA runtime, 0 where it took it.
  virtual int32_t enqueue(std::function<void()> work) = 0;

 protected:
  ~Stream() = default;
};

}  // namespace emulator
