/* Many threads, at the same time: eight on one engine, a close during a wait, draining, logging, forking,
 * and an exit. */
#define _POSIX_C_SOURCE 200809L
#include "hostile.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { N_THREADS = 8, N_ROUNDS = 30, N_SIGNALS = 32 };

static const char *const SHORT =
    "{\"prompt\": \"Once upon a time\", \"max_tokens\": 12, \"ignore_eos\": true, \"logprobs\": 1}";
static const char *const LONG = "{\"prompt\": \"Once upon a time\", \"max_tokens\": 200, \"ignore_eos\": true}";

static void sleep_ms(long ms) {
  struct timespec time = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&time, NULL);
}

/* The number after "key": in the statistics of an engine. */
static long statistic(galley_engine *engine, const char *key) {
  galley_string stats;
  EXPECT(GALLEY_OK, galley_engine_stats(engine, &stats));
  const char *at = strstr(stats.ptr, key);
  CHECK(at && at[strlen(key)] == ':');
  long value = strtol(at + strlen(key) + 1, NULL, 10);
  galley_string_free(&stats);
  return value;
}

/* Waits until no sequence holds a block. */
static void expect_empty_pool(galley_engine *engine) {
  for (int tries = 0; statistic(engine, "\"used\"") != 0; tries++) {
    CHECK(tries < 500);
    sleep_ms(10);
  }
}

typedef struct {
  galley_engine *engine;
  galley_queue *shared;
  unsigned number;
} worker;

/* Opens and closes queues, submits, cancels, reads some events and asks for everything else. */
static void *work(void *argument) {
  worker *self = argument;
  for (unsigned round = 0; round < N_ROUNDS; round++) {
    galley_queue *queue = open_queue(self->engine, 1 + round % 5 * 8);
    uint64_t ids[4];
    for (unsigned i = 0; i < 4; i++) {
      const char *json = (round + i) % 3 ? SHORT : LONG;
      EXPECT(GALLEY_OK, galley_submit(queue, json, strlen(json), NULL, 0, i, &ids[i], NULL));
    }
    galley_event events[8];
    size_t n;
    for (unsigned reads = 0; reads < round; reads++) {
      EXPECT(GALLEY_OK, galley_queue_wait(queue, 1, events, sizeof *events, 8, &n));
      EXPECT(GALLEY_OK, galley_queue_release(queue, events, sizeof *events, n));
    }
    EXPECT(GALLEY_OK, galley_cancel(queue, ids[round % 4]));
    galley_tokens tokens;
    galley_string string;
    EXPECT(GALLEY_OK, galley_tokenize(self->engine, "to be or not", 12, 0, &tokens));
    EXPECT(GALLEY_OK, galley_detokenize(self->engine, tokens.ptr, tokens.len, 0, &string));
    CHECK(strstr(string.ptr, "to be or not"));
    galley_tokens_free(&tokens), galley_string_free(&string);
    EXPECT(GALLEY_OK, galley_engine_info(self->engine, &string));
    galley_string_free(&string);
    int code = code_of(submit(self->shared, SHORT, self->number));
    CHECK(code == GALLEY_OK);
    /* All threads read the shared queue: each event reaches one of them. */
    EXPECT(GALLEY_OK, galley_queue_wait(self->shared, 1, events, sizeof *events, 8, &n));
    EXPECT(GALLEY_OK, galley_queue_release(self->shared, events, sizeof *events, n));
    EXPECT(GALLEY_OK, galley_queue_close(queue)); /* with events unread */
  }
  return NULL;
}

