/* A drafter that keeps every rule without a CASE_, and breaks one or a few rules with one. */
#include "galley_drafter_sdk.h"

#include <pthread.h>
#include <time.h>

#if defined CASE_NO_MANIFEST
static const char gd_manifest[] = "nothing";
#elif defined CASE_BAD_NAME
GD_MANIFEST({"id": "test.bad", "name": "A Bad One", "version": "1", "description": "d"});
#elif defined CASE_NEED_TOO_MUCH
GD_MANIFEST({
  "id": "test.bad", "name": "bad", "version": "1", "description": "d",
  "needs": ["galley.views/1", "galley.chain/1", "galley.replay/1"],
  "options": [{"name": "budget", "default": "64", "help": "tokens"}]
});
#elif defined CASE_NEED_TOO_LITTLE
GD_MANIFEST({
  "id": "test.bad", "name": "bad", "version": "1", "description": "d", "needs": ["galley.chain/1"],
  "options": [{"name": "budget", "default": "64", "help": "tokens"}]
});
#else
GD_MANIFEST({
  "id": "test.bad", "name": "bad", "version": "1", "description": "d",
  "needs": ["galley.views/1", "galley.chain/1"],
  "options": [{"name": "budget", "default": "64", "help": "tokens"}]
});
#endif

typedef struct {
  gd_drafter drafter;
  const gd_host *host;
  const gd_host_models *models;
  const gd_host_views *views;
  const gd_host_observe *observe;
  const gd_host_chain *chain;
  const gd_host_tokens *tokens;
  const gd_host_suffix *suffix;
  const char *text;
  uint32_t budget, n_guesses, n_asked;
  uint64_t sequences[16];
  gd_view view;
  gd_matcher matcher;
  void *latest;
} self_t;

#ifdef CASE_THREAD_LOCAL
static _Thread_local self_t *mine;
#endif

static gd_status make_window(self_t *s, gd_view *out) {
  gd_window_args args = {sizeof args, {0}, 4, s->budget};
#ifdef CASE_ARGUMENT_SIZE
  args.struct_size = 8;
#endif
  return s->views->window(s->host, &args, out);
}

static gd_status enqueue(self_t *s, gd_queue queue, gd_view view) {
  gd_chain_args args = {sizeof args, queue, {0}, view, {0}};
  return s->chain->chain(s->host, &args);
}

typedef struct { self_t *s; gd_queue queue; } other_t;
static void *on_other_thread(void *data) {
  other_t *o = data;
  enqueue(o->s, o->queue, o->s->view);
  return NULL;
}

static gd_status activate(gd_drafter *d, const gd_limits *limits) {
  self_t *s = (self_t *)d;
  (void)limits;
#ifdef CASE_WRITES_LIMITS
  ((gd_limits *)(uintptr_t)limits)->max_rows = 1;
#elif defined CASE_WANTS_LIMITS_OF_TODAY
  if (limits->struct_size != sizeof *limits) {
    gd_log_error(s->host, "these are not the limits that I know");
    return GD_INVALID;
  }
#elif defined CASE_LOGS_BYTES
  gd_str bytes = {"\xff\xfe", 2};
  s->host->log(s->host, GD_LOG_INFO, bytes);
#elif defined CASE_LOGS_LOUDER
  gd_str loud = {"help", 4};
  s->host->log(s->host, 9, loud);
#elif defined CASE_FAILS
  gd_log_error(s->host, "I do not feel like it");
  return GD_INTERNAL;
#elif defined CASE_KEEPS_TEXT
  if (*(volatile const char *)s->text == 'x') return GD_INVALID; /* create's copy is freed */
#elif defined CASE_RESERVED
  gd_view v;
  gd_observe_args o = {sizeof o, 64, GD_SELECT_TOKENS, 0, 8, GD_OBSERVE_CONTEXT, 8, GD_POOL_NONE, 1, 0, 5};
  if (s->observe) s->observe->observe(s->host, &o, &v);
#elif defined CASE_MATCHER_RESERVED
  gd_matcher_args m = {sizeof m, 1, 8, 1, 0, 0, 9};
  if (s->suffix) s->suffix->matcher(s->host, &m, &s->matcher);
#elif defined CASE_QUERY_SIZE
  gd_matcher_args m = {sizeof m, 1, 8, 1, 0, 0, 0};
  if (s->suffix) s->suffix->matcher(s->host, &m, &s->matcher);
#endif
#ifdef CASE_STALE
  if (s->view.id) return GD_OK; /* made already */
#elif defined CASE_ONLY_ONCE
  if (s->view.id) { gd_log_error(s->host, "I am active already"); return GD_WRONG_PHASE; }
#endif
#ifdef CASE_IGNORES_FAILURE
  s->view.id = 0xdead;
  make_window(s, &s->view);
  return GD_OK;
#else
  gd_status status = make_window(s, &s->view);
  if (status != GD_OK) gd_log_error(s->host, "the host refused my window");
  return status;
#endif
}

