/* A drafter that misbehaves in the way that CASE_ selects. No case may change a token. */
#include "galley_drafter_sdk.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

GD_MANIFEST({
  "id": "test.hostile", "name": "hostile", "version": "1", "description": "does its worst",
  "needs": ["galley.views/1", "galley.chain/1", "galley.tokens/1"],
  "options": [{"name": "kind", "default": "0", "help": "of no use"}]
});

enum { MANY = 64 };

typedef struct {
  gd_drafter drafter;
  const gd_host *host;
  const gd_host_models *models;
  const gd_host_views *views;
  const gd_host_observe *observe;
  const gd_host_layers *layers;
  const gd_host_chain *chain;
  const gd_host_tokens *tokens;
  const gd_host_replay *replay;
#ifdef GD_EXT_SUFFIX
  const gd_host_suffix *suffix;
  gd_matcher matcher;
#endif
  const gd_option *options;
  gd_view view;
  gd_layers mask;
  gd_queue old_queue;
  uint32_t vocab_size, n_layers;
  uint64_t random;
  pthread_t thread;
  _Atomic uint64_t queue;
  _Atomic int is_over;
} self_t;

/* SplitMix64 */
static uint64_t next_random(self_t *s) {
  uint64_t x = s->random += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

static gd_status enqueue(self_t *s, uint64_t queue, uint64_t model, uint64_t view, uint64_t mask) {
  gd_chain_args args = {sizeof args, {queue}, {model}, {view}, {mask}};
  return s->chain->chain(s->host, &args);
}

static void flags(self_t *s, uint8_t *attention, uint8_t *mlp) {
  for (uint32_t i = 0; i < s->n_layers && i < MANY; i++) {
    attention[i] = next_random(s) % 2;
    mlp[i] = next_random(s) % 2;
  }
}

#ifdef GD_EXT_SUFFIX
#include "hostile_suffix.h"
#endif

/* Calls every host function, mostly with wrong arguments. */
static void call_everything(self_t *s, gd_queue queue) {
  uint8_t attention[MANY] = {0}, mlp[MANY] = {0};
  uint32_t tokens[MANY] = {0};
  uint64_t odd[] = {0, 1, UINT64_MAX, s->view.id, s->mask.id, queue.id, s->view.id + 1, s->mask.id ^ 1u << 24, next_random(s)};
  uint64_t id = odd[next_random(s) % (sizeof odd / sizeof *odd)];
  size_t sizes[] = {0, 1, 8, 9, 16};
  size_t size = sizes[next_random(s) % 5];
  gd_view view;
  gd_layers mask;
  gd_model model;
  gd_row row = {.struct_size = size};
  gd_model_info info = {.struct_size = size};
  gd_replay_score score = {.struct_size = size};
  gd_window_args window = {size, {id}, 4, 64};
  gd_observe_args observe = {.struct_size = size};
  gd_chain_args chain = {size, queue, {id}, {id}, {id}};
  gd_str source = {"\xff", 1}, nothing = {NULL, 0}, bad = {NULL, 100};
#ifdef GD_EXT_SUFFIX
  call_suffixes(s, queue, id, size);
#endif
  flags(s, attention, mlp);
  attention[0] = 2;
  s->views->window(s->host, &window, &view);
  s->views->window(NULL, NULL, NULL);
  window.struct_size = sizeof window;
  s->views->window(s->host, &window, &view);
  s->observe->observe(s->host, &observe, &view);
  s->observe->observe(s->host, NULL, &view);
  s->layers->mask(s->host, (gd_model){id}, attention, mlp, s->n_layers, &mask);
  s->layers->mask(s->host, (gd_model){0}, NULL, NULL, s->n_layers, &mask);
  s->layers->mask(s->host, (gd_model){0}, attention, mlp, UINT32_MAX, NULL);
  s->layers->change(s->host, (gd_layers){id}, attention, mlp, s->n_layers);
  s->chain->chain(s->host, &chain);
  s->chain->chain(s->host, NULL);
  enqueue(s, id, 0, 0, 0);
  enqueue(s, queue.id, 0, id, 0);
  enqueue(s, queue.id, id, 0, 0);
  s->tokens->lookup(s->host, (gd_queue){id}, 1, 3);
  s->tokens->lookup(s->host, queue, 3, 1);
  s->tokens->row(s->host, queue, UINT32_MAX, &row);
  s->tokens->row(s->host, (gd_queue){id}, 0, &row);
  s->tokens->row(s->host, queue, 0, NULL);
  s->tokens->push(s->host, queue, UINT32_MAX, tokens, 1);
  s->tokens->push(s->host, queue, 0, tokens, UINT32_MAX);
  s->tokens->push(s->host, queue, 0, NULL, 1);
  s->tokens->push(s->host, (gd_queue){id}, 0, tokens, 1);
  s->replay->replay(s->host, queue, (gd_layers){id}, 0);
  s->replay->replay(s->host, (gd_queue){id}, s->mask, 4);
  s->replay->score(s->host, (gd_layers){id}, &score);
  s->models->describe(s->host, (gd_model){id}, &info);
  s->models->load(s->host, source, &model);
  s->models->load(s->host, bad, &model);
  s->host->extension(s->host, "galley.\xff/1");
  s->host->extension(s->host, NULL);
  s->host->extension(NULL, "galley.views/1");
  s->host->log(s->host, GD_LOG_DEBUG, source);
  s->host->log(s->host, GD_LOG_DEBUG, nothing);
  s->host->log(s->host, 1000, bad);
  s->host->rerecord(s->host);
}

typedef struct {
  self_t own; /* copied before the thread starts, so that it has its own random numbers */
  self_t *shared;
} hammer_t;

static void *hammer(void *data) {
  hammer_t *h = data;
  while (!atomic_load(&h->shared->is_over)) {
    call_everything(&h->own, (gd_queue){atomic_load(&h->shared->queue)});
    struct timespec pause = {0, 50 * 1000};
    nanosleep(&pause, NULL);
  }
  free(h);
  return NULL;
}

static gd_status activate(gd_drafter *d, const gd_limits *limits) {
  self_t *s = (self_t *)d;
  gd_model_info info = {.struct_size = sizeof info};
  uint8_t attention[MANY] = {0}, mlp[MANY] = {0};
  gd_window_args window = {sizeof window, {0}, 4, 48};
  (void)limits;
  s->models->describe(s->host, (gd_model){0}, &info);
  s->vocab_size = info.vocab_size;
  s->n_layers = info.n_layers;
  s->views->window(s->host, &window, &s->view);
  s->layers->mask(s->host, (gd_model){0}, attention, mlp, s->n_layers, &s->mask);
#ifdef GD_EXT_SUFFIX
  gd_matcher_args matcher = {sizeof matcher, 1, 64, 1e9, 0, 1, 0};
  s->suffix->matcher(s->host, &matcher, &s->matcher);
#endif
#if defined CASE_WRONG_CALLS
  call_everything(s, (gd_queue){1});
#elif defined CASE_THREAD
  hammer_t *h = malloc(sizeof *h);
  if (!h) return GD_NO_MEMORY;
  *h = (hammer_t){*s, s};
  if (pthread_create(&s->thread, NULL, hammer, h) != 0) return GD_INTERNAL;
#elif defined CASE_MANY_HANDLES
  while (s->views->window(s->host, &window, &s->view) == GD_OK) {}
  while (s->layers->mask(s->host, (gd_model){0}, attention, mlp, s->n_layers, &s->mask) == GD_OK) {}
#elif defined CASE_REFUSES
  gd_log_error(s->host, "the stars are not right");
  return GD_UNSUPPORTED;
#elif defined CASE_PLANTED
  volatile size_t len = s->options[0].value.len; /* freed when create returned */
  (void)len;
#elif defined CASE_SCRIBBLES
  memset((void *)(uintptr_t)limits, 0xff, sizeof *limits);
#endif
  (void)hammer;
  return GD_OK;
}

static void deactivate(gd_drafter *d) {
  self_t *s = (self_t *)d;
  atomic_store(&s->is_over, 1);
#ifdef CASE_THREAD
  pthread_join(s->thread, NULL);
#elif defined CASE_WRONG_CALLS
  call_everything(s, s->old_queue);
#endif
}

static gd_status after_prefill(gd_drafter *d, const gd_batch *batch) {
  self_t *s = (self_t *)d;
  (void)s, (void)batch;
#if defined CASE_FAILS || defined CASE_FAILS_LATE
  gd_log_error(s->host, "I cannot read");
  return GD_INTERNAL;
#elif defined CASE_WRONG_CALLS
  call_everything(s, batch->queue);
#elif defined CASE_REPLAYS
  for (uint32_t n = 0; n < 40; n++) s->replay->replay(s->host, batch->queue, s->mask, n);
#endif
  return GD_OK;
}

/* Pushes random tokens for each row. */
static void push_random(self_t *s, const gd_batch *batch, uint64_t bound, uint32_t n_more) {
  for (uint32_t i = 0; i < batch->n_rows; i++) {
    gd_row row = {.struct_size = sizeof row};
    uint32_t tokens[2 * MANY];
    if (s->tokens->row(s->host, batch->queue, i, &row) != GD_OK) continue;
    for (uint32_t k = 0; k < 2 * MANY; k++) tokens[k] = (uint32_t)(next_random(s) % bound);
    s->tokens->push(s->host, batch->queue, i, tokens, row.draft_length + n_more);
  }
}

static gd_status guess(gd_drafter *d, const gd_batch *batch) {
  self_t *s = (self_t *)d;
  gd_queue stale = s->old_queue;
  (void)stale, (void)push_random;
  s->old_queue = batch->queue;
  atomic_store(&s->queue, batch->queue.id);
#if defined CASE_RANDOM
  push_random(s, batch, s->vocab_size, 0);
#elif defined CASE_OUT_OF_VOCABULARY
  push_random(s, batch, (uint64_t)UINT32_MAX + 1, 0);
#elif defined CASE_HALF_OUT_OF_VOCABULARY
  push_random(s, batch, 2 * (uint64_t)s->vocab_size, 0);
#elif defined CASE_TOO_MANY
  push_random(s, batch, s->vocab_size, 1 + (uint32_t)(next_random(s) % MANY));
#elif defined CASE_TWICE
  push_random(s, batch, s->vocab_size, 0);
  push_random(s, batch, s->vocab_size, 0);
  s->tokens->lookup(s->host, batch->queue, 1, 1);
  return enqueue(s, batch->queue.id, 0, s->view.id, 0);
#elif defined CASE_PROPOSES_AGAIN_AND_AGAIN
  for (int i = 0; i < 40; i++) s->suffix->propose(s->host, batch->queue, s->matcher);
#elif defined CASE_QUERIES
  for (uint32_t i = 0; i < batch->n_rows; i++) { /* pushes the match backwards */
    uint32_t tokens[MANY], backwards[MANY];
    float frequencies[MANY];
    gd_query query = {sizeof query, batch->queue, s->matcher, i, MANY, tokens, frequencies};
    gd_match match = {.struct_size = sizeof match};
    if (s->suffix->query(s->host, &query, &match) != GD_OK) return GD_INTERNAL;
    for (uint32_t k = 0; k < match.n_tokens; k++) backwards[k] = tokens[match.n_tokens - 1 - k];
    s->tokens->push(s->host, batch->queue, i, backwards, match.n_tokens);
  }
#elif defined CASE_NOTHING
  return GD_OK;
#elif defined CASE_NO_GUESS
  push_random(s, batch, s->vocab_size, 0);
  return GD_NO_GUESS;
#elif defined CASE_FAILS
  push_random(s, batch, s->vocab_size, 0);
  gd_log_error(s->host, "I cannot guess");
  return GD_INTERNAL;
#elif defined CASE_FAILS_LATE
  if (next_random(s) % 8 == 0) return (gd_status)(next_random(s) % 1000) - 1001;
  push_random(s, batch, s->vocab_size, 0);
#elif defined CASE_ODD_STATUS
  push_random(s, batch, s->vocab_size, 0);
  return (gd_status)(next_random(s) % 1000) + 2;
#elif defined CASE_STALE
  enqueue(s, stale.id, 0, 0, 0);
  return enqueue(s, batch->queue.id, 0, s->view.id ^ 1u << 24, 0);
#elif defined CASE_WRONG_CALLS || defined CASE_THREAD
  call_everything(s, batch->queue);
  return enqueue(s, batch->queue.id, 0, s->view.id, s->mask.id);
#elif defined CASE_MANY_HANDLES
  for (int i = 0; i < 5000; i++) enqueue(s, batch->queue.id, 0, s->view.id, s->mask.id);
#elif defined CASE_REPLAYS
  uint8_t attention[MANY] = {0}, mlp[MANY] = {0};
  for (uint32_t n = 0; n < 4000; n++) s->replay->replay(s->host, batch->queue, s->mask, 1 + n % 8);
  flags(s, attention, mlp);
  s->layers->change(s->host, s->mask, attention, mlp, s->n_layers);
  push_random(s, batch, s->vocab_size, 0);
#elif defined CASE_SLOW
  struct timespec pause = {0, 60 * 1000 * 1000};
  nanosleep(&pause, NULL);
  push_random(s, batch, s->vocab_size, 0);
#elif defined CASE_SLOW_FEEDBACK
  push_random(s, batch, s->vocab_size, 0);
#elif defined CASE_SCRIBBLES
  push_random(s, batch, s->vocab_size, 0);
  memset((void *)(uintptr_t)batch, 0xff, sizeof *batch);
  memset(d, 0xff, sizeof *d); /* the drafter's own struct: the host uses the copy it made before */
#endif
  return GD_OK;
}

static void end(gd_drafter *d, uint64_t sequence) {
  self_t *s = (self_t *)d;
  (void)s, (void)sequence;
#ifdef CASE_WRONG_CALLS
  call_everything(s, s->old_queue);
#endif
}

/* The engine does not call this yet. */
static gd_status cost(gd_drafter *d, uint64_t context_tokens, uint32_t budget_tokens, gd_cost *out) {
  (void)d, (void)context_tokens, (void)budget_tokens;
  out->weights_read = out->kv_tokens_read = 1;
#ifdef CASE_COST_FAILS
  return GD_INTERNAL;
#else
  return GD_OK;
#endif
}

#ifdef GD_EXT_FEEDBACK
static void feedback(gd_drafter *d, const gd_verified *verified) {
  self_t *s = (self_t *)d;
  (void)s, (void)verified;
#if defined CASE_WRONG_CALLS || defined CASE_THREAD
  call_everything(s, s->old_queue);
#elif defined CASE_SCRIBBLES
  memset((void *)(uintptr_t)verified->sequences, 0xff, verified->n_rows * sizeof *verified->sequences);
  memset((void *)(uintptr_t)verified->n_accepted, 0xff, verified->n_rows * sizeof *verified->n_accepted);
  memset((void *)(uintptr_t)verified, 0xff, sizeof *verified);
#elif defined CASE_SLOW_FEEDBACK
  struct timespec pause = {0, 60 * 1000 * 1000};
  nanosleep(&pause, NULL);
#endif
}

static const void *get_extension(gd_drafter *d, const char *id) {
  static const gd_drafter_feedback table = {sizeof table, feedback};
  self_t *s = (self_t *)d;
  (void)s, (void)id;
#ifdef CASE_WRONG_CALLS
  call_everything(s, s->old_queue);
#endif
  return &table; /* whatever the host asks for */
}
#endif

static void destroy(gd_drafter *d) { free(d); }

static gd_status create(const gd_host *host, const gd_option *options, size_t n_options, gd_drafter **out) {
  self_t *s = calloc(1, sizeof *s);
  if (!s || n_options != 1) return GD_INTERNAL;
  s->drafter = (gd_drafter){
      .struct_size = sizeof(gd_drafter),
      .destroy = destroy,
      .activate = activate,
      .deactivate = deactivate,
      .after_prefill = after_prefill,
      .guess = guess,
      .end = end,
      .cost = cost,
#ifdef GD_EXT_FEEDBACK
      .get_extension = get_extension,
#endif
  };
  s->host = host;
  s->options = options;
  s->models = host->extension(host, GD_EXT_MODELS);
  s->views = host->extension(host, GD_EXT_VIEWS);
  s->observe = host->extension(host, GD_EXT_OBSERVE);
  s->layers = host->extension(host, GD_EXT_LAYERS);
  s->chain = host->extension(host, GD_EXT_CHAIN);
  s->tokens = host->extension(host, GD_EXT_TOKENS);
  s->replay = host->extension(host, GD_EXT_REPLAY);
#ifdef GD_EXT_SUFFIX
  s->suffix = host->extension(host, GD_EXT_SUFFIX);
#endif
#if defined CASE_WRONG_CALLS
  call_everything(s, (gd_queue){0});
#elif defined CASE_CREATE_FAILS
  free(s);
  *out = (gd_drafter *)16; /* create failed, so the host must not read it */
  gd_log_error(host, "there is no room for a hat");
  return GD_NO_MEMORY;
#elif defined CASE_HALF_A_DRAFTER
  s->drafter.struct_size = offsetof(gd_drafter, guess) + 4;
#endif
  *out = &s->drafter;
  return GD_OK;
}

#ifdef CASE_MAJOR_2
GD_EXPORT const gd_library *galley_drafter_v1(void);
const gd_library *galley_drafter_v1(void) {
  static const gd_library library = {sizeof(gd_library), 2, 0, gd_manifest, create};
  return &library;
}
#else
GD_DRAFTER_LIBRARY(create)
#endif
