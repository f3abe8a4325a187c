/* galley_drafter.h - the contract between Galley (the host) and a drafting strategy (a drafter).
 *
 * A drafter guesses the next few tokens of running sequences. The target model then checks all guesses in one forward.
 * The host alone decides which guesses are kept. A drafter can therefore change the speed of a request, and never its
 * tokens. Three rules guarantee this, and no function below can break them:
 *
 *   1. A guess is a token id. There is no place to put a probability.
 *   2. Cached keys and values are read through views. There is no way to write them.
 *   3. A failing callback means "no guess this round". It never fails a request.
 *
 * A drafter describes and enqueues; it does not compute. It makes views and masks when it is activated, and puts work
 * on the host's queue when it is asked for a guess.
 *
 * PHASES. A tag says where a function may be called:
 *   [any]      any thread, at any time
 *   [control]  inside create, activate and deactivate; may block, allocate and read files
 *   [step]     inside after_prefill, guess, end, cost and feedback; must not block or allocate. Work is only enqueued:
 *              the host does it after the callback has returned. end, cost and feedback have no queue
 *   [record]   like [step], but inside guess alone. The enqueued work must depend on the batch's shape (n_rows,
 *              draft_length) alone: the host may keep it and not call guess again for that shape, until rerecord
 * All callbacks of a drafter are called on one thread, one at a time; create may run on another. Host functions marked
 * [control], [step] or [record] are called on that thread, inside a callback; anywhere else they return GD_WRONG_PHASE.
 *
 * LIMITS. One callback may enqueue 32 chains, lookups, proposals and replays in all; a further one gives GD_NO_MEMORY.
 * It may push once a row; a further push gives GD_INVALID. The host sets a drafter aside for good once guess or
 * after_prefill has failed three times in a row, or once eight calls of guess, after_prefill and feedback have taken
 * more than 50 ms (a thousand quick calls in a row clear that count). The host then calls only deactivate and destroy.
 *
 * OWNERSHIP. The host owns every handle, table and string it gives. Strings and arrays, gd_row.tokens included, live
 * until the callback in which the host gave them returns. Tables live until destroy returns. The host copies the
 * arguments of a drafter during the call. A drafter owns its own struct until destroy. Neither side frees memory of the
 * other side. Libraries are never unloaded.
 *
 * HANDLES are numbers that the host checks at every call: a stale or forged handle gives GD_INVALID, not undefined
 * behaviour. Zero is the default: the target model, the whole cache, all layers.
 *
 * GROWTH. The entry symbol names the major version. Within a major version nothing is removed or changes its meaning;
 * structs gain fields at their end only. Every struct begins with struct_size, which its writer sets to sizeof. The
 * reader looks at no field beyond struct_size, and missing fields count as zero. No struct ends in padding, in which a
 * new field could hide. Groups of host functions are extensions with an id and a revision, such as "galley.views/1"; a
 * changed meaning is a new revision. Extensions may be absent: a drafter names the extensions that it needs in its
 * manifest. A drafter can have tables of its own, which the host asks for by id (get_extension).
 *
 * VERSIONS. 1.0: the first. 1.1: galley.suffix/1, get_extension and galley.feedback/1. */
#ifndef GALLEY_DRAFTER_H
#define GALLEY_DRAFTER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GD_ABI_MAJOR 1
#define GD_ABI_MINOR 1
#define GD_ENTRY_SYMBOL "galley_drafter_v1"

/* ------------------------------------------------------------------------------------- values */

/* Zero is success, positive is "fine, but nothing", negative is a failure. The reason of a failure goes to log. */
typedef int32_t gd_status;
enum {
  GD_OK = 0,
  GD_NO_GUESS = 1,     /* nothing worth verifying this round */
  GD_UNSUPPORTED = -1, /* not possible with this host, model or device */
  GD_INVALID = -2,     /* a bad argument, struct or handle */
  GD_WRONG_PHASE = -3, /* a function called where its tag does not allow it */
  GD_NO_MEMORY = -4,
  GD_PANIC = -5,       /* a panic or an exception, caught at the border */
  GD_INTERNAL = -6     /* any other failure; the log says more */
};

enum { GD_LOG_DEBUG = 0, GD_LOG_INFO = 1, GD_LOG_WARN = 2, GD_LOG_ERROR = 3 };

