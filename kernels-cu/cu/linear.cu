#include "device.cuh"

GK_LAUNCHER(linear)(const gk_linear *, gk_stream) { return GK_BAD_CALL; }
