/* The kernels of the CUDA backend, as a table of launchers.
 *
 * The same sources are compiled twice: by nvcc for a GPU (galley_cuda_kernels) and by a C++ compiler for the CPU
 * emulation (galley_emulated_kernels). Both give this table, so whoever calls it need not know which one it has.
 *
 * Pointers are device memory unless a comment says host. A launcher checks shapes on the host, enqueues on `stream`
 * and returns at once: 0, GK_BAD_CALL where it refused, or an error of the CUDA runtime (a positive number).
 * Launchers may be called from any thread, one at a time for a stream. They keep no pointer to the call they are given.
 *
 * Words: a row is a token of a batch. An operand row is what a matrix product reads: bf16, its stride a multiple of
 * GK_K_STEP values, zero beyond its columns. Other rows are f32. Strides count values, not bytes.
 */
#ifndef GALLEY_KERNELS_H
#define GALLEY_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A cudaStream_t. Of the emulation, a stream of its driver, or null: the work is done when the launcher returns. */
typedef void *gk_stream;
/* bfloat16, by its bits. */
typedef uint16_t gk_bf16;

#define GK_BAD_CALL (-1)

/* Multiple that operand strides and the columns of packed matrices are padded to, with zeros. */
#define GK_K_STEP 64
/* Multiple that the rows of packed matrices are padded to, with zeros. */
#define GK_N_STEP 64
/* Rows of gate and of up that alternate in a gated matrix. */
#define GK_GATED_RUN 8
/* Largest head_dim; head_dim is a multiple of 8. */
#define GK_MAX_HEAD_DIM 256
/* Cached tokens of a partition: the unit of the order in which attention is summed. */
#define GK_PARTITION 512
/* Positions of a tile of an observation: the unit of the order in which its softmax is summed. */
#define GK_OBSERVED_TILE 64
/* Query rows of an observation (rows times query heads of a KV head) up to which their scores are kept, and keys are
 * read once instead of twice. */
#define GK_KEPT_QUERIES 16

/* ---- Keys and values ----
 *
 * The pool is cut into arenas, one for each layer and KV head of the model it was made for. An arena holds the keys of
 * all blocks, then their values; a block is block_size slots of head_dim values. A second model in the same memory
 * (fewer layers and heads) finds several of its blocks in the place of one:
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
  int32_t layer;      /* the one that a call is about */
} gk_kv;

/* ---- Batches ---- */

enum { GK_SELECTED_NONE = 0, GK_SELECTED_BLOCKS = 1, GK_SELECTED_TOKENS = 2 };

/* One sequence of a batch: consecutive rows at consecutive positions, and what they attend to. A row at position p
 * sees every selected token (all lie before tail_start) and the positions from tail_start to p. */
