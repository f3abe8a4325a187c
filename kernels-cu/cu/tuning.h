// Constants that decide speed and not results, each with its reason. What decides results is in galley_kernels.h.
#pragma once