typedef struct { const char *ptr; size_t len; } gd_str; /* UTF-8, not NUL-terminated */

typedef struct { uint64_t id; } gd_model;   /* weights that the host can run; 0 is the target */
typedef struct { uint64_t id; } gd_view;    /* which cached tokens a pass attends to; 0 is all of them */
typedef struct { uint64_t id; } gd_layers;  /* which sublayers a pass runs; 0 is all of them */
typedef struct { uint64_t id; } gd_queue;   /* where work is put, in order; valid inside one callback */
typedef struct { uint64_t id; } gd_matcher; /* how a suffix index is searched; 0 is none, and not valid */

/* -------------------------------------------------------------------------------------- host */

typedef struct gd_host gd_host;
struct gd_host {
  size_t struct_size;
  uint32_t abi_major, abi_minor;
  void *host_data; /* the host's own */
  /* [any] One of the tables below by its id, or NULL. */
  const void *(*extension)(const gd_host *, const char *id);
  /* [any] Logs a sentence for the host's user. The last GD_LOG_ERROR explains a failing status. */
  void (*log)(const gd_host *, int32_t level, gd_str message);
  /* [control] [step] Says that guess now enqueues other work: the host asks again before the next round. */
  void (*rerecord)(const gd_host *);
};

/* Models: facts about a model, and loading a draft model. */
#define GD_EXT_MODELS "galley.models/1"
typedef struct {
  size_t struct_size;
  uint32_t n_layers, n_heads, n_kv_heads, head_dim, hidden_size, vocab_size;
  uint32_t block_size_tokens; /* tokens of one block of the model's KV cache */
  uint64_t max_context_tokens;
  uint64_t n_parameters;
} gd_model_info;

typedef struct {
  size_t struct_size;
  /* [any] Fills *out up to its struct_size. */
  gd_status (*describe)(const gd_host *, gd_model, gd_model_info *out);
  /* [control] in activate alone. Loads a draft model from a path or name. GD_UNSUPPORTED in create and deactivate, and
   * when the model's vocabulary is not the target's. The model's KV is paged in the target's pool. The host keeps it up
   * with the sequence, and gives it up before any request has to wait for the room. */
  gd_status (*load)(const gd_host *, gd_str source, gd_model *out);
} gd_host_models;

/* Views: the first tokens (sinks) and a rolling window of the latest (StreamingLLM, arXiv 2309.17453).
 *
 * These rules hold for windows and for observed views. A token attends to at most as many tokens as the budget, or
 * draft length + 1 tokens where the budget is smaller. Sinks are rounded up to whole blocks. They are left out where
 * sinks and draft length + 1 tokens together exceed the budget. A request's KV budget replaces the view's own budget; a
 * chain without a view has no budget. A draft model that still reads a prompt attends to all of it. */
#define GD_EXT_VIEWS "galley.views/1"
typedef struct {
  size_t struct_size;
  gd_model model;
  uint32_t n_sinks;       /* first tokens of the sequence */
  uint32_t budget_tokens; /* attended to in all, sinks included, where a request sets no budget */
} gd_window_args;

typedef struct {
  size_t struct_size;
  /* [control] A sequence that fits into the budget with its draft is seen whole. Tokens keep their positions. */
  gd_status (*window)(const gd_host *, const gd_window_args *, gd_view *out);
} gd_host_views;

/* Observed views: the cached tokens that the target's own attention looked at most, between sinks and a tail of the
 * latest tokens. The host repeats the selection by itself, as the arguments say, on the device. Between selections the
 * tail grows, but never beyond half of the budget (or draft length + 1 tokens, if that is more). Without room for a
 * selection, the view is a window as above. */
