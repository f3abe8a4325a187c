// Device memory, which only stream work can access, and pinned host memory.
#pragma once
#include <cstddef>
#include <cstdint>

namespace driver {

// ---- device memory

struct Free {
  size_t free_bytes, total_bytes;
};
Free free_memory();

// Returns an address that is a multiple of 256, with undefined content; 0 if there is not enough memory.
uint64_t allocate(size_t n_bytes);
// Frees an allocation. Returns false if `address` does not begin one.
bool release(uint64_t address);
size_t n_allocations();
// Whether these bytes lie in one allocation.
bool holds(uint64_t address, size_t n_bytes);
// Sets bytes; called by stream work.
void fill(uint64_t address, uint8_t value, size_t n_bytes);

// Device memory is accessible while an object of this class exists.
class Access {
 public:
  Access();
  ~Access();
  Access(const Access &) = delete;
};

// ---- host memory

void *pin(size_t n_bytes);  // null if there is not enough memory
bool unpin(void *address);
// Address of the pinned allocation that holds these bytes; null if they are not pinned.
const void *pinned(const void *address, size_t n_bytes);

}  // namespace driver
