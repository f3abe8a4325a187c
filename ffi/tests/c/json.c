/* Text from outside: JSON that is too large, too deep, cut off, mutated or no JSON, and numbers that are none. */
#include "hostile.h"

static const char *const GOOD =
    "{\"prompt\": \"Once upon a time\", \"max_tokens\": 4, \"temperature\": 0.7, \"seed\": 7, "
    "\"stop\": [\"\\u00e9\", \"x\"], \"logit_bias\": {\"5\": -1.5}, \"logprobs\": 2, \"n\": 2}";

/* A refusal, with a field or without; never a fault. */
static int refused(galley_error *error) {
  int code = code_of(error);
  CHECK(code == GALLEY_INVALID_REQUEST || code == GALLEY_INVALID_ARGUMENT || code == GALLEY_BUSY);
  return code;
}

/* JSON with a given field, and the name of the field that is refused. */
static void refused_field(galley_queue *queue, const char *json, const char *field) {
  galley_error *error = submit(queue, json, 0);
  const char *named = galley_error_field(error);
  size_t len = strlen(field);
  const char *message = galley_error_message(error);
  int is_named = named && strcmp(named, field) == 0 && strncmp(message, field, len) == 0 && message[len] == ':';
  if (galley_error_code(error) != GALLEY_INVALID_REQUEST || !is_named) {
    fprintf(stderr, "%s: code %d, field %s: %s\n", json, galley_error_code(error), named ? named : "-",
            message);
    exit(1);
  }
  galley_error_free(error);
}

static void numbers(galley_queue *queue) {
  refused_field(queue, "{\"prompt\": \"a\", \"temperature\": 1e400}", "temperature");
  refused_field(queue, "{\"prompt\": \"a\", \"temperature\": -1}", "temperature");
  refused_field(queue, "{\"prompt\": \"a\", \"top_p\": 1e39}", "top_p");
  refused_field(queue, "{\"prompt\": \"a\", \"max_tokens\": 1e3}", "max_tokens");
  refused_field(queue, "{\"prompt\": \"a\", \"max_tokens\": -1}", "max_tokens");
  refused_field(queue, "{\"prompt\": \"a\", \"max_tokens\": 99999999999999999999999999}", "max_tokens");
  refused_field(queue, "{\"prompt\": \"a\", \"max_tokns\": 4}", "max_tokns");
  const char *const wrong[] = {
      "{\"prompt\": \"a\", \"temperature\": NaN}", "{\"prompt\": \"a\", \"temperature\": Infinity}",
      "{\"prompt\": [4294967296]}", "{\"prompt\": [-1]}", "{\"prompt\": [1.5]}", "{}", "[]", "null", "3", "\"\"", "", " ",
      "{\"prompt\": \"a\"} {}", "{\"prompt\": \"\\ud800\"}", "{\"prompt\": \"a\"", "{\"prompt\": \"\xff\xfe\"}",
      "{\"prompt\": \"\xed\xa0\x80\"}", "\xef\xbb\xbf{}"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) refused(submit(queue, wrong[i], 0));
}

/* Settings that no engine has. */
static void wrong_settings(void) {
  const char *json = "{\"model\": \"m\", \"max_waiting\": 0}";
  galley_engine *none;
  galley_error *error = galley_engine_open(json, strlen(json), NULL, NULL, &none);
  CHECK(!none && galley_error_code(error) == GALLEY_INVALID_SETTING);
  CHECK(strcmp(galley_error_field(error), "max_waiting") == 0);
  CHECK(strncmp(galley_error_message(error), "max_waiting: 0 ", 15) == 0);
  galley_error_free(error);
}