static gd_status after_prefill(gd_drafter *d, const gd_batch *batch) {
  self_t *s = (self_t *)d;
  (void)s, (void)batch;
#ifdef CASE_KEEPS_SEQUENCES
  s->latest = calloc(1, 200);
#elif defined CASE_NO_GUESS_TOO_EARLY
  return GD_NO_GUESS;
#endif
  return GD_OK;
}

static gd_status guess(gd_drafter *d, const gd_batch *batch) {
  self_t *s = (self_t *)d;
  s->n_guesses++;
  (void)on_other_thread;
#ifdef CASE_OPTION_LATE
  if (s->n_guesses > 1u << 30) { gd_log_error(s->host, "that budget was never right"); return GD_INVALID; }
#endif
#if defined CASE_WINDOW_IN_GUESS
  gd_view v;
  make_window(s, &v);
#elif defined CASE_OTHER_THREAD
  other_t other = {s, batch->queue};
  pthread_t thread;
  if (pthread_create(&thread, NULL, on_other_thread, &other) == 0) pthread_join(thread, NULL);
#elif defined CASE_THREAD_LOCAL
  s = mine;
#elif defined CASE_NULL_HOST
  s->host->extension(NULL, GD_EXT_CHAIN);
#elif defined CASE_QUERY_SIZE
  gd_query query = {.struct_size = 8, .queue = batch->queue, .matcher = s->matcher};
  gd_match match = {.struct_size = sizeof match};
  if (s->suffix) s->suffix->query(s->host, &query, &match);
#elif defined CASE_NO_MATCHER
  gd_matcher none = {0};
  if (s->suffix) s->suffix->propose(s->host, batch->queue, none);
#elif defined CASE_FORGED
  gd_view forged = {s->view.id + 1};
  enqueue(s, batch->queue, forged);
#elif defined CASE_READS_BEHIND_BATCH
  if (((volatile const uint32_t *)batch)[sizeof *batch / 4] == 1) return GD_NO_GUESS;
#elif defined CASE_READS_BEHIND_TOKENS
  gd_row read = {.struct_size = sizeof read};
  if (s->tokens && s->tokens->row(s->host, batch->queue, 0, &read) == GD_OK)
    if (((volatile const uint32_t *)read.tokens)[read.n_tokens] == 1) return GD_NO_GUESS;
#elif defined CASE_TOO_LONG || defined CASE_NO_TOKEN
  for (uint32_t i = 0; i < batch->n_rows; i++) {
    gd_row row = {.struct_size = sizeof row};
    if (!s->tokens || s->tokens->row(s->host, batch->queue, i, &row) != GD_OK) return GD_NO_GUESS;
    uint32_t tokens[32];
    for (uint32_t k = 0; k < 32; k++) tokens[k] = 3;
#ifdef CASE_TOO_LONG
    s->tokens->push(s->host, batch->queue, i, tokens, row.draft_length + 1);
#else
    tokens[0] = 4000000;
    s->tokens->push(s->host, batch->queue, i, tokens, row.draft_length);
#endif
  }
  return GD_OK;
#elif defined CASE_OTHER_TOO_LATE
  if (!s->tokens) { gd_log_error(s->host, "tokens are needed"); return GD_UNSUPPORTED; }
#elif defined CASE_ODD_STATUS
  enqueue(s, batch->queue, s->view);
  return 7;
#elif defined CASE_COUNTS
  gd_view all = {0};
  return enqueue(s, batch->queue, s->n_guesses % 7 ? s->view : all);
#elif defined CASE_BEYOND
  typedef gd_status (*later)(const gd_host *, gd_queue);
  later function;
  memcpy(&function, (const char *)s->chain + sizeof(gd_host_chain), sizeof function);
  function(s->host, batch->queue);
#elif defined CASE_SLOW
  struct timespec pause = {0, 2 * 1000 * 1000};
  nanosleep(&pause, NULL);
#elif defined CASE_CRASHES_WHEN_MANY
  if (batch->n_rows > 4) abort();
#elif defined CASE_ENDS_THE_PROCESS
  exit(0);
#elif defined CASE_HANGS
  for (;;) { struct timespec pause = {1, 0}; nanosleep(&pause, NULL); }
#endif
  gd_status status = enqueue(s, batch->queue, s->view);
  if (status != GD_OK) gd_log_error(s->host, "the host refused my chain");
  return status;
}

