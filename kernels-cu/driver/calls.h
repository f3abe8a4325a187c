// The calls, with the names and types of the CUDA driver's interface. Handles are void *, results are driver::Result.
#pragma once
#include <cstddef>
#include <cstdint>

#define CALL extern "C" __attribute__((visibility("default"))) int

// ---- calls that need no context
CALL cuDriverGetVersion(int *version);
CALL cuInit(unsigned flags);
CALL cuGetErrorName(int result, const char **name);
CALL cuGetErrorString(int result, const char **text);
CALL cuDeviceGetCount(int *count);
CALL cuDeviceGet(int *device, int ordinal);
CALL cuDeviceGetName(char *name, int n_bytes, int device);
CALL cuDeviceGetAttribute(int *value, int attribute, int device);
CALL cuDeviceTotalMem_v2(size_t *n_bytes, int device);

// ---- contexts
CALL cuDevicePrimaryCtxRetain(void **context, int device);
CALL cuDevicePrimaryCtxRelease_v2(int device);
CALL cuCtxGetCurrent(void **context);
CALL cuCtxSetCurrent(void *context);

// ---- memory
CALL cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes);
CALL cuMemAlloc_v2(uint64_t *address, size_t n_bytes);
CALL cuMemFree_v2(uint64_t address);
CALL cuMemHostAlloc(void **address, size_t n_bytes, unsigned flags);
CALL cuMemFreeHost(void *address);
CALL cuMemsetD8Async(uint64_t address, unsigned char value, size_t n_bytes, void *stream_handle);
CALL cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n_bytes, void *stream_handle);
CALL cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n_bytes, void *stream_handle);

// ---- streams
CALL cuStreamCreate(void **stream, unsigned);
CALL cuStreamDestroy_v2(void *handle);
CALL cuStreamSynchronize(void *handle);
CALL cuStreamBeginCapture_v2(void *handle, int mode);
CALL cuStreamEndCapture(void *handle, void **graph);

// ---- events
CALL cuEventCreate(void **event, unsigned);
CALL cuEventDestroy_v2(void *event);
CALL cuEventRecord(void *handle, void *stream_handle);
CALL cuEventSynchronize(void *handle);

// ---- graphs
CALL cuGraphInstantiateWithFlags(void **executable, void *handle, unsigned long long flags);
CALL cuGraphUpload(void *executable, void *stream_handle);
CALL cuGraphLaunch(void *handle, void *stream_handle);
CALL cuGraphExecDestroy(void *executable);
CALL cuGraphDestroy(void *graph);
