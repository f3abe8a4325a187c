// Cases of the emulated driver: when work runs, which calls are refused, and which errors end the process.
#include "cases.h"

#include "../../driver/calls.h"
#include "../../driver/driver.h"

#include <thread>

using namespace driver;

namespace {

__global__ void add(int *values, int n, int what) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) values[i] += what;
}
int32_t launch_add(void *stream, uint64_t values, int n, int what) {
  return GK_LAUNCH(add, 1, 32, 0, stream, reinterpret_cast<int *>((uintptr_t)values), n, what);
}

constexpr int N = 100;
constexpr size_t BYTES = N * sizeof(int);

// A device with a stream, device memory and pinned host memory.
struct Setting {
  void *context = nullptr, *stream = nullptr;
  uint64_t device = 0;
  int *pinned = nullptr;

  Setting() {
    CHECK(cuInit(0) == SUCCESS && cuDevicePrimaryCtxRetain(&context, 0) == SUCCESS);
    CHECK(cuCtxSetCurrent(context) == SUCCESS && cuStreamCreate(&stream, 1) == SUCCESS);
    CHECK(cuMemAlloc_v2(&device, BYTES) == SUCCESS && device % 256 == 0);
    void *host = nullptr;
    CHECK(cuMemHostAlloc(&host, BYTES, 0) == SUCCESS);
    pinned = static_cast<int *>(host);
  }
  ~Setting() {
    CHECK(cuStreamSynchronize(stream) == SUCCESS);
    CHECK(cuMemFree_v2(device) == SUCCESS && cuMemFreeHost(pinned) == SUCCESS);
    CHECK(cuStreamDestroy_v2(stream) == SUCCESS && cuDevicePrimaryCtxRelease_v2(0) == SUCCESS);
  }

  void write(int value) {
    for (int i = 0; i < N; i++) pinned[i] = value;
  }
  // Copies to pageable memory, which waits for the stream.
  int read(int i) {
    int values[N];
    CHECK(cuMemcpyDtoHAsync_v2(values, device, BYTES, stream) == SUCCESS);
    return values[i];
  }
};

bool is_late() { return !getenv("GALLEY_EMULATOR_WORK") || !strcmp(getenv("GALLEY_EMULATOR_WORK"), "late"); }

}  // namespace

CASE(work_is_done_when_it_is_waited_for) {
  Setting here;
  here.write(1);
  void *event = nullptr;
  CHECK(cuEventCreate(&event, 2) == SUCCESS && cuEventSynchronize(event) == SUCCESS);  // nothing recorded: no wait
  CHECK(cuMemcpyHtoDAsync_v2(here.device, here.pinned, BYTES, here.stream) == SUCCESS);
  CHECK(launch_add(here.stream, here.device, N, 10) == 0);
  CHECK(cuMemcpyDtoHAsync_v2(here.pinned, here.device, BYTES, here.stream) == SUCCESS);
  CHECK(cuEventRecord(event, here.stream) == SUCCESS);
  CHECK(launch_add(here.stream, here.device, N, 100) == 0);
  CHECK(cuMemcpyDtoHAsync_v2(here.pinned, here.device, BYTES, here.stream) == SUCCESS);
  if (is_late()) CHECK(here.pinned[0] == 1);
  CHECK(cuEventSynchronize(event) == SUCCESS);
  CHECK(is_late() ? here.pinned[N - 1] == 11 : here.pinned[N - 1] >= 11);
  CHECK(cuStreamSynchronize(here.stream) == SUCCESS && here.pinned[N - 1] == 111);
  CHECK(cuEventDestroy_v2(event) == SUCCESS);
}

CASE(pinned_memory_is_read_late_and_other_memory_at_once) {
  Setting here;
  int other[N] = {};
  here.write(1);
  CHECK(cuMemcpyHtoDAsync_v2(here.device, here.pinned, BYTES, here.stream) == SUCCESS);
  here.write(2);  // before the copy is known to be done
  if (is_late()) CHECK(here.read(0) == 2);
  other[0] = 5;
  CHECK(cuMemcpyHtoDAsync_v2(here.device, other, BYTES, here.stream) == SUCCESS);
  other[0] = 6;
  CHECK(here.read(0) == 5);
}