static gd_status cost(gd_drafter *d, uint64_t context_tokens, uint32_t budget_tokens, gd_cost *out) {
  self_t *s = (self_t *)d;
  double budget = budget_tokens ? budget_tokens : s->budget;
  out->weights_read = 1;
  out->kv_tokens_read = context_tokens < budget ? (double)context_tokens : budget;
#ifdef CASE_COST_NAN
  out->weights_read = out->kv_tokens_read / 0.0 - out->kv_tokens_read / 0.0;
#elif defined CASE_COST_FALLS
  out->kv_tokens_read = 1.0 / (double)context_tokens;
#elif defined CASE_WRITES_BEHIND
  memset(out, 0, sizeof *out + 8);
  out->struct_size = sizeof *out;
#endif
  return GD_OK;
}

static void feedback(gd_drafter *d, const gd_verified *verified) {
  self_t *s = (self_t *)d;
  for (uint32_t i = 0; i < verified->n_rows; i++) {
#if defined CASE_FEEDBACK_CRASHES
    if (verified->sequences[i] == UINT64_MAX) abort();
#elif defined CASE_FEEDBACK_HAS_ROOM_FOR_A_ROUND
    if (i >= 16) abort(); /* a careful author aborts where a careless one writes */
    s->sequences[i] = verified->sequences[i];
#elif defined CASE_FEEDBACK_KEEPS
    s->latest = calloc(1, 200);
#elif defined CASE_READS_BEHIND_FEEDBACK
    if (((volatile const uint32_t *)verified->n_accepted)[verified->n_rows] == 1) return;
#elif defined CASE_FEEDBACK_WRITES
    ((uint32_t *)(uintptr_t)verified->n_accepted)[i] = 0;
#endif
  }
#ifdef CASE_FEEDBACK_MAKES_A_VIEW
  gd_view v;
  make_window(s, &v);
#endif
  (void)s;
}

static const void *get_extension(gd_drafter *d, const char *id) {
  self_t *s = (self_t *)d;
  static const gd_drafter_feedback tables[2] = {
#if defined CASE_TABLE_SIZE
      {8, feedback}, {8, feedback}
#elif defined CASE_TABLE_IS_EMPTY
      {sizeof(gd_drafter_feedback), NULL}, {sizeof(gd_drafter_feedback), NULL}
#else
      {sizeof(gd_drafter_feedback), feedback}, {sizeof(gd_drafter_feedback), feedback}
#endif
  };
  (void)s;
#if defined CASE_KNOWS_EVERY_ID
  (void)id;
  return &tables[0];
#elif defined CASE_COMPARES_A_PREFIX
  return strncmp(id, GD_EXT_FEEDBACK, 15) == 0 ? &tables[0] : NULL;
#elif defined CASE_ANOTHER_TABLE
  return strcmp(id, GD_EXT_FEEDBACK) == 0 ? &tables[s->n_asked++ % 2] : NULL;
#elif defined CASE_TABLE_WHEN_ACTIVE
  return strcmp(id, GD_EXT_FEEDBACK) == 0 && s->view.id ? &tables[0] : NULL;
#elif defined CASE_ASKS_BACK
  gd_view v;
  make_window(s, &v);
#endif
  return strcmp(id, GD_EXT_FEEDBACK) == 0 ? &tables[0] : NULL;
}