#define GD_EXT_OBSERVE "galley.observe/1"
enum { GD_SELECT_TOKENS = 0, GD_SELECT_BLOCKS = 1 }; /* either unit is selected per layer and KV head */
enum { GD_POOL_NONE = 0, GD_POOL_AVERAGE = 1, GD_POOL_MAX = 2 };
enum {
  GD_OBSERVE_CONTEXT = 0, /* the latest n_queries tokens look back when the prompt has been read, then again
                             whenever refresh more tokens are known (0: never again) */
  GD_OBSERVE_VERIFY = 1   /* the target's verification looks back while it runs, every refresh rounds */
};
typedef struct {
  size_t struct_size;
  uint32_t budget_tokens; /* attended to in all: sinks, selected and tail, where a request sets no budget */
  uint32_t granularity;   /* GD_SELECT_ */
  uint32_t n_sinks;       /* first tokens of the sequence */
  uint32_t n_recent;      /* latest tokens when selecting: in the tail, as far as it reaches */
  uint32_t observe;       /* GD_OBSERVE_ */
  uint32_t n_queries;     /* GD_OBSERVE_CONTEXT: how many tokens look back; at least 1 */
  uint32_t pool;          /* GD_POOL_ along the sequence, before the best scores are taken */
  uint32_t pool_width;    /* odd */
  uint32_t refresh;       /* see GD_OBSERVE_ */
  uint32_t reserved;      /* 0 */
} gd_observe_args;

typedef struct {
  size_t struct_size;
  /* [control] A view of the target. A token's score is the attention it gets (softmax, scaled), summed over the queries
   * and over the query heads of its KV head. */
  gd_status (*observe)(const gd_host *, const gd_observe_args *, gd_view *out);
} gd_host_observe;

/* Layer masks: which sublayers a pass runs. */
#define GD_EXT_LAYERS "galley.layers/1"
typedef struct {
  size_t struct_size;
  /* [control] attention[i] and mlp[i] are 1 where the sublayer of layer i runs, else 0. The final norm and the output
   * head always run, so an early exit is a mask that ends in zeros. */
  gd_status (*mask)(const gd_host *, gd_model, const uint8_t *attention, const uint8_t *mlp, uint32_t n_layers,
                    gd_layers *out);
  /* [control] [step] Changes a mask from the next round on. Its shape stays. No rerecord is needed. */
  gd_status (*change)(const gd_host *, gd_layers, const uint8_t *attention, const uint8_t *mlp, uint32_t n_layers);
} gd_host_layers;

/* Chain: guesses token after token with a model, on the device. */
#define GD_EXT_CHAIN "galley.chain/1"
typedef struct {
  size_t struct_size;
  gd_queue queue;
  gd_model model;
  gd_view view;     /* of the same model */
  gd_layers layers; /* of the same model */
} gd_chain_args;

typedef struct {
  size_t struct_size;
  /* [record] Guesses for every row as many tokens as its draft length, each from the token before. The host samples
   * every token with the noise that the verifier will use at its position: a good guess agrees more often than an
   * independent sample. Rows that have a guess already are left alone. */
  gd_status (*chain)(const gd_host *, const gd_chain_args *);
} gd_host_chain;

/* Tokens: the history of a row, for drafters that look tokens up instead of computing them. */
#define GD_EXT_TOKENS "galley.tokens/1"
typedef struct {
  size_t struct_size;
  uint64_t sequence; /* the same in every round, never used for another sequence */
  uint64_t n_tokens; /* prompt and output so far */
  const uint32_t *tokens;
  uint32_t draft_length; /* tokens that may be guessed for this row */
  uint32_t reserved;     /* 0 */
} gd_row;

typedef struct {
  size_t struct_size;
  /* [record] Guesses, for rows without a guess, the tokens that followed the latest earlier occurrence of the longest
   * suffix of at most max_n and at least min_n tokens. Rows with no such occurrence stay without a guess. */
  gd_status (*lookup)(const gd_host *, gd_queue, uint32_t min_n, uint32_t max_n);
  /* [step] Fills *out up to its struct_size. */
  gd_status (*row)(const gd_host *, gd_queue, uint32_t row, gd_row *out);
  /* [step] Inside guess, once a row: sets the guess for the row. More tokens than its draft length are GD_INVALID. A
   * guess ends before the first token outside the vocabulary. A drafter that uses row or push in guess is asked again
   * every round. */
  gd_status (*push)(const gd_host *, gd_queue, uint32_t row, const uint32_t *tokens, uint32_t n_tokens);
} gd_host_tokens;