static void run_workers(galley_engine *engine) {
  pthread_t threads[N_THREADS];
  worker workers[N_THREADS];
  galley_queue *shared = open_queue(engine, 64);
  for (unsigned i = 0; i < N_THREADS; i++) {
    workers[i] = (worker){engine, shared, i};
    CHECK(!pthread_create(&threads[i], NULL, work, &workers[i]));
  }
  for (unsigned i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
  EXPECT(GALLEY_OK, galley_queue_close(shared));
  expect_empty_pool(engine);
}

static void *wait_for_end(void *queue) {
  galley_event events[4];
  size_t n;
  int code;
  while ((code = code_of(galley_queue_wait(queue, -1, events, sizeof *events, 4, &n))) == GALLEY_OK) {
    EXPECT(GALLEY_OK, galley_queue_release(queue, events, sizeof *events, n)); /* also if it was closed meanwhile */
  }
  CHECK(code == GALLEY_CLOSED);
  return NULL;
}

/* Threads wait for a queue without requests, and for one with a stream, when it is closed. */
static void close_while_waiting(galley_engine *engine) {
  for (int is_streaming = 0; is_streaming < 2; is_streaming++) {
    galley_queue *queue = open_queue(engine, 64);
    pthread_t threads[N_THREADS];
    if (is_streaming) EXPECT(GALLEY_OK, submit(queue, LONG, 0));
    for (unsigned i = 0; i < N_THREADS; i++) CHECK(!pthread_create(&threads[i], NULL, wait_for_end, queue));
    sleep_ms(30);
    EXPECT(GALLEY_OK, galley_queue_close(queue));
    for (unsigned i = 0; i < N_THREADS; i++) pthread_join(threads[i], NULL);
  }
  expect_empty_pool(engine);
}

/* A queue with a small capacity and no reader pauses its stream, and not another one. The descriptor is readable. */
static void stalled_reader(galley_engine *engine) {
  galley_queue *stalled = open_queue(engine, 2), *read = open_queue(engine, 64);
  int32_t fd;
  EXPECT(GALLEY_OK, galley_queue_fd(stalled, &fd));
  struct pollfd poll_of = {fd, POLLIN, 0};
  size_t n;
  galley_event event;
  EXPECT(GALLEY_OK, galley_queue_wait(stalled, 0, &event, sizeof event, 1, &n));
  CHECK(n == 0 && poll(&poll_of, 1, 0) == 0);
  EXPECT(GALLEY_OK, submit(stalled, SHORT, 0));
  EXPECT(GALLEY_OK, submit(read, SHORT, 0));
  CHECK(read_all(read, 1) == 12);
  CHECK(poll(&poll_of, 1, 60000) == 1 && poll(&poll_of, 1, 0) == 1);
  CHECK(read_all(stalled, 1) == 12);
  EXPECT(GALLEY_OK, galley_queue_wait(stalled, 0, &event, sizeof event, 1, &n));
  CHECK(n == 0 && poll(&poll_of, 1, 0) == 0);
  EXPECT(GALLEY_OK, galley_queue_close(stalled));
  EXPECT(GALLEY_OK, galley_queue_close(read));
}

static void hear(void *user, int32_t level, const char *message, size_t len) {
  CHECK(level >= GALLEY_LOG_ERROR && level <= GALLEY_LOG_TRACE && strlen(message) == len);
  CHECK(atomic_load((_Atomic int *)user) == 1); /* the sink is set, and its user alive */
}

static void *log_on_and_off(void *is_over) {
  while (!atomic_load((_Atomic int *)is_over)) {
    _Atomic int *is_set = malloc(sizeof *is_set);
    CHECK(is_set);
    atomic_init(is_set, 1);
    EXPECT(GALLEY_OK, galley_set_log(hear, is_set, GALLEY_LOG_TRACE));
    EXPECT(GALLEY_OK, galley_set_log(NULL, NULL, 0));
    atomic_store(is_set, 0);
    free(is_set);
  }
  return NULL;
}

/* Waits for a child that must end without an error. */
static void expect_success(pid_t child) {
  int status;
  CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* A child may open an engine after its parent has failed to open one. */
static void fork_first(const char *settings) {
  galley_engine *none;
  EXPECT(GALLEY_INVALID_SETTING, galley_engine_open("{}", 2, NULL, NULL, &none));
  const char *missing = "{\"model\": \"/no/such/model\"}";
  EXPECT(GALLEY_MODEL_NOT_FOUND, galley_engine_open(missing, strlen(missing), NULL, NULL, &none));
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    galley_queue *queue = open_queue(open_engine(settings), 4);
    EXPECT(GALLEY_OK, submit(queue, SHORT, 0));
    CHECK(read_all(queue, 1) == 12);
    _exit(0);
  }
  expect_success(child);
}

/* Every function, in a child of a fork: an error, and freeing is harmless. */
static void forked_child(galley_engine *engine, galley_queue *queue, galley_error *error, galley_string *string) {
  galley_event event;
  galley_tokens tokens;
  galley_string out;
  size_t n;
  int32_t number;
  galley_engine *other;
  galley_queue *other_queue;
  EXPECT(GALLEY_FORKED, galley_engine_open("{}", 2, NULL, NULL, &other));
  EXPECT(GALLEY_FORKED, galley_engine_drain(engine, -1, &number));
  EXPECT(GALLEY_FORKED, galley_engine_info(engine, &out));
  EXPECT(GALLEY_FORKED, galley_engine_stats(engine, &out));
  EXPECT(GALLEY_FORKED, galley_tokenize(engine, "a", 1, 0, &tokens));
  EXPECT(GALLEY_FORKED, galley_detokenize(engine, NULL, 0, 0, &out));
  EXPECT(GALLEY_FORKED, galley_chat_render(engine, "{}", 2, &out));
  EXPECT(GALLEY_FORKED, galley_features(&out));
  EXPECT(GALLEY_FORKED, galley_set_log(NULL, NULL, 0));
  EXPECT(GALLEY_FORKED, galley_queue_open(engine, 1, &other_queue));
  EXPECT(GALLEY_FORKED, galley_queue_wait(queue, -1, &event, sizeof event, 1, &n));
  EXPECT(GALLEY_FORKED, galley_queue_release(queue, &event, sizeof event, 1));
  EXPECT(GALLEY_FORKED, galley_queue_fd(queue, &number));
  EXPECT(GALLEY_FORKED, submit(queue, SHORT, 0));
  EXPECT(GALLEY_FORKED, galley_submit_many(queue, "[]", 2, NULL, 0, NULL, NULL));
  EXPECT(GALLEY_FORKED, galley_cancel(queue, 0));
  EXPECT(GALLEY_FORKED, galley_queue_close(queue));
  EXPECT(GALLEY_FORKED, galley_engine_close(engine));
  CHECK(!other && !other_queue && !n && !out.ptr && !tokens.ptr && number == -1);
  CHECK(galley_error_code(error) == GALLEY_FORKED && strstr(galley_error_message(error), "fork first"));
  galley_error_free(error), galley_string_free(string);
  CHECK(*galley_version() && galley_abi_version() == GALLEY_ABI_VERSION);
  _exit(0);
}

/* Forks while threads are busy with the engine, so that a child may inherit any lock in any state. */
static void fork_children(galley_engine *engine) {
  pthread_t threads[2];
  worker workers[2];
  galley_queue *queue = open_queue(engine, 64);
  for (unsigned i = 0; i < 2; i++) {
    workers[i] = (worker){engine, queue, i};
    CHECK(!pthread_create(&threads[i], NULL, work, &workers[i]));
  }
  galley_string string;
  EXPECT(GALLEY_OK, galley_engine_stats(engine, &string));
  galley_error *error = galley_engine_close(NULL);
  for (int i = 0; i < 20; i++) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) forked_child(engine, queue, error, &string);
    expect_success(child);
  }
  for (unsigned i = 0; i < 2; i++) pthread_join(threads[i], NULL);
  CHECK(code_of(error) == GALLEY_INVALID_HANDLE); /* the parent's is still there */
  galley_string_free(&string);
  EXPECT(GALLEY_OK, galley_queue_close(queue));
}