typedef struct gk_seq {
  int32_t first_row;
  int32_t n_rows;
  int32_t first_position;
  int32_t tail_start;
  int32_t block_table;       /* where its block table begins in gk_batch.block_tables */
  int32_t selected_kind;     /* GK_SELECTED_* */
  int32_t n_selected;        /* ids for a layer and KV head, ascending: logical blocks, or positions */
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

/* A token that gk_sample has picked. */
typedef struct gk_pick {
  uint32_t token;
  float logprob; /* where asked for */
} gk_pick;

/* A token of a batch with this bit is a pick that the host has not seen yet: the other bits are its number. */
#define GK_TOKEN_OF_PICK 0x80000000u

/* ---- Rows ---- */

/* out[row] = table[token]: a packed matrix to f32 rows. NaN for a token or a pick that there is not. */
typedef struct gk_embed {
  const gk_bf16 *table; /* n_tokens × table_stride */
  const uint32_t *tokens;
  const gk_pick *picks; /* n_picks; null where there are none */
  float *out;
  int64_t table_stride;
  int64_t out_stride;
  int32_t n_rows;
  int32_t n_cols;
  int32_t n_tokens;
  int32_t n_picks;
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

/* Cosines and sines of a batch, once for all layers: cos, then sin, of position as f32 * inv_freq[i], times scale. */
typedef struct gk_angles {
  const uint32_t *positions;
  const float *inv_freq; /* half */
  float *angles;         /* n_rows × 2 × half */
  int32_t n_rows;
  int32_t half;
  float scale;
} gk_angles;

/* Splits rows into queries, keys and values; normalises (where weights are given) and rotates queries and keys, pairs
 * (i, i + head_dim / 2); writes queries as operand rows, and keys and values to their slots. */
typedef struct gk_rope_store {
  const float *qkv;      /* [n_heads | n_kv_heads | n_kv_heads] · head_dim a row */
  const float *angles;   /* of gk_angles */
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

/* Copies whole blocks, all layers and heads, one pair after the other. */
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

/* Ways to cut a product into blocks of threads. They differ in speed alone. */
#define GK_LINEAR_VARIANTS 4

/* W is row-major, n_out rows (padded to GK_N_STEP) of n_in values (padded to GK_K_STEP). Of a gated matrix,
 * GK_GATED_RUN rows of the gate and as many of up alternate, and n_out counts the rows of one of them.
 * Every value of the product is one sum over n_in in one order, however many rows there are. */
typedef struct gk_linear {
  const gk_bf16 *w;
  const gk_bf16 *x; /* operand rows, n_in of them padded to the same step as W */
  const float *bias;
  float *out;            /* GK_STORE, GK_ADD */
  gk_bf16 *operand_out;  /* GK_SILU_MUL */
  int64_t x_stride;
  int64_t out_stride;
  int32_t n_rows;
  int32_t n_in;
  int32_t n_out;
  int32_t epilogue;
  int32_t variant; /* 0: the launcher chooses; 1 to GK_LINEAR_VARIANTS: this one, for tests and measurements */
} gk_linear;

/* ---- Attention ----
 *
 * The query rows of a sequence and a KV head are its tokens times the n_heads / n_kv_heads query heads of the group,
 * token by token. What a row sees is cut into partitions of GK_PARTITION tokens: first the selected tokens, in list
 * order; then the tail, at multiples of GK_PARTITION of the position. Partitions are numbered from 0 in that order, the
 * first of the tail being the one that holds the earliest position that any row of the unit sees.
 *
 * Each partition gives a state (m, l, o) for a row, and states are merged in order. Neither depends on what else is
 * computed beside them: this makes attention the same for a decode, a verification and a prompt. */

/* Work for one block of threads for each KV head: some query rows over some partitions. */
typedef struct gk_unit {
  int32_t seq;
  int32_t first_query; /* of the query rows of the sequence */
  int32_t n_queries;   /* at most the call's queries_per_unit */
  int32_t partition;
  int32_t n_partitions;
  int32_t state; /* -1: it covers all that its rows see, and writes the output. Else it is one partition, and this is
                    the place of its state in gk_attention.states, counted in states */
} gk_unit;

/* Rows whose states have to be merged: those of units with the same rows, in the order of partitions. */
typedef struct gk_merge {
  int32_t seq;
  int32_t first_query;
  int32_t n_queries;
  int32_t state; /* the first; the others follow */
  int32_t n_states;
} gk_merge;

typedef struct gk_attention {
  const gk_bf16 *q; /* operand rows, n_heads · head_dim */
  gk_bf16 *out;     /* operand rows, the same */
  const gk_unit *units;
  const gk_merge *merges;
  /* A state of all KV heads: n_kv_heads × queries_per_unit × (head_dim + 2) floats. */
  float *states;
  gk_batch batch;
  gk_kv kv;
  int64_t q_stride;
  int64_t out_stride;
  int32_t n_heads;
  int32_t n_units;
  int32_t n_merges;
  int32_t queries_per_unit; /* 16, 32 or 64; at most what gk_kernels.attention_queries says */
  float scale;              /* factor on scores */
  int32_t window;           /* a row at p sees positions greater than p - window; 0: no window */
} gk_attention;

/* ---- Observation ---- */

enum { GK_POOL_NONE = 0, GK_POOL_AVERAGE = 1, GK_POOL_MAX = 2 };

/* Which cached tokens some rows of a sequence attend to most: the sum of their probabilities over rows and query heads
 * of a KV head, of a softmax over all that a row sees causally, whatever its view. */
typedef struct gk_observation {
  int32_t seq;
  int32_t first_row; /* of the rows of the sequence */
  int32_t n_rows;
  int32_t first_candidate; /* a position */
  int32_t n_candidates;    /* positions */
  int32_t granularity;     /* 1: tokens; block_size: whole blocks, by the sum of their tokens */
  int32_t n_selected;
  int32_t pool;       /* GK_POOL_* */
  int32_t pool_width; /* odd; windows are centred and hold candidates only; those missing count as 0 */
  int32_t reserved;
  /* Where its floats begin in gk_observe.scores, a multiple of 4. With n_queries = n_rows · n_heads / n_kv_heads and
   * n_tiles = the last observing position / GK_OBSERVED_TILE + 1, there are
   * n_kv_heads · (n_queries <= GK_KEPT_QUERIES ? n_queries + 1 : 2) · n_tiles · GK_OBSERVED_TILE of them. */
  int64_t scores;
  /* The same in gk_observe.stats, a multiple of 2: n_kv_heads · n_queries · (n_tiles + 1) · 2 floats. */
  int64_t stats;
  int64_t out;    /* where its ids of this layer begin in gk_observe.out: n_kv_heads × n_selected, each run ascending */
} gk_observation;

typedef struct gk_observe {
  const gk_bf16 *q;
  const gk_observation *observations;
  const gk_observation *host_observations; /* host: the same */
  float *scores; /* working memory, as is stats; see gk_observation */
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
 * What engine/backend/src/sample/ does on the CPU, for one row a block of threads. */

enum { GK_SEEN = 1, GK_BANNED = 2 };

/* Largest vocabulary that can be sampled from. */
#define GK_MAX_VOCAB 4194304
/* A token that there is none of. */
#define GK_NO_TOKEN 0xffffffffu

/* What a request changes about the logit of a token. A row's edits name each token once. */
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
  int32_t edited; /* which row of gk_sample.edited is its own, where there are edits */
  int32_t n_top;  /* log-probabilities: -1 none, 0 that of the pick, n also those of the n most likely */
  int32_t top;    /* where its n_top entries begin in gk_sample.top */
} gk_sample_row;

typedef struct gk_sample {
  const float *logits;
  const gk_sample_row *rows;
  const gk_edit *edits;
  float *edited;  /* rows of n_vocab floats, for rows with edits */
  gk_pick *picks; /* n_rows */
  gk_pick *top;   /* most likely first; GK_NO_TOKEN at -inf after the last that is above -inf */
  int64_t logits_stride;
  int32_t n_rows;
  int32_t n_vocab;
} gk_sample;

/* ---- Verification ---- */

/* Drafted tokens of a sequence, and what the target picked: picks[i] follows drafted[..i], so there is one more. */
typedef struct gk_verify_seq {
  int32_t first_pick;    /* of gk_verify.picks */
  int32_t first_drafted; /* of gk_verify.drafted */
  int32_t n_drafted;
} gk_verify_seq;

typedef struct gk_verified {
  int32_t n_accepted; /* the length of the prefix that agrees */
  uint32_t next;      /* the pick after it */
} gk_verified;

typedef struct gk_verify {
  const gk_pick *picks;
  const uint32_t *drafted; /* null where no sequence has any */
  const gk_verify_seq *seqs;
  gk_verified *out; /* n_seqs */
  int32_t n_seqs;
} gk_verify;

/* ---- History ---- */

/* A sequence in which the latest earlier occurrence of its longest suffix is looked for. */
typedef struct gk_history_seq {
  int64_t first; /* of gk_history.tokens */
  int32_t n_tokens;
  int32_t min_n; /* tokens of a suffix, at least; 0 is 1 */
  int32_t max_n; /* at most */
  int32_t n;     /* tokens after it that are wanted */
} gk_history_seq;

typedef struct gk_history {
  const uint32_t *tokens;
  const gk_history_seq *seqs;
  uint32_t *found; /* n_seqs × found_stride */
  int32_t *counts; /* n_seqs: how many were found, at most found_stride */
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
  /* A gk_attention.queries_per_unit that the current device has the shared memory for: 64, 32 or 16, as many as its
   * heads allow; 0 where even 16 are too many, and where there is no device. */
  int32_t (*attention_queries)(int32_t head_dim);
} gk_kernels;

const gk_kernels *galley_cuda_kernels(void);
const gk_kernels *galley_emulated_kernels(void);

#ifdef __cplusplus
}
#endif

#endif