CASE(sets_of_bytes_and_what_was_there) {
  Setting here;
  CHECK(here.read(0) != 0);  // new memory holds a pattern
  CHECK(cuMemsetD8Async(here.device, 0, BYTES, here.stream) == SUCCESS && here.read(N - 1) == 0);
  CHECK(cuMemsetD8Async(here.device, 1, BYTES, here.stream) == SUCCESS && here.read(N - 1) == 0x01010101);
  // Whole pages and parts of pages.
  uint64_t large = 0;
  const size_t n_bytes = 3 * 4096 + 256;
  CHECK(cuMemAlloc_v2(&large, n_bytes) == SUCCESS);
  CHECK(cuMemsetD8Async(large, 7, n_bytes, here.stream) == SUCCESS);
  CHECK(cuMemsetD8Async(large + 8, 0, n_bytes - 16, here.stream) == SUCCESS);
  std::vector<unsigned char> bytes(n_bytes);
  CHECK(cuMemcpyDtoHAsync_v2(bytes.data(), large, n_bytes, here.stream) == SUCCESS);
  for (size_t i = 0; i < n_bytes; i++) CHECK(bytes[i] == (i < 8 || i >= n_bytes - 8 ? 7 : 0));
  CHECK(cuMemFree_v2(large) == SUCCESS);
}

CASE(captured_work_is_done_by_launches_of_the_graph) {
  Setting here;
  void *graph = nullptr, *executable = nullptr;
  CHECK(cuMemsetD8Async(here.device, 0, BYTES, here.stream) == SUCCESS);
  CHECK(cuStreamBeginCapture_v2(here.stream, 1) == SUCCESS);
  for (int i = 1; i <= 3; i++) CHECK(launch_add(here.stream, here.device, N, i) == 0);
  CHECK(cuStreamEndCapture(here.stream, &graph) == SUCCESS && here.read(0) == 0);
  CHECK(cuGraphInstantiateWithFlags(&executable, graph, 0) == SUCCESS && cuGraphDestroy(graph) == SUCCESS);
  CHECK(cuGraphUpload(executable, here.stream) == SUCCESS);
  for (int i = 0; i < 2; i++) CHECK(cuGraphLaunch(executable, here.stream) == SUCCESS);
  CHECK(cuGraphExecDestroy(executable) == SUCCESS);  // earlier launches still run
  CHECK(here.read(N - 1) == 12);
}

CASE(what_cannot_be_captured_breaks_the_capture) {
  Setting here;
  void *graph = nullptr, *host = nullptr;
  uint64_t more = 0;
  for (int what = 0; what < 6; what++) {
    CHECK(cuStreamBeginCapture_v2(here.stream, 1) == SUCCESS);
    int error = SUCCESS;
    switch (what) {
      case 0: error = cuMemAlloc_v2(&more, 16); break;
      case 1: error = cuMemFree_v2(here.device); break;
      case 2: error = cuMemHostAlloc(&host, 16, 0); break;
      case 3: error = cuStreamSynchronize(here.stream); break;
      case 4: error = cuMemcpyHtoDAsync_v2(here.device, here.pinned, BYTES, here.stream); break;
      case 5: error = cuStreamBeginCapture_v2(here.stream, 1); break;
    }
    CHECK(error == CAPTURE_UNSUPPORTED);
    CHECK(launch_add(here.stream, here.device, N, 1) == CAPTURE_INVALIDATED);
    CHECK(cuStreamEndCapture(here.stream, &graph) == CAPTURE_INVALIDATED && !graph);
  }
  CHECK(cuStreamEndCapture(here.stream, &graph) == CAPTURE_UNMATCHED);
  // Only the thread that began a capture can end it. Other threads may allocate meanwhile.
  CHECK(cuStreamBeginCapture_v2(here.stream, 1) == SUCCESS);
  std::thread([&] {
    CHECK(cuMemAlloc_v2(&more, 16) == INVALID_CONTEXT && cuCtxSetCurrent(here.context) == SUCCESS);
    CHECK(cuMemAlloc_v2(&more, 16) == SUCCESS && cuMemFree_v2(more) == SUCCESS);
    CHECK(cuStreamEndCapture(here.stream, &graph) == CAPTURE_WRONG_THREAD);
  }).join();
  CHECK(cuStreamEndCapture(here.stream, &graph) == SUCCESS && cuGraphDestroy(graph) == SUCCESS);
}

