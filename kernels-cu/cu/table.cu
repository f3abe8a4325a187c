// The table of launchers.
#include "device.cuh"

#ifdef __CUDACC__
#define GK_NAME(name) galley_cuda_##name
#define GK_TABLE_NAME "cuda"
#else
#define GK_NAME(name) galley_emulated_##name
#define GK_TABLE_NAME "emulated"
#endif

extern "C" {
int32_t GK_NAME(embed)(const gk_embed *, gk_stream);
int32_t GK_NAME(rms_norm)(const gk_rms_norm *, gk_stream);
int32_t GK_NAME(angles)(const gk_angles *, gk_stream);
int32_t GK_NAME(rope_store)(const gk_rope_store *, gk_stream);
int32_t GK_NAME(copy_blocks)(const gk_copy_blocks *, gk_stream);
int32_t GK_NAME(linear)(const gk_linear *, gk_stream);
int32_t GK_NAME(attention)(const gk_attention *, gk_stream);
int32_t GK_NAME(observe)(const gk_observe *, gk_stream);
int32_t GK_NAME(sample)(const gk_sample *, gk_stream);
int32_t GK_NAME(verify)(const gk_verify *, gk_stream);
int32_t GK_NAME(history)(const gk_history *, gk_stream);
int32_t GK_NAME(attention_queries)(int32_t);
}

static const char *error_name(int32_t error) {
  if (error == 0) return "no error";
  if (error == GK_BAD_CALL) return "shapes that do not fit together";
#ifdef __CUDACC__
  return cudaGetErrorName((cudaError_t)error);
#else
  return emulator::error_name(error);
#endif
}

extern "C" const gk_kernels *GK_NAME(kernels)(void) {
  static const gk_kernels table = {
      GK_TABLE_NAME,     error_name,          GK_NAME(embed),     GK_NAME(rms_norm), GK_NAME(angles),
      GK_NAME(rope_store), GK_NAME(copy_blocks), GK_NAME(linear), GK_NAME(attention), GK_NAME(observe),
      GK_NAME(sample),   GK_NAME(verify),     GK_NAME(history),   GK_NAME(attention_queries),
  };
  return &table;
}
