/* The kernels of the CUDA backend, as a table of launchers.
 *
 * The same sources are compiled twice: by nvcc for a GPU (galley_cuda_kernels) and by a C++ compiler for the CPU
 * emulation (galley_emulated_kernels). Both return this table, so a caller works with either.
 *
 * Pointers are device memory unless a comment says host. A launcher checks shapes on the host, enqueues on `stream`
 * and returns at once. It returns 0, GK_BAD_CALL if it refuses the call, or an error of the CUDA runtime (positive).
 * Any thread may call a launcher; calls for one stream must not overlap. A launcher keeps no pointer to its argument.
 *
 * Words: a row is a token of a batch. An operand row is an input of a matrix product: bf16, with a stride that is a
 * multiple of GK_K_STEP values, and zero beyond its columns. Other rows are f32. Strides count values, not bytes.
 */
#ifndef GALLEY_KERNELS_H
#define GALLEY_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A cudaStream_t. In the emulation, a stream of its driver, or null: a launcher then returns when its work is done. */
typedef void *gk_stream;
/* bfloat16, by its bits. */
typedef uint16_t gk_bf16;

#define GK_BAD_CALL (-1)

/* Operand strides and the columns of packed matrices are padded with zeros to a multiple of this. */
#define GK_K_STEP 64
/* The rows of packed matrices are padded with zeros to a multiple of this. */
#define GK_N_STEP 64
/* Rows of the gate, and rows of up, in one run of a gated matrix: runs of both alternate. */
#define GK_GATED_RUN 8
/* Largest head_dim; head_dim is a multiple of 8. */
#define GK_MAX_HEAD_DIM 256
/* Cached tokens of a partition. Partitions fix the order in which attention sums. */
#define GK_PARTITION 512
/* Positions of a tile of an observation. Tiles fix the order in which its softmax sums. */
#define GK_OBSERVED_TILE 64
/* An observation with at most so many query rows (rows times query heads of a KV head) keeps their scores, and reads
 * the keys once instead of twice. */
#define GK_KEPT_QUERIES 16

/* ---- Keys and values ----
 *
 * The pool is cut into arenas, one for each layer and KV head of the target model. An arena holds the keys of all
 * blocks, then their values; a block is block_size slots of head_dim values. A draft model that shares the pool (fewer
 * layers and heads) fits several of its blocks into the place of one target block:
 *
 *   arena  = layer * n_kv_heads + kv_head + (block / arena_blocks) * n_layers * n_kv_heads
 *   key    = base + arena * arena_stride + (block % arena_blocks) * block_stride + slot * head_dim
 *   value  = key + values_at
 */
typedef struct gk_kv {
  gk_bf16 *base;
  int64_t arena_stride;
  int64_t values_at;
  int64_t block_stride;
  int32_t arena_blocks;
  int32_t n_layers;
  int32_t n_kv_heads;
  int32_t head_dim;
  int32_t block_size; /* a multiple of 16 */
  int32_t layer;      /* the layer of the call */
} gk_kv;

/* ---- Batches ---- */

enum { GK_SELECTED_NONE = 0, GK_SELECTED_BLOCKS = 1, GK_SELECTED_TOKENS = 2 };

/* One sequence of a batch: consecutive rows at consecutive positions, and the tokens that they attend to. A row at
 * position p sees every selected token (all lie before tail_start) and the positions from tail_start to p. */
typedef struct gk_seq {
  int32_t first_row;
  int32_t n_rows;
  int32_t first_position;
  int32_t tail_start;
  int32_t block_table;       /* where its block table begins in gk_batch.block_tables */
  int32_t selected_kind;     /* GK_SELECTED_* */
  int32_t n_selected;        /* ids a layer and KV head, ascending: logical blocks, or positions */
  int32_t selected_per_head; /* 0: the same ids for all; 1: ids[(layer * n_kv_heads + kv_head) * n_selected ..] */
  int64_t selected;          /* where its ids begin in gk_batch.selected */
} gk_seq;

typedef struct gk_batch {
  const uint32_t *tokens;    /* n_rows */
  const uint32_t *positions; /* n_rows */
  const int32_t *slots;      /* n_rows: block * block_size + slot, or -1 where keys and values are not stored */
  const gk_seq *seqs;        /* n_seqs */
  const uint32_t *block_tables;
  const uint32_t *selected;
  int32_t n_rows;
  int32_t n_seqs;
} gk_batch;

