// Memory of the device, which work alone can access, and pinned memory of the host.
#pragma once
#include <cstddef>
#include <cstdint>

namespace driver {

// ---- of the device

struct Free {
  size_t free_bytes, total_bytes;
};
Free free_memory();

// An address at a multiple of 256, with nothing to be relied on there; 0 where there is not enough.
uint64_t allocate(size_t n_bytes);
// Whether there was such an allocation.
bool release(uint64_t address);
size_t n_allocations();
// Whether these bytes are in one allocation.
bool holds(uint64_t address, size_t n_bytes);
// Sets bytes, by work.
void fill(uint64_t address, uint8_t value, size_t n_bytes);

// Device memory can be accessed while one of these is there.
class Access {
 public:
  Access();
  ~Access();
  Access(const Access &) = delete;
};

// ---- of the host

void *pin(size_t n_bytes);  // null where there is none
bool unpin(void *address);
// The pinned allocation that these bytes are in, by its address; null where they are not pinned.
const void *pinned(const void *address, size_t n_bytes);

}  // namespace driver
