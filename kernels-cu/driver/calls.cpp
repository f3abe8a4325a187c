// The driver calls.
#include "calls.h"

#include "../emulator/settings.h"
#include "driver.h"
#include "memory.h"
#include "streams.h"

#include <cstring>

using namespace driver;

namespace {

using Hold = std::lock_guard<std::mutex>;

constexpr int RELEASE = 13000;
constexpr int COMPUTE_CAPABILITY_MAJOR = 75, COMPUTE_CAPABILITY_MINOR = 76, MEMORY_POOLS_SUPPORTED = 115;
constexpr int THREAD_LOCAL_CAPTURE = 1;

bool is_initialized = false;
int n_retained = 0;
char the_context;  // its address is the handle

// The error of a call about the device; SUCCESS if the call is allowed.
Result device_error(int device) {
  if (!is_initialized) return NOT_INITIALIZED;
  return device == 0 ? SUCCESS : INVALID_DEVICE;
}

// The error of a call in a context; SUCCESS if the call is allowed.
Result context_error() {
  if (!is_initialized) return NOT_INITIALIZED;
  return current_context && n_retained > 0 ? SUCCESS : INVALID_CONTEXT;
}

// The same for a call that a capturing thread must not make, because the call may wait for all streams.
Result allocation_error() {
  if (const Result error = context_error()) return error;
  return captured_here ? captured_here->refuse() : SUCCESS;
}

// The stream of a call in a context; null if the call is not allowed, with the reason in `error`.
Stream *stream_of(void *handle, Result &error) {
  error = context_error();
  if (error) return nullptr;
  Stream *const stream = handles<Stream>().find(handle);
  if (!stream) error = INVALID_HANDLE;
  return stream;
}

}  // namespace

// ---- calls that need no context

CALL cuDriverGetVersion(int *version) {
  *version = RELEASE;
  return SUCCESS;
}

CALL cuInit(unsigned flags) {
  const Hold hold(lock());
  if (flags) return INVALID_VALUE;
  is_initialized = true;
  return SUCCESS;
}

CALL cuGetErrorName(int result, const char **name) {
  *name = name_of(result);
  return *name ? SUCCESS : INVALID_VALUE;
}

CALL cuGetErrorString(int result, const char **text) {
  *text = meaning_of(result);
  return *text ? SUCCESS : INVALID_VALUE;
}

CALL cuDeviceGetCount(int *count) {
  const Hold hold(lock());
  *count = 1;
  return is_initialized ? SUCCESS : NOT_INITIALIZED;
}

CALL cuDeviceGet(int *device, int ordinal) {
  const Hold hold(lock());
  *device = ordinal;
  return device_error(ordinal);
}

CALL cuDeviceGetName(char *name, int n_bytes, int device) {
  const Hold hold(lock());
  if (n_bytes <= 0) return INVALID_VALUE;
  strncpy(name, "emulated on the CPU", (size_t)n_bytes);
  name[n_bytes - 1] = '\0';
  return device_error(device);
}

CALL cuDeviceGetAttribute(int *value, int attribute, int device) {
  const Hold hold(lock());
  switch (attribute) {
    case COMPUTE_CAPABILITY_MAJOR:
      *value = 9;
      break;
    case COMPUTE_CAPABILITY_MINOR:
      *value = 0;
      break;
    case MEMORY_POOLS_SUPPORTED:
      *value = 1;
      break;
    default:
      fail("cuDeviceGetAttribute: attribute %d is not emulated", attribute);
  }
  return device_error(device);
}

CALL cuDeviceTotalMem_v2(size_t *n_bytes, int device) {
  const Hold hold(lock());
  *n_bytes = free_memory().total_bytes;
  return device_error(device);
}

// ---- contexts

CALL cuDevicePrimaryCtxRetain(void **context, int device) {
  const Hold hold(lock());
  if (const Result error = device_error(device)) return error;
  n_retained++;
  *context = &the_context;
  return SUCCESS;
}

CALL cuDevicePrimaryCtxRelease_v2(int device) {
  const Hold hold(lock());
  if (const Result error = device_error(device)) return error;
  if (n_retained == 0) return INVALID_CONTEXT;
  if (--n_retained == 0 && n_allocations() > 0) {
    fail("the context is released by its last owner, with %zu allocations in it", n_allocations());
  }
  return SUCCESS;
}