static void destroy(gd_drafter *d) {
#ifndef CASE_LEAKS
  free(d);
#else
  (void)d;
#endif
}

static gd_status create(const gd_host *host, const gd_option *options, size_t n_options, gd_drafter **out) {
#ifdef CASE_WANTS_HOST_OF_TODAY
  if (host->abi_minor != GD_ABI_MINOR) {
    gd_log_error(host, "I know no later hosts");
    return GD_UNSUPPORTED;
  }
#endif
  self_t *s = calloc(1, sizeof *s);
  if (!s) return GD_NO_MEMORY;
  s->host = host;
  s->text = options[0].value.ptr;
#ifdef CASE_THREAD_LOCAL
  mine = s;
#endif
  s->models = host->extension(host, GD_EXT_MODELS);
  s->views = host->extension(host, GD_EXT_VIEWS);
  s->observe = host->extension(host, GD_EXT_OBSERVE);
  s->chain = host->extension(host, GD_EXT_CHAIN);
  s->tokens = host->extension(host, GD_EXT_TOKENS);
  s->suffix = host->extension(host, GD_EXT_SUFFIX);
  const void *missing = s->views && s->chain ? NULL : host;
#ifdef CASE_NEED_NOT_CHECKED
  missing = NULL;
#elif defined CASE_NEED_REFUSED_SILENTLY
  if (missing) { free(s); return GD_UNSUPPORTED; }
#elif defined CASE_NEED_TOO_LITTLE
  missing = NULL; /* views are looked up too late, and the failure is not logged */
  if (!s->views) { free(s); return GD_INTERNAL; }
#elif defined CASE_OTHER_NOT_CHECKED
  gd_model_info info = {.struct_size = sizeof info};
  gd_model target = {0};
  s->models->describe(host, target, &info);
#endif
  if (missing) {
    gd_log_error(host, "views and chains are needed");
    free(s);
    return GD_UNSUPPORTED;
  }
#ifdef CASE_TEXT_WITH_NUL
  (void)n_options;
  s->budget = (uint32_t)strtoul(options[0].value.ptr, NULL, 10);
  if (s->budget < 5) s->budget = 5;
#else
  gd_status status = gd_option_u32(host, options, n_options, "budget", &s->budget);
#ifdef CASE_OPTION_CRASHES
  gd_str text = gd_option_text(options, n_options, "budget");
  if (status != GD_OK && text.len == 0) abort();
#elif defined CASE_OPTION_LATE
  if (status != GD_OK || s->budget < 5) s->n_guesses = 1u << 30, s->budget = 64, status = GD_OK;
#elif defined CASE_OPTION_SILENT
  if (status == GD_OK && s->budget < 5) { free(s); return GD_INVALID; }
#endif
  if (status == GD_OK && s->budget < 5) {
    gd_log_error(host, "option budget: at least 5 is expected");
    status = GD_INVALID;
  }
  if (status != GD_OK) { free(s); return status; }
#endif
  s->drafter = (gd_drafter){
      .struct_size = sizeof(gd_drafter),
      .destroy = destroy,
      .activate = activate,
      .after_prefill = after_prefill,
      .guess = guess,
      .cost = cost,
      .get_extension = get_extension,
  };
#ifdef CASE_DRAFTER_SIZE
  s->drafter.struct_size = 4;
#elif defined CASE_DRAFTER_SIZE_UNSET
  s->drafter.struct_size = 0xa5a5a5a5;
#elif defined CASE_NO_DESTROY
  s->drafter.destroy = NULL;
#endif
  *out = &s->drafter;
  return GD_OK;
}

#if defined CASE_NO_ENTRY
GD_EXPORT const char *another_name(void);
const char *another_name(void) { (void)create; return gd_manifest; }
#elif defined CASE_MAJOR_2
GD_EXPORT const gd_library *galley_drafter_v1(void);
const gd_library *galley_drafter_v1(void) {
  static const gd_library library = {sizeof(gd_library), 2, 0, gd_manifest, create};
  return &library;
}
#else
GD_DRAFTER_LIBRARY(create)
#endif
#ifdef CASE_CRASHES_AT_LOAD
__attribute__((constructor)) static void at_load(void) { abort(); }
#endif