CASE(bad_calls_are_refused) {
  void *context = nullptr, *handle = nullptr;
  int device = 0;
  CHECK(cuInit(1) == INVALID_VALUE && cuInit(0) == SUCCESS && cuDeviceGet(&device, 1) == INVALID_DEVICE);
  CHECK(cuStreamCreate(&handle, 0) == INVALID_CONTEXT && cuDevicePrimaryCtxRelease_v2(0) == INVALID_CONTEXT);
  CHECK(cuCtxSetCurrent(&device) == INVALID_CONTEXT && cuCtxSetCurrent(&context) == INVALID_CONTEXT);
  Setting here;
  size_t free_bytes = 0, total_bytes = 0;
  CHECK(cuMemGetInfo_v2(&free_bytes, &total_bytes) == SUCCESS && free_bytes == total_bytes - 4096);
  uint64_t more = 0;
  CHECK(cuMemAlloc_v2(&more, free_bytes + 1) == OUT_OF_MEMORY && cuMemAlloc_v2(&more, 0) == INVALID_VALUE);
  CHECK(cuMemFree_v2(here.device + 256) == INVALID_VALUE && cuMemFreeHost(&more) == INVALID_VALUE);
  CHECK(cuMemsetD8Async(here.device, 0, BYTES + 1, here.stream) == INVALID_VALUE);
  CHECK(cuMemcpyHtoDAsync_v2(here.device + 4, here.pinned, BYTES, here.stream) == INVALID_VALUE);
  CHECK(cuMemcpyDtoHAsync_v2(here.pinned, here.device - 1, 1, here.stream) == INVALID_VALUE);
  CHECK(cuStreamSynchronize(&here) == INVALID_HANDLE && cuEventSynchronize(here.stream) == INVALID_HANDLE);
  CHECK(cuGraphLaunch(here.stream, here.stream) == INVALID_VALUE && cuGraphDestroy(&here) == INVALID_VALUE);
  std::thread([&] { CHECK(launch_add(here.stream, here.device, N, 1) == INVALID_HANDLE); }).join();
  const char *text = nullptr;
  CHECK(cuGetErrorName(OUT_OF_MEMORY, &text) == SUCCESS && !strcmp(text, "CUDA_ERROR_OUT_OF_MEMORY"));
  CHECK(cuGetErrorString(12345, &text) == INVALID_VALUE && !text);
}

// ---- errors that must be noticed

MUST_DIE(host_that_follows_a_device_address) {
  Setting here;
  printf("%d\n", *reinterpret_cast<const int *>((uintptr_t)here.device));
}

MUST_DIE(kernel_that_leaves_its_buffer) {
  Setting here;
  CHECK(launch_add(here.stream, here.device, 2 * N, 1) == 0);
  cuStreamSynchronize(here.stream);
}

MUST_DIE(kernel_over_freed_memory) {
  Setting here;
  uint64_t more = 0;
  CHECK(cuMemAlloc_v2(&more, BYTES) == SUCCESS && cuMemFree_v2(more) == SUCCESS);
  CHECK(launch_add(here.stream, more, N, 1) == 0);
  cuStreamSynchronize(here.stream);
}

MUST_DIE(pinned_memory_that_is_freed_before_its_copy) {
  Setting here;
  CHECK(cuMemcpyHtoDAsync_v2(here.device, here.pinned, BYTES, here.stream) == SUCCESS);
  if (!is_late()) abort();
  cuMemFreeHost(here.pinned);
}

MUST_DIE(memory_that_outlives_the_context) {
  Setting here;
  cuDevicePrimaryCtxRelease_v2(0);
}