CALL cuCtxGetCurrent(void **context) {
  *context = current_context;
  const Hold hold(lock());
  return is_initialized ? SUCCESS : NOT_INITIALIZED;
}

CALL cuCtxSetCurrent(void *context) {
  const Hold hold(lock());
  if (context && (context != &the_context || n_retained == 0)) return INVALID_CONTEXT;
  current_context = context;
  return SUCCESS;
}

// ---- memory

CALL cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
  const Hold hold(lock());
  const Free memory = free_memory();
  *free_bytes = memory.free_bytes;
  *total_bytes = memory.total_bytes;
  return context_error();
}

CALL cuMemAlloc_v2(uint64_t *address, size_t n_bytes) {
  const Hold hold(lock());
  if (const Result error = allocation_error()) return error;
  if (n_bytes == 0) return INVALID_VALUE;
  *address = allocate(n_bytes);
  return *address ? SUCCESS : OUT_OF_MEMORY;
}

CALL cuMemFree_v2(uint64_t address) {
  const Hold hold(lock());
  if (const Result error = allocation_error()) return error;
  work_all();  // a real driver may wait here too
  return release(address) ? SUCCESS : INVALID_VALUE;
}

CALL cuMemHostAlloc(void **address, size_t n_bytes, unsigned flags) {
  const Hold hold(lock());
  if (const Result error = allocation_error()) return error;
  if (n_bytes == 0 || flags > 7) return INVALID_VALUE;
  *address = pin(n_bytes);
  return *address ? SUCCESS : OUT_OF_MEMORY;
}

CALL cuMemFreeHost(void *address) {
  const Hold hold(lock());
  if (const Result error = allocation_error()) return error;
  for (const Stream *stream : handles<Stream>().all()) {
    if (stream->uses(address)) fail("cuMemFreeHost of %p, which a copy on its way uses: wait for it", address);
  }
  return unpin(address) ? SUCCESS : INVALID_VALUE;
}

CALL cuMemsetD8Async(uint64_t address, unsigned char value, size_t n_bytes, void *stream_handle) {
  const Hold hold(lock());
  Result error;
  Stream *const stream = stream_of(stream_handle, error);
  if (!stream) return error;
  if (!holds(address, n_bytes)) return INVALID_VALUE;
  return stream->take({[=] { fill(address, value, n_bytes); }, nullptr});
}

CALL cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n_bytes, void *stream_handle) {
  const Hold hold(lock());
  Result error;
  Stream *const stream = stream_of(stream_handle, error);
  if (!stream) return error;
  if (!holds(to, n_bytes)) return INVALID_VALUE;
  void *const device = reinterpret_cast<void *>((uintptr_t)to);
  if (const void *allocation = pinned(from, n_bytes)) {
    return stream->take({[=] { memcpy(device, from, n_bytes); }, allocation});
  }
  // Pageable memory is read before the call returns.
  const auto *const bytes = static_cast<const unsigned char *>(from);
  const std::vector<unsigned char> staged(bytes, bytes + n_bytes);
  return stream->take({[=] { memcpy(device, staged.data(), n_bytes); }, nullptr});
}

CALL cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n_bytes, void *stream_handle) {
  const Hold hold(lock());
  Result error;
  Stream *const stream = stream_of(stream_handle, error);
  if (!stream) return error;
  if (!holds(from, n_bytes)) return INVALID_VALUE;
  const void *const device = reinterpret_cast<const void *>((uintptr_t)from);
  const void *const allocation = pinned(to, n_bytes);
  error = stream->take({[=] { memcpy(to, device, n_bytes); }, allocation});
  // Pageable memory is written before the call returns.
  if (!error && !allocation) stream->work_until(stream->n_taken());
  return error;
}

// ---- streams

CALL cuStreamCreate(void **stream, unsigned) {
  const Hold hold(lock());
  if (const Result error = context_error()) return error;
  *stream = handles<Stream>().add(new Stream);
  return SUCCESS;
}