/* A sampled token, written by gk_sample. */
typedef struct gk_sampled {
  uint32_t token;
  float logprob; /* 0 unless the row requests log-probabilities */
} gk_sampled;

/* A token of a batch with this bit is a placeholder: its other bits are the index of a gk_sampled that the host has not
 * read yet. */
#define GK_PLACEHOLDER_BIT 0x80000000u

/* ---- Rows ---- */

/* out[row] = table[token]: a packed matrix to f32 rows. NaN for a token or a placeholder out of range. */
typedef struct gk_embed {
  const gk_bf16 *table; /* n_tokens × table_stride */
  const uint32_t *tokens;
  const gk_sampled *sampled; /* n_sampled; null if n_sampled is 0 */
  float *out;
  int64_t table_stride;
  int64_t out_stride;
  int32_t n_rows;
  int32_t n_cols;
  int32_t n_tokens;
  int32_t n_sampled;
} gk_embed;

/* out[i] = x[rows[i]] / rms(x[rows[i]]) * weight: f32 rows to operand rows, zero up to their stride. */
typedef struct gk_rms_norm {
  const float *x;
  const float *weight;  /* n_cols */
  const uint32_t *rows; /* n_rows; null: row i is i */
  gk_bf16 *out;
  int64_t x_stride;
  int64_t out_stride;
  int32_t n_rows;
  int32_t n_cols;
  float eps;
} gk_rms_norm;

/* Angles of a batch, once for all layers: cos, then sin, of f32(position) * inv_freq[i], each times scale. */
typedef struct gk_angles {
  const uint32_t *positions;
  const float *inv_freq; /* half */
  float *angles;         /* n_rows × 2 × half */
  int32_t n_rows;
  int32_t half;
  float scale;
} gk_angles;

/* Splits rows into queries, keys and values. Normalises queries and keys (if weights are given) and rotates their pairs
 * (i, i + head_dim / 2). Writes queries as operand rows, and keys and values to their slots. */
typedef struct gk_rope_store {
  const float *qkv;      /* [n_heads | n_kv_heads | n_kv_heads] · head_dim a row */
  const float *angles;   /* written by gk_angles */
  const float *q_norm;   /* head_dim, or null */
  const float *k_norm;   /* head_dim, or null */
  const int32_t *slots;
  gk_bf16 *q;
  gk_kv kv;
  int64_t qkv_stride;
  int64_t q_stride;
  int32_t n_rows;
  int32_t n_heads;
  float eps;
} gk_rope_store;

/* Copies whole blocks of all layers and heads, one pair after the other: a pair may read an earlier pair's result. */
typedef struct gk_copy_blocks {
  const uint32_t *pairs; /* from, to */
  gk_kv kv;
  int32_t n_pairs;
} gk_copy_blocks;

/* ---- Matrix products ---- */

enum {
  GK_STORE = 0,    /* out = x Wᵀ + bias, f32 rows; bias may be null */
  GK_ADD = 1,      /* out += x Wᵀ, f32 rows */
  GK_SILU_MUL = 2, /* out = silu(x Gᵀ) · (x Uᵀ), operand rows, zero from n_out to the next multiple of GK_K_STEP; W is
                      gated */
};

/* Ways to divide a product among blocks of threads. They differ in speed alone. */
#define GK_LINEAR_VARIANTS 4

/* W is row-major, n_out rows (padded to GK_N_STEP) of n_in values (padded to GK_K_STEP). In a gated matrix, runs of
 * GK_GATED_RUN rows of the gate and of up alternate, and n_out counts the rows of one of the two.
 * Every output is one sum over n_in in one order, for any number of rows. */
typedef struct gk_linear {
  const gk_bf16 *w;
  const gk_bf16 *x; /* operand rows: n_in columns, padded like those of W */
  const float *bias;
  float *out;            /* GK_STORE, GK_ADD */
  gk_bf16 *operand_out;  /* GK_SILU_MUL */
  int64_t x_stride;
  int64_t out_stride;
  int32_t n_rows;
  int32_t n_in;
  int32_t n_out;
  int32_t epilogue;
  int32_t variant; /* 0: the launcher chooses; 1 to GK_LINEAR_VARIANTS: forced, for tests and benchmarks */
} gk_linear;