/* Suffixes: an index of the tokens of a row, prompt and output, that the host keeps from round to round. It finds the
 * longest suffix of the row that has occurred before, and the tokens that followed most often (SuffixDecoding, arXiv
 * 2411.04975). A matcher may also search earlier outputs: those of ended requests that had a drafter and have the cache
 * salt of the row's request. Salts are not told. Of two texts with a match, the one counts from which more tokens are
 * expected to be right.
 *
 * A guess takes the most frequent token after the match, then the most frequent token after the match and this token,
 * and so on; the latest of equally frequent tokens. Where the text ends, the guess goes on from a shorter suffix of the
 * match and the guess. The frequency of a guessed token is the product, over the guess up to it, of the share of
 * occurrences that went on in this way. The host has a limit of memory for all indexes: under it an index may know only
 * the latest part of a text, and a row may have no index and so no match. */
#define GD_EXT_SUFFIX "galley.suffix/1"
typedef struct {
  size_t struct_size;
  uint32_t min_match;      /* a shorter match is no match; at least 1 */
  uint32_t max_match;      /* a longer match counts as one of so many tokens; the host's own limit is 64 */
  double tokens_per_match; /* a guess has at most so many tokens for each token of the match; above 0 */
  double min_frequency;    /* a guess ends before a token with a lower frequency; 0 to 1 */
  uint32_t memory;         /* 1: earlier outputs are searched, too; 0: only the row itself */
  uint32_t reserved;       /* 0 */
} gd_matcher_args;

typedef struct {
  size_t struct_size;
  gd_queue queue;
  gd_matcher matcher;
  uint32_t row;
  uint32_t capacity;  /* tokens that the arrays have room for; they may be NULL where it is 0 */
  uint32_t *tokens;   /* filled by the host */
  float *frequencies; /* filled by the host, one for each token */
} gd_query;

typedef struct {
  size_t struct_size;
  uint64_t count;        /* earlier occurrences of the match */
  uint32_t match_tokens; /* length of the match; 0 is no match */
  uint32_t n_tokens;     /* length of the guess: at most the row's draft length, and the query's capacity */
} gd_match;

typedef struct {
  size_t struct_size;
  /* [control] The host keeps an index for every row of a drafter that has a matcher. */
  gd_status (*matcher)(const gd_host *, const gd_matcher_args *, gd_matcher *out);
  /* [record] Guesses for rows without a guess. Rows without a match stay without a guess. */
  gd_status (*propose)(const gd_host *, gd_queue, gd_matcher);
  /* [step] Inside guess: finds the guess that propose would make for the row, and guesses nothing. Fills *out up to its
   * struct_size. A drafter that uses query is asked again every round. */
  gd_status (*query)(const gd_host *, const gd_query *, gd_match *out);
} gd_host_suffix;

/* Replay: measures how well a mask predicts known tokens, for drafters that search for a better mask. */
#define GD_EXT_REPLAY "galley.replay/1"
typedef struct {
  size_t struct_size;
  uint64_t n_matched, n_compared; /* tokens, over all replays of this mask since it was made or changed */
} gd_replay_score;

typedef struct {
  size_t struct_size;
  /* [step] Runs the latest n_tokens tokens of every row's output through the target under a mask, in one forward that
   * writes no KV. Compares the sampled tokens with the tokens that followed. Rows with less output take no part. */
  gd_status (*replay)(const gd_host *, gd_queue, gd_layers, uint32_t n_tokens);
  /* [step] The score of the replays of earlier rounds. Fills *out up to its struct_size. */
  gd_status (*score)(const gd_host *, gd_layers, gd_replay_score *out);
} gd_host_replay;

/* ----------------------------------------------------------------------------------- drafter */

typedef struct gd_drafter gd_drafter;

typedef struct {
  size_t struct_size;
  uint32_t max_rows;         /* sequences in one round */
  uint32_t max_draft_length; /* tokens */
  uint64_t max_context_tokens;
} gd_limits;

typedef struct {
  size_t struct_size;
  gd_queue queue;
  uint32_t n_rows;       /* sequences of this round; rows are numbered from 0 */
  uint32_t draft_length; /* the largest of the rows' */
} gd_batch;

typedef struct {
  size_t struct_size;
  double weights_read;    /* share of the target's weights that one guessed token reads; 0.25 is a quarter */
  double kv_tokens_read;  /* cached tokens of the target that it attends to, per row; tokens of a draft model
                             count as tokens of the target by their bytes */
} gd_cost;

