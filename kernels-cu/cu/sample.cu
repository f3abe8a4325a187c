#include "device.cuh"

GK_LAUNCHER(sample)(const gk_sample *, gk_stream) { return GK_BAD_CALL; }
