/* Wrong arguments: NULLs, stale, forged and doubly closed handles, JSON of every wrong kind, arrays of other sizes. */
#include "hostile.h"

static const char *const GREEDY = "{\"prompt\": \"Once upon a time\", \"max_tokens\": 6, \"temperature\": 0}";

/* Every function with NULL in every place. */
static void nulls(galley_engine *engine, galley_queue *queue) {
  galley_event events[4];
  galley_string string;
  galley_tokens tokens;
  size_t n;
  int32_t number;
  CHECK(galley_error_code(NULL) == GALLEY_OK && !*galley_error_message(NULL) && !galley_error_field(NULL));
  galley_error_free(NULL), galley_string_free(NULL), galley_tokens_free(NULL);
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_features(NULL));
  EXPECT(GALLEY_OK, galley_set_log(NULL, NULL, 0));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_engine_open("{}", 2, NULL, NULL, NULL));
  galley_engine *none = engine;
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_engine_open(NULL, 2, NULL, NULL, &none));
  CHECK(!none);
  EXPECT(GALLEY_INVALID_SETTING, galley_engine_open(NULL, 0, NULL, NULL, &none));
  EXPECT(GALLEY_INVALID_HANDLE, galley_engine_close(NULL));
  EXPECT(GALLEY_INVALID_HANDLE, galley_engine_drain(NULL, 0, &number));
  EXPECT(GALLEY_INVALID_HANDLE, galley_engine_info(NULL, &string));
  CHECK(!string.ptr && !string.len && !string.id);
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_engine_info(engine, NULL));
  EXPECT(GALLEY_INVALID_HANDLE, galley_engine_stats(NULL, &string));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_engine_stats(engine, NULL));
  EXPECT(GALLEY_INVALID_HANDLE, galley_tokenize(NULL, "a", 1, 0, &tokens));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_tokenize(engine, NULL, 1, 0, &tokens));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_tokenize(engine, "a", 1, 0, NULL));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_tokenize(engine, "a", 1, 64, &tokens));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_tokenize(engine, "a", SIZE_MAX, 0, &tokens));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_tokenize(engine, "\xff\xfe", 2, 0, &tokens));
  EXPECT(GALLEY_OK, galley_tokenize(engine, NULL, 0, 0, &tokens));
  galley_tokens_free(&tokens);
  EXPECT(GALLEY_INVALID_HANDLE, galley_detokenize(NULL, NULL, 0, 0, &string));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_detokenize(engine, NULL, 3, 0, &string));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_detokenize(engine, NULL, 0, 0, NULL));
  EXPECT(GALLEY_INVALID_HANDLE, galley_chat_render(NULL, "{}", 2, &string));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_chat_render(engine, NULL, 2, &string));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_chat_render(engine, "{}", 2, NULL));
  EXPECT(GALLEY_INVALID_HANDLE, galley_queue_open(NULL, 1, &queue));
  CHECK(!queue);
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_open(engine, 1, NULL));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_open(engine, 0, &queue));
  EXPECT(GALLEY_INVALID_HANDLE, galley_queue_wait(NULL, 0, events, sizeof *events, 4, &n));
  EXPECT(GALLEY_INVALID_HANDLE, galley_queue_release(NULL, events, sizeof *events, 0));
  EXPECT(GALLEY_INVALID_HANDLE, galley_queue_fd(NULL, &number));
  CHECK(number == -1);
  EXPECT(GALLEY_INVALID_HANDLE, galley_queue_close(NULL));
  EXPECT(GALLEY_INVALID_HANDLE, submit(NULL, GREEDY, 0));
  EXPECT(GALLEY_INVALID_HANDLE, galley_submit_many(NULL, "[]", 2, NULL, 0, NULL, NULL));
  EXPECT(GALLEY_INVALID_HANDLE, galley_cancel(NULL, 0));
}

