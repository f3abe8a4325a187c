#include "device.cuh"

GK_LAUNCHER(embed)(const gk_embed *, gk_stream) { return GK_BAD_CALL; }
GK_LAUNCHER(rms_norm)(const gk_rms_norm *, gk_stream) { return GK_BAD_CALL; }
GK_LAUNCHER(angles)(const gk_angles *, gk_stream) { return GK_BAD_CALL; }
GK_LAUNCHER(rope_store)(const gk_rope_store *, gk_stream) { return GK_BAD_CALL; }
GK_LAUNCHER(copy_blocks)(const gk_copy_blocks *, gk_stream) { return GK_BAD_CALL; }