/* Feedback: the fate of guesses, for drafters that adapt. A table of the drafter (get_extension). */
#define GD_EXT_FEEDBACK "galley.feedback/1"
typedef struct {
  size_t struct_size;
  uint32_t n_rows;            /* rows with a guess in this round; length of each array */
  uint32_t reserved;          /* 0 */
  const uint64_t *sequences;  /* as in gd_row */
  const uint32_t *n_proposed; /* tokens of the guess that were verified; at least 1 */
  const uint32_t *n_accepted; /* tokens of the guess that the sequence keeps, from its first one */
} gd_verified;

typedef struct {
  size_t struct_size;
  /* [step, active] A round has been verified. Called before end for a sequence that ends with the round. A guess that
   * goes on after the end of its sequence counts as accepted up to that end. */
  void (*feedback)(gd_drafter *, const gd_verified *);
} gd_drafter_feedback;

/* A life: create -> activate -> (after_prefill, guess, end)* -> deactivate -> activate -> ... -> destroy. */
struct gd_drafter {
  size_t struct_size;
  void *data; /* the drafter's own */
  /* [control, not active] Called last, also after a failed activate. Required. */
  void (*destroy)(gd_drafter *);
  /* [control, not active] The place to make views and masks, load models and reserve memory. */
  gd_status (*activate)(gd_drafter *, const gd_limits *);
  /* [control, active] Handles made since activate are void when it returns. NULL: nothing to do. */
  void (*deactivate)(gd_drafter *);
  /* [step, active] The prompts of these rows have just been read. NULL: nothing to do. */
  gd_status (*after_prefill)(gd_drafter *, const gd_batch *);
  /* [record, active] Enqueue a guess for the batch. Required. */
  gd_status (*guess)(gd_drafter *, const gd_batch *);
  /* [step, active] The sequence is over, or has left this drafter. NULL: nothing to do. */
  void (*end)(gd_drafter *, uint64_t sequence);
  /* [step] The cost of a guessed token at a context length under a KV budget (0: the default budget), for a planner's
   * first estimate. NULL: as much as a token of the target. */
  gd_status (*cost)(gd_drafter *, uint64_t context_tokens, uint32_t budget_tokens, gd_cost *out);
  /* [control, active or not] Since 1.1. The drafter's table of this id, or NULL for an id that it does not know. The
   * answer for an id never changes, and a table lives until destroy. Inside it, host functions with another tag than
   * [any] give GD_WRONG_PHASE. NULL: the drafter has no table. */
  const void *(*get_extension)(gd_drafter *, const char *id);
};

/* ----------------------------------------------------------------------------------- library */

/* The host reads the manifest of a drafter from its file, without running any of its code. GD_MANIFEST puts JSON behind
 * a mark that the host looks for. Write one manifest a library:
 *
 *   GD_MANIFEST({
 *     "id": "org.example.echo",         stable for ever; ids that begin with "galley." are Galley's
 *     "name": "echo",                   its name for --drafter: a-z, 0-9 and -
 *     "version": "0.1.0",
 *     "description": "Guesses the last token again",
 *     "needs": ["galley.tokens/1"],     extensions it cannot do without
 *     "options": [{"name": "times", "default": "1", "help": "how often"}]
 *   }) */
#define GD_MANIFEST_MARK "galley-drafter-manifest/1:"
#define GD_MANIFEST(...) static const char gd_manifest[] = GD_MANIFEST_MARK #__VA_ARGS__

typedef struct { gd_str name, value; } gd_option;

typedef struct {
  size_t struct_size;
  uint32_t abi_major, abi_minor; /* GD_ABI_ at the time it was compiled */
  const char *manifest;          /* the mark and the JSON after it, NUL-terminated */
  /* [control] Makes a drafter, which is not yet active. host lives until destroy returns. The options come from
   * the manifest, each once, as given or by default. On failure *out is left alone and the log gives the reason. */
  gd_status (*create)(const gd_host *host, const gd_option *options, size_t n_options, gd_drafter **out);
} gd_library;

/* The only symbol of a library: const gd_library *galley_drafter_v1(void). */
typedef const gd_library *(*gd_entry_fn)(void);

#ifdef _WIN32
#define GD_EXPORT __declspec(dllexport)
#else
#define GD_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
}
#endif
#endif
