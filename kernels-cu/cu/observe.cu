#include "device.cuh"

GK_LAUNCHER(observe)(const gk_observe *, gk_stream) { return GK_BAD_CALL; }
