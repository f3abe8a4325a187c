#include "device.cuh"

GK_LAUNCHER(attention)(const gk_attention *, gk_stream) { return GK_BAD_CALL; }
