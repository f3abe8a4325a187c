// Device memory: mappings that are accessible at certain times only, each followed by a guard page.
#include "memory.h"

#include "../emulator/settings.h"
#include "driver.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>

namespace driver {
namespace {

constexpr size_t ALIGNMENT = 256;
// New memory of up to this many bytes is filled with a pattern: callers must not rely on its content.
constexpr size_t SOILED_BYTES = 1 << 20;
constexpr int DEVICE_DIRT = 0xd5, HOST_DIRT = 0xa5;

struct Mapping {
  unsigned char *pages;
  size_t n_page_bytes;  // without the guard page that follows
  size_t n_bytes;
};

// Keyed by the address that the caller got.
std::map<uint64_t, Mapping> &mappings() {
  static auto *const map = new std::map<uint64_t, Mapping>;
  return *map;
}
size_t n_used_bytes = 0;

std::map<uintptr_t, size_t> &pins() {
  static auto *const map = new std::map<uintptr_t, size_t>;
  return *map;
}

size_t round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

size_t page_bytes() {
  static const size_t once = (size_t)sysconf(_SC_PAGESIZE);
  return once;
}

void protect(const Mapping &mapping, int protection) {
  if (mprotect(mapping.pages, mapping.n_page_bytes, protection)) fail("mprotect: %s", strerror(errno));
}

}  // namespace

Free free_memory() {
  const size_t total = emulator::settings().memory_bytes;
  return {total - n_used_bytes, total};
}

uint64_t allocate(size_t n_bytes) {
  if (n_bytes > free_memory().free_bytes) return 0;
  const size_t n_page_bytes = round_up(n_bytes, page_bytes());
  if (n_page_bytes > free_memory().free_bytes) return 0;
  void *const pages = mmap(nullptr, n_page_bytes + page_bytes(), PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pages == MAP_FAILED) return 0;
  const Mapping mapping = {static_cast<unsigned char *>(pages), n_page_bytes, n_bytes};
  // The last byte is as close to the guard page as the alignment allows.
  const auto address = (uint64_t)(uintptr_t)(mapping.pages + n_page_bytes - round_up(n_bytes, ALIGNMENT));
  n_used_bytes += n_page_bytes;
  if (n_bytes <= SOILED_BYTES) {
    protect(mapping, PROT_READ | PROT_WRITE);
    memset(mapping.pages, DEVICE_DIRT, n_page_bytes);
    protect(mapping, PROT_NONE);
  }
  mappings()[address] = mapping;
  return address;
}

bool release(uint64_t address) {
  const auto found = mappings().find(address);
  if (found == mappings().end()) return false;
  munmap(found->second.pages, found->second.n_page_bytes + page_bytes());
  n_used_bytes -= found->second.n_page_bytes;
  mappings().erase(found);
  return true;
}

size_t n_allocations() { return mappings().size(); }

bool holds(uint64_t address, size_t n_bytes) {
  const auto after = mappings().upper_bound(address);
  if (after == mappings().begin()) return false;
  const auto &[begin, mapping] = *std::prev(after);
  return address - begin <= mapping.n_bytes && n_bytes <= mapping.n_bytes - (address - begin);
}

void fill(uint64_t address, uint8_t value, size_t n_bytes) {
  auto *const begin = reinterpret_cast<unsigned char *>((uintptr_t)address), *const end = begin + n_bytes;
  // Zeroing whole pages with madvise takes no memory until they are written.
  const size_t page = page_bytes();
  auto *const first = reinterpret_cast<unsigned char *>(round_up((uintptr_t)begin, page));
  auto *const last = reinterpret_cast<unsigned char *>((uintptr_t)end / page * page);
  if (value != 0 || first >= last) {
    memset(begin, value, n_bytes);
    return;
  }
  memset(begin, 0, (size_t)(first - begin));
  if (madvise(first, (size_t)(last - first), MADV_DONTNEED)) fail("madvise: %s", strerror(errno));
  memset(last, 0, (size_t)(end - last));
}

Access::Access() {
  for (const auto &[address, mapping] : mappings()) protect(mapping, PROT_READ | PROT_WRITE);
}

Access::~Access() {
  for (const auto &[address, mapping] : mappings()) protect(mapping, PROT_NONE);
}

void *pin(size_t n_bytes) {
  void *const address = aligned_alloc(page_bytes(), round_up(n_bytes, page_bytes()));
  if (!address) return nullptr;
  memset(address, HOST_DIRT, n_bytes);
  pins()[(uintptr_t)address] = n_bytes;
  return address;
}

bool unpin(void *address) {
  if (!pins().erase((uintptr_t)address)) return false;
  free(address);
  return true;
}

const void *pinned(const void *address, size_t n_bytes) {
  const auto after = pins().upper_bound((uintptr_t)address);
  if (after == pins().begin()) return nullptr;
  const auto &[begin, size] = *std::prev(after);
  const size_t at = (uintptr_t)address - begin;
  return at <= size && n_bytes <= size - at ? reinterpret_cast<const void *>(begin) : nullptr;
}

}  // namespace driver