CALL cuStreamDestroy_v2(void *handle) {
  const Hold hold(lock());
  Result error;
  Stream *const stream = stream_of(handle, error);
  if (!stream) return error;
  if (stream->is_capturing()) return stream->refuse();
  for (Event *event : handles<Event>().all()) {
    if (event->stream == stream) event->stream = nullptr;
  }
  handles<Stream>().remove(stream);
  return SUCCESS;
}

CALL cuStreamSynchronize(void *handle) {
  const Hold hold(lock());
  Result error;
  Stream *const stream = stream_of(handle, error);
  if (!stream) return error;
  if (stream->is_capturing()) return stream->refuse();
  stream->work_until(stream->n_taken());
  return SUCCESS;
}

CALL cuStreamBeginCapture_v2(void *handle, int mode) {
  const Hold hold(lock());
  Result error;
  Stream *const stream = stream_of(handle, error);
  if (!stream) return error;
  if (mode != THREAD_LOCAL_CAPTURE) fail("cuStreamBeginCapture: mode %d is not emulated", mode);
  return stream->begin_capture();
}

CALL cuStreamEndCapture(void *handle, void **graph) {
  const Hold hold(lock());
  Result error;
  Stream *const stream = stream_of(handle, error);
  if (!stream) return error;
  *graph = nullptr;
  Nodes nodes;
  error = stream->end_capture(nodes);
  if (!error) *graph = handles<Graph>().add(new Graph{nodes});
  return error;
}

// ---- events

CALL cuEventCreate(void **event, unsigned) {
  const Hold hold(lock());
  if (const Result error = context_error()) return error;
  *event = handles<Event>().add(new Event{nullptr, 0});
  return SUCCESS;
}

CALL cuEventDestroy_v2(void *event) {
  const Hold hold(lock());
  if (const Result error = context_error()) return error;
  return handles<Event>().remove(event) ? SUCCESS : INVALID_HANDLE;
}

CALL cuEventRecord(void *handle, void *stream_handle) {
  const Hold hold(lock());
  Result error;
  Stream *const stream = stream_of(stream_handle, error);
  if (!stream) return error;
  Event *const event = handles<Event>().find(handle);
  if (!event) return INVALID_HANDLE;
  if (stream->is_capturing()) fail("cuEventRecord of a stream that is captured is not emulated");
  *event = {stream, stream->n_taken()};
  return SUCCESS;
}

CALL cuEventSynchronize(void *handle) {
  const Hold hold(lock());
  if (const Result error = context_error()) return error;
  const Event *const event = handles<Event>().find(handle);
  if (!event) return INVALID_HANDLE;
  if (event->stream) event->stream->work_until(event->at);
  return SUCCESS;
}

// ---- graphs

CALL cuGraphInstantiateWithFlags(void **executable, void *handle, unsigned long long flags) {
  const Hold hold(lock());
  if (const Result error = context_error()) return error;
  const Graph *const graph = handles<Graph>().find(handle);
  if (!graph || flags) return INVALID_VALUE;
  *executable = handles<Executable>().add(new Executable{graph->nodes});
  return SUCCESS;
}

CALL cuGraphUpload(void *executable, void *stream_handle) {
  const Hold hold(lock());
  Result error;
  if (!stream_of(stream_handle, error)) return error;
  return handles<Executable>().find(executable) ? SUCCESS : INVALID_VALUE;
}

CALL cuGraphLaunch(void *handle, void *stream_handle) {
  const Hold hold(lock());
  Result error;
  Stream *const stream = stream_of(stream_handle, error);
  if (!stream) return error;
  const Executable *const executable = handles<Executable>().find(handle);
  if (!executable) return INVALID_VALUE;
  const Nodes nodes = executable->nodes;
  return stream->take({[=] {
                         for (const auto &node : *nodes) node();
                       },
                       nullptr});
}

CALL cuGraphExecDestroy(void *executable) {
  const Hold hold(lock());
  return handles<Executable>().remove(executable) ? SUCCESS : INVALID_VALUE;
}

CALL cuGraphDestroy(void *graph) {
  const Hold hold(lock());
  return handles<Graph>().remove(graph) ? SUCCESS : INVALID_VALUE;
}