/* ---- Attention ----
 *
 * The query rows of a sequence and a KV head are its tokens times the n_heads / n_kv_heads query heads of the group,
 * token by token. The tokens that a row sees are cut into partitions of GK_PARTITION: first the selected tokens, in
 * list order; then the tail, at multiples of GK_PARTITION of the position. Partitions are numbered from 0 in that
 * order. The first partition of the tail holds the earliest tail position that any row of the unit sees.
 *
 * Each partition gives a state (m, l, o) for a row, and states are merged in order. Neither depends on the other rows
 * of the call, so attention is the same for a decode, a verification and a prompt. */

/* A unit of work, computed by one block of threads for each KV head: some query rows over some partitions. */
typedef struct gk_unit {
  int32_t seq;
  int32_t first_query; /* index among the query rows of the sequence */
  int32_t n_queries;   /* at most the call's queries_per_unit */
  int32_t partition;
  int32_t n_partitions;
  int32_t state; /* -1: the unit covers all partitions of its rows, and writes the output. Otherwise the unit is one
                    partition, and this is the index of its state in gk_attention.states */
} gk_unit;

/* Query rows with several states to merge: the states of units with the same rows, in the order of partitions. */
typedef struct gk_merge {
  int32_t seq;
  int32_t first_query;
  int32_t n_queries;
  int32_t state; /* index of the first; the states are consecutive */
  int32_t n_states;
} gk_merge;

typedef struct gk_attention {
  const gk_bf16 *q; /* operand rows, n_heads · head_dim */
  gk_bf16 *out;     /* operand rows, the same */
  const gk_unit *units;
  const gk_merge *merges;
  /* One state covers all KV heads: n_kv_heads × queries_per_unit × (head_dim + 2) floats. */
  float *states;
  gk_batch batch;
  gk_kv kv;
  int64_t q_stride;
  int64_t out_stride;
  int32_t n_heads;
  int32_t n_units;
  int32_t n_merges;
  int32_t queries_per_unit; /* 16, 32 or 64; at most gk_kernels.attention_queries(head_dim) */
  float scale;              /* factor on scores */
  int32_t window;           /* a row at p sees positions greater than p - window; 0: no window */
} gk_attention;

/* ---- Observation ---- */

enum { GK_POOL_NONE = 0, GK_POOL_AVERAGE = 1, GK_POOL_MAX = 2 };

/* Selects the cached tokens that some rows of a sequence attend to most. A token's score is the sum of its
 * probabilities over the rows and the query heads of a KV head. Each row's softmax runs over all tokens that the row
 * sees causally, whatever its view. */
typedef struct gk_observation {
  int32_t seq;
  int32_t first_row; /* index among the rows of the sequence */
  int32_t n_rows;
  int32_t first_candidate; /* a position */
  int32_t n_candidates;    /* positions */
  int32_t granularity;     /* 1: tokens; block_size: whole blocks, by the sum of their tokens */
  int32_t n_selected;
  int32_t pool;       /* GK_POOL_* */
  int32_t pool_width; /* odd; windows are centred; positions outside the candidates count as 0 */
  int32_t reserved;
  /* Start of its floats in gk_observe.scores, a multiple of 4. With n_queries = n_rows · n_heads / n_kv_heads and
   * n_tiles = the last observing position / GK_OBSERVED_TILE + 1, the observation uses
   * n_kv_heads · (n_queries <= GK_KEPT_QUERIES ? n_queries + 1 : 2) · n_tiles · GK_OBSERVED_TILE floats. */
  int64_t scores;
  /* Start of its floats in gk_observe.stats, a multiple of 2: n_kv_heads · n_queries · (n_tiles + 1) · 2 floats. */
  int64_t stats;
  int64_t out;    /* start of its ids of this layer in gk_observe.out: n_kv_heads × n_selected, each run ascending */
} gk_observation;

typedef struct gk_observe {
  const gk_bf16 *q;
  const gk_observation *observations;
  const gk_observation *host_observations; /* host memory: a copy of observations */
  float *scores; /* scores and stats are working memory; see gk_observation */
  float *stats;
  uint32_t *out;
  gk_batch batch;
  gk_kv kv;
  int64_t q_stride;
  int32_t n_heads;
  int32_t n_observations;
  int32_t max_positions; /* the largest last observing position + 1 */
  float scale;
  int32_t window;
} gk_observe;

/* ---- Sampling ----
 *
 * The sampling of engine/backend/src/sample/ on the device: one block of threads a row. */

enum { GK_SEEN = 1, GK_BANNED = 2 };

/* Largest vocabulary that can be sampled from. */
#define GK_MAX_VOCAB 4194304
/* Token id of an entry without a token. */
#define GK_NO_TOKEN 0xffffffffu

