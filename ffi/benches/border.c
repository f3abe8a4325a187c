/* Answers requests and prints the cost of reading them: events, tokens, the reading thread's own time in ns, and the time from the
 * first token to the last in ns. argv: settings, n_requests. Standard input is the array of requests. */
#define _POSIX_C_SOURCE 200809L
#include "../tests/c/hostile.h"

#include <time.h>

static long long now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  static char json[1 << 22];
  static uint64_t tags[1024];
  static volatile uint64_t sum; /* keeps the reading */
  size_t len = fread(json, 1, sizeof json, stdin), n_requests = (size_t)atol(argv[2]);
  CHECK(len < sizeof json && n_requests <= 1024);
  galley_engine *engine = open_engine(argv[1]);
  galley_queue *queue = open_queue(engine, 4096);
  EXPECT(GALLEY_OK, galley_submit_many(queue, json, len, tags, n_requests, NULL, NULL));
  long long n_events = 0, n_tokens = 0, first = 0, last = 0, cpu = now(CLOCK_THREAD_CPUTIME_ID);
  for (size_t n_open = n_requests; n_open > 0;) {
    galley_event events[64];
    size_t n;
    EXPECT(GALLEY_OK, galley_queue_wait(queue, 60000, events, sizeof *events, 64, &n));
    CHECK(n > 0);
    last = now(CLOCK_MONOTONIC);
    if (!first) first = last;
    for (size_t i = 0; i < n; i++) {
      sum += events[i].token + events[i].text_len;
      n_tokens += events[i].kind == GALLEY_TOKEN;
      n_open -= (events[i].flags & GALLEY_IS_LAST) != 0;
    }
    n_events += (long long)n;
    EXPECT(GALLEY_OK, galley_queue_release(queue, events, sizeof *events, n));
  }
  cpu = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
  EXPECT(GALLEY_OK, galley_queue_close(queue));
  EXPECT(GALLEY_OK, galley_engine_close(engine));
  printf("%lld %lld %lld %lld\n", n_events, n_tokens, cpu, last - first);
}
