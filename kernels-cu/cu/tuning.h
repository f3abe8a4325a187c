// Constants that decide speed and not results, each with its reason. What decides results is in galley_kernels.h.
#pragma once

// Tiles of keys and values that a block of attention holds. Loads of a tile start as soon as its place is free: keys
// after the scores of the tile before them in that place, values after its products. So with S stages (S - 1/2) tiles
// are on their way at the least. A tile of head_dim 128 is 32 KB, and an SM of an H200 keeps its share of the bandwidth
// busy with about 36 KB (4.8 TB/s · 1 us / 132): two stages, with two blocks on an SM, are more than twice that.
// Four m-tiles of head_dim 128 are for prompts, where arithmetic counts and not bytes: with one stage two blocks still
// fit (2 · 97 KB of 228), so that one multiplies while the other waits.
constexpr int attention_stages(int head_dim, int m_tiles) { return head_dim == 128 && m_tiles == 4 ? 1 : 2; }