/* A request's change to the logit of one token. The edits of a row have distinct tokens. */
typedef struct gk_edit {
  uint32_t token;
  uint32_t flags; /* GK_SEEN: penalties apply; GK_BANNED: -inf */
  uint32_t n_in_output;
  float bias;
} gk_edit;

typedef struct gk_sample_row {
  uint64_t seed;
  int32_t logits_row;
  uint32_t position;
  float temperature; /* below 1e-4: greedy */
  uint32_t top_k;    /* 0: off */
  float top_p;       /* 1: off */
  float min_p;       /* 0: off */
  float repetition_penalty;
  float presence_penalty;
  float frequency_penalty;
  int32_t first_edit;
  int32_t n_edits;
  int32_t edited; /* row of gk_sample.edited that it may write, if it has edits */
  int32_t n_top;  /* log-probabilities: -1 none; 0 of the sampled token; n also of the n most likely tokens */
  int32_t top;    /* start of its n_top entries in gk_sample.top */
} gk_sample_row;

typedef struct gk_sample {
  const float *logits;
  const gk_sample_row *rows;
  const gk_edit *edits;
  float *edited;  /* rows of n_vocab floats, for rows with edits */
  gk_sampled *sampled; /* n_rows */
  gk_sampled *top;   /* most likely first; unused entries hold GK_NO_TOKEN and -inf */
  int64_t logits_stride;
  int32_t n_rows;
  int32_t n_vocab;
} gk_sample;

/* ---- Verification ---- */

/* Draft tokens of a sequence, and the target's sampled tokens: sampled[i] follows drafted[..i]; there is one more. */
typedef struct gk_verify_seq {
  int32_t first_sampled; /* index in gk_verify.sampled */
  int32_t first_drafted; /* index in gk_verify.drafted */
  int32_t n_drafted;
} gk_verify_seq;

typedef struct gk_verified {
  int32_t n_accepted; /* length of the longest prefix of draft tokens that equal sampled */
  uint32_t next;      /* the sampled token after that prefix */
} gk_verified;

typedef struct gk_verify {
  const gk_sampled *sampled;
  const uint32_t *drafted; /* null if no sequence has draft tokens */
  const gk_verify_seq *seqs;
  gk_verified *out; /* n_seqs */
  int32_t n_seqs;
} gk_verify;

/* ---- History ---- */

/* A sequence, and the limits of the search for the latest earlier occurrence of its longest suffix. */
typedef struct gk_history_seq {
  int64_t first; /* index in gk_history.tokens */
  int32_t n_tokens;
  int32_t min_n; /* shortest suffix, in tokens; 0 means 1 */
  int32_t max_n; /* longest suffix, in tokens */
  int32_t n;     /* tokens to return that follow the occurrence */
} gk_history_seq;

typedef struct gk_history {
  const uint32_t *tokens;
  const gk_history_seq *seqs;
  uint32_t *found; /* n_seqs × found_stride */
  int32_t *counts; /* n_seqs: number of tokens found, at most found_stride */
  int32_t n_seqs;
  int32_t found_stride;
} gk_history;

/* ---- The table ---- */

typedef struct gk_kernels {
  const char *name; /* "cuda" or "emulated" */
  const char *(*error_name)(int32_t error);
  int32_t (*embed)(const gk_embed *, gk_stream);
  int32_t (*rms_norm)(const gk_rms_norm *, gk_stream);
  int32_t (*angles)(const gk_angles *, gk_stream);
  int32_t (*rope_store)(const gk_rope_store *, gk_stream);
  int32_t (*copy_blocks)(const gk_copy_blocks *, gk_stream);
  int32_t (*linear)(const gk_linear *, gk_stream);
  int32_t (*attention)(const gk_attention *, gk_stream);
  int32_t (*observe)(const gk_observe *, gk_stream);
  int32_t (*sample)(const gk_sample *, gk_stream);
  int32_t (*verify)(const gk_verify *, gk_stream);
  int32_t (*history)(const gk_history *, gk_stream);
  /* The largest gk_attention.queries_per_unit (64, 32 or 16) that fits the shared memory of the current device for this
   * head_dim; 0 if even 16 does not fit or there is no device; GK_BAD_CALL for a head_dim out of range. */
  int32_t (*attention_queries)(int32_t head_dim);
} gk_kernels;

const gk_kernels *galley_cuda_kernels(void);
const gk_kernels *galley_emulated_kernels(void);

#ifdef __cplusplus
}
#endif

#endif
