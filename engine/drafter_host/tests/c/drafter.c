/* A drafter in many variants: correct without a CASE_, wrong in one way with one. */
#include "galley_drafter.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef CASE_UNKNOWN_NEED
GD_MANIFEST({"id": "test.case", "name": "case", "version": "1", "description": "d", "needs": ["galley.magic/1"]});
#else
GD_MANIFEST({
  "id": "test.case", "name": "case", "version": "1", "description": "A test, with commas",
  "needs": ["galley.views/1", "galley.chain/1", "galley.tokens/1"],
  "options": [{"name": "budget", "default": "64", "help": "tokens"}]
});
#endif

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
  uint32_t budget;
  gd_model model;
  gd_view view, old_view;
  gd_layers mask;
  gd_queue old_queue;
  int n_guesses;
} self_t;

static void say(self_t *s, int32_t level, const char *text) {
  gd_str message = {text, strlen(text)};
  s->host->log(s->host, level, message);
}
/* Fails the callback, with a logged message, if a call returns anything but `want`. */
#define EXPECT(want, call) \
  do { if ((call) != (want)) { say(s, GD_LOG_ERROR, "not " #want ": " #call); return GD_INTERNAL; } } while (0)

static gd_status make_window(self_t *s, gd_view *out) {
  gd_window_args args = {sizeof args, {0}, 4, s->budget};
  return s->views->window(s->host, &args, out);
}
static gd_status enqueue_chain(self_t *s, gd_queue queue, gd_model model, gd_view view, gd_layers layers) {
  gd_chain_args args = {sizeof args, queue, model, view, layers};
  return s->chain->chain(s->host, &args);
}
static const gd_model target;
static const gd_view all;
static const gd_layers every;

typedef struct { self_t *s; gd_queue queue; gd_status status; } other_t;
static void *on_other_thread(void *data) {
  other_t *o = data;
  gd_model_info info = {sizeof info, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  o->status = enqueue_chain(o->s, o->queue, target, all, every);
  if (o->s->models->describe(o->s->host, target, &info) != GD_OK) o->status = GD_INTERNAL; /* [any] */
  say(o->s, GD_LOG_DEBUG, "from another thread");
  return NULL;
}

static gd_status activate(gd_drafter *d, const gd_limits *limits) {
  self_t *s = (self_t *)d;
  (void)limits;
#ifdef CASE_FAILS
  say(s, GD_LOG_ERROR, "no room for my tables");
  return s->budget == 13 ? GD_NO_MEMORY : GD_OK;
#endif
  EXPECT(GD_OK, make_window(s, &s->view));
#ifdef CASE_CHECKS
  uint8_t on[2] = {1, 1}, off[2] = {1, 0}, bad[2] = {2, 0};
  gd_view v;
  gd_layers m;
  gd_window_args w = {sizeof w, {0}, 4, s->budget};
  gd_model_info info, before;
  EXPECT(GD_INVALID, s->views->window(NULL, &w, &v));
  EXPECT(GD_INVALID, s->views->window(s->host, NULL, &v));
  EXPECT(GD_INVALID, s->views->window(s->host, &w, NULL));
  w.struct_size = 16;
  EXPECT(GD_INVALID, s->views->window(s->host, &w, &v));
  w.struct_size = sizeof w; w.model.id = s->view.id;
  EXPECT(GD_INVALID, s->views->window(s->host, &w, &v));
  w.model.id = 0; w.budget_tokens = 4;
  EXPECT(GD_INVALID, s->views->window(s->host, &w, &v));
  memset(&info, 0x5a, sizeof info);
  before = info;
  before.struct_size = info.struct_size = offsetof(gd_model_info, n_heads);
  EXPECT(GD_OK, s->models->describe(s->host, target, &info));
  before.n_layers = 2;
  EXPECT(0, memcmp(&before, &info, sizeof info)); /* nothing beyond struct_size is written */
  gd_observe_args o = {sizeof o, 256, GD_SELECT_BLOCKS, 4, 32, GD_OBSERVE_VERIFY, 0, GD_POOL_MAX, 5, 3, 0};
  EXPECT(GD_OK, s->observe->observe(s->host, &o, &v));
  o.pool_width = 4;
  EXPECT(GD_INVALID, s->observe->observe(s->host, &o, &v));
  o.pool_width = 5; o.refresh = 0;
  EXPECT(GD_INVALID, s->observe->observe(s->host, &o, &v));
  o.observe = GD_OBSERVE_CONTEXT;
  EXPECT(GD_INVALID, s->observe->observe(s->host, &o, &v));
  o.n_queries = 8; o.granularity = 7;
  EXPECT(GD_INVALID, s->observe->observe(s->host, &o, &v));
  o.granularity = GD_SELECT_TOKENS; o.pool = GD_POOL_NONE; o.n_recent = 256;
  EXPECT(GD_INVALID, s->observe->observe(s->host, &o, &v));
  o.n_recent = 8;
  EXPECT(GD_OK, s->observe->observe(s->host, &o, &v));
  EXPECT(GD_INVALID, s->layers->mask(s->host, target, on, off, 3, &m));
  EXPECT(GD_INVALID, s->layers->mask(s->host, target, on, bad, 2, &m));
  EXPECT(GD_INVALID, s->layers->mask(s->host, target, on, NULL, 2, &m));
  EXPECT(GD_OK, s->layers->mask(s->host, target, on, off, 2, &s->mask));
  gd_str source = {"small", 5}, strange = {"strange", 7};
  EXPECT(GD_UNSUPPORTED, s->models->load(s->host, strange, &s->model));
  EXPECT(GD_OK, s->models->load(s->host, source, &s->model));
  EXPECT(GD_WRONG_PHASE, enqueue_chain(s, s->old_queue, target, all, every));
  EXPECT(1, s->host->extension(s->host, "galley.magic/1") == NULL);
#endif
#ifdef CASE_STALE
  if (s->old_view.id == 0) s->old_view = s->view;
#endif
  return GD_OK;
}

static void deactivate(gd_drafter *d) { (void)d; }

static gd_status after_prefill(gd_drafter *d, const gd_batch *batch) {
  self_t *s = (self_t *)d;
  (void)s; (void)batch;
#ifdef CASE_FAILS
  return GD_INTERNAL;
#elif defined CASE_CHECKS
  uint32_t token = 1;
  EXPECT(GD_WRONG_PHASE, s->tokens->push(s->host, batch->queue, 0, &token, 1));
  EXPECT(GD_OK, s->replay->replay(s->host, batch->queue, s->mask, 16));
#endif
  return GD_OK;
}

static gd_status guess(gd_drafter *d, const gd_batch *batch) {
  self_t *s = (self_t *)d;
  s->n_guesses++;
  (void)batch; (void)on_other_thread;
#if defined CASE_FAILS
  enqueue_chain(s, batch->queue, target, all, every);
  say(s, GD_LOG_ERROR, "lost my way");
  return GD_PANIC;
#elif defined CASE_STALE
  return enqueue_chain(s, batch->queue, target, s->old_view, every);
#elif defined CASE_SLOW
  struct timespec pause = {0, 60 * 1000 * 1000};
  uint32_t token = 1;
  nanosleep(&pause, NULL);
  return s->tokens->push(s->host, batch->queue, 0, &token, 1);
#elif defined CASE_FLOODS
  while (enqueue_chain(s, batch->queue, target, s->view, every) == GD_OK) {}
  EXPECT(GD_NO_MEMORY, s->tokens->lookup(s->host, batch->queue, 1, 3));
  uint32_t token = 1;
  return s->tokens->push(s->host, batch->queue, 0, &token, 1); /* the limit on passes does not count a push */
#elif defined CASE_NO_GUESS
  return GD_NO_GUESS;
#elif defined CASE_THREAD
  other_t other = {s, batch->queue, GD_OK};
  pthread_t thread;
  if (pthread_create(&thread, NULL, on_other_thread, &other) != 0) return GD_INTERNAL;
  pthread_join(thread, NULL);
  EXPECT(GD_WRONG_PHASE, other.status);
  return enqueue_chain(s, batch->queue, target, s->view, every);
#elif defined CASE_CHECKS
  uint32_t tokens[4] = {7, 8, 100, 9};
  uint8_t on[2] = {1, 1};
  gd_view v;
  gd_row row = {sizeof row, 0, 0, NULL, 0, 0};
  gd_replay_score score = {sizeof score, 0, 0};
  gd_queue forged = {batch->queue.id + 1};
  gd_view forged_view = {s->view.id ^ 0x1000000};
  gd_view mask_as_view = {s->mask.id};
  EXPECT(GD_WRONG_PHASE, make_window(s, &v));
  EXPECT(GD_INVALID, enqueue_chain(s, forged, target, all, every));
  if (s->old_queue.id) EXPECT(GD_INVALID, enqueue_chain(s, s->old_queue, target, all, every));
  s->old_queue = batch->queue;
  EXPECT(GD_INVALID, enqueue_chain(s, batch->queue, target, forged_view, every));
  EXPECT(GD_INVALID, enqueue_chain(s, batch->queue, target, mask_as_view, every));
  EXPECT(GD_INVALID, enqueue_chain(s, batch->queue, s->model, s->view, every)); /* the target's view */
  EXPECT(GD_INVALID, enqueue_chain(s, batch->queue, s->model, all, s->mask));
  EXPECT(GD_INVALID, s->tokens->lookup(s->host, batch->queue, 0, 3));
  EXPECT(GD_INVALID, s->tokens->row(s->host, batch->queue, batch->n_rows, &row));
  EXPECT(GD_OK, s->tokens->row(s->host, batch->queue, 1, &row));
  EXPECT(1, row.sequence == 11 && row.n_tokens == 3 && row.tokens[2] == 6 && row.draft_length == 4);
  EXPECT(GD_INVALID, s->tokens->push(s->host, batch->queue, 0, tokens, 4)); /* more than its 3 */
  EXPECT(GD_INVALID, s->tokens->push(s->host, batch->queue, 1, NULL, 2));
  EXPECT(GD_OK, s->tokens->push(s->host, batch->queue, 1, tokens, 4)); /* cut before 100 */
  EXPECT(GD_INVALID, s->tokens->push(s->host, batch->queue, 1, tokens, 1)); /* a second one */
  EXPECT(GD_OK, s->replay->score(s->host, s->mask, &score));
  if (score.n_compared) EXPECT(1, score.n_matched == 3 && score.n_compared == 4);
  EXPECT(GD_OK, s->tokens->lookup(s->host, batch->queue, 1, 3));
  EXPECT(GD_OK, enqueue_chain(s, batch->queue, s->model, all, every));
  EXPECT(GD_OK, enqueue_chain(s, batch->queue, target, s->view, s->mask));
  if (score.n_compared) EXPECT(GD_OK, s->layers->change(s->host, s->mask, on, on, 2));
  return GD_OK;
#else
  return enqueue_chain(s, batch->queue, target, s->view, every);
#endif
}

static void end(gd_drafter *d, uint64_t sequence) {
  self_t *s = (self_t *)d;
  if (sequence == 99) s->host->rerecord(s->host);
}

static gd_status cost(gd_drafter *d, uint64_t context_tokens, uint32_t budget_tokens, gd_cost *out) {
  self_t *s = (self_t *)d;
  (void)s; (void)context_tokens;
#ifdef CASE_FAILS
  (void)out; (void)budget_tokens;
  return GD_INTERNAL;
#else
  out->weights_read = 1.0;
  out->kv_tokens_read = budget_tokens ? budget_tokens : s->budget;
  return GD_OK;
#endif
}

static void destroy(gd_drafter *d) { free(d); }

static gd_status create(const gd_host *host, const gd_option *options, size_t n_options, gd_drafter **out) {
  self_t *s = calloc(1, sizeof *s);
  if (s == NULL || n_options != 1) return GD_INTERNAL;
  for (size_t i = 0; i < options[0].value.len; i++) s->budget = 10 * s->budget + (uint32_t)(options[0].value.ptr[i] - '0');
  s->host = host;
  if (s->budget == 0) {
    say(s, GD_LOG_ERROR, "the budget must be at least 1");
    free(s);
    return GD_INVALID;
  }
  s->models = host->extension(host, GD_EXT_MODELS);
  s->views = host->extension(host, GD_EXT_VIEWS);
  s->observe = host->extension(host, GD_EXT_OBSERVE);
  s->layers = host->extension(host, GD_EXT_LAYERS);
  s->chain = host->extension(host, GD_EXT_CHAIN);
  s->tokens = host->extension(host, GD_EXT_TOKENS);
  s->replay = host->extension(host, GD_EXT_REPLAY);
  s->drafter = (gd_drafter){sizeof(gd_drafter), NULL, destroy, activate, deactivate, after_prefill, guess, end, cost, NULL};
#ifdef CASE_SHORT_DRAFTER
  s->drafter.struct_size = offsetof(gd_drafter, guess);
#elif defined CASE_NO_OPTIONAL
  s->drafter.struct_size = offsetof(gd_drafter, end) + 4; /* half a pointer: end and cost must not be called */
  s->drafter.deactivate = NULL;
  s->drafter.after_prefill = NULL;
#elif defined CASE_MISSING_GUESS
  s->drafter.guess = NULL;
#endif
  *out = &s->drafter;
  return GD_OK;
}

static const gd_library library = {
#ifdef CASE_SHORT_LIBRARY
  offsetof(gd_library, create),
#else
  sizeof(gd_library),
#endif
#ifdef CASE_WRONG_MAJOR
  2,
#else
  GD_ABI_MAJOR,
#endif
  GD_ABI_MINOR,
#ifdef CASE_OTHER_MANIFEST
  GD_MANIFEST_MARK " {\"id\": \"test.other\", \"name\": \"other\", \"version\": \"1\", \"description\": \"d\"}",
#else
  gd_manifest,
#endif
  create};

#ifdef CASE_OTHER_MANIFEST
GD_EXPORT const char *manifest_is_used(void);
const char *manifest_is_used(void) { return gd_manifest; }
#endif
#ifndef CASE_NO_ENTRY
GD_EXPORT const gd_library *galley_drafter_v1(void);
const gd_library *galley_drafter_v1(void) { return &library; }
#else
GD_EXPORT const gd_library *another_name(void);
const gd_library *another_name(void) { return &library; }
#endif