/* Every prefix of a good request, and mutations of it. Whatever is accepted runs to its end. */
static void mutations(galley_queue *queue, unsigned n_mutations) {
  size_t len = strlen(GOOD);
  for (size_t cut = 0; cut < len; cut++) refused(galley_submit(queue, GOOD, cut, NULL, 0, 0, NULL, NULL));
  uint64_t state = 1;
  unsigned n_accepted = 0;
  for (unsigned round = 0; round < n_mutations; round++) {
    char json[256];
    memcpy(json, GOOD, len);
    for (unsigned changes = 1 + round % 3; changes > 0; changes--) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      json[(state >> 33) % len] = "\0\"\\{}[],:09eE+-.x\xff"[(state >> 20) % 18];
    }
    galley_error *error = galley_submit(queue, json, len, NULL, 0, round, NULL, NULL);
    if (!error) read_all(queue, 1);
    else refused(error);
    n_accepted += !error;
  }
  CHECK(n_accepted > 10 && n_accepted < n_mutations / 2); /* the mutations reach the engine, and the parser */
}

/* 100 MB of several kinds. */
static void large(galley_engine *engine, galley_queue *queue) {
  const size_t size = 100u << 20;
  char *json = malloc(size + 64);
  CHECK(json);
  memset(json, '[', size);
  refused(galley_submit(queue, json, size, NULL, 0, 0, NULL, NULL));
  memset(json, 0, size);
  refused(galley_submit(queue, json, size, NULL, 0, 0, NULL, NULL));
  memset(json, ' ', size);
  refused(galley_submit(queue, json, size, NULL, 0, 0, NULL, NULL));
  const char head[] = "{\"prompt\": \"";
  memset(json, 'a', size);
  memcpy(json, head, strlen(head));
  memcpy(json + size - 2, "\"}", 2);
  refused(galley_submit(queue, json, size, NULL, 0, 0, NULL, NULL));
  galley_engine *none;
  CHECK(code_of(galley_engine_open(json, size, NULL, NULL, &none)) != GALLEY_BUG && !none);
  galley_string string;
  CHECK(code_of(galley_chat_render(engine, json, size, &string)) != GALLEY_BUG);
  free(json);
}

/* Prompts as ids: of no token, and as many as 64 bits can say. */
static void ids(galley_queue *queue) {
  const uint32_t wrong[] = {0, UINT32_MAX};
  const char *json = "{\"max_tokens\": 1}";
  refused(galley_submit(queue, json, strlen(json), wrong, 2, 0, NULL, NULL));
  refused(galley_submit(queue, json, strlen(json), wrong, 0, 0, NULL, NULL));
  refused(galley_submit(queue, json, strlen(json), wrong, SIZE_MAX, 0, NULL, NULL));
  refused(galley_submit(queue, GOOD, strlen(GOOD), wrong, 1, 0, NULL, NULL));
  uint64_t id = 1;
  EXPECT(GALLEY_OK, galley_submit(queue, json, strlen(json), (const uint32_t[]){5, 6, 7}, 3, 9, &id, NULL));
  CHECK(read_all(queue, 1) == 1);
  const uint64_t tags[] = {1, 2};
  const char *two = "[{\"prompt\": \"a\", \"max_tokens\": 2}, {\"prompt\": \"b\", \"max_tokens\": 0}]";
  galley_string started;
  refused(galley_submit_many(queue, two, strlen(two), tags, 2, NULL, &started));
  CHECK(!started.ptr);
  refused(galley_submit_many(queue, two, strlen(two), tags, 1, NULL, NULL));
  size_t n;
  galley_event event;
  EXPECT(GALLEY_OK, galley_queue_wait(queue, 20, &event, sizeof event, 1, &n));
  CHECK(n == 0); /* all or none */
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  wrong_settings();
  galley_engine *engine = open_engine(argv[1]);
  galley_queue *queue = open_queue(engine, 64);
  numbers(queue);
  ids(queue);
  mutations(queue, 3000);
  large(engine, queue);
  EXPECT(GALLEY_OK, submit(queue, GOOD, 1));
  CHECK(read_all(queue, 1) >= 2);
  EXPECT(GALLEY_OK, galley_queue_close(queue));
  EXPECT(GALLEY_OK, galley_engine_close(engine));
  puts("json: fine");
}