/* NULL and odd places of the functions of a queue, and arrays of events of other sizes. */
static void arrays(galley_engine *engine) {
  galley_queue *queue = open_queue(engine, 64);
  _Alignas(8) unsigned char room[4 * 256];
  galley_event *events = (galley_event *)room;
  size_t n = 7;
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_wait(queue, 0, NULL, sizeof *events, 4, &n));
  CHECK(n == 0);
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_wait(queue, 0, events, sizeof *events, 4, NULL));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_wait(queue, 0, events, sizeof *events, 0, &n));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_wait(queue, 0, events, 0, 4, &n));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_wait(queue, 0, events, sizeof *events - 8, 4, &n));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_wait(queue, 0, events, sizeof *events + 1, 4, &n));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_wait(queue, 0, (galley_event *)(room + 1), sizeof *events, 3, &n));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_release(queue, NULL, sizeof *events, 1));
  EXPECT(GALLEY_OK, galley_queue_release(queue, NULL, 0, 0));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_fd(queue, NULL));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_submit(queue, NULL, 5, NULL, 0, 0, NULL, NULL));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_submit(queue, GREEDY, strlen(GREEDY), NULL, 3, 0, NULL, NULL));
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_submit_many(queue, "[]", 2, NULL, 3, NULL, NULL));
  const uint64_t tags[2] = {1, 2};
  uint64_t ids[3] = {7, 7, 7};
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_submit_many(queue, "[]", 2, tags, 2, ids, NULL));
  CHECK(ids[0] == 0 && ids[1] == 0 && ids[2] == 7);
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_submit_many(queue, "[]", 2, tags, 2, (uint64_t *)(room + 1), NULL));
  EXPECT(GALLEY_OK, galley_cancel(queue, 12345));
  EXPECT(GALLEY_OK, galley_queue_wait(queue, 0, events, sizeof *events, 4, &n));
  CHECK(n == 0);

  /* A caller with a newer header: 256 bytes an event. */
  EXPECT(GALLEY_OK, submit(queue, GREEDY, UINT64_MAX));
  for (int is_over = 0; !is_over;) {
    memset(room, 0xaa, sizeof room);
    EXPECT(GALLEY_OK, galley_queue_wait(queue, 60000, events, 256, 4, &n));
    CHECK(n >= 1 && n <= 4);
    for (size_t i = 0; i < n; i++) {
      galley_event *event = (galley_event *)(room + 256 * i);
      CHECK(event->size == sizeof *event && event->tag == UINT64_MAX);
      for (size_t byte = sizeof *event; byte < 256; byte++) CHECK(room[256 * i + byte] == 0);
      is_over |= event->flags & GALLEY_IS_LAST;
    }
    EXPECT(GALLEY_OK, galley_queue_release(queue, events, 256, n));
    int had_memory = 0;
    for (size_t i = 0; i < n; i++) had_memory |= ((galley_event *)(room + 256 * i))->ticket != 0;
    EXPECT(had_memory ? GALLEY_INVALID_ARGUMENT : GALLEY_OK, galley_queue_release(queue, events, 256, n));
  }
  EXPECT(GALLEY_OK, galley_queue_close(queue));
}