static void *drain(void *engine) {
  int32_t drained = 7;
  EXPECT(GALLEY_CLOSED, galley_engine_drain(engine, -1, &drained));
  CHECK(drained == 0);
  return NULL;
}

/* Draining ends with the requests, with the time, or with the handle. */
static void drain_and_close(galley_engine *engine) {
  galley_queue *queue = open_queue(engine, 1);
  int32_t drained = 7;
  EXPECT(GALLEY_OK, submit(queue, LONG, 0));
  EXPECT(GALLEY_OK, galley_engine_drain(engine, 0, &drained));
  CHECK(drained == 0);
  EXPECT(GALLEY_OK, galley_engine_drain(engine, 30, &drained));
  CHECK(drained == 0);
  EXPECT(GALLEY_STOPPED, submit(queue, SHORT, 0));
  pthread_t thread;
  CHECK(!pthread_create(&thread, NULL, drain, engine));
  sleep_ms(50);
  EXPECT(GALLEY_OK, galley_engine_close(engine));
  pthread_join(thread, NULL);
  EXPECT(GALLEY_OK, galley_queue_close(queue));
}

/* An engine without a request is drained at once. */
static void drain_idle(const char *settings) {
  galley_engine *engine = open_engine(settings);
  int32_t drained = 7;
  EXPECT(GALLEY_OK, galley_engine_drain(engine, 0, &drained));
  CHECK(drained == 1);
  EXPECT(GALLEY_OK, galley_engine_close(engine));
}

/* The handlers of the usual signals. */
static void handlers(struct sigaction *to) {
  for (int i = 1; i < N_SIGNALS; i++) sigaction(i, NULL, &to[i]);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  struct sigaction before[N_SIGNALS], after[N_SIGNALS];
  handlers(before);
  fork_first(argv[1]);
  _Atomic int is_over = 0;
  pthread_t logging;
  CHECK(!pthread_create(&logging, NULL, log_on_and_off, &is_over));
  galley_engine *engine = open_engine(argv[1]);
  run_workers(engine);
  close_while_waiting(engine);
  stalled_reader(engine);
  atomic_store(&is_over, 1);
  pthread_join(logging, NULL);
  fork_children(engine);
  drain_and_close(engine);
  drain_idle(argv[1]);
  handlers(after);
  for (int i = 1; i < N_SIGNALS; i++) CHECK(before[i].sa_handler == after[i].sa_handler);
  puts("threads: fine");
  /* The program ends while an engine runs. */
  EXPECT(GALLEY_OK, submit(open_queue(open_engine(argv[1]), 4), LONG, 0));
}
