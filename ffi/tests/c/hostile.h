/* Helpers of the hostile programs: checks that name their line, and short forms of calls. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <galley.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The code of an error, which is freed. */
static int code_of(galley_error *error) {
  int code = galley_error_code(error);
  if (error && (!galley_error_message(error) || !*galley_error_message(error))) {
    fprintf(stderr, "an error without a message: %d\n", code);
    exit(1);
  }
  galley_error_free(error);
  return code;
}

/* Fails unless a call returns this code. */
#define EXPECT(code, call) expect((code), (call), #call, __FILE__, __LINE__)
static void expect(int code, galley_error *error, const char *call, const char *file, int line) {
  if (galley_error_code(error) != code) {
    fprintf(stderr, "%s:%d: %s: code %d (%s), and not %d\n", file, line, call, galley_error_code(error),
            galley_error_message(error), code);
    exit(1);
  }
  code_of(error);
}

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
      exit(1);                                                            \
    }                                                                     \
  } while (0)

static inline galley_engine *open_engine(const char *settings) {
  galley_engine *engine;
  EXPECT(GALLEY_OK, galley_engine_open(settings, strlen(settings), NULL, NULL, &engine));
  return engine;
}

static inline galley_queue *open_queue(galley_engine *engine, size_t capacity) {
  galley_queue *queue;
  EXPECT(GALLEY_OK, galley_queue_open(engine, capacity, &queue));
  return queue;
}

static inline galley_error *submit(galley_queue *queue, const char *json, uint64_t tag) {
  return galley_submit(queue, json, strlen(json), NULL, 0, tag, NULL, NULL);
}

/* Reads and releases events until n_open requests have ended. The number of tokens. */
static inline size_t read_all(galley_queue *queue, size_t n_open) {
  size_t n_tokens = 0;
  while (n_open > 0) {
    galley_event events[16];
    size_t n;
    EXPECT(GALLEY_OK, galley_queue_wait(queue, 60000, events, sizeof *events, 16, &n));
    CHECK(n > 0);
    for (size_t i = 0; i < n; i++) {
      CHECK(events[i].text && !events[i].text[events[i].text_len]); /* NULs may be part of the text */
      CHECK(events[i].json && strlen(events[i].json) == events[i].json_len);
      n_tokens += events[i].kind == GALLEY_TOKEN;
      n_open -= (events[i].flags & GALLEY_IS_LAST) != 0;
    }
    EXPECT(GALLEY_OK, galley_queue_release(queue, events, sizeof *events, n));
  }
  return n_tokens;
}

#endif