/* Handles that are closed, of another kind, or made up. */
static void handles(galley_engine *engine) {
  int local = 0;
  size_t n;
  galley_event event;
  galley_queue *queue = open_queue(engine, 1);
  galley_engine *forged[] = {(galley_engine *)1, (galley_engine *)-1, (galley_engine *)&local, (galley_engine *)queue,
                             (galley_engine *)((uintptr_t)engine + 1),
                             (galley_engine *)((uintptr_t)engine ^ (1u << 24))};
  for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
    galley_string string;
    EXPECT(GALLEY_INVALID_HANDLE, galley_engine_info(forged[i], &string));
    EXPECT(GALLEY_INVALID_HANDLE, galley_engine_close(forged[i]));
    galley_queue *other = i == 3 ? NULL : (galley_queue *)forged[i];
    EXPECT(GALLEY_INVALID_HANDLE, galley_queue_wait(other, 0, &event, sizeof event, 1, &n));
  }
  EXPECT(GALLEY_OK, galley_queue_close(queue));
  EXPECT(GALLEY_CLOSED, galley_queue_close(queue));
  EXPECT(GALLEY_CLOSED, galley_queue_wait(queue, -1, &event, sizeof event, 1, &n));
  EXPECT(GALLEY_CLOSED, submit(queue, GREEDY, 0));
  EXPECT(GALLEY_CLOSED, galley_cancel(queue, 0));
  galley_queue *next = open_queue(engine, SIZE_MAX);
  CHECK(next != queue);
  EXPECT(GALLEY_CLOSED, galley_queue_close(queue));
  EXPECT(GALLEY_OK, galley_queue_close(next));

  galley_error *error = galley_engine_close(NULL);
  galley_error_free(error);
  CHECK(galley_error_code(error) == GALLEY_INVALID_HANDLE && strstr(galley_error_message(error), "freed"));
  galley_error_free(error);

  galley_string string, copy, empty = {0};
  EXPECT(GALLEY_OK, galley_features(&string));
  copy = string;
  CHECK(strlen(string.ptr) == string.len && string.len > 0);
  galley_string_free(&string);
  CHECK(!string.ptr && !string.id);
  galley_string_free(&copy), galley_string_free(&string), galley_string_free(&empty);
  galley_string made_up = {"text", 4, 77};
  galley_string_free(&made_up);
}

/* Events that outlive their queue, and tickets of another queue. */
static void leases(galley_engine *engine) {
  galley_queue *queue = open_queue(engine, 64), *other = open_queue(engine, 64);
  galley_event events[8];
  size_t n = 0;
  EXPECT(GALLEY_OK, submit(queue, GREEDY, 3));
  while (n == 0 || events[0].ticket == 0) {
    EXPECT(GALLEY_OK, galley_queue_wait(queue, 60000, events, sizeof *events, 1, &n));
  }
  EXPECT(GALLEY_INVALID_ARGUMENT, galley_queue_release(other, events, sizeof *events, 1));
  EXPECT(GALLEY_OK, galley_queue_close(queue));
  CHECK(events[0].text[events[0].text_len] == 0);
  galley_event before = events[0];
  EXPECT(GALLEY_CLOSED, galley_queue_wait(queue, 0, events, sizeof *events, 1, &n));
  CHECK(before.tag == 3);
  EXPECT(GALLEY_OK, galley_queue_release(queue, &before, sizeof before, 1));
  EXPECT(GALLEY_CLOSED, galley_queue_release(queue, &before, sizeof before, 1));
  EXPECT(GALLEY_OK, galley_queue_release(queue, &before, sizeof before, 0));
  before.ticket = 0; /* as of an event without text */
  EXPECT(GALLEY_OK, galley_queue_release(queue, &before, sizeof before, 1));
  EXPECT(GALLEY_OK, galley_queue_close(other));
}

int main(int argc, char **argv) {
  CHECK(argc == 2 && galley_abi_version() == GALLEY_ABI_VERSION && *galley_version());
  galley_engine *engine = open_engine(argv[1]);
  galley_queue *queue = open_queue(engine, 8);
  nulls(engine, queue);
  arrays(engine);
  handles(engine);
  leases(engine);
  EXPECT(GALLEY_OK, submit(queue, GREEDY, 1));
  CHECK(read_all(queue, 1) == 6);
  EXPECT(GALLEY_OK, galley_engine_close(engine));
  EXPECT(GALLEY_CLOSED, galley_engine_close(engine));
  EXPECT(GALLEY_OK, submit(queue, GREEDY, 1)); /* the queue keeps the engine */
  CHECK(read_all(queue, 1) == 6);
  EXPECT(GALLEY_OK, galley_queue_close(queue));
  puts("arguments: fine");
}
