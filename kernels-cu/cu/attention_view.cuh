// The tokens that an attention unit reads: its tiles of TILE tokens, their order, and the addresses of their tokens.
// galley_kernels.h defines partitions, selected tokens and the tail.
#pragma once

#include "device.cuh"

#include <climits>

namespace {

using namespace gk;

// Tokens of a tile; a partition is a whole number of tiles.
constexpr int TILE = 64;
static_assert(GK_PARTITION % TILE == 0, "tiles lie at fixed places in partitions");

// The rows of a unit, and the tokens that they see together.
struct View {
  const uint32_t *block_table;
  const uint32_t *ids;
  int first_row;       // the sequence's first row in the batch
  int first_query;     // index among the query rows of the sequence
  int n_queries;
  int group;           // query heads of a KV head
  int first_position;  // position of the sequence's first row
  int selected_kind;
  int n_selected;  // in tokens
  int n_selected_partitions;
  int tail_start;
  int window;
  int first;  // the position of the unit's first row
  int low;    // the first position that the first row, and so any row, may see
  int tail;   // the first position of the tail that any row sees
  int high;   // the position of the last row
  int block_size;

  // The position of a query row, counted from the unit's first row.
  GK_DEVICE_MEMBER int position(int row) const { return first_position + (first_query + row) / group; }
  // The first position that a row at `at` may see.
  GK_DEVICE_MEMBER int lowest(int at) const { return window > 0 ? max(at + 1 - window, 0) : 0; }
};

template <class Rows>  // gk_unit or gk_merge
GK_DEVICE View view_of(const gk_attention &call, const Rows &rows, int kv_head) {
  const gk_seq &seq = call.batch.seqs[rows.seq];
  View view;
  view.block_table = call.batch.block_tables + seq.block_table;
  view.first_row = seq.first_row;
  view.first_query = rows.first_query;
  view.n_queries = rows.n_queries;
  view.group = call.n_heads / call.kv.n_kv_heads;
  view.first_position = seq.first_position;
  view.selected_kind = seq.selected_kind;
  view.block_size = call.kv.block_size;
  view.n_selected = seq.selected_kind == GK_SELECTED_NONE     ? 0
                    : seq.selected_kind == GK_SELECTED_BLOCKS ? seq.n_selected * view.block_size
                                                              : seq.n_selected;
  view.n_selected_partitions = ceil_div(view.n_selected, GK_PARTITION);
  const int64_t run = seq.selected_per_head ? (int64_t)call.kv.layer * call.kv.n_kv_heads + kv_head : 0;
  view.ids = call.batch.selected + seq.selected + run * seq.n_selected;
  view.tail_start = seq.tail_start;
  view.window = call.window;
  view.first = view.position(0);
  view.low = view.lowest(view.first);
  view.tail = max(view.low, view.tail_start);
  view.high = view.position(rows.n_queries - 1);
  return view;
}

// A tile of a partition: selected tokens by their index in the list, or tail tokens by position.
struct Tiles {
  int partition;
  int end_partition;
  int at;   // the tile's first token
  int end;  // end of the partition's tokens that the unit sees

  GK_DEVICE_MEMBER bool done() const { return partition >= end_partition; }
};

// Advances to the first partition, from `tiles.partition` on, of which the unit may see a token.
GK_DEVICE void enter_partition(Tiles &tiles, const View &view) {
  for (; !tiles.done(); tiles.partition++) {
    int begin, end;
    if (tiles.partition < view.n_selected_partitions) {
      begin = tiles.partition * GK_PARTITION;
      end = min(begin + GK_PARTITION, view.n_selected);
    } else {
      begin = (view.tail / GK_PARTITION + tiles.partition - view.n_selected_partitions) * GK_PARTITION;
      end = min(begin + GK_PARTITION, view.high + 1);
      begin = max(begin, view.tail);
    }
    if (begin < end) {
      tiles.at = begin / TILE * TILE;
      tiles.end = end;
      return;
    }
  }
}

// The position of a selected token, by its index in the list.
GK_DEVICE int selected_position(const View &view, int at) {
  if (view.selected_kind == GK_SELECTED_TOKENS) return (int)view.ids[at];
  return (int)view.ids[at / view.block_size] * view.block_size + at % view.block_size;
}

// Skips tiles of selected tokens that lie before the window of every row. Lists are ascending.
GK_DEVICE void skip_unseen(Tiles &tiles, const View &view) {
  if (view.low == 0) return;
  while (!tiles.done() && tiles.partition < view.n_selected_partitions) {
    if (selected_position(view, min(tiles.at + TILE, tiles.end) - 1) >= view.low) return;
    tiles.at += TILE;
    if (tiles.at < tiles.end) continue;
    tiles.partition++;
    enter_partition(tiles, view);
  }
}

GK_DEVICE Tiles first_tile(const View &view, const gk_unit &unit) {
  Tiles tiles = {unit.partition, unit.partition + unit.n_partitions, 0, 0};
  enter_partition(tiles, view);
  skip_unseen(tiles, view);
  return tiles;
}

GK_DEVICE void next_tile(Tiles &tiles, const View &view) {
  tiles.at += TILE;
  if (tiles.at < tiles.end) return;
  tiles.partition++;
  enter_partition(tiles, view);
  skip_unseen(tiles, view);
}

// Address of a token of a tile. A negative position means that no row sees the token: it must not be read.
struct Token {
  int position;
  int block;
  int slot;
};

GK_DEVICE Token find_token(const Tiles &tiles, const View &view, int i) {
  const Token nothing = {-1, 0, 0};
  const int at = tiles.at + i;
  if (tiles.done() || at >= tiles.end) return nothing;
  const bool selected = tiles.partition < view.n_selected_partitions;
  const int position = selected ? selected_position(view, at) : at;
  if (position < (selected ? view.low : view.tail)) return nothing;
  const int logical = position / view.block_size;
  return {position, (int)view.block_table[logical], position - logical * view.block_size};
}

// Whether every row sees every token of the tile, so that scores need no mask.
GK_DEVICE bool seen_by_all(const Tiles &tiles, const View &view) {
  if (tiles.at + TILE > tiles.end) return false;
  if (tiles.partition < view.n_selected_partitions) return view.window == 0;
  const int lowest = max(view.lowest(view.high), view.tail_start);
  return tiles.at >= lowest && tiles.at + TILE - 1 <= view.first;
}

}  // namespace
