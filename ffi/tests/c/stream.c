/* Prints the events of requests, one a line, with every bit of a number. argv: settings, n_requests.
 * Standard input is the array of requests. */
#include "hostile.h"

static void print_text(const char *text, size_t len) {
  for (size_t i = 0; i < len; i++) printf("%02x", (unsigned char)text[i]);
}

static void print_event(const galley_event *event) {
  printf("%llu %u %u", (unsigned long long)event->tag, event->kind, event->index);
  if (event->kind == GALLEY_TOKEN) {
    uint32_t bits;
    memcpy(&bits, &event->logprob, sizeof bits);
    printf(" %u %d %u ", event->token, event->drafter, event->position);
    print_text(event->text, event->text_len);
    printf(event->flags & GALLEY_HAS_LOGPROB ? " %x" : " -", bits);
    for (size_t i = 0; i < event->n_top; i++) {
      memcpy(&bits, &event->top[i].logprob, sizeof bits);
      printf(" %u:%x", event->top[i].token, bits);
    }
    putchar('\n');
  } else {
    printf(" %s\n", event->json);
  }
}

int main(int argc, char **argv) {
  CHECK(argc == 3);
  static char json[1 << 20];
  static uint64_t tags[1024];
  size_t len = fread(json, 1, sizeof json, stdin), n_requests = (size_t)atol(argv[2]);
  CHECK(len < sizeof json && n_requests <= 1024);
  for (size_t i = 0; i < n_requests; i++) tags[i] = i;
  galley_engine *engine = open_engine(argv[1]);
  galley_queue *queue = open_queue(engine, 64);
  galley_string started;
  EXPECT(GALLEY_OK, galley_submit_many(queue, json, len, tags, n_requests, NULL, &started));
  printf("%s\n", started.ptr);
  galley_string_free(&started);
  EXPECT(GALLEY_OK, galley_engine_info(engine, &started));
  printf("%s\n", started.ptr);
  galley_string_free(&started);
  for (size_t n_open = n_requests; n_open > 0;) {
    galley_event events[32];
    size_t n;
    EXPECT(GALLEY_OK, galley_queue_wait(queue, 60000, events, sizeof *events, 32, &n));
    CHECK(n > 0);
    for (size_t i = 0; i < n; i++) {
      print_event(&events[i]);
      n_open -= (events[i].flags & GALLEY_IS_LAST) != 0;
    }
    EXPECT(GALLEY_OK, galley_queue_release(queue, events, sizeof *events, n));
  }
  EXPECT(GALLEY_OK, galley_queue_close(queue));
  EXPECT(GALLEY_OK, galley_engine_close(engine));
}
