/* A drafter that searches suffix indexes and takes feedback; CASE_ selects a variant. */
#include "galley_drafter_sdk.h"

#include <time.h>

GD_MANIFEST({"id": "test.suffix", "name": "suffix", "version": "1", "description": "d", "needs": ["galley.suffix/1"]});

typedef struct {
  gd_drafter drafter;
  const gd_host *host;
  const gd_host_suffix *suffix;
  gd_matcher matcher;
  uint32_t n_proposed, n_accepted;
} self_t;

/* Fails the callback, with a logged message, if a call returns anything but `want`. */
#define EXPECT(want, call) \
  do { if ((call) != (want)) { gd_log_error(s->host, "not " #want ": " #call); return GD_INTERNAL; } } while (0)

static gd_status activate(gd_drafter *d, const gd_limits *limits) {
  self_t *s = (self_t *)d;
  gd_matcher other;
  gd_matcher_args args = {sizeof args, 2, 8, 1.5, 0.25, 1, 0};
  (void)limits;
  EXPECT(GD_OK, s->suffix->matcher(s->host, &args, &s->matcher));
  EXPECT(GD_INVALID, s->suffix->matcher(s->host, &args, NULL));
  EXPECT(GD_INVALID, s->suffix->matcher(s->host, NULL, &other));
  args.struct_size = 16;
  EXPECT(GD_INVALID, s->suffix->matcher(s->host, &args, &other));
  args.struct_size = sizeof args, args.min_match = 0;
  EXPECT(GD_INVALID, s->suffix->matcher(s->host, &args, &other));
  args.min_match = 9;
  EXPECT(GD_INVALID, s->suffix->matcher(s->host, &args, &other));
  args.min_match = 1, args.tokens_per_match = 0;
  EXPECT(GD_INVALID, s->suffix->matcher(s->host, &args, &other));
  args.tokens_per_match = 0.0 / args.tokens_per_match;
  EXPECT(GD_INVALID, s->suffix->matcher(s->host, &args, &other));
  args.tokens_per_match = 1, args.min_frequency = 1.5;
  EXPECT(GD_INVALID, s->suffix->matcher(s->host, &args, &other));
  args.min_frequency = -args.min_frequency;
  EXPECT(GD_INVALID, s->suffix->matcher(s->host, &args, &other));
  args.min_frequency = 1, args.memory = 2;
  EXPECT(GD_INVALID, s->suffix->matcher(s->host, &args, &other));
  EXPECT(GD_WRONG_PHASE, s->suffix->propose(s->host, (gd_queue){1}, s->matcher));
  return GD_OK;
}

#ifdef CASE_QUERIES
static gd_status check_queries(self_t *s, const gd_batch *batch) {
  uint32_t tokens[4] = {77, 77, 77, 77};
  float frequencies[4] = {7, 7, 7, 7};
  gd_query query = {sizeof query, batch->queue, s->matcher, 0, 4, tokens, frequencies};
  gd_match match = {.struct_size = sizeof match};
  EXPECT(GD_OK, s->suffix->query(s->host, &query, &match));
  EXPECT(1, match.match_tokens == 5 && match.count == 3 && match.n_tokens == 3); /* its draft length */
  EXPECT(1, tokens[0] == 10 && tokens[2] == 12 && frequencies[0] == 1 && frequencies[2] == 0.25f);
  EXPECT(1, tokens[3] == 77 && frequencies[3] == 7);
  query.capacity = 1, tokens[1] = 77;
  EXPECT(GD_OK, s->suffix->query(s->host, &query, &match));
  EXPECT(1, match.n_tokens == 1 && tokens[0] == 10 && tokens[1] == 77);
  query.row = 1;
  EXPECT(GD_OK, s->suffix->query(s->host, &query, &match));
  EXPECT(1, match.match_tokens == 0 && match.n_tokens == 0);
  query.row = 0, query.capacity = 0, query.tokens = NULL, query.frequencies = NULL;
  EXPECT(GD_OK, s->suffix->query(s->host, &query, &match));
  EXPECT(1, match.match_tokens == 5 && match.n_tokens == 0);
  query.capacity = 1;
  EXPECT(GD_INVALID, s->suffix->query(s->host, &query, &match));
  query.capacity = 0, query.row = batch->n_rows;
  EXPECT(GD_INVALID, s->suffix->query(s->host, &query, &match));
  query.row = 0, query.matcher.id ^= 1u << 24;
  EXPECT(GD_INVALID, s->suffix->query(s->host, &query, &match));
  query.matcher = s->matcher, query.queue.id++;
  EXPECT(GD_INVALID, s->suffix->query(s->host, &query, &match));
  query.queue = batch->queue, query.struct_size = 40;
  EXPECT(GD_INVALID, s->suffix->query(s->host, &query, &match));
  query.struct_size = sizeof query;
  EXPECT(GD_INVALID, s->suffix->query(s->host, &query, NULL));
  EXPECT(GD_INVALID, s->suffix->query(s->host, NULL, &match));
  EXPECT(GD_INVALID, s->suffix->propose(s->host, batch->queue, (gd_matcher){0}));
  return GD_OK;
}
#endif

static gd_status guess(gd_drafter *d, const gd_batch *batch) {
  self_t *s = (self_t *)d;
#ifdef CASE_QUERIES
  gd_status status = check_queries(s, batch);
  if (status != GD_OK) return status;
#endif
  return s->suffix->propose(s->host, batch->queue, s->matcher);
}

/* Returns the counts of the feedback. */
static gd_status cost(gd_drafter *d, uint64_t context_tokens, uint32_t budget_tokens, gd_cost *out) {
  self_t *s = (self_t *)d;
  (void)context_tokens, (void)budget_tokens;
  out->weights_read = s->n_proposed;
  out->kv_tokens_read = s->n_accepted;
  return GD_OK;
}

static void feedback(gd_drafter *d, const gd_verified *verified) {
  self_t *s = (self_t *)d;
  for (uint32_t i = 0; i < verified->n_rows; i++) {
    if (verified->sequences[i] != 10 + i) return;
    s->n_proposed += verified->n_proposed[i];
    s->n_accepted += verified->n_accepted[i];
  }
#ifdef CASE_ENQUEUES
  /* Nothing may be enqueued here, so the counts show it if something was. */
  if (s->suffix->propose(s->host, (gd_queue){0}, s->matcher) != GD_WRONG_PHASE) s->n_proposed += 1000;
#elif defined CASE_SLOW
  struct timespec pause = {0, 60 * 1000 * 1000};
  nanosleep(&pause, NULL);
#endif
}

static const void *get_extension(gd_drafter *d, const char *id) {
  self_t *s = (self_t *)d;
  static gd_drafter_feedback table = {sizeof table, feedback};
  gd_matcher_args args = {sizeof args, 2, 8, 1.5, 0.25, 1, 0};
#ifdef CASE_SHORT_TABLE
  table.struct_size = sizeof table.struct_size;
#endif
  if (s->suffix->matcher(s->host, &args, &s->matcher) != GD_WRONG_PHASE) return NULL;
  return strcmp(id, GD_EXT_FEEDBACK) == 0 ? &table : NULL;
}

static void destroy(gd_drafter *d) { free(d); }

static gd_status create(const gd_host *host, const gd_option *options, size_t n_options, gd_drafter **out) {
  self_t *s = calloc(1, sizeof *s);
  (void)options, (void)n_options;
  if (!s) return GD_NO_MEMORY;
  s->host = host;
  s->suffix = (const gd_host_suffix *)gd_need(host, GD_EXT_SUFFIX);
  s->drafter = (gd_drafter){
      .struct_size = sizeof(gd_drafter),
      .destroy = destroy,
      .activate = activate,
      .guess = guess,
      .cost = cost,
      .get_extension = get_extension,
  };
#ifdef CASE_OF_1_0
  s->drafter.struct_size = offsetof(gd_drafter, get_extension);
  s->drafter.get_extension = (const void *(*)(gd_drafter *, const char *))16; /* not a field of 1.0 */
#endif
  *out = &s->drafter;
  return GD_OK;
}

GD_DRAFTER_LIBRARY(create)
